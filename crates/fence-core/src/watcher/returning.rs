//! The power-on of a reboot, which follows the answer.
//!
//! The cluster waits for the answer, and a target that is off is all that the answer promises. The lane
//! and the machine stay taken until the order that brings the target back is over: a fence beside it
//! could be undone by it. But no fence waits for a confirmation. An order that was not given yet is
//! dropped for the sake of a fence that waits, and one that was given is only waited for until it has
//! been carried out or refused.
//!
//! What became of it is always told. A record on the disk says that it is due, so that the next watcher
//! can say so after a crash.

use std::fmt;

use fence_protocol::{FenceAction, RecordName, Request, RequestId};

use super::{Effect, Job, State, Watcher};
use crate::Now;
use crate::execution::Verdict;

/// What became of the order that brings a target back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OnResult {
    /// The target is on: the device has shown it, or has acknowledged the order where it cannot be
    /// asked. The text says which.
    On(String),
    /// The order was given, and nothing shows whether the target is on.
    NotConfirmed(String),
    /// The device did not take the order.
    Failed(String),
    /// The order was not given.
    NotOrdered(String),
    /// The watcher ended before it was over.
    Unknown,
}

/// A target that is off by a reboot, and is to be brought back.
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
    /// So it is, and the order will not be given, for this reason: the lane and the machine are free.
    Dropped(String),
    /// The order is on its way to the device, or was not acknowledged and may be. It was called back
    /// for this reason, if there is one: a device that has not got it yet gets none.
    Ordered(Option<String>),
    /// The order was given; the device is asked whether the target is on.
    Confirming,
}

impl Watcher {
    /// What is off by a reboot and is to be brought back: its lane and its machine are taken.
    pub fn returning(&self) -> impl Iterator<Item = &Job> {
        let is_due = |returning: &&Returning| !matches!(returning.phase, Phase::Dropped(_));
        self.returning.values().filter(is_due).map(|returning| &returning.job)
    }

    /// The target of `job`, claimed as `name`, whose lane and machine stay taken, comes back after the
    /// answer.
    pub(super) fn note_return(&mut self, name: RecordName, job: Job) {
        let id = job.request.request_id.clone();
        self.returning.insert(id, Returning { name, job, phase: Phase::Answering });
    }

    /// Whether an order that brings a target back is on its way.
    pub(super) fn is_ordering_on(&self) -> bool {
        self.returning.values().any(|returning| matches!(returning.phase, Phase::Ordered(_)))
    }

    /// The answer to the request `id`, claimed as `name`, is on the disk. Gives whether its claimed file
    /// is kept as the record of a power-on: of the order, which is given now, or until it is noted that
    /// there is none.
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
        // Another file may bear the same identity.
        if !self.returning.get(id).is_some_and(is_it) {
            return false;
        }
        let Some(mut returning) = self.returning.remove(id) else { return false };
        effects.push(Effect::KeepReturning(name.clone(), id.clone()));
        if returning.phase == Phase::Answering && returning.job.deadline_at(now) <= now.boot_ms {
            // The client has gone to another node by now, whose fence this one must not undo.
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

    /// The device has taken or refused the order of the request `id`: it is on its way no more.
    pub(super) fn on_ordered(&mut self, id: &RequestId) {
        if let Some(returning) = self.returning.get_mut(id) {
            returning.phase = Phase::Confirming;
        }
    }

    /// All that was to be learned about the order of the request `id` is known.
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

    /// A record that the watcher before us left: its order was given or not, and came to an end or not.
    pub(super) fn left_returning(request: Request, effects: &mut Vec<Effect>) {
        let id = request.request_id.clone();
        effects.push(Effect::Returned(request, OnResult::Unknown));
        effects.push(Effect::ForgetReturning(id));
    }

    /// Lets go of each power-on for which a fence waits, or which the end of the watcher leaves undone.
    /// An order on its way is called back, and keeps its lane and machine until it is over. Returns
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

    /// Why the power-on of `job` is not waited for.
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
            // Its client was told, or will be, that the target stays off.
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
    /// What the end of a plan for the order says.
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
            OnResult::Unknown => "the watcher ended before it was over",
        };
        write!(f, "{}: {words}", self.as_str())
    }
}
