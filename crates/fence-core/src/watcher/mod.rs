//! What the watcher decides: which request starts, when, and the answer to each.
//!
//! The directory is the queue. This value only remembers what it has seen there, so its loss (a
//! crash) loses no request: the next watcher sees the pending requests again and answers the
//! claimed ones "interrupted". Every effect is one step on the disk or one order to a worker, and
//! its outcome comes back as an event. So a simulation can stop the world between any two of them.
//!
//! `intake` judges incoming files. `queue` holds the waiting requests. `route` chooses the device
//! for a request, with the devices' own lists of targets from `lists`. `fenced` answers a request
//! that another execution has dealt with. `reload` takes a new configuration over. The steps on a
//! device are in [`crate::execution`].

mod answering;
mod event;
mod fenced;
mod intake;
mod lists;
mod queue;
mod reload;
mod returning;
mod route;

use std::collections::{BTreeMap, BTreeSet};

use fence_protocol::{Answer, FenceAction, NodeName, RecordName, Request, RequestId};

use crate::Now;
use answering::{refusal, refusal_of};
pub use event::{Claim, Content, Effect, Event, Sight};
pub use fenced::NOT_FENCED_AGAIN;
use fenced::{Fenced, FirstSeen};
use lists::Asked;
use queue::Queue;
pub use queue::{Lane, Machine};
pub use returning::OnResult;
use returning::Returning;
pub use route::{Coverage, Device, Unroutable, outdated, route, unlisted};

/// What a watcher must know besides its devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// This boot's identity (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The lifetime of a request that names no deadline, in milliseconds after it was written.
    pub default_deadline_ms: u64,
    /// The maximum number of concurrent executions, over all devices.
    pub max_running: usize,
}

/// A request that waits or runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// Its place in the order of arrival.
    pub seq: u64,
    /// The request that the client wrote.
    pub request: Request,
    /// The action, which is a fence.
    pub action: FenceAction,
    /// The target, which a fence always has.
    pub target: NodeName,
    /// The device that serves the request, and the lane.
    pub lane: Lane,
    /// The machine that the fence acts on, by all its names.
    pub machines: Vec<Machine>,
    /// When this watcher first saw it, in milliseconds of `CLOCK_BOOTTIME`.
    pub seen_boot_ms: u64,
    /// The instant after which the request must not start, in milliseconds of `CLOCK_BOOTTIME`.
    pub deadline_boot_ms: u64,
    /// The same on the wall clock, in milliseconds since 1970, if the client knows no other clock.
    pub deadline_wall_ms: Option<i64>,
}

impl Job {
    /// The current deadline: a wall clock that was set forward meanwhile brings it closer.
    pub fn deadline_at(&self, now: Now) -> u64 {
        let by_wall = self.deadline_wall_ms.map(|deadline| {
            let left = deadline.saturating_sub(now.wall_ms);
            now.boot_ms.saturating_add(u64::try_from(left).unwrap_or(0))
        });
        by_wall.map_or(self.deadline_boot_ms, |by_wall| self.deadline_boot_ms.min(by_wall))
    }
}

/// Whether a client still waits for a request. `is_holder` says whether the client declared that it
/// holds a lock; `held` is the lock on the claimed file: held or free, or `None` if the file is
/// gone or cannot be checked.
pub fn is_awaited(is_holder: bool, held: Option<bool>) -> bool {
    // An older client holds no lock, and waits until its deadline.
    held.is_some_and(|is_held| is_held || !is_holder)
}

/// How long after its last change an unreadable request may still become readable, in milliseconds.
pub const WRITE_GRACE_MS: u64 = 3_000;

/// How long the watcher follows an unreadable request that keeps changing, in milliseconds.
pub const WRITE_LIMIT_MS: u64 = 30_000;

/// The time between two looks at an unreadable request, in milliseconds.
const WRITE_LOOK_MS: u64 = 250;

/// The pause before the watcher repeats a write or a claim that the disk refused, in milliseconds.
const DISK_RETRY_MS: u64 = 1_000;

