//! What must never have happened.

use fence_core::watcher::{Job, route};
use fence_protocol::RecordName;

use crate::actors::WatcherProcess;
use crate::disk::Dir;
use crate::setup::Setup;
use crate::world::World;

impl World {
    /// The device is about to be given the first order of an execution.
    pub(crate) fn check_start(&mut self, name: &RecordName, job: &Job) {
        let id = &job.request.request_id;
        if !self.ledger.claimed.contains(name) {
            return self.broken(format!("S1: {name} is executed and not claimed"));
        }
        let count = self.ledger.executed.entry(id.clone()).or_default();
        *count += 1;
        let count = *count;
        self.ledger.executions += 1;
        if count > 1 {
            return self.broken(format!("S2: {id} is executed {count} times"));
        }
        if self.ledger.withdrawn.contains(id) && !self.ledger.shared.contains(id) {
            return self.broken(format!("S4: {id} is executed after its withdrawal"));
        }
        if let Some(birth) = self.ledger.births.get(id)
            && !birth.age_is_lost
        {
            if birth.boot != self.boot {
                return self.broken(format!("S4: {id} of an earlier boot is executed"));
            }
            if birth.deadline_boot_ms <= self.now.boot_ms {
                return self.broken(format!("S4: {id} is executed after its deadline"));
            }
        }
        if job.request.held && !self.ledger.checked.contains(name) {
            self.broken(format!("S4: {id} is executed and its client was not looked for"));
        }
    }

    /// An execution is about to begin, in a thread of its own.
    pub(crate) fn check_begin(&mut self, index: usize, name: &RecordName) {
        let Some(watcher) = &self.watchers[index] else { return };
        let Some(execution) = watcher.executions.get(name) else { return };
        let job = &execution.job;
        let others = || watcher.executions.values().map(|other| &other.job);
        let same_target = others().filter(|other| other.target == job.target).count();
        let same_lane = others().filter(|other| other.lane == job.lane).count();
        let is_busy = |w: &&WatcherProcess| w.busy().contains(&job.target);
        let elsewhere = self.watchers.iter().flatten().filter(is_busy).count();
        let devices = watcher.setup.devices(self.config.max_concurrent);
        let device = devices.iter().find(|device| device.name == job.lane.device);
        // Whose list came first decides where devices list their targets.
        let may_be_any = watcher.setup == Setup::Listing;
        let named = job.request.device.as_deref();
        let named = named.or(may_be_any.then_some(job.lane.device.as_str()));
        let found = if same_target > 1 || (self.config.lock && elsewhere > 1) {
            format!("S6: {} is acted on twice at the same time", job.target)
        } else if device.is_some_and(|device| same_lane > device.max_concurrent) {
            format!("S6: more is done at the same time than may be, in {:?}", job.lane)
        } else if route(&devices, named, &job.target, job.action)
            .map(|device| device.lane(&job.target))
            != Ok(job.lane.clone())
        {
            format!("S6: {name} is executed in {:?}, not where it belongs", job.lane)
        } else {
            return;
        };
        self.broken(found);
    }

    /// What a watcher that has nothing to do leaves undone.
    pub(crate) fn check_idle(&mut self) {
        // A claim that the disk refused, or that a second watcher was faster with, is tried later.
        if !self.config.lock || self.config.budget.full_disks > 0 {
            return;
        }
        let is_idle = |w: &&WatcherProcess| w.todo.is_empty() && !w.is_stopping;
        let mut idle = self.watchers.iter().flatten().filter(is_idle);
        let forgotten = idle.find_map(WatcherProcess::forgotten).cloned();
        if let Some(job) = forgotten {
            self.broken(format!("S6: nothing keeps {} from being begun", job.request.request_id));
        }
    }

    /// Whether nothing is left to happen but faults, while a watcher is there.
    pub fn is_at_rest(&self) -> bool {
        let mut watchers = self.watchers.iter().flatten().peekable();
        watchers.peek().is_some()
            && watchers.all(|watcher| watcher.core.next_tick_boot_ms().is_none())
            && self.actions(true).is_empty()
    }

    /// What must hold when nothing is left to happen.
    pub fn check_end(&mut self) {
        if !self.config.lock {
            return;
        }
        let left = self.disk.list(Dir::Claimed);
        if !left.is_empty() {
            return self.broken(format!("S5: {left:?} were claimed and are not answered"));
        }
        let disk = &self.disk;
        let unanswered = self
            .ledger
            .claimed
            .iter()
            .find(|name| !disk.has(Dir::Responses, &name.file_name()))
            .cloned();
        if let Some(name) = unanswered {
            self.broken(format!("S5: {name} was claimed and has no answer"));
        }
    }
}
