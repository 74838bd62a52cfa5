//! The machine behind a name, which an agent resolves again in each call.
//!
//! If a name has several addresses, the order may reach one machine and the question another. So
//! the name is resolved here as well. If it has several addresses, the agent gets a number instead:
//! the same number for the order and for each question of the execution. A name with one address
//! stays while it keeps this address.
//!
//! A certificate is verified against a name. If the options ask for this, the name stays: a machine
//! at any of its addresses must prove the name. A name that only the agent can resolve (an alias of
//! its `ssh`) stays, too.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::FenceAgentDevice;
use super::metadata::FALSE;
use crate::pin::Machine;
use crate::resolve::{number, resolve};
use crate::{Limit, Pin};

impl FenceAgentDevice {
    /// The number that the agent gets instead of the name for an order, if it does not get the
    /// name. Pins the machine.
    pub(super) fn host_of_order(&self, plug: &str, pin: &Pin, limit: Limit) -> Option<String> {
        let found = self.addresses_of(self.host_name(plug)?, limit);
        if let Some(Machine::Agent { host: Some(number) }) = pin.machine() {
            return number_for(number, &found);
        }
        pin.set(Machine::Agent { host: found.first().cloned() });
        first_of_several(&found)
    }

    /// The same for a question. An error says why another machine could answer.
    pub(super) fn host_of_question(
        &self,
        plug: &str,
        pin: &Pin,
        limit: Limit,
    ) -> Result<Option<String>, String> {
        let Some(name) = self.host_name(plug) else { return Ok(None) };
        let found = self.addresses_of(name, limit);
        match pin.machine() {
            Some(Machine::Agent { host: Some(number) }) => Ok(number_for(number, &found)),
            Some(Machine::Agent { host: None }) if found.len() < 2 => Ok(None),
            Some(_) => Err(format!(
                "the name has several addresses, or others than before, so another machine could \
                 answer: give the agent one that leads to one machine, or a number, in place of \
                 '{name}'"
            )),
            None => Ok(first_of_several(&found)),
        }
    }

    /// The name by which the agent finds its device, if it gets a name and no certificate proves
    /// the name.
    fn host_name<'a>(&'a self, plug: &'a str) -> Option<&'a str> {
        let of_all = || {
            let mut given = self.settings.options.iter();
            given.find(|(name, _)| is_host_option(name)).map(|(_, value)| value.as_str())
        };
        let host = if self.settings.addresses().is_some() { Some(plug) } else { of_all() };
        let is_name = |host: &&str| !host.is_empty() && host.parse::<IpAddr>().is_err();
        host.filter(is_name).filter(|_| !self.verifies_names())
    }

    /// The numbers of a name that the agent may use, in the order of the system's resolver; none if
    /// the name cannot be looked up. IPv4 comes first: agents put numbers into URLs and other
    /// addresses, where IPv6 needs brackets.
    fn addresses_of(&self, name: &str, limit: Limit) -> Vec<String> {
        let found = resolve(name, 0, limit.min(Limit::in_ms(RESOLVE_MS)));
        let only = (self.is_set("inet4_only"), self.is_set("inet6_only"));
        let mut found = found.unwrap_or_default();
        found.retain(|address| match only {
            (true, false) => address.is_ipv4(),
            (false, true) => address.is_ipv6(),
            _ => true,
        });
        found.sort_by_key(SocketAddr::is_ipv6);
        let mut numbers: Vec<String> = found.into_iter().map(number).collect();
        let mut seen = BTreeSet::new();
        numbers.retain(|number| seen.insert(number.clone()));
        numbers
    }

    /// Whether the options ask for a certificate of the name.
    fn verifies_names(&self) -> bool {
        self.is_set("ssl_secure") || self.is_set("ssl") && !self.is_set("ssl_insecure")
    }

    /// Whether an option is set, and not to false.
    fn is_set(&self, option: &str) -> bool {
        let is_false = |value: &str| FALSE.contains(&value.to_ascii_lowercase().as_str());
        let mut options = self.settings.options.iter();
        options.any(|(name, value)| name.replace('-', "_") == option && !is_false(value))
    }
}

/// Whether an option of this name has the address of the device.
pub(super) fn is_host_option(name: &str) -> bool {
    ["ip", "ipaddr"].contains(&name)
}

/// `number`, unless it is the name's one address.
fn number_for(number: &str, found: &[String]) -> Option<String> {
    (found != [number]).then(|| number.to_owned())
}

fn first_of_several(found: &[String]) -> Option<String> {
    found.first().filter(|_| found.len() > 1).cloned()
}

/// How long the look-up of a name may take.
const RESOLVE_MS: u64 = 5_000;