/// What follows an answer that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    RemoveClaimed,
    RemovePending,
    SetAside,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Unreadable so far: when it was first seen, when it last changed, and its size and time then.
    Young { first_boot_ms: u64, changed_boot_ms: u64, changed: (u64, i64) },
    /// Waits until devices have returned their lists of targets; then it is looked at again.
    Unlisted,
    /// Waits for its device and its target.
    Queued(Job),
    /// The disk refused the claim; the watcher will try again.
    Stalled(Job),
    /// Being claimed.
    Claiming(Job),
    /// Being claimed to get this answer: another execution has dealt with it.
    Joining(Job, Answer),
    /// Being executed since this instant.
    Running(Job, u64),
    /// A question that a device is being asked.
    Inquiring(Request),
    /// The answer is being written, or will be written again; with the request, as in
    /// [`Effect::Answer`].
    Answering(Answer, Option<Request>, Then),
}

/// The watcher's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watcher {
    settings: Settings,
    devices: Vec<Device>,
    /// The devices that were asked for their targets.
    asked: BTreeMap<String, Asked>,
    /// All known requests, each with the instant at which time alone changes its state.
    records: BTreeMap<RecordName, (State, Option<u64>)>,
    /// The identities of all queued, running and unanswered requests.
    ids: BTreeMap<RequestId, RecordName>,
    queue: Queue,
    timers: BTreeSet<(u64, RecordName)>,
    /// The queued requests for each machine; see [`NodeName::machine`].
    queued_for: BTreeMap<String, BTreeSet<RecordName>>,
    first_seen: FirstSeen,
    /// The machines that were switched off since the first waiting request was seen.
    fenced: BTreeMap<String, Fenced>,
    /// The targets that await their power-on, by the request that switched them off.
    returning: BTreeMap<RequestId, Returning>,
    next_seq: u64,
    stopping: Option<Stopping>,
}

/// A watcher that is stopping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stopping {
    /// The executions that ran when the watcher was asked to stop, and still run.
    running: BTreeSet<RecordName>,
    /// Until when free lanes are served while any of them runs.
    serve_until_boot_ms: u64,
}

impl Watcher {
    /// A watcher that has seen nothing yet. `devices` is in the order of the configuration.
    pub fn new(settings: Settings, devices: Vec<Device>) -> Self {
        let queue = Queue::new(settings.max_running, lane_max(&devices));
        Watcher {
            settings,
            devices,
            asked: BTreeMap::new(),
            records: BTreeMap::new(),
            ids: BTreeMap::new(),
            queue,
            timers: BTreeSet::new(),
            queued_for: BTreeMap::new(),
            first_seen: FirstSeen::default(),
            fenced: BTreeMap::new(),
            returning: BTreeMap::new(),
            next_seq: 0,
            stopping: None,
        }
    }

