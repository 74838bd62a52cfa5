//! One death, one fence: a waiting request is answered from an execution that switched its target
//! off meanwhile.
//!
//! Two clients often ask for the same node (Pacemaker's controller and DLM, a second requester, a
//! second attempt). A client that asked before the target was off asked about a death that this
//! fence has dealt with. A second fence would hit the node after it has come back. DLM decides by
//! the same rule: a node counts as fenced if it was fenced at or after the time of its failure.

use std::collections::{BTreeMap, BTreeSet};

use fence_protocol::{Answer, FenceAction, FenceResult, NodeName, RecordName, Request, RequestId};

use super::{Effect, Job, Lane, Machine, State, Watcher};
use crate::execution::{Off, Verdict};

/// The start of the message in the answer to a request that another execution has dealt with.
pub const NOT_FENCED_AGAIN: &str = "not fenced again";

/// The last time that an execution of this watcher switched a target off.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fenced {
    off: Off,
    /// The request that was executed.
    request_id: RequestId,
    target: NodeName,
    lane: Lane,
    machines: Vec<Machine>,
    performed: &'static str,
    /// A power-on was ordered since, or may have been.
    on_since: bool,
}

/// When each unanswered request was first seen, in whatever state it has been since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct FirstSeen {
    of: BTreeMap<RecordName, (Subject, u64)>,
    order: BTreeSet<(u64, RecordName)>,
}

/// The identity and the target of the request.
type Subject = (RequestId, Option<NodeName>);

impl FirstSeen {
    /// When `request` was first seen under `name`: now, if another request was there before.
    fn see(&mut self, name: &RecordName, request: &Request, now_boot_ms: u64) -> u64 {
        let subject = (request.request_id.clone(), request.target_node.clone());
        if let Some((known, at)) = self.of.get(name)
            && *known == subject
        {
            return *at;
        }
        self.remove(name);
        self.of.insert(name.clone(), (subject, now_boot_ms));
        self.order.insert((now_boot_ms, name.clone()));
        now_boot_ms
    }

    fn remove(&mut self, name: &RecordName) {
        if let Some((_, at)) = self.of.remove(name) {
            self.order.remove(&(at, name.clone()));
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }
}

impl Fenced {
    /// Whether this is what `job` asks for. It must have been done on the device where `job` would
    /// run now, with the same plug and address. Another device may cut only one of two power
    /// supplies, or may be unable to show the state. A new configuration may use another plug or
    /// address. Two nodes may differ only in their domain.
    fn settles(&self, job: &Job) -> bool {
        let suits = match job.action {
            FenceAction::Reboot => true,
            FenceAction::Off => !self.on_since,
            FenceAction::On => false,
        };
        let is_same_place = job.lane == self.lane && job.machines == self.machines;
        let is_about_it = job.target.may_be(&self.target);
        suits && is_same_place && is_about_it && self.off.at_boot_ms >= job.seen_boot_ms
    }

    /// The answer to `job`, which is not executed.
    fn answer(&self, job: &Job) -> Answer {
        let known = if self.off.verified { "showed off" } else { "acknowledged the order" };
        Answer {
            request_id: Some(job.request.request_id.clone()),
            target_node: Some(job.target.clone()),
            action: job.action.as_str().to_owned(),
            recorder_node: job.request.recorder_node.clone(),
            result: FenceResult::Success,
            action_performed: if job.action == FenceAction::Off { "off" } else { self.performed },
            verified: self.off.verified,
            device: Some(self.lane.device.clone()),
            message: format!(
                "{NOT_FENCED_AGAIN}: for request {} the device {known} after this one was seen",
                self.request_id
            ),
            duration_ms: 0,
        }
    }
}

impl Watcher {
    /// Answers `job` if an execution has dealt with it; otherwise puts it into the queue of its
    /// lane.
    pub(super) fn settle_or_enqueue(
        &mut self,
        name: RecordName,
        job: Job,
        effects: &mut Vec<Effect>,
    ) {
        match self.settled(&job) {
            Some(answer) => self.join(name, job, answer, effects),
            None => self.enqueue(name, job),
        }
    }

    /// The answer to `job` without an execution of its own, if an execution has dealt with it.
    fn settled(&self, job: &Job) -> Option<Answer> {
        let fenced = self.fenced.get(&job.target.machine())?;
        let is_brought_back = job.action == FenceAction::Off && self.is_on_due_before(job);
        (fenced.settles(job) && !is_brought_back).then(|| fenced.answer(job))
    }

    /// Whether an earlier `on` for the machine of `job` waits.
    fn is_on_due_before(&self, job: &Job) -> bool {
        let queued = self.queued_for.get(&job.target.machine()).into_iter().flatten();
        let mut states = queued.filter_map(|name| self.records.get(name));
        states.any(|(state, _)| {
            matches!(state, State::Queued(other) if other.action == FenceAction::On && other.seq < job.seq)
        })
    }

    /// `request` is pending under `name`; returns the instant at which it was first seen.
    pub(super) fn note_sight(
        &mut self,
        name: &RecordName,
        request: &Request,
        now_boot_ms: u64,
    ) -> u64 {
        self.first_seen.see(name, request, now_boot_ms)
    }

    /// The request under `name` is answered or gone.
    pub(super) fn forget_sight(&mut self, name: &RecordName) {
        self.first_seen.remove(name);
        // An off before the first waiting request was seen can no longer answer any request.
        let oldest = self.first_seen.oldest();
        self.fenced.retain(|_, fenced| oldest.is_some_and(|at| fenced.off.at_boot_ms >= at));
    }

    /// An execution of `job` begins: a target that it may switch on no longer counts as off.
    pub(super) fn note_begin(&mut self, job: &Job) {
        let is_same = |fenced: &&mut Fenced| {
            fenced.machines.iter().any(|machine| job.machines.contains(machine))
        };
        if job.action != FenceAction::Off {
            for fenced in self.fenced.values_mut().filter(is_same) {
                fenced.on_since = true;
            }
        }
    }

    /// An execution of `job` has ended: waiting requests that it has dealt with are answered, not
    /// executed.
    pub(super) fn note_end(&mut self, job: &Job, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let Some(off) = verdict.off else { return };
        let fenced = Fenced {
            off,
            request_id: job.request.request_id.clone(),
            target: job.target.clone(),
            lane: job.lane.clone(),
            machines: job.machines.clone(),
            performed: verdict.performed,
            on_since: off.on_followed,
        };
        let machine = job.target.machine();
        let waiting = self.queued_for.get(&machine).cloned().unwrap_or_default();
        self.fenced.insert(machine, fenced);
        for name in waiting {
            let Some((State::Queued(waiting), _)) = self.records.get(&name) else { continue };
            let Some(answer) = self.settled(waiting) else { continue };
            if let Some(State::Queued(waiting)) = self.take(&name) {
                self.queue.remove(&waiting.lane, &waiting.machines, waiting.seq);
                self.join(name, waiting, answer, effects);
            }
        }
    }

    /// Claims `job`, to answer it with `answer`.
    fn join(&mut self, name: RecordName, job: Job, answer: Answer, effects: &mut Vec<Effect>) {
        let sync = job.request.boot_id.is_none();
        effects.push(Effect::Claim { name: name.clone(), sync });
        self.put(name, State::Joining(job, answer), None);
    }
}

#[cfg(test)]
mod tests;
