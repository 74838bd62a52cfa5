//! The check whether a fence would find all that it needs, without sending an order.
//!
//! A device that answers may still be unable to fence: the system of a target may be missing, have
//! no reset action, not allow the order, or not show its power. This check reports that for each
//! target before a fence fails.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fence_core::execution::Order;
use fence_protocol::{NodeName, PowerState, fold_hostlist};

use super::resource::System;
use super::service::{Problem, Service};
use super::{RedfishDevice, RedfishSettings};
use crate::contacts::{Contacted, contact_all, listed};
use crate::pool::lock;
use crate::{Called, Limit, Pin, Reach, grouped};

/// The result of a review.
pub(super) struct Review<'a> {
    called: Called<'a>,
    /// The BMCs that answered and can fence at least one of their targets.
    contact: Reach,
    seen: Seen,
}

/// The findings at one BMC, or at several.
#[derive(Default)]
struct Seen {
    /// Why a fence of each of these targets would fail.
    lacking: Vec<(NodeName, String)>,
    /// The targets for which no time was left.
    unseen: Vec<NodeName>,
}

impl RedfishDevice {
    /// Looks at the systems of all known targets, with one visit for each address.
    pub(super) fn review(&self, limit: Limit) -> Review<'_> {
        let RedfishSettings { address, system, .. } = &self.settings;
        let called = Called { address: Some(address), plug: system.as_ref() };
        let mut targets: BTreeMap<Option<String>, Vec<&NodeName>> = BTreeMap::new();
        for target in &self.settings.known_targets {
            targets.entry(self.settings.address.of(target)).or_default().push(target);
        }
        let places: Vec<Vec<&NodeName>> = targets.into_values().collect();
        let seen = Mutex::new(Seen::default());
        let contact = contact_all(Contacted::Bmcs, &places, called, |targets| {
            let place = self.place(targets[0], &Pin::default());
            let look = |service: &Service| self.look_at_all(service, targets);
            let found = place.and_then(|place| self.visit(&place, limit, look));
            let (found, outcome) = outcome(targets, found);
            let mut seen = lock(&seen);
            seen.lacking.extend(found.lacking);
            seen.unseen.extend(found.unseen);
            outcome
        });
        Review { called, contact, seen: seen.into_inner().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Looks at the systems of `targets`, which share this service.
    fn look_at_all(&self, service: &Service, targets: &[&NodeName]) -> Result<Seen, Problem> {
        let name_of = |target| {
            let name = self.settings.system.as_ref().and_then(|names| names.of(target));
            name.filter(|name| !name.starts_with('/'))
        };
        // For several targets, one reading of the list is enough.
        let names: Vec<String> = targets.iter().filter_map(|target| name_of(target)).collect();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let is_listed = targets.len() > 1 && !names.is_empty();
        let systems = is_listed.then(|| service.systems(&wanted)).transpose()?;
        let mut seen = Seen::default();
        for (at, target) in targets.iter().enumerate() {
            let system = match (&systems, name_of(target)) {
                (Some(systems), Some(name)) => match systems.named(&name) {
                    Ok(member) => Ok(member.system.clone()),
                    Err((_, why)) => Err(Problem::Failed(why)),
                },
                _ => self.system(service, target, &Pin::default()).map(|(_, system)| system),
            };
            match system.and_then(|system| self.check_system(service, system)) {
                Ok(()) => {}
                Err(Problem::Failed(text)) => {
                    seen.lacking.push(((*target).clone(), service.clean(&text)));
                }
                // The service answered before, so the remaining targets had no time.
                Err(_) if at > 0 => {
                    seen.unseen.extend(targets[at..].iter().map(|target| (*target).clone()));
                    break;
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok(seen)
    }

    /// Why a fence of `system` would fail. The values that a service allows may depend on the
    /// state. So this checks only the order that leads out of the present state, and a reset only
    /// if the system is on.
    fn check_system(&self, service: &Service, system: System) -> Result<(), Problem> {
        if !system.shows_power {
            let text = format!("{}: no fence can be confirmed", system.power_words);
            return Err(Problem::Failed(text));
        }
        let orders = match system.power {
            PowerState::On if self.settings.is_cycled => &[Order::Off, Order::Cycle][..],
            PowerState::On => &[Order::Off],
            PowerState::Off => &[Order::On],
            // The values that a system allows between two states say little.
            PowerState::Unknown => return system.reset.map(drop).map_err(Problem::Failed),
        };
        orders.iter().try_for_each(|order| service.reset(*order, system.reset.clone()).map(drop))
    }
}

/// The findings at a BMC, and the result of the contact with it.
fn outcome(targets: &[&NodeName], found: Result<Seen, Problem>) -> (Seen, Result<(), String>) {
    match found {
        Ok(seen) if seen.lacking.len() < targets.len() => (seen, Ok(())),
        Ok(seen) => {
            let texts: Vec<_> = seen.lacking.iter().map(|(_, text)| text.clone()).collect();
            (seen, Err(texts.join("; ")))
        }
        // A fault of the BMC is a fault of each of its targets.
        Err(Problem::Failed(text)) => {
            let each = targets.iter().map(|target| ((*target).clone(), text.clone()));
            (Seen { lacking: each.collect(), unseen: Vec::new() }, Err(text))
        }
        Err(problem) => (Seen::default(), Err(problem.into_text())),
    }
}

impl Review<'_> {
    /// Whether the device can be reached, and the targets that it cannot fence.
    pub(super) fn reach(self) -> Reach {
        let lacking = listed(&self.lacking());
        match self.contact {
            Reach::Reachable(text) if !lacking.is_empty() => {
                Reach::Reachable(format!("{text}; cannot be fenced: {lacking}"))
            }
            contact => contact,
        }
    }

    /// Why fences would fail, each as one sentence.
    pub(super) fn into_problems(self) -> Vec<String> {
        let lacking = self.lacking();
        let lacking =
            lacking.iter().map(|(targets, why)| format!("'{targets}' cannot be fenced: {why}"));
        let unseen = &self.seen.unseen;
        let unseen = (!unseen.is_empty())
            .then(|| format!("there was no time to look at '{}'", fold_hostlist(unseen)));
        lacking.chain(unseen).collect()
    }

    fn lacking(&self) -> Vec<(String, String)> {
        let each = self.seen.lacking.iter().map(|(target, why)| (target, why.as_str()));
        grouped(each, self.called)
    }
}
