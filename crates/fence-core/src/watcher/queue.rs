//! What waits, and what may begin: in the order of arrival, one execution per machine, a bounded number
//! in each lane and in all.
//!
//! A lane is a fence device, or one address of a device that reaches each target in a place of its own.
//! The heads of the lanes that have room stand in one order, and a request whose machine is busy steps
//! aside until the machine is free. So looking for the next one never walks over what cannot begin.
//!
//! One machine can have several names, and one plug can have several targets when the configuration
//! changes. So a request holds its machine by the target's name and by what the device calls it.

use std::collections::{BTreeMap, BTreeSet};

use fence_protocol::RecordName;

/// Where executions count together: a device, and one address of it where it has several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The device's name.
    pub device: String,
    /// Where the target is reached, if the device tells its targets apart by that.
    pub address: Option<String>,
}

/// A machine that only one execution may act on at a time, by one of the ways to name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    /// By the name of the target; see [`fence_protocol::NodeName::machine`].
    Named(String),
    /// By what the device calls it.
    Called {
        /// The device's name.
        device: String,
        /// Its address and its plug there, as far as the device has them.
        plug: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    running_max: usize,
    running: usize,
    /// How many executions each device allows in each of its lanes.
    lane_max: BTreeMap<String, usize>,
    /// The lanes in which something runs or waits.
    lanes: BTreeMap<Lane, Waiting>,
    /// The first that waits in each lane that has room.
    heads: BTreeSet<(u64, Lane)>,
    busy: BTreeSet<Machine>,
    /// Those whose machine was busy when their turn came.
    aside: BTreeMap<Machine, BTreeMap<Lane, BTreeMap<u64, Waiter>>>,
}

/// Who waits: all names of its machine, and its record.
type Waiter = (Vec<Machine>, RecordName);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Waiting {
    running: usize,
    line: BTreeMap<u64, Waiter>,
    /// What of this lane stands among the heads.
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

    /// Sets new bounds. What runs goes on; nothing waits at this moment.
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
        // It may have been the one that was called up for its machine: then the next one is.
        self.call_up(machines);
    }

    /// The record that may begin, in the order of arrival; its lane and machine are taken.
    pub(super) fn take_next(&mut self) -> Option<RecordName> {
        while self.running < self.running_max {
            let (seq, lane) = self.heads.first()?.clone();
            let (machines, name) = self.change(&lane, |waiting| waiting.line.remove(&seq))?;
            if let Some(busy) = machines.iter().find(|machine| self.busy.contains(machine)) {
                let aside = self.aside.entry(busy.clone()).or_default().entry(lane).or_default();
                aside.insert(seq, (machines.clone(), name));
                // It was perhaps called up for another name, which is free: then the next one is.
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

    /// Whether nothing more may begin anywhere.
    pub(super) fn is_full(&self) -> bool {
        self.running >= self.running_max
    }

    /// Whether nothing more may begin in `lane`.
    pub(super) fn is_lane_full(&self, lane: &Lane) -> bool {
        let running = self.lanes.get(lane).map_or(0, |waiting| waiting.running);
        running >= self.lane_max.get(&lane.device).copied().unwrap_or(0)
    }

    /// Gives back what [`Queue::take_next`] took.
    pub(super) fn release(&mut self, lane: &Lane, machines: &[Machine]) {
        self.running -= 1;
        self.change(lane, |waiting| waiting.running -= 1);
        for machine in machines {
            self.busy.remove(machine);
        }
        self.call_up(machines);
    }

    /// Puts the first that stands aside for each of these names in each lane back into its line, if the
    /// name is free. The first that begins makes the others step aside again.
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

    /// Changes a lane and finds out anew whether its first may begin.
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
