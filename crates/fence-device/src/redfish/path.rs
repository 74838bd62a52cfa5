//! The place of a resource on its service, and the check that a place is on the same service.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::bare;
use crate::quoted;

/// The place of a resource on its service: an absolute path, which never leads to another host.
#[derive(Clone, Debug)]
pub struct ResourcePath {
    text: String,
    /// Whether the service gave the path, so that messages quote it.
    is_quotation: bool,
}

impl PartialEq for ResourcePath {
    /// Whether both are the same place, from any source.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ResourcePath {}

impl ResourcePath {
    /// The place to which a service redirects from `from`, if it is on the same service. The URLs
    /// of the service start with `base`, and its network address is `ip`. Services omit their port,
    /// or give the standard port. A location with another host name may be on another machine: then
    /// only the requested resource is accepted, also with a different slash at its end.
    pub fn redirected(location: &str, from: &Self, base: &str, ip: Option<IpAddr>) -> Option<Self> {
        let Some((authority, path)) = split_url(location) else {
            return Self::of_service(location);
        };
        let path = Self::of_service(path)?;
        let (host, port) = split_port(authority);
        let (own_host, own_port) = split_port(split_url(base)?.0);
        let is_own_host = host.eq_ignore_ascii_case(own_host)
            || bare(host).parse().is_ok_and(|named: IpAddr| Some(named) == ip);
        let is_own_port = port.is_none_or(|port| Some(port) == own_port || is_standard(port));
        ((is_own_host && is_own_port) || path.is_same(from)).then_some(path)
    }

    /// The path of a service's URL for its own resource. Services use many names for themselves, so
    /// the host does not count: the call always goes to this service.
    pub fn of_url(url: &str) -> Option<Self> {
        Self::of_service(split_url(url).map_or(url, |(_, path)| path))
    }

    fn of_service(path: &str) -> Option<Self> {
        let path: Self = path.parse().ok()?;
        Some(ResourcePath { is_quotation: true, ..path })
    }

    /// The path for a message; a quotation if the service gave the path.
    pub(super) fn quoted(&self) -> String {
        if self.is_quotation { quoted(&self.text) } else { self.text.clone() }
    }

    /// The path of a service's URL for the next part of a list, with its query.
    pub(super) fn of_page(url: &str) -> Option<Self> {
        let Some((page, query)) = url.split_once('?') else { return Self::of_url(url) };
        let path = Self::of_url(page)?;
        let is_query = query.bytes().all(|byte| byte == b'?' || is_allowed(byte));
        let whole = format!("{path}?{query}");
        (is_query && whole.len() <= PATH_BYTES_MAX)
            .then_some(ResourcePath { text: whole, is_quotation: true })
    }

    /// Whether both are one resource, such as `/S/1` and `/S/1/`.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.without_slash() == other.without_slash()
    }

    /// Whether the last part of the path is `name`: for nearly every resource, it is the `Id`.
    pub(super) fn ends_in(&self, name: &str) -> bool {
        self.without_slash().rsplit('/').next() == Some(name)
    }

    /// The path without the slash at its end.
    fn without_slash(&self) -> &str {
        self.text.strip_suffix('/').unwrap_or(&self.text)
    }
}

/// The host, with the port if there is one, and the path of a URL.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (is_http && !authority.contains('@')).then_some((authority, path))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_standard(port: &str) -> bool {
    ["", "80", "443"].contains(&port)
}

impl FromStr for ResourcePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_path = text.starts_with('/') && !text.starts_with("//");
        if is_path && text.len() <= PATH_BYTES_MAX && text.bytes().all(is_allowed) {
            Ok(ResourcePath { text: text.to_owned(), is_quotation: false })
        } else {
            Err(no_path(&text.escape_debug().to_string()))
        }
    }
}

/// Whether a path may contain the byte.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte)
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The message for a text that is no path.
pub(super) fn no_path(shown: &str) -> String {
    format!("\"{shown}\" is no path of a Redfish resource")
}

const PATH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::resource::parse_system;
    use super::*;

    #[test]
    fn a_path_never_leads_to_another_host() {
        let reset = |target: &str| {
            let text = format!(r##"{{"Actions": {{"#ComputerSystem.Reset": {target}}}}}"##);
            parse_system(text.as_bytes())
        };
        for action in ["null", "{}", "[]", "7", r#"{"target": null}"#] {
            let problem = reset(action).unwrap().reset.unwrap_err();
            assert!(problem.contains("no action to reset it"), "{problem}");
        }
        for target in ["//elsewhere/", "relative", "", "/a b", "/a\\r\\nX: y", "ftp://bmc/a"] {
            let problem =
                reset(&format!(r#"{{"target": "{target}"}}"#)).unwrap().reset.unwrap_err();
            assert!(problem.contains("no path"), "{problem}");
        }
        // A service's own name for itself is not the one by which it is reached.
        let own = reset(r#"{"target": "https://name-of-its-own/S/1/Reset"}"#).unwrap().reset;
        assert_eq!(own.unwrap().target.to_string(), "/S/1/Reset");
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        long.parse::<ResourcePath>().unwrap_err();

        let base = "https://bmc:8443";
        let ip = Some([10, 0, 0, 1].into());
        let redirected_from = |from: &str, location: &str| {
            let from = from.parse().unwrap();
            ResourcePath::redirected(location, &from, base, ip).map(|path| path.to_string())
        };
        let redirected = |location: &str| redirected_from("/x", location);
        assert_eq!(redirected("/a/b").unwrap(), "/a/b");
        for own in ["bmc:8443", "bmc", "BMC", "bmc:443", "10.0.0.1", "10.0.0.1:8443"] {
            assert_eq!(redirected(&format!("https://{own}/a")).unwrap(), "/a", "{own}");
        }
        for location in [
            "https://bmc:84430/a",
            "https://other/a",
            "https://10.0.0.2/a",
            "https://bmc@other/a",
            "https://other@bmc/a",
            "//other/a",
            "ftp://bmc/a",
            "a",
            "",
        ] {
            assert_eq!(redirected(location), None, "{location}");
        }
        // Whatever it is called there, what was asked for is asked for here.
        for other in ["other", "other:8443", "10.0.0.2", "bmc:84430"] {
            let location = format!("https://{other}/a/");
            assert_eq!(redirected_from("/a", &location).unwrap(), "/a/");
            assert_eq!(redirected_from("/a/", &location).unwrap(), "/a/");
            assert_eq!(redirected_from("/b/a", &location), None);
            assert_eq!(redirected_from("/A", &location), None);
        }
        let of_url = |url: &str| ResourcePath::of_url(url).map(|path| path.to_string());
        assert_eq!(of_url("https://name/Sessions/1").unwrap(), "/Sessions/1");
        assert_eq!(of_url("/Sessions/1").unwrap(), "/Sessions/1");
        assert_eq!(of_url("https://name"), None);
    }
}
