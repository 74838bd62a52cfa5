//! What the watcher decides: which request is begun, when, and what each is answered.
//!
//! The directory is the queue. This value only remembers what it has seen of it, so losing it (a
//! crash) loses no request: what was pending is seen again, what was claimed is answered
//! "interrupted". Every effect is one step on the disk or one order to a worker, and its outcome
//! comes back as an event, so a simulation can stop the world between any two of them.
//!
//! What comes in is judged in `intake`; what waits stands in `queue`; where a request goes is decided
//! in `route`, with the devices' own lists of targets from `lists`; what another execution has dealt
//! with is answered in `fenced`; a new configuration is taken over in `reload`. What a device does is none
//! of this: see [`crate::execution`].

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

/// What a watcher has to know besides its devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// This boot's identity (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// How long a request lives that names no deadline, in milliseconds after it was written.
    pub default_deadline_ms: u64,
    /// The most executions at the same time, over all devices.
    pub max_running: usize,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// Its place in the order of arrival.
    pub seq: u64,
    /// What the client wrote.
    pub request: Request,
    /// The action, which is a fence.
    pub action: FenceAction,
    /// The target, which a fence always has.
    pub target: NodeName,
    /// The device that serves it, and where.
    pub lane: Lane,
    /// The machine that it acts on, by all its names.
    pub machines: Vec<Machine>,
    /// When this watcher first saw it, in milliseconds of `CLOCK_BOOTTIME`.
    pub seen_boot_ms: u64,
    /// The instant after which it must not begin, in milliseconds of `CLOCK_BOOTTIME`.
    pub deadline_boot_ms: u64,
    /// The same by the wall clock, in milliseconds since 1970, where the client knows no other.
    pub deadline_wall_ms: Option<i64>,
}

impl Job {
    /// Its deadline as it is now: a wall clock that was set forward meanwhile brings it closer.
    pub fn deadline_at(&self, now: Now) -> u64 {
        let by_wall = self.deadline_wall_ms.map(|deadline| {
            let left = deadline.saturating_sub(now.wall_ms);
            now.boot_ms.saturating_add(u64::try_from(left).unwrap_or(0))
        });
        by_wall.map_or(self.deadline_boot_ms, |by_wall| self.deadline_boot_ms.min(by_wall))
    }
}

/// Whether somebody still waits for a request. `is_holder` tells whether its client said that it holds
/// it; `held` what the claimed file shows: whether anybody holds it, or `None` where it is gone or
/// cannot be looked at.
pub fn is_awaited(is_holder: bool, held: Option<bool>) -> bool {
    // An older client holds nothing, and waits until its deadline.
    held.is_some_and(|is_held| is_held || !is_holder)
}

/// How long an unreadable request is given to become readable, in milliseconds after its last change.
pub const WRITE_GRACE_MS: u64 = 3_000;

/// How long an unreadable request that keeps changing is followed, in milliseconds.
pub const WRITE_LIMIT_MS: u64 = 30_000;

/// How often an unreadable request is looked at, in milliseconds.
const WRITE_LOOK_MS: u64 = 250;

/// The pause before a write or a claim that the disk refused is tried again, in milliseconds.
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
    /// Unreadable so far: first seen, last seen to change, and what it looked like then.
    Young { first_boot_ms: u64, changed_boot_ms: u64, changed: (u64, i64) },
    /// Waits until devices have listed their targets; then it is looked at again.
    Unlisted,
    /// Waits for its device and its target.
    Queued(Job),
    /// The disk refused the claim; it will be tried again.
    Stalled(Job),
    /// Being claimed.
    Claiming(Job),
    /// Being claimed to be answered like this: another execution has dealt with it.
    Joining(Job, Answer),
    /// Being executed since this instant.
    Running(Job, u64),
    /// A question, being asked.
    Inquiring(Request),
    /// Its answer is being written, or will be again; with the request, as in [`Effect::Answer`].
    Answering(Answer, Option<Request>, Then),
}

/// The watcher's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watcher {
    settings: Settings,
    devices: Vec<Device>,
    /// The devices that were asked for their targets.
    asked: BTreeMap<String, Asked>,
    /// What is known, each with the instant at which time alone moves it on.
    records: BTreeMap<RecordName, (State, Option<u64>)>,
    /// The identities of what is queued, running or being answered.
    ids: BTreeMap<RequestId, RecordName>,
    queue: Queue,
    timers: BTreeSet<(u64, RecordName)>,
    /// What is queued for each machine; see [`NodeName::machine`].
    queued_for: BTreeMap<String, BTreeSet<RecordName>>,
    first_seen: FirstSeen,
    /// The machines that were made off since the first of what waits was seen.
    fenced: BTreeMap<String, Fenced>,
    /// The targets that are to be brought back, by the request that made them off.
    returning: BTreeMap<RequestId, Returning>,
    next_seq: u64,
    stopping: Option<Stopping>,
}

