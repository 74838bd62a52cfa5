//! The lists of targets that devices give: asked for when a request needs them, once. A target that is
//! missing from a list is asked for again if the list is older than the request.

use std::collections::BTreeSet;

use fence_protocol::{NodeName, RecordName};

use super::{Coverage, Device, Effect, State, Watcher, outdated, unlisted};
use crate::Now;

/// A device that was asked for its targets; instants in milliseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// When it was asked because of a request; 0 for never.
    at: u64,
    /// Until when requests wait for its list.
    patience_until: u64,
    /// When it may be asked again for a target that its list lacks.
    again_from: u64,
}

impl Watcher {
    /// Has the devices asked whose lists decide where a fence of `target` goes, which was first seen at
    /// `seen_boot_ms`: once, and again where a list that is older would refuse it. Gives the instant until
    /// which that is waited for.
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

    /// A device gave its list of targets, or did not.
    pub(super) fn listed(
        &mut self,
        device: &str,
        targets: Option<BTreeSet<NodeName>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let at = self.asked.get(device).map(|asked| asked.at);
        // A device that nobody asked because of a request, and that gave no list, can still be asked.
        if targets.is_some() || at.is_some() {
            let asked = Asked {
                at: at.unwrap_or(0),
                // Nobody waits for it any more.
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

    /// Has everything that waits for lists looked at again.
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

    /// What a request does whose target is missing from the list, and that was seen at `seen_boot_ms`.
    fn again(&self, seen_boot_ms: u64, now: Now) -> Wait {
        match self.again_from {
            // It was asked for this request, or for one that came later.
            _ if self.at >= seen_boot_ms => Wait::No,
            again_from if again_from <= now.boot_ms => Wait::Ask,
            again_from if again_from <= seen_boot_ms.saturating_add(LIST_TURN_MS) => {
                Wait::Until(again_from)
            }
            _ => Wait::No,
        }
    }
}

/// How long a request waits for the lists of targets that decide where it goes, in milliseconds. A
/// device that does not give its list by then is tried like one that has none.
const LIST_WAIT_MS: u64 = 5_000;

/// For how long a device that gave its list is not asked again, in milliseconds, however many requests
/// come for targets that its list lacks.
const LIST_FRESH_MS: u64 = 5_000;

/// How long after it was seen a request's turn to have a device asked again must come, in milliseconds.
const LIST_TURN_MS: u64 = 10_000;

/// After how long a device that was asked and gave no word at all may be asked again, in milliseconds: a
/// question to a device ends before.
const LIST_LATEST_MS: u64 = 30_000;
