//! The address of a BMC.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::Limit;
use crate::resolve::{number, ported_v6, resolve, without_brackets};

/// The address of one BMC: a host's name or IP address, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BmcAddress {
    host: String,
    pub(super) port: u16,
}

impl BmcAddress {
    /// The address in `text`: `host`, `host:port`, `v6`, `[v6]` or `[v6]:port`. The default port is
    /// IPMI's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.split_once(']'));
        let (host, port) = bracketed.unwrap_or_else(|| match text.find(':') {
            Some(colon) if text.matches(':').count() == 1 => text.split_at(colon),
            _ => (text, ""),
        });
        let is_v6 = bracketed.is_some() || host.contains(':');
        if let Some((address, port)) = ported_v6(text, USUAL_PORT) {
            return Err(without_brackets(text, address, port));
        }
        let port = if port.is_empty() { Some(IPMI_PORT) } else { port_number(port) };
        let is_host = if is_v6 { is_v6_address(host) } else { is_host_name(host) };
        match port {
            Some(port) if is_host => Ok(BmcAddress { host: host.to_owned(), port }),
            _ => Err(format!(
                "'{}' is no address such as \"n1-ipmi\", \"10.0.0.1:623\" or \"[fd00::1]:623\"",
                text.escape_debug()
            )),
        }
    }

    /// The IP addresses of the host, without brackets; a name is looked up.
    pub(super) fn numbers(&self, limit: Limit) -> Result<Vec<String>, String> {
        if self.host.parse::<IpAddr>().is_ok() || is_v6_address(&self.host) {
            return Ok(vec![self.host.clone()]);
        }
        Ok(resolve(&self.host, self.port, limit)?.into_iter().map(number).collect())
    }
}

impl fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (IPMI_PORT, true) if ported_v6(&self.host, USUAL_PORT).is_some() => {
                write!(f, "[{}]", self.host)
            }
            (IPMI_PORT, _) => f.write_str(&self.host),
            (port, false) => write!(f, "{}:{port}", self.host),
            (port, true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

/// The number in `:623`.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    // `parse` would accept a sign.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port > 0)
}

/// A link-local address may name its interface: `fe80::1%eth0`.
fn is_v6_address(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, zone)| (a, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_host_name)
}

fn is_host_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    // No argument may look like an option.
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
}

/// The port of IPMI.
const IPMI_PORT: u16 = 623;

/// The same as a text.
const USUAL_PORT: &str = "623";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for (text, host, port, shown) in [
            ("n1-ipmi", "n1-ipmi", 623, "n1-ipmi"),
            ("10.0.0.1:623", "10.0.0.1", 623, "10.0.0.1"),
            ("bmc_1.example.com:16231", "bmc_1.example.com", 16_231, "bmc_1.example.com:16231"),
            ("fd00::1", "fd00::1", 623, "fd00::1"),
            ("[fd00::1]", "fd00::1", 623, "fd00::1"),
            ("[fd00::1:623]", "fd00::1:623", 623, "[fd00::1:623]"),
            ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65_535, "[fe80::1%eth0]:65535"),
        ] {
            let address = BmcAddress::parse(text).unwrap();
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), shown);
            assert_eq!(BmcAddress::parse(shown).unwrap(), address);
        }
    }

    #[test]
    fn a_name_is_looked_up_and_a_number_is_not() {
        for (text, number) in
            [("10.0.0.1:623", "10.0.0.1"), ("fd00::1", "fd00::1"), ("fe80::1%eth0", "fe80::1%eth0")]
        {
            let numbers = BmcAddress::parse(text).unwrap().numbers(Limit::in_ms(0));
            assert_eq!(numbers.unwrap(), [number]);
        }
        let numbers = |name| BmcAddress::parse(name).unwrap().numbers(Limit::in_ms(60_000));
        let local = numbers("localhost").unwrap();
        assert!(local.iter().all(|number| number == "127.0.0.1" || number == "::1"), "{local:?}");
        let problem = numbers("no-such-host.invalid").unwrap_err();
        assert!(problem.starts_with("'no-such-host.invalid' cannot be looked up: "), "{problem}");

        assert_eq!(number("[fd00::1]:623".parse().unwrap()), "fd00::1");
        assert_eq!(number("[fe80::1%7]:623".parse().unwrap()), "fe80::1%7");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":",
            ":623",
            "n1:",
            "n1:0",
            "n1:65536",
            "n1:+1",
            "n1:x",
            "-n1",
            "n 1",
            "n1/x",
            "n1\n",
            "[n1]:623",
            "[fd00::1",
            "[fd00::1]623",
            "[fd00::1]:",
            "fd00::x",
            "fe80::1%",
            "n1%eth0",
            "fe80::1%-x",
            "a:1:2",
        ] {
            let problem = BmcAddress::parse(text).unwrap_err();
            assert!(problem.contains("is no address such as"), "{text}: {problem}");
        }
        for text in ["fd00::1:623", "fd00::1:16231", "fe80::1%eth0:623"] {
            let problem = BmcAddress::parse(text).unwrap_err();
            assert!(problem.contains("brackets around the IPv6 address: write \"["), "{problem}");
        }
    }
}
