//! The look-up of a host's addresses, in bounded time.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::Limit;
use crate::pool::ask_until;

/// The addresses of `host`, at least one.
pub(crate) fn resolve(host: &str, port: u16, limit: Limit) -> Result<Vec<SocketAddr>, String> {
    // The system's resolver has no time limit.
    let name = host.to_owned();
    let found = ask_until(limit, move || {
        let found = (name.as_str(), port).to_socket_addrs()?;
        Ok(found.take(ADDRESSES_MAX).collect::<Vec<_>>())
    });
    match found {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(format!("'{host}' has no address")),
        Err(error) => Err(format!("'{host}' cannot be looked up: {error}")),
    }
}

/// The IP address as programs accept it; a link-local address with its interface.
pub(crate) fn number(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        address => address.ip().to_string(),
    }
}

/// The limit of addresses for one name.
const ADDRESSES_MAX: usize = 16;

/// The IPv6 address and the port in a `text` without brackets that is not an address as a whole. A
/// text that ends in the usual port may be both, and so is ambiguous.
pub(crate) fn ported_v6<'a>(text: &'a str, usual_port: &str) -> Option<(&'a str, &'a str)> {
    let (address, port) = text.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = text.parse::<Ipv6Addr>().is_ok() && port != usual_port;
    let is_address = address.split('%').next()?.parse::<Ipv6Addr>().is_ok();
    (is_port && is_address && !is_whole).then_some((address, port))
}

/// The message for such a text, with the correct form.
pub(crate) fn without_brackets(text: &str, address: &str, port: &str) -> String {
    let alone = text
        .parse::<Ipv6Addr>()
        .map_or(String::new(), |whole| format!(", or \"[{whole}]\" if that is the whole address"));
    format!(
        "'{}' has a port and no brackets around the IPv6 address: write \
         \"[{address}]:{port}\"{alone}",
        text.escape_debug()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_behind_an_address_without_brackets_is_seen() {
        for (text, found) in [
            ("fd00::1:623", Some(("fd00::1", "623"))),
            ("fd00::1:16231", Some(("fd00::1", "16231"))),
            ("fe80::1%eth0:623", Some(("fe80::1%eth0", "623"))),
            ("fd00:1:2:3:4:5:6:7:443", Some(("fd00:1:2:3:4:5:6:7", "443"))),
            ("fd00::1:6230", None),
            ("fd00::623", None),
            ("fd00::1", None),
            ("[fd00::1]:623", None),
            ("bmc:623", None),
            ("10.0.0.1:623", None),
        ] {
            assert_eq!(ported_v6(text, "623"), found, "{text}");
        }
        assert_eq!(
            without_brackets("fd00::1:623", "fd00::1", "623"),
            "'fd00::1:623' has a port and no brackets around the IPv6 address: write \
             \"[fd00::1]:623\", or \"[fd00::1:623]\" if that is the whole address"
        );
    }
}
