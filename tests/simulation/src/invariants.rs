//! What must never happen.

use std::collections::BTreeSet;

use fence_core::execution::Step;
use fence_core::watcher::{Event, Job, route};
use fence_protocol::{Answer, FenceAction, NodeName, RecordName, Request, RequestId};

use crate::action::Mutation;
use crate::actors::{Execution, Made, WatcherProcess};
use crate::disk::Dir;
use crate::setup::Setup;
use crate::sights::is_off_of_reboot;
use crate::world::{STOP_MS, World};

impl World {
    /// The device is about to receive the first order of an execution.
    pub(crate) fn check_start(&mut self, name: &RecordName, job: &Job) {
        let id = &job.request.request_id;
        if !self.ledger.claimed.contains(name) {
            return self.broken(format!("S1: {name} is executed but not claimed"));
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
            self.broken(format!("S4: {id} is executed without a look for its client"));
        }
    }

    /// An execution is about to start, in its own thread.
    pub(crate) fn check_begin(&mut self, index: usize, name: &RecordName) {
        let Some(watcher) = &self.watchers[index] else { return };
        let Some(execution) = watcher.executions.get(name) else { return };
        let job = &execution.job;
        let others = || watcher.executions.values().map(|other| &other.job);
        let same_lane = others().filter(|other| other.lane == job.lane).count();
        let is_busy = |w: &&WatcherProcess| w.busy().contains(&job.target);
        let elsewhere = self.watchers.iter().flatten().filter(is_busy).count();
        let devices = watcher.setup.devices(self.config.max_concurrent);
        let device = devices.iter().find(|device| device.name == job.lane.device);
        let machines = |execution: &Execution| {
            execution.setup.place(&execution.job).map_or(Vec::new(), |(_, machines)| machines)
        };
        let own = machines(execution);
        let is_same = |other: &&Execution| {
            other.job.target == job.target || machines(other).iter().any(|m| own.contains(m))
        };
        let same_machine = watcher.executions.values().filter(is_same).count();
        // Its power-on is on its way.
        let is_returning = |other: &&Execution| !other.has_begun && is_same(other);
        let returning = watcher.returns.values().find(is_returning);
        // The watcher has not received this end yet.
        let is_over = |event: &Event| matches!(event, Event::OnOver(..));
        let brings_back = !watcher.returns.is_empty() || watcher.told.iter().any(is_over);
        let is_late = watcher.stopping.as_ref().is_some_and(|ran| {
            !ran.contains(name)
                && !watcher.core.begun().any(|begun| ran.contains(begun))
                && !brings_back
        });
        // If devices list their targets, the first list that arrives decides.
        let may_be_any = watcher.setup == Setup::Listing;
        let named = job.request.device.as_deref();
        let named = named.or(may_be_any.then_some(job.lane.device.as_str()));
        let found = if is_late {
            format!("stop: {name} is started, but nothing delays the watcher's end")
        } else if returning.is_some() {
            format!("S6: {} is fenced while its power-on is on its way", job.target)
        } else if same_machine > 1 || (self.config.lock && elsewhere > 1) {
            format!("S6: {} is acted on twice at the same time", job.target)
        } else if device.is_some_and(|device| same_lane > device.max_concurrent) {
            format!("S6: more executions run at the same time than allowed in {:?}", job.lane)
        } else if route(&devices, named, &job.target, job.action)
            .map(|device| device.lane(&job.target))
            != Ok(job.lane.clone())
        {
            format!("S6: {name} is executed in {:?}, which is the wrong lane", job.lane)
        } else {
            return;
        };
        self.broken(found);
    }

    /// The answer under `name` is on the disk.
    pub(crate) fn note_answered(&mut self, name: &RecordName) {
        let Some(answer) = self.disk.file(Dir::Responses, &name.file_name()) else { return };
        let claimed = self.disk.file(Dir::Claimed, &name.file_name());
        if is_off_of_reboot(&answer.bytes)
            && let Some(Ok(request)) = claimed.map(|file| Request::parse(&file.bytes))
        {
            let id = request.request_id;
            if !self.ledger.on_noted.contains(&id) {
                self.ledger.on_due.insert(id);
            }
        }
    }

    /// The power-on of the request `id` is ordered.
    pub(crate) fn check_power_on(&mut self, index: usize, id: &RequestId) {
        let now = self.watcher_now();
        let Some(watcher) = &mut self.watchers[index] else { return };
        let Some(execution) = watcher.returns.get(id) else { return };
        let job = execution.job.clone();
        let is_fence = |other: &&Job| {
            other.action != FenceAction::On
                && other.machines.iter().any(|machine| job.machines.contains(machine))
        };
        // Another process's answer may exist under its name.
        self.ledger.on_due.insert(id.clone());
        let is_ordered = matches!(execution.step, Step::Order(..));
        let is_late = is_ordered && job.deadline_at(now) <= now.boot_ms;
        let found = if watcher.brings_back_late {
            format!("stop: a stopping watcher orders the power-on of {id}")
        } else if is_late {
            format!("S4: the power-on of {id} is ordered after its deadline")
        } else if let Some(other) = watcher.core.queued().find(is_fence) {
            format!("S6: the power-on of {id} is ordered though {} waits", other.request.request_id)
        } else {
            if self.config.mutation == Some(Mutation::FenceBesideItsOn) {
                self.feed(index, Event::OnOrdered(id.clone()));
            }
            return;
        };
        self.broken(found);
    }

