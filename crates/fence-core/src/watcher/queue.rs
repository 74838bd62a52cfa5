//! The waiting requests, and which of them may start: in the order of arrival, one execution per
//! machine, with a limit for each lane and a limit for all.
//!
//! A lane is a fence device, or one address of a device that reaches each target at its own
//! address. The heads of the lanes that have room are kept in one order. A request whose machine is
//! busy steps aside until the machine is free. So the search for the next request never visits
//! requests that cannot start.
//!
//! A machine can have several names, and a plug can have several targets when the configuration
//! changes. So a request holds its machine by the target's name and by the device's name for it.

use std::collections::{BTreeMap, BTreeSet};

use fence_protocol::RecordName;

/// The unit in which executions are counted: a device, or one address of it if it has several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The device's name.
    pub device: String,
    /// The address of the target, if the device has one for each target.
    pub address: Option<String>,
}

/// A machine that only one execution at a time may act on, identified in one of two ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    /// By the name of the target; see [`fence_protocol::NodeName::machine`].
    Named(String),
    /// By the device's name for it.
    Called {
        /// The device's name.
        device: String,
        /// Its address and its plug there, if the device has them.
        plug: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    running_max: usize,
    running: usize,
    /// The number of executions that each device allows in each of its lanes.
    lane_max: BTreeMap<String, usize>,
    /// The lanes in which a request runs or waits.
    lanes: BTreeMap<Lane, Waiting>,
    /// The first waiting request of each lane that has room.
    heads: BTreeSet<(u64, Lane)>,
    busy: BTreeSet<Machine>,
    /// The requests whose machine was busy at their turn.
    aside: BTreeMap<Machine, BTreeMap<Lane, BTreeMap<u64, Waiter>>>,
}

/// A waiting request: all names of its machine, and its record.
type Waiter = (Vec<Machine>, RecordName);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Waiting {
    running: usize,
    line: BTreeMap<u64, Waiter>,
    /// The entry of this lane among the heads.
    head: Option<u64>,
}

impl Queue {
    pub(super) fn new(running_max: usize, lane_max: BTreeMap<String, usize>) -> Self {
        Queue {
            running_max,
            running: 0,
            lane_max,
            lanes: BTreeMap::new(),
            heads: BTreeSet::new(),
            busy: BTreeSet::new(),
            aside: BTreeMap::new(),
        }
    }

    /// Sets new limits. Running executions continue; no request waits at this moment.
    pub(super) fn set_bounds(&mut self, running_max: usize, lane_max: BTreeMap<String, usize>) {
        (self.running_max, self.lane_max) = (running_max, lane_max);
    }

    pub(super) fn push(&mut self, lane: &Lane, seq: u64, waiter: Waiter) {
        self.change(lane, |waiting| {
            waiting.line.insert(seq, waiter);
        });
    }

    pub(super) fn remove(&mut self, lane: &Lane, machines: &[Machine], seq: u64) {
        self.change(lane, |waiting| {
            waiting.line.remove(&seq);
        });
        for machine in machines {
            if let Some(waiting) = self.aside.get_mut(machine).and_then(|all| all.get_mut(lane)) {
                waiting.remove(&seq);
            }
        }
        // This request may have been the one called up for its machine: call up the next one.
        self.call_up(machines);
    }

    /// The next record that may start, in the order of arrival; its lane and machine become taken.
    pub(super) fn take_next(&mut self) -> Option<RecordName> {
        while self.running < self.running_max {
            let (seq, lane) = self.heads.first()?.clone();
            let (machines, name) = self.change(&lane, |waiting| waiting.line.remove(&seq))?;
            if let Some(busy) = machines.iter().find(|machine| self.busy.contains(machine)) {
                let aside = self.aside.entry(busy.clone()).or_default().entry(lane).or_default();
                aside.insert(seq, (machines.clone(), name));
                // It may have been called up for another name, which is free: call up the next one.
                self.call_up(&machines);
                continue;
            }
            self.change(&lane, |waiting| waiting.running += 1);
            self.running += 1;
            self.busy.extend(machines);
            return Some(name);
        }
        None
    }

    /// Whether the limit of all executions is reached.
    pub(super) fn is_full(&self) -> bool {
        self.running >= self.running_max
    }

    /// Whether the limit of `lane` is reached.
    pub(super) fn is_lane_full(&self, lane: &Lane) -> bool {
        let running = self.lanes.get(lane).map_or(0, |waiting| waiting.running);
        running >= self.lane_max.get(&lane.device).copied().unwrap_or(0)
    }

    /// Releases what [`Queue::take_next`] took.
    pub(super) fn release(&mut self, lane: &Lane, machines: &[Machine]) {
        self.running -= 1;
        self.change(lane, |waiting| waiting.running -= 1);
        for machine in machines {
            self.busy.remove(machine);
        }
        self.call_up(machines);
    }

    /// For each of these names that is free: puts the first request that stepped aside for it, in
    /// each lane, back into its queue. The first of these that starts makes the others step aside
    /// again.
    fn call_up(&mut self, machines: &[Machine]) {
        for machine in machines {
            if self.busy.contains(machine) {
                continue;
            }
            let Some(mut waiting) = self.aside.remove(machine) else { continue };
            for (lane, requests) in &mut waiting {
                if let Some((seq, waiter)) = requests.pop_first() {
                    self.push(lane, seq, waiter);
                }
            }
            waiting.retain(|_, requests| !requests.is_empty());
            if !waiting.is_empty() {
                self.aside.insert(machine.clone(), waiting);
            }
        }
    }

    /// Changes a lane, and determines again whether its first request may start.
    fn change<T>(&mut self, lane: &Lane, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let waiting = self.lanes.entry(lane.clone()).or_default();
        let result = change(waiting);
        let max = self.lane_max.get(&lane.device).copied().unwrap_or(0);
        let first = waiting.line.first_key_value().map(|(seq, _)| *seq);
        let head = first.filter(|_| waiting.running < max);
        if head != waiting.head {
            if let Some(before) = std::mem::replace(&mut waiting.head, head) {
                self.heads.remove(&(before, lane.clone()));
            }
            self.heads.extend(head.map(|seq| (seq, lane.clone())));
        }
        if waiting.running == 0 && waiting.line.is_empty() {
            self.lanes.remove(lane);
        }
        result
    }
}
