//! The lists of targets that devices give: asked for when a request needs them, once.

use std::collections::BTreeSet;

use fence_protocol::{NodeName, RecordName};

use super::{Coverage, Device, Effect, State, Watcher, unlisted};
use crate::Now;

impl Watcher {
    /// Has the devices asked, once, whose lists decide where a fence of `target` goes; gives the instant
    /// until which that is waited for.
    pub(super) fn ask_for_lists(
        &mut self,
        named: Option<&str>,
        target: &NodeName,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let mut until = None;
        for device in unlisted(&self.devices, named, target) {
            let patience = self.asked.entry(device.to_owned()).or_insert_with(|| {
                effects.push(Effect::AskTargets(device.to_owned()));
                now.boot_ms + LIST_WAIT_MS
            });
            until = until.max(Some(*patience).filter(|until| *until > now.boot_ms));
        }
        until
    }

    /// A device gave its list of targets, or did not.
    pub(super) fn listed(
        &mut self,
        device: &str,
        targets: Option<BTreeSet<NodeName>>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(until) = self.asked.get_mut(device) {
            // Nobody waits for it any more, and it is not asked again because of a request.
            *until = 0;
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
