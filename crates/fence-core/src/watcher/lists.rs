//! The lists of targets that devices give: asked for when a request needs them, once; and again when a
//! target is missing from a list that is not fresh.

use std::collections::BTreeSet;

use fence_protocol::{NodeName, RecordName};

use super::{Coverage, Device, Effect, State, Watcher, outdated, unlisted};
use crate::Now;

/// A device that was asked for its targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// Until when requests wait for its list.
    patience_boot_ms: u64,
    /// When its list is old: a target that is missing from it may be there by then.
    old_from_boot_ms: u64,
}

impl Watcher {
    /// Has the devices asked whose lists decide where a fence of `target` goes: once, and again where an
    /// old list would refuse it. Gives the instant until which that is waited for.
    pub(super) fn ask_for_lists(
        &mut self,
        named: Option<&str>,
        target: &NodeName,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let unlisted = unlisted(&self.devices, named, target).into_iter().map(|name| (name, false));
        let outdated = outdated(&self.devices, named, target).into_iter().map(|name| (name, true));
        let mut until = None;
        for (device, has_list) in unlisted.chain(outdated) {
            let known = self.asked.get(device).map(|asked| {
                let is_old = has_list && asked.old_from_boot_ms <= now.boot_ms;
                (!is_old).then_some(asked.patience_boot_ms)
            });
            let patience = known.flatten().unwrap_or_else(|| {
                effects.push(Effect::AskTargets(device.to_owned()));
                let asked = Asked {
                    patience_boot_ms: now.boot_ms + LIST_WAIT_MS,
                    old_from_boot_ms: now.boot_ms + LIST_LATEST_MS,
                };
                let patience = asked.patience_boot_ms;
                self.asked.insert(device.to_owned(), asked);
                patience
            });
            until = until.max(Some(patience).filter(|until| *until > now.boot_ms));
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
        // Nobody waits for it any more, and it is not asked again because of a request until then.
        let asked = Asked { patience_boot_ms: 0, old_from_boot_ms: now.boot_ms + LIST_FRESH_MS };
        // A device that nobody asked because of a request, and that gave no list, can still be asked.
        if targets.is_some() || self.asked.contains_key(device) {
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

/// How long a request waits for the lists of targets that decide where it goes, in milliseconds. A
/// device that does not give its list by then is tried like one that has none.
const LIST_WAIT_MS: u64 = 5_000;

/// How long a list counts as it is, in milliseconds: however many requests for targets that it lacks come,
/// the device is not asked more often.
const LIST_FRESH_MS: u64 = 5_000;

/// After how long a device that was asked and gave no word at all may be asked again, in milliseconds: a
/// question to a device ends before.
const LIST_LATEST_MS: u64 = 30_000;
