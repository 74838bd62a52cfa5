//! The lists of targets that devices return. A device is asked once, when a request needs its list.
//! If a target is missing from a list that is older than the request, the device is asked again.

use std::collections::BTreeSet;

use fence_protocol::{NodeName, RecordName};

use super::{Coverage, Device, Effect, State, Watcher, outdated, unlisted};
use crate::Now;

/// A device that was asked for its targets; all instants are milliseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// When a request last caused the question; 0 for never.
    at: u64,
    /// Until when requests wait for its list.
    patience_until: u64,
    /// When the device may be asked again for a target that its list lacks.
    again_from: u64,
}

impl Watcher {
    /// Asks the devices whose lists decide the route of a fence of `target`, which was first seen
    /// at `seen_boot_ms`: once, and again if an older list would refuse the target. Returns the
    /// instant until which the request waits for them.
    pub(super) fn ask_for_lists(
        &mut self,
        named: Option<&str>,
        target: &NodeName,
        seen_boot_ms: u64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let unlisted = unlisted(&self.devices, named, target).into_iter().map(|name| (name, false));
        let outdated = outdated(&self.devices, named, target).into_iter().map(|name| (name, true));
        let mut until = None;
        for (device, has_list) in unlisted.chain(outdated) {
            let wait = match self.asked.get(device) {
                Some(asked) if asked.patience_until > now.boot_ms => {
                    Wait::Until(asked.patience_until)
                }
                Some(asked) if has_list => asked.again(seen_boot_ms, now),
                Some(_) => Wait::No,
                None => Wait::Ask,
            };
            until = until.max(match wait {
                Wait::No => None,
                Wait::Until(instant) => Some(instant),
                Wait::Ask => {
                    effects.push(Effect::AskTargets(device.to_owned()));
                    self.asked.insert(device.to_owned(), Asked::new(now));
                    Some(now.boot_ms.saturating_add(LIST_WAIT_MS))
                }
            });
        }
        until
    }

    /// A device returned its list of targets, or failed to.
    pub(super) fn listed(
        &mut self,
        device: &str,
        targets: Option<BTreeSet<NodeName>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let at = self.asked.get(device).map(|asked| asked.at);
        // A device that no request has asked, and that returned no list, can still be asked.
        if targets.is_some() || at.is_some() {
            let asked = Asked {
                at: at.unwrap_or(0),
                // No request waits for the list any more.
                patience_until: 0,
                again_from: now.boot_ms.saturating_add(LIST_FRESH_MS),
            };
            self.asked.insert(device.to_owned(), asked);
        }
        let known = self.devices.iter_mut().find(|known| known.name == device);
        if let Some(Device { coverage: Coverage::Discovered(list), .. }) = known
            && targets.is_some()
        {
            *list = targets;
        }
        self.look_at_unlisted(effects);
    }

    /// Looks again at every request that waits for lists.
    pub(super) fn look_at_unlisted(&mut self, effects: &mut Vec<Effect>) {
        let waiting = self.records.iter().filter(|(_, (state, _))| *state == State::Unlisted);
        let waiting: Vec<RecordName> = waiting.map(|(name, _)| name.clone()).collect();
        for name in waiting {
            self.take(&name);
            effects.push(Effect::Look(name));
        }
    }
}

/// What a request does about a device's list.
enum Wait {
    No,
    Until(u64),
    Ask,
}

impl Asked {
    fn new(now: Now) -> Self {
        Asked {
            at: now.boot_ms,
            patience_until: now.boot_ms.saturating_add(LIST_WAIT_MS),
            again_from: now.boot_ms.saturating_add(LIST_LATEST_MS),
        }
    }

    /// What a request does if its target is missing from the list; the request was seen at
    /// `seen_boot_ms`.
    fn again(&self, seen_boot_ms: u64, now: Now) -> Wait {
        match self.again_from {
            // The device was asked for this request, or for a later one.
            _ if self.at >= seen_boot_ms => Wait::No,
            again_from if again_from <= now.boot_ms => Wait::Ask,
            again_from if again_from <= seen_boot_ms.saturating_add(LIST_TURN_MS) => {
                Wait::Until(again_from)
            }
            _ => Wait::No,
        }
    }
}

/// How long a request waits for the lists of targets that decide its route, in milliseconds. After
/// that time, a device without a list is treated as one that cannot list its targets.
const LIST_WAIT_MS: u64 = 5_000;

/// How long a device that returned its list is not asked again, in milliseconds, however many
/// requests arrive for targets that its list lacks.
const LIST_FRESH_MS: u64 = 5_000;

/// How soon after it was seen a request must get its turn to have a device asked again, in
/// milliseconds.
const LIST_TURN_MS: u64 = 10_000;

/// How soon a device that was asked and did not respond at all may be asked again, in milliseconds:
/// a question to a device ends before that.
const LIST_LATEST_MS: u64 = 30_000;
