//! The machine behind a name that an agent resolves by itself, with each call again.
//!
//! If a name has several addresses, the order may reach one machine and the question another. So
//! the name is resolved here as well. If it has several addresses, the agent gets a number instead:
//! the same number for the order and for each question of the execution. A name with one address
//! stays while it keeps this address.
//!
//! A certificate is verified against a name. If the options ask for this, the name stays: a machine
//! at any of its addresses must prove the name. A name that only the agent can resolve (an alias of
//! its `ssh`) stays, too.

use std::net::{IpAddr, SocketAddr};

use super::FenceAgentDevice;
use crate::pin::Machine;
use crate::resolve::{number, resolve};
use crate::{Limit, Pin};

/// Where an order by name went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AgentHost {
    /// To this number.
    Number(String),
    /// The name had no address for us.
    Unresolved,
}

impl FenceAgentDevice {
    /// The number that the agent gets instead of the name for an order, if it does not get the
    /// name. Pins the machine.
    pub(super) fn host_of_order(&self, plug: &str, pin: &Pin, limit: Limit) -> Option<String> {
        let name = self.host_name(plug)?;
        if let Some(Machine::Agent { host: AgentHost::Number(number) }) = pin.machine() {
            return Self::number_for(number, self.addresses_of(name, limit).ok().as_deref());
        }
        let found = self.addresses_of(name, limit);
        let (host, given) = match found.as_deref() {
            Err(_) | Ok([]) => (AgentHost::Unresolved, None),
            Ok([one]) => (AgentHost::Number(one.clone()), None),
            Ok([first, ..]) => (AgentHost::Number(first.clone()), Some(first.clone())),
        };
        pin.set(Machine::Agent { host });
        given
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
        let found = found.as_deref().ok();
        let is_several = found.is_some_and(|found| found.len() > 1);
        match pin.machine() {
            Some(Machine::Agent { host: AgentHost::Number(number) }) => {
                Ok(Self::number_for(number, found))
            }
            Some(Machine::Agent { host: AgentHost::Unresolved }) if !is_several => Ok(None),
            Some(_) => Err(doubt(name)),
            None => Ok(found.filter(|_| is_several).and_then(|found| found.first().cloned())),
        }
    }

    /// `number`, unless it is the name's one address.
    fn number_for(number: &str, found: Option<&[String]>) -> Option<String> {
        let is_kept = matches!(found, Some([one]) if one == number);
        (!is_kept).then(|| number.to_owned())
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

    /// The numbers of a name that the agent may use, in the order of the system's resolver. IPv4
    /// comes first: agents put numbers into URLs and other addresses, where IPv6 needs brackets.
    fn addresses_of(&self, name: &str, limit: Limit) -> Result<Vec<String>, String> {
        let mut found = resolve(name, 0, limit.min(Limit::in_ms(RESOLVE_MS)))?;
        let only = (self.is_set("inet4_only"), self.is_set("inet6_only"));
        found.retain(|address| match only {
            (true, false) => address.is_ipv4(),
            (false, true) => address.is_ipv6(),
            _ => true,
        });
        found.sort_by_key(SocketAddr::is_ipv6);
        let mut numbers = Vec::new();
        for number in found.into_iter().map(number) {
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    /// Whether the options ask for a certificate of the name.
    fn verifies_names(&self) -> bool {
        self.is_set("ssl_secure") || self.is_set("ssl") && !self.is_set("ssl_insecure")
    }

    /// Whether an option is set, and not to false.
    fn is_set(&self, option: &str) -> bool {
        let is_false = |value: &str| ["0", "no", "off", "false"].contains(&value);
        self.settings.options.iter().any(|(name, value)| {
            name.replace('-', "_") == option && !is_false(&value.to_ascii_lowercase())
        })
    }
}

/// Whether an option of this name has the address of the device.
pub(super) fn is_host_option(name: &str) -> bool {
    ["ip", "ipaddr"].contains(&name)
}

fn doubt(name: &str) -> String {
    format!(
        "the name has several addresses, or others than before, so another machine could answer: \
         give the agent one that leads to one machine, or a number, in place of '{name}'"
    )
}

/// How long the look-up of a name may take.
const RESOLVE_MS: u64 = 5_000;