/// A watcher that is to end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stopping {
    /// What ran when it was told so, and still runs.
    running: BTreeSet<RecordName>,
    /// Until when free lanes are served while any of that runs.
    serve_until_boot_ms: u64,
}

impl Watcher {
    /// A watcher that has seen nothing yet. `devices` in the order of the configuration.
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

    /// Takes an event and says what is to be done, in this order.
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

    /// Whether `name` is known: a file of that name need not be looked at again but for a change.
    pub fn knows(&self, name: &RecordName) -> bool {
        self.records.contains_key(name)
    }

    /// Whether nothing is being claimed, executed or answered, and no target is being brought back.
    pub fn is_idle(&self) -> bool {
        self.returning.is_empty()
            && self.records.values().all(|(state, _)| {
                matches!(
                    state,
                    State::Young { .. } | State::Unlisted | State::Queued(_) | State::Stalled(_)
                )
            })
    }

    /// What is being executed, and since when (milliseconds of `CLOCK_BOOTTIME`).
    pub fn running(&self) -> impl Iterator<Item = (&RecordName, &Job, u64)> {
        self.records.iter().filter_map(|(name, (state, _))| match state {
            State::Running(job, since) => Some((name, job, *since)),
            _ => None,
        })
    }

    /// What is being claimed or executed.
    pub fn begun(&self) -> impl Iterator<Item = &RecordName> {
        let is_begun = |state: &State| matches!(state, State::Claiming(_) | State::Running(..));
        self.records.iter().filter(move |(_, (state, _))| is_begun(state)).map(|(name, _)| name)
    }

    /// What is being claimed to be answered from another execution.
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

    /// What waits for its device or its target.
    pub fn queued(&self) -> impl Iterator<Item = &Job> {
        self.records.values().filter_map(|(state, _)| match state {
            State::Queued(job) | State::Stalled(job) => Some(job),
            _ => None,
        })
    }

    /// Whether the target of the request `id` is off by it, and is to be brought back.
    pub fn brings_back(&self, id: &RequestId) -> bool {
        self.returning.contains_key(id)
    }

    /// How many outcomes wait to be written.
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

    /// Whether new requests are begun. A watcher that is to end goes on as long as it has to wait for
    /// what ran when it was told so: nobody else can serve the free lanes before it has ended.
    fn may_begin(&self, now: Now) -> bool {
        self.stopping.as_ref().is_none_or(|stopping| {
            (!stopping.running.is_empty() || self.is_ordering_on())
                && now.boot_ms < stopping.serve_until_boot_ms
        })
    }

    /// What was begun under `name` is over.
    fn released(&mut self, name: &RecordName, job: &Job) {
        self.queue.release(&job.lane, &job.machines);
        self.ended(name);
    }

    /// What was begun under `name` keeps the watcher from its end no more.
    fn ended(&mut self, name: &RecordName) {
        if let Some(stopping) = &mut self.stopping {
            stopping.running.remove(name);
        }
    }

    /// Claims what may begin now.
    fn begin(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(name) = self.queue.take_next() {
            let Some(State::Queued(job)) = self.take(&name) else {
                unreachable!("what stands in the queue is queued")
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
        // What another execution has dealt with has taken no lane.
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
                    // Seen afresh: it may have been withdrawn, or have passed its deadline.
                    self.ids.remove(&job.request.request_id);
                    effects.push(Effect::Look(name));
                }
                Some(State::Answering(answer, request, then)) => {
                    self.answer(name, answer, request, then, effects);
                }
                // Whatever keeps it from being seen: it is unknown then, and found by the next look.
                Some(State::Unlisted) => effects.push(Effect::Look(name)),
                Some(young) => {
                    // A look that fails for the moment reports nothing: then it is looked at again.
                    self.put(name.clone(), young, Some(now.boot_ms.saturating_add(DISK_RETRY_MS)));
                    effects.push(Effect::Look(name));
                }
                None => {}
            }
        }
    }

    /// Puts a job into the line of its lane.
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

    /// The state of `name`, which is then unknown and has no timer.
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

    /// Undoes a [`Watcher::take`] that found something else than expected; the timer is spent.
    fn put_back(&mut self, name: RecordName, state: Option<State>) {
        if let Some(state) = state {
            self.put(name, state, None);
        }
    }
}

/// How many executions each device allows in each of its lanes.
fn lane_max(devices: &[Device]) -> BTreeMap<String, usize> {
    devices.iter().map(|device| (device.name.clone(), device.max_concurrent)).collect()
}

#[cfg(test)]
mod tests;
