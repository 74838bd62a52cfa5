//! Whether a fence would find all that it needs, short of the order itself.
//!
//! A device that answers is not yet one that can fence: the system of a target may be missing, or
//! have no reset action, or not allow what will be ordered, or not show its power. Whoever checks a
//! device learns that here, for each target, and not from a fence that fails.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fence_core::execution::Order;
use fence_protocol::{NodeName, PowerState, fold_hostlist};

use super::resource::System;
use super::service::{Problem, Service};
use super::{Place, RedfishDevice, RedfishSettings};
use crate::contacts::{Contacted, contact_all, listed};
use crate::{Called, Limit, Pin, Reach, grouped};

/// What a review found.
pub(super) struct Review<'a> {
    called: Called<'a>,
    /// Which BMCs answered, and can fence at least one of their targets.
    contact: Reach,
    /// What keeps a fence of each of these targets from success.
    lacking: Vec<(NodeName, String)>,
    /// The targets at which there was no time to look.
    unseen: Vec<NodeName>,
}

/// What is to be seen at one BMC.
#[derive(Default)]
struct Seen {
    lacking: Vec<(NodeName, String)>,
    unseen: Vec<NodeName>,
}

impl RedfishDevice {
    /// Looks at the systems of all known targets: one visit for each address.
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
            let found =
                self.place(targets[0]).and_then(|place| self.look_at_all(&place, targets, limit));
            let (found, outcome) = outcome(targets, found);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.lacking.extend(found.lacking);
            seen.unseen.extend(found.unseen);
            outcome
        });
        let Seen { lacking, unseen } = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        Review { called, contact, lacking, unseen }
    }

    /// Looks at the systems of `targets`, which have one service.
    fn look_at_all(
        &self,
        place: &Place,
        targets: &[&NodeName],
        limit: Limit,
    ) -> Result<Seen, Problem> {
        let look = |service: &Service| {
            let called = |target| self.settings.system.as_ref().and_then(|names| names.of(target));
            let is_name = |name: &String| !name.starts_with('/');
            // The list is read once, however many are looked for in it.
            let names: Vec<String> =
                targets.iter().filter_map(|target| called(target).filter(is_name)).collect();
            let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
            let is_listed = targets.len() > 1 && !names.is_empty();
            let systems = is_listed.then(|| service.systems(&wanted)).transpose()?;
            let mut seen = Seen::default();
            for (at, target) in targets.iter().enumerate() {
                let name = called(target).filter(is_name);
                let system = match (&systems, name) {
                    (Some(systems), Some(name)) => systems.named(&name).map_err(Problem::Failed),
                    _ => self.system(service, target, &Pin::default()).map(|(_, system)| system),
                };
                match system.and_then(|system| lack(service, system, self.settings.is_cycled)) {
                    Ok(None) => {}
                    Ok(Some(text)) | Err(Problem::Failed(text)) => {
                        seen.lacking.push(((*target).clone(), text));
                    }
                    // The service answered before: what is left has had no time.
                    Err(_) if at > 0 => {
                        seen.unseen.extend(targets[at..].iter().map(|target| (*target).clone()));
                        break;
                    }
                    Err(problem) => return Err(problem),
                }
            }
            // The words of the service are in these texts as well.
            seen.lacking.iter_mut().for_each(|(_, text)| *text = service.clean(text));
            Ok((seen, String::new()))
        };
        self.visit(place, limit, look).map(|(seen, _)| seen)
    }
}

/// What the visit to a BMC means for its targets and for the contact with it.
fn outcome(targets: &[&NodeName], found: Result<Seen, Problem>) -> (Seen, Result<(), String>) {
    match found {
        Ok(seen) if seen.lacking.len() < targets.len() => (seen, Ok(())),
        Ok(seen) => {
            let texts: Vec<&str> = seen.lacking.iter().map(|(_, text)| text.as_str()).collect();
            let text = texts.join("; ");
            (seen, Err(text))
        }
        // What is wrong with the BMC is wrong for each of its targets.
        Err(Problem::Failed(text)) => {
            let each = targets.iter().map(|target| ((*target).clone(), text.clone()));
            (Seen { lacking: each.collect(), unseen: Vec::new() }, Err(text))
        }
        Err(problem) => (Seen::default(), Err(problem.into_text())),
    }
}

/// What a fence of `system` would lack. The values that a service allows may depend on the state,
/// so only what leads out of the present state is looked for, and a reset only where the system is
/// on.
fn lack(service: &Service, system: System, is_cycled: bool) -> Result<Option<String>, Problem> {
    if !system.shows_power {
        let text = format!("{}: no fence can be confirmed", system.power_words);
        return Ok(Some(text));
    }
    let orders = match system.power {
        PowerState::On if is_cycled => &[Order::Off, Order::Cycle][..],
        PowerState::On => &[Order::Off],
        PowerState::Off => &[Order::On],
        // What it allows on the way to another state says little.
        PowerState::Unknown => return Ok(system.reset.err()),
    };
    for order in orders {
        match service.reset(*order, system.reset.clone()) {
            Ok(_) => {}
            Err(Problem::Failed(text)) => return Ok(Some(text)),
            Err(problem) => return Err(problem),
        }
    }
    Ok(None)
}

impl Review<'_> {
    /// Whether the device can be reached, and what it cannot fence.
    pub(super) fn reach(self) -> Reach {
        let lacking = listed(&self.lacking());
        match self.contact {
            Reach::Reachable(text) if !lacking.is_empty() => {
                Reach::Reachable(format!("{text}; cannot be fenced: {lacking}"))
            }
            contact => contact,
        }
    }

    /// What keeps fences from success, each as one sentence.
    pub(super) fn into_problems(self) -> Vec<String> {
        let lacking = self.lacking();
        let lacking =
            lacking.iter().map(|(targets, why)| format!("'{targets}' cannot be fenced: {why}"));
        let unseen = (!self.unseen.is_empty())
            .then(|| format!("there was no time to look at '{}'", fold_hostlist(&self.unseen)));
        lacking.chain(unseen).collect()
    }

    fn lacking(&self) -> Vec<(String, String)> {
        let each = self.lacking.iter().map(|(target, why)| (target, why.as_str()));
        grouped(each, self.called)
    }
}
