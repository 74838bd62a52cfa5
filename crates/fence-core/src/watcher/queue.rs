//! What waits, and what may begin: in the order of arrival, one execution per target, a bounded number
//! per device and in all.
//!
//! A request whose target is busy steps aside until the target is free, so that looking for the next
//! one never walks over requests that cannot begin.

use std::collections::{BTreeMap, BTreeSet};

use fence_protocol::{NodeName, RecordName};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    free: usize,
    devices: BTreeMap<String, DeviceQueue>,
    busy: BTreeSet<NodeName>,
    /// Those whose target was busy when their turn came.
    aside: Aside,
}

/// For each target the devices, for each of these the requests in the order of arrival.
type Aside = BTreeMap<NodeName, BTreeMap<String, BTreeMap<u64, RecordName>>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DeviceQueue {
    free: usize,
    ready: BTreeMap<u64, (NodeName, RecordName)>,
}

impl Queue {
    pub(super) fn new(max_running: usize, devices: impl Iterator<Item = (String, usize)>) -> Self {
        Queue {
            free: max_running,
            devices: devices
                .map(|(name, free)| (name, DeviceQueue { free, ready: BTreeMap::new() }))
                .collect(),
            busy: BTreeSet::new(),
            aside: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, device: &str, target: NodeName, seq: u64, name: RecordName) {
        if let Some(device) = self.devices.get_mut(device) {
            device.ready.insert(seq, (target, name));
        }
    }

    pub(super) fn remove(&mut self, device: &str, target: &NodeName, seq: u64) {
        if let Some(queue) = self.devices.get_mut(device) {
            queue.ready.remove(&seq);
        }
        if let Some(waiting) = self.aside.get_mut(target).and_then(|all| all.get_mut(device)) {
            waiting.remove(&seq);
        }
        // It may have been the one that was called up for its target: then the next one is.
        self.call_up(target);
    }

    /// The record that may begin, in the order of arrival; its device and target are taken.
    pub(super) fn take_next(&mut self) -> Option<RecordName> {
        if self.free == 0 {
            return None;
        }
        let (seq, device) = self
            .devices
            .iter_mut()
            .filter(|(_, device)| device.free > 0)
            .filter_map(|(name, device)| {
                device.step_aside(name, &self.busy, &mut self.aside);
                Some((*device.ready.first_key_value()?.0, name.clone()))
            })
            .min()?;
        let device = self.devices.get_mut(&device)?;
        let (target, name) = device.ready.remove(&seq)?;
        device.free -= 1;
        self.free -= 1;
        self.busy.insert(target);
        Some(name)
    }

    /// Gives back what [`Queue::take_next`] took.
    pub(super) fn release(&mut self, device: &str, target: &NodeName) {
        self.free += 1;
        if let Some(device) = self.devices.get_mut(device) {
            device.free += 1;
        }
        self.busy.remove(target);
        self.call_up(target);
    }

    /// Puts the first that stands aside for `target` on each device back into the device's line, if
    /// the target is free. The first that begins makes the others step aside again.
    fn call_up(&mut self, target: &NodeName) {
        if self.busy.contains(target) {
            return;
        }
        let Some(mut waiting) = self.aside.remove(target) else { return };
        for (device, requests) in &mut waiting {
            if let Some((seq, name)) = requests.pop_first() {
                self.push(device, target.clone(), seq, name);
            }
        }
        waiting.retain(|_, requests| !requests.is_empty());
        if !waiting.is_empty() {
            self.aside.insert(target.clone(), waiting);
        }
    }
}

impl DeviceQueue {
    /// Moves what stands first and has a busy target out of the way.
    fn step_aside(&mut self, device: &str, busy: &BTreeSet<NodeName>, aside: &mut Aside) {
        while let Some(first) = self.ready.first_entry() {
            if !busy.contains(&first.get().0) {
                return;
            }
            let (seq, (target, name)) = first.remove_entry();
            let waiting = aside.entry(target).or_default().entry(device.to_owned()).or_default();
            waiting.insert(seq, name);
        }
    }
}
