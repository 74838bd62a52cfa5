//! From the name of a host to its addresses, in bounded time.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::Limit;

/// The addresses of `host`, at least one.
pub(crate) fn resolve(host: &str, port: u16, limit: Limit) -> Result<Vec<SocketAddr>, String> {
    // The system's resolver knows no limit. A look-up that nobody waits for any more ends by itself.
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = host.to_owned();
    let look_up = move || {
        let found = (name.as_str(), port).to_socket_addrs();
        let _ = sender.send(found.map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>()));
    };
    let found = match thread::Builder::new().spawn(look_up) {
        Ok(_) => receiver.recv_timeout(Duration::from_millis(limit.left_ms())),
        Err(error) => return Err(format!("'{host}' cannot be looked up: {error}")),
    };
    match found {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(format!("'{host}' has no address")),
        Ok(Err(error)) => Err(format!("'{host}' cannot be looked up: {error}")),
        Err(_) => Err(format!("'{host}' cannot be looked up: no answer in time")),
    }
}

/// The IP address as programs take it, with the interface of one of link-local scope.
pub(crate) fn number(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        address => address.ip().to_string(),
    }
}

/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 16;
