//! The power-on of a reboot, which follows the answer.
//!
//! The cluster waits for the answer, and the answer promises only that the target is off. The lane
//! and the machine stay taken until the power-on has ended, because it could undo a concurrent
//! fence. But no fence waits for a confirmation. If a fence waits, an order that was not given yet
//! is dropped; if the order was given, the fence waits only until the device has carried it out or
//! refused it.
//!
//! The outcome of the power-on is always reported. A record on the disk says that it is due, so
//! that the next watcher can report it after a crash.

use std::fmt;

use fence_protocol::{FenceAction, RecordName, Request, RequestId};

use super::{Effect, Job, State, Watcher};
use crate::Now;
use crate::execution::Verdict;

/// The outcome of a power-on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OnResult {
    /// The target is on: the device has shown it, or has acknowledged the order if it cannot be
    /// asked. The text says which.
    On(String),
    /// The order was given, and nothing shows whether the target is on.
    NotConfirmed(String),
    /// The device did not accept the order.
    Failed(String),
    /// The order was not given.
    NotOrdered(String),
    /// The watcher ended before the power-on had ended.
    Unknown,
}

/// A target that a reboot switched off, and that awaits its power-on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Returning {
    /// The claimed file.
    name: RecordName,
    job: Job,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The answer is not on the disk yet.
    Answering,
    /// The answer is on the disk, and the order will not be given, for this reason: the lane and
    /// the machine are free.
    Dropped(String),
    /// The order is on its way to the device, or was not acknowledged and may still be carried out.
    /// If a reason is given, the order was called back: a device that has not received it receives
    /// nothing.
    Ordered(Option<String>),
    /// The order was given; the watcher asks the device whether the target is on.
    Confirming,
}

impl Watcher {
    /// The targets that a reboot switched off and that await their power-on: their lanes and
    /// machines are taken.
    pub fn returning(&self) -> impl Iterator<Item = &Job> {
        let is_due = |returning: &&Returning| !matches!(returning.phase, Phase::Dropped(_));
        self.returning.values().filter(is_due).map(|returning| &returning.job)
    }

    /// The target of `job`, claimed as `name`, gets its power-on after the answer. Its lane and
    /// machine stay taken.
    pub(super) fn note_return(&mut self, name: RecordName, job: Job) {
        let id = job.request.request_id.clone();
        self.returning.insert(id, Returning { name, job, phase: Phase::Answering });
    }

    /// Whether a power-on is on its way.
    pub(super) fn is_ordering_on(&self) -> bool {
        self.returning.values().any(|returning| matches!(returning.phase, Phase::Ordered(_)))
    }

    /// The answer to the request `id`, claimed as `name`, is on the disk. Returns whether its
    /// claimed file is kept as the record of a power-on: the order is given now, or the record
    /// stays until the watcher has written down that there is none.
    pub(super) fn order_on(
        &mut self,
        name: &RecordName,
        id: &RequestId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let is_it = |returning: &Returning| {
            returning.name == *name
                && matches!(returning.phase, Phase::Answering | Phase::Dropped(_))
        };
        // Another file may have the same identity.
        if !self.returning.get(id).is_some_and(is_it) {
            return false;
        }
        let Some(mut returning) = self.returning.remove(id) else { return false };
        effects.push(Effect::KeepReturning(name.clone(), id.clone()));
        if returning.phase == Phase::Answering && returning.job.deadline_at(now) <= now.boot_ms {
            // The client has gone to another node by now; this power-on must not undo that node's
            // fence.
            self.queue.release(&returning.job.lane, &returning.job.machines);
            let why = "its answer was written after its deadline".to_owned();
            returning.phase = Phase::Dropped(why);
        }
        if let Phase::Dropped(why) = returning.phase {
            effects.push(Effect::Returned(returning.job.request, OnResult::NotOrdered(why)));
            effects.push(Effect::ForgetReturning(id.clone()));
            return true;
        }
        returning.phase = Phase::Ordered(None);
        self.note_begin(&returning.job);
        effects.push(Effect::PowerOn(returning.job.clone()));
        self.returning.insert(id.clone(), returning);
        true
    }

    /// The device has accepted or refused the order of the request `id`: the order is no longer on
    /// its way.
    pub(super) fn on_ordered(&mut self, id: &RequestId) {
        if let Some(returning) = self.returning.get_mut(id) {
            returning.phase = Phase::Confirming;
        }
    }