    /// Takes an event and returns what to do, in this order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Recovered(name, sight) => self.recovered(name, sight, &mut effects),
            Event::Seen(name, sight) => self.seen(name, sight, now, &mut effects),
            Event::Claim(name, claim) => self.claim(name, claim, now, &mut effects),
            Event::Finished(name, verdict) => self.finished(name, &verdict, now, &mut effects),
            Event::Inquired(name, reached, words) => {
                self.inquired(name, reached, words, &mut effects);
            }
            Event::Answered(name, written) => self.answered(name, written, now, &mut effects),
            Event::Targets(device, targets) => self.listed(&device, targets, now, &mut effects),
            Event::Tick => self.tick(now, &mut effects),
            Event::Reconfigured(settings, devices) => {
                self.reconfigured(settings, devices, &mut effects);
            }
            Event::Stop(serve_until) => self.stop(serve_until, now),
            Event::OnOrdered(id) => self.on_ordered(&id),
            Event::OnOver(id, verdict) => self.on_over(&id, &verdict, &mut effects),
            Event::LeftReturning(request) => Self::left_returning(request, &mut effects),
        }
        if self.may_begin(now) {
            self.begin(now, &mut effects);
        }
        if self.yield_returns(&mut effects) && self.may_begin(now) {
            self.begin(now, &mut effects);
        }
        effects
    }

    /// The instant (milliseconds of `CLOCK_BOOTTIME`) at which the next [`Event::Tick`] is due.
    pub fn next_tick_boot_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether `name` is known: a known file needs another look only after a change.
    pub fn knows(&self, name: &RecordName) -> bool {
        self.records.contains_key(name)
    }

    /// Whether no request is being claimed, executed or answered, and no target awaits its
    /// power-on.
    pub fn is_idle(&self) -> bool {
        self.returning.is_empty()
            && self.records.values().all(|(state, _)| {
                matches!(
                    state,
                    State::Young { .. } | State::Unlisted | State::Queued(_) | State::Stalled(_)
                )
            })
    }

    /// The running executions, each with its start (milliseconds of `CLOCK_BOOTTIME`).
    pub fn running(&self) -> impl Iterator<Item = (&RecordName, &Job, u64)> {
        self.records.iter().filter_map(|(name, (state, _))| match state {
            State::Running(job, since) => Some((name, job, *since)),
            _ => None,
        })
    }

    /// The requests that are being claimed or executed.
    pub fn begun(&self) -> impl Iterator<Item = &RecordName> {
        let is_begun = |state: &State| matches!(state, State::Claiming(_) | State::Running(..));
        self.records.iter().filter(move |(_, (state, _))| is_begun(state)).map(|(name, _)| name)
    }

    /// The requests that are being claimed to be answered from another execution.
    pub fn joining(&self) -> impl Iterator<Item = (&RecordName, &Job)> {
        self.records.iter().filter_map(|(name, (state, _))| match state {
            State::Joining(job, _) => Some((name, job)),
            _ => None,
        })
    }

    /// The job that is being executed under `name`.
    pub fn executed(&self, name: &RecordName) -> Option<&Job> {
        match self.records.get(name) {
            Some((State::Running(job, _), _)) => Some(job),
            _ => None,
        }
    }

    /// The requests that wait for their device or their target.
    pub fn queued(&self) -> impl Iterator<Item = &Job> {
        self.records.values().filter_map(|(state, _)| match state {
            State::Queued(job) | State::Stalled(job) => Some(job),
            _ => None,
        })
    }

    /// Whether the request `id` switched its target off and the target awaits its power-on.
    pub fn brings_back(&self, id: &RequestId) -> bool {
        self.returning.contains_key(id)
    }

    /// The number of answers that wait to be written.
    pub fn unanswered(&self) -> usize {
        self.records.values().filter(|(state, _)| matches!(state, State::Answering(..))).count()
    }

    /// The fence devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn stop(&mut self, serve_until_boot_ms: Option<u64>, now: Now) {
        self.stopping = Some(Stopping {
            running: self.begun().cloned().collect(),
            serve_until_boot_ms: serve_until_boot_ms.unwrap_or(now.boot_ms),
        });
    }

    /// Whether the watcher starts new requests. A stopping watcher continues as long as it must
    /// wait for the executions that ran when it was asked to stop: no other watcher can serve the
    /// free lanes before it has ended.
    fn may_begin(&self, now: Now) -> bool {
        self.stopping.as_ref().is_none_or(|stopping| {
            (!stopping.running.is_empty() || self.is_ordering_on())
                && now.boot_ms < stopping.serve_until_boot_ms
        })
    }

    /// The execution or claim under `name` has ended.
    fn released(&mut self, name: &RecordName, job: &Job) {
        self.queue.release(&job.lane, &job.machines);
        self.ended(name);
    }

    /// The execution under `name` no longer delays the watcher's end.
    fn ended(&mut self, name: &RecordName) {
        if let Some(stopping) = &mut self.stopping {
            stopping.running.remove(name);
        }
    }

    /// Claims the requests that may start now.
    fn begin(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(name) = self.queue.take_next() {
            let Some(State::Queued(job)) = self.take(&name) else {
                unreachable!("the queue holds only queued requests")
            };
            if job.deadline_at(now) <= now.boot_ms {
                self.queue.release(&job.lane, &job.machines);
                self.expire(name, job, effects);
                continue;
            }
            let sync = job.request.boot_id.is_none();
            effects.push(Effect::Claim { name: name.clone(), sync });
            self.put(name, State::Claiming(job), None);
        }
    }

    fn claim(&mut self, name: RecordName, claim: Claim, now: Now, effects: &mut Vec<Effect>) {
        // A request that another execution has dealt with holds no lane.
        let (mut job, settled) = match self.take(&name) {
            Some(State::Claiming(job)) => (job, None),
            Some(State::Joining(job, answer)) => (job, Some(answer)),
            other => return self.put_back(name, other),
        };
        let (refusal, request) = match claim {
            Claim::Claimed { parsed, client_gone, begun_before } => {
                let refusal = refusal(&job, &parsed, client_gone, begun_before, now);
                (refusal, parsed.unwrap_or_else(|_| job.request.clone()))
            }
            Claim::Gone => {
                if settled.is_none() {
                    self.released(&name, &job);
                }
                self.ids.remove(&job.request.request_id);
                self.forget_sight(&name);
                return;
            }
            Claim::Failed(why) => {
                if settled.is_none() {
                    self.released(&name, &job);
                }
                effects.push(Effect::Note(name.clone(), format!("cannot claim it yet: {why}")));
                return self.put(
                    name,
                    State::Stalled(job),
                    Some(now.boot_ms.saturating_add(DISK_RETRY_MS)),
                );
            }
        };
        let refused = refusal.map(|(result, why)| refusal_of(&job.request, result, why));
        if refused.is_some() && settled.is_none() {
            self.released(&name, &job);
        }
        if let Some(answer) = refused.or(settled) {
            return self.answer(name, answer, Some(request), Then::RemoveClaimed, effects);
        }
        job.deadline_boot_ms = job.deadline_at(now);
        self.note_begin(&job);
        effects.push(Effect::Execute(name.clone(), job.clone()));
        self.put(name, State::Running(job, now.boot_ms), None);
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((at, name)) = self.timers.first().cloned()
            && at <= now.boot_ms
        {
            match self.take(&name) {
                Some(State::Queued(job)) => {
                    self.queue.remove(&job.lane, &job.machines, job.seq);
                    self.expire(name, job, effects);
                }
                Some(State::Stalled(job)) => {
                    // Look again: the client may have withdrawn the request, or its deadline may
                    // have passed.
                    self.ids.remove(&job.request.request_id);
                    effects.push(Effect::Look(name));
                }
                Some(State::Answering(answer, request, then)) => {
                    self.answer(name, answer, request, then, effects);
                }
                // If the look fails, the request is unknown, and the next look finds it.
                Some(State::Unlisted) => effects.push(Effect::Look(name)),
                Some(young) => {
                    // A look that fails temporarily reports nothing: then the watcher looks again.
                    self.put(name.clone(), young, Some(now.boot_ms.saturating_add(DISK_RETRY_MS)));
                    effects.push(Effect::Look(name));
                }
                None => {}
            }
        }
    }

    /// Puts a job into the queue of its lane.
    fn enqueue(&mut self, name: RecordName, job: Job) {
        self.queue.push(&job.lane, job.seq, (job.machines.clone(), name.clone()));
        let deadline = job.deadline_boot_ms;
        self.put(name, State::Queued(job), Some(deadline));
    }

    fn put(&mut self, name: RecordName, state: State, timer_boot_ms: Option<u64>) {
        if let Some(at) = timer_boot_ms {
            self.timers.insert((at, name.clone()));
        }
        if let State::Queued(job) = &state {
            self.queued_for.entry(job.target.machine()).or_default().insert(name.clone());
        }
        self.records.insert(name, (state, timer_boot_ms));
    }

    /// Removes the state of `name`, which is then unknown and has no timer.
    fn take(&mut self, name: &RecordName) -> Option<State> {
        let (state, timer) = self.records.remove(name)?;
        if let Some(at) = timer {
            self.timers.remove(&(at, name.clone()));
        }
        if let State::Queued(job) = &state
            && let Some(queued) = self.queued_for.get_mut(&job.target.machine())
        {
            queued.remove(name);
            if queued.is_empty() {
                self.queued_for.remove(&job.target.machine());
            }
        }
        Some(state)
    }

    /// Undoes a [`Watcher::take`] that found an unexpected state; the timer is spent.
    fn put_back(&mut self, name: RecordName, state: Option<State>) {
        if let Some(state) = state {
            self.put(name, state, None);
        }
    }
}

/// The number of executions that each device allows in each of its lanes.
fn lane_max(devices: &[Device]) -> BTreeMap<String, usize> {
    devices.iter().map(|device| (device.name.clone(), device.max_concurrent)).collect()
}

#[cfg(test)]
mod tests;