    /// The device is about to receive the first order for `job`, and nothing has dealt with that
    /// death since the request was seen.
    pub(crate) fn check_second_fence(&mut self, index: usize, name: &RecordName, job: &Job) {
        let Some(watcher) = &self.watchers[index] else { return };
        let Some(made) = watcher.offs.get(&job.target) else { return };
        let setup = watcher.executions.get(name).map_or(watcher.setup, |execution| execution.setup);
        let suits = match job.action {
            FenceAction::Reboot => true,
            FenceAction::Off => !made.on_since,
            FenceAction::On => false,
        };
        if made.settles.contains(name) && suits && setup.place(job) == made.place {
            self.broken(format!("S4: {name} is a second fence for one death"));
        }
    }

    /// The answer is success: checks what proves it.
    pub(crate) fn check_success(&mut self, index: usize, name: &RecordName, answer: &Answer) {
        let Some(id) = &answer.request_id else { return };
        if self.ledger.proven.contains(id) {
            return;
        }
        let made = answer.target_node.as_ref().and_then(|target| {
            self.watchers[index].as_ref().and_then(|watcher| watcher.offs.get(target))
        });
        let birth = self.ledger.births.get(id);
        let is_settled = made.zip(birth).is_some_and(|(made, birth)| {
            made.at_boot_ms >= birth.at_boot_ms && (answer.action != "off" || !made.on_since)
        });
        if is_settled {
            self.ledger.proven.insert(id.clone());
        } else {
            self.broken(format!("S3: {name} is answered success without proof"));
        }
    }

    /// The requests that the watcher has just decided to answer from another execution: that
    /// execution must have been done where these requests would be done now.
    pub(crate) fn check_joins(&mut self, index: usize) {
        let Some(watcher) = &mut self.watchers[index] else { return };
        let joining: BTreeSet<_> = watcher.core.joining().map(|(name, _)| name.clone()).collect();
        // Another execution, at another place, may have shown it off since.
        let is_settled_elsewhere =
            |job: &Job| !watcher.places.contains(&(job.target.clone(), watcher.setup.place(job)));
        let is_new = |name: &RecordName| !watcher.joining.contains(name);
        let wrong = watcher.core.joining().find_map(|(name, job)| {
            (is_new(name) && is_settled_elsewhere(job)).then(|| name.clone())
        });
        watcher.joining = joining;
        if let Some(name) = wrong {
            self.broken(format!("S3: {name} is settled by a fence of another machine"));
        }
    }

    /// A device showed the target of `job` off, during a fence under the configuration `setup`.
    pub(crate) fn note_off(&mut self, index: usize, job: &Job, setup: Setup) {
        let at_boot_ms = self.now.boot_ms;
        let Some(watcher) = &mut self.watchers[index] else { return };
        let is_about_it = |request: &Request| request.target_node.as_ref() == Some(&job.target);
        let seen = watcher.seen.iter().filter(|(_, request)| is_about_it(request));
        let made = Made {
            at_boot_ms,
            place: setup.place(job),
            settles: seen.map(|(name, _)| name.clone()).collect(),
            on_since: false,
        };
        watcher.places.insert((job.target.clone(), made.place.clone()));
        watcher.offs.insert(job.target.clone(), made);
    }

    /// An order is given that switches `target` on.
    pub(crate) fn note_on(&mut self, index: usize, target: &NodeName) {
        if let Some(watcher) = &mut self.watchers[index]
            && let Some(made) = watcher.offs.get_mut(target)
        {
            made.on_since = true;
        }
    }

    /// What an idle watcher leaves undone.
    pub(crate) fn check_idle(&mut self) {
        // A claim that the disk refused, or that a second watcher won, is tried again later.
        if !self.config.lock || self.config.budget.full_disks > 0 {
            return;
        }
        let is_idle = |w: &&WatcherProcess| {
            let serves = w.stopping.as_ref().is_none_or(|ran| {
                w.core.begun().any(|begun| ran.contains(begun))
                    && self.now.boot_ms < w.stopped_boot_ms + STOP_MS
            });
            w.todo.is_empty() && serves
        };
        let mut idle = self.watchers.iter().flatten().filter(is_idle);
        let forgotten = idle.find_map(WatcherProcess::forgotten).cloned();
        if let Some(job) = forgotten {
            self.broken(format!("S6: {} waits though nothing delays it", job.request.request_id));
        }
    }

    /// Whether only faults can still happen, while a watcher runs.
    pub fn is_at_rest(&self) -> bool {
        let mut watchers = self.watchers.iter().flatten().peekable();
        watchers.peek().is_some()
            && watchers.all(|watcher| watcher.core.next_tick_boot_ms().is_none())
            && self.actions(true).is_empty()
    }

    /// What must hold when nothing more can happen.
    pub fn check_end(&mut self) {
        if !self.config.lock {
            return;
        }
        let left = self.disk.list(Dir::Claimed);
        if !left.is_empty() {
            return self.broken(format!("S5: {left:?} were claimed but not answered"));
        }
        if let Some(id) = self.ledger.on_due.first() {
            let what = format!("audit: no outcome is recorded for the power-on of {id}");
            return self.broken(what);
        }
        let disk = &self.disk;
        let unanswered = self
            .ledger
            .claimed
            .iter()
            .find(|name| !disk.has(Dir::Responses, &name.file_name()))
            .cloned();
        if let Some(name) = unanswered {
            self.broken(format!("S5: {name} was claimed but has no answer"));
        }
    }
}
