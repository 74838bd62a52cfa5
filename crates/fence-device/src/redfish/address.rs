//! The address of a BMC: scheme, host and port, and the look-up of the name.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::pki_types::ServerName;
use ureq::http::uri::Authority;

use crate::Limit;
use crate::resolve::{ported_v6, resolve, without_brackets};

/// The address of a Redfish service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    is_tls: bool,
    host: String,
    port: Option<u16>,
}

impl Address {
    /// The address in `text`: a host, optionally with a port, after `https://` or nothing. This
    /// also accepts `http://`; the caller decides whether to use it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let problem = |what: &str| Err(format!("'{}' {what}", text.escape_debug()));
        let (is_tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return problem("does not start with https://"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return problem("contains a login: use 'username' and a file for the password");
        }
        if rest.contains('/') {
            return problem("contains a path: write the host alone, and the path in 'system'");
        }
        // In a URL, an IPv6 address always has brackets: a number at the end may be the port.
        let last = rest.rsplit(':').next().unwrap_or_default();
        if let Some((address, port)) = ported_v6(rest, last) {
            return Err(without_brackets(text, address, port));
        }
        if rest.parse::<Ipv6Addr>().is_ok() {
            return problem(&format!(
                "has no brackets around the IPv6 address: write \"[{rest}]\""
            ));
        }
        let Ok(authority) = rest.parse::<Authority>() else { return problem("is no address") };
        let (host, port) = (authority.host(), authority.port_u16());
        let is_whole = rest == port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
        if !is_whole || port == Some(0) {
            return problem("has a bad port");
        }
        match ServerName::try_from(bare(host)) {
            Ok(_) => Ok(Address { is_tls, host: host.to_owned(), port }),
            Err(_) => problem("has no valid host"),
        }
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// How the URLs of the service start.
    pub fn base(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{scheme}://{}{port}", self.host)
    }

    /// The network addresses of the host; a name is looked up.
    pub(super) fn resolve(&self, limit: Limit) -> Result<Vec<SocketAddr>, String> {
        let port = self.port.unwrap_or(if self.is_tls { 443 } else { 80 });
        let host = bare(&self.host);
        match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
            Err(_) => resolve(host, port, limit),
        }
    }
}

/// The first of `addresses` that accepts a connection. A name with a dead address must not prevent
/// a fence, and all calls of one visit must reach one machine: so the caller chooses the address
/// once, before the first call.
pub(super) fn connectable(addresses: &[SocketAddr], limit: Limit) -> Result<SocketAddr, String> {
    if let [only] = addresses {
        return Ok(*only);
    }
    let all_until = limit.min(Limit::in_ms(CONNECT_MS_MAX));
    let mut problem = io::Error::from(io::ErrorKind::TimedOut);
    for (at, address) in addresses.iter().enumerate() {
        let share_ms = all_until.left_ms() / (addresses.len() - at) as u64;
        // A timeout of zero would be another error.
        match TcpStream::connect_timeout(address, Duration::from_millis(share_ms.max(1))) {
            Ok(_) => return Ok(*address),
            Err(error) => problem = error,
        }
    }
    Err(format!("none of its {} addresses can be connected to: {problem}", addresses.len()))
}

/// The time limit for the choice of an address.
const CONNECT_MS_MAX: u64 = 10_000;

/// The host without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for (text, base) in [
            ("bmc-n1", "https://bmc-n1"),
            ("https://bmc-n1.example.org/", "https://bmc-n1.example.org"),
            ("10.0.0.1:8443", "https://10.0.0.1:8443"),
            ("https://[fe80::1]", "https://[fe80::1]"),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.base(), base);
            assert_eq!(address.is_tls(), !text.starts_with("http:"));
        }
        for (text, problem) in [
            ("ftp://bmc", "does not start with https://"),
            ("https://admin:secret@bmc", "contains a login"),
            ("https://bmc/redfish/v1", "contains a path"),
            ("bmc:0", "bad port"),
            ("bmc:99999", "bad port"),
            ("bmc:", "bad port"),
            ("bmc?x", "is no address"),
            ("https://", "is no address"),
            ("", "is no address"),
            ("b mc", "is no address"),
            ("bmc#1", "is no address"),
            ("fe80::1", "write \"[fe80::1]\""),
            ("fd00::1:443", "write \"[fd00::1]:443\", or \"[fd00::1:443]\""),
            ("https://fd00::1:8443", "write \"[fd00::1]:8443\""),
            ("fd00::1:18443", "write \"[fd00::1]:18443\""),
            ("a..b", "no valid host"),
        ] {
            let found = Address::parse(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn a_number_is_not_looked_up() {
        for (text, found) in [
            ("10.0.0.1", "10.0.0.1:443"),
            ("http://[::1]", "[::1]:80"),
            ("[::1]:8443", "[::1]:8443"),
        ] {
            let limit = Limit { not_after_boot_ms: 0 };
            let addresses = Address::parse(text).unwrap().resolve(limit).unwrap();
            assert_eq!(addresses, [found.parse().unwrap()]);
        }
    }

    #[test]
    fn a_dead_address_is_passed_over_and_a_single_one_is_not_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let limit = Limit::in_ms(60_000);

        assert_eq!(connectable(&[dead, alive], limit), Ok(alive));
        assert_eq!(connectable(&[alive, dead], limit), Ok(alive));
        assert_eq!(connectable(&[dead], limit), Ok(dead));
        let problem = connectable(&[dead, dead], limit).unwrap_err();
        assert!(problem.contains("none of its 2 addresses"), "{problem}");
    }

    #[test]
    fn a_name_is_looked_up() {
        let resolve = |name| Address::parse(name).unwrap().resolve(Limit::in_ms(60_000));
        assert!(resolve("localhost").unwrap()[0].ip().is_loopback());
        let problem = resolve("no-such-host.invalid").unwrap_err();
        assert!(problem.starts_with("'no-such-host.invalid' cannot be looked up: "), "{problem}");
    }
}