    /// The power-on of the request `id` has ended, with this outcome.
    pub(super) fn on_over(&mut self, id: &RequestId, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let Some(returning) = self.returning.remove(id) else { return };
        let result = match (OnResult::of(verdict), &returning.phase) {
            (OnResult::NotOrdered(_), Phase::Ordered(Some(why))) => {
                OnResult::NotOrdered(why.clone())
            }
            (result, _) => result,
        };
        self.end_return(returning, result, effects);
    }

    /// A record of the previous watcher: whether its order was given, and how it ended, is unknown.
    pub(super) fn left_returning(request: Request, effects: &mut Vec<Effect>) {
        let id = request.request_id.clone();
        effects.push(Effect::Returned(request, OnResult::Unknown));
        effects.push(Effect::ForgetReturning(id));
    }

    /// Drops each power-on that blocks a waiting fence or that the watcher's end cuts off. An order
    /// on its way is called back, and keeps its lane and machine until it has ended. Returns
    /// whether a lane or a machine became free.
    pub(super) fn yield_returns(&mut self, effects: &mut Vec<Effect>) -> bool {
        let ids: Vec<RequestId> = self.returning.keys().cloned().collect();
        let mut any = false;
        for id in ids {
            let Some(returning) = self.returning.get(&id) else { continue };
            if matches!(returning.phase, Phase::Ordered(Some(_)) | Phase::Dropped(_)) {
                continue;
            }
            let Some(why) = self.why_yield(&returning.job) else { continue };
            let Some(mut returning) = self.returning.remove(&id) else { continue };
            if let Phase::Ordered(recalled) = &mut returning.phase {
                *recalled = Some(why);
                effects.push(Effect::EndPowerOn(id.clone()));
                self.returning.insert(id, returning);
                continue;
            }
            any = true;
            if returning.phase == Phase::Answering {
                self.queue.release(&returning.job.lane, &returning.job.machines);
                returning.phase = Phase::Dropped(why);
                self.returning.insert(id, returning);
            } else {
                effects.push(Effect::EndPowerOn(id));
                self.end_return(returning, OnResult::NotConfirmed(why), effects);
            }
        }
        any
    }

    /// Why the watcher no longer waits for the power-on of `job`.
    fn why_yield(&self, job: &Job) -> Option<String> {
        if self.stopping.is_some() {
            return Some("the watcher stops".to_owned());
        }
        let is_full = self.queue.is_full();
        let is_lane_full = self.queue.is_lane_full(&job.lane);
        let is_blocked = |other: &Job| {
            is_full
                || is_lane_full && other.lane == job.lane
                || other.machines.iter().any(|machine| job.machines.contains(machine))
        };
        let fences = self.records.values().filter_map(|(state, _)| match state {
            State::Queued(other) | State::Stalled(other) if other.action != FenceAction::On => {
                Some(other)
            }
            // Its client received, or will receive, the answer that the target stays off.
            State::Joining(other, _) if other.action == FenceAction::Off => Some(other),
            _ => None,
        });
        let fence = fences.into_iter().find(|other| is_blocked(other))?;
        Some(format!("{} of '{}' waits for the device", fence.action, fence.target))
    }

    fn end_return(&mut self, returning: Returning, result: OnResult, effects: &mut Vec<Effect>) {
        let Returning { job, .. } = returning;
        let id = job.request.request_id.clone();
        self.queue.release(&job.lane, &job.machines);
        effects.push(Effect::Returned(job.request, result));
        effects.push(Effect::ForgetReturning(id));
    }
}

impl OnResult {
    /// The outcome that the end of the power-on's plan shows.
    fn of(verdict: &Verdict) -> Self {
        use fence_protocol::FenceResult;
        let words = verdict.message.clone();
        match verdict.result {
            FenceResult::Success => OnResult::On(words),
            FenceResult::Unacknowledged | FenceResult::Interrupted => OnResult::NotConfirmed(words),
            FenceResult::Unreachable | FenceResult::DeviceFailure | FenceResult::Rejected => {
                OnResult::Failed(words)
            }
            FenceResult::Expired | FenceResult::Withdrawn => OnResult::NotOrdered(words),
        }
    }

    /// The word for the audit.
    pub fn as_str(&self) -> &'static str {
        match self {
            OnResult::On(_) => "on",
            OnResult::NotConfirmed(_) => "not confirmed",
            OnResult::Failed(_) => "failed",
            OnResult::NotOrdered(_) => "not ordered",
            OnResult::Unknown => "unknown",
        }
    }
}

impl fmt::Display for OnResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            OnResult::On(words)
            | OnResult::NotConfirmed(words)
            | OnResult::Failed(words)
            | OnResult::NotOrdered(words) => words,
            OnResult::Unknown => "the watcher ended before the power-on had ended",
        };
        write!(f, "{}: {words}", self.as_str())
    }
}
