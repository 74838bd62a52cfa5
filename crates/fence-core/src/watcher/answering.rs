//! Turns the outcome of a request into its answer on the disk.

use fence_protocol::{Answer, FenceResult, RecordName, Rejection, Request};

use super::{DISK_RETRY_MS, Effect, Job, State, Then, Watcher, is_awaited};
use crate::Now;
use crate::execution::Verdict;

impl Watcher {
    pub(super) fn finished(
        &mut self,
        name: RecordName,
        verdict: &Verdict,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (job, since) = match self.take(&name) {
            Some(State::Running(job, since)) => (job, since),
            other => return self.put_back(name, other),
        };
        if verdict.on_follows {
            self.note_return(name.clone(), job.clone());
            self.ended(&name);
        } else {
            self.released(&name, &job);
        }
        let answer = Answer {
            request_id: Some(job.request.request_id.clone()),
            target_node: Some(job.target.clone()),
            action: job.action.as_str().to_owned(),
            recorder_node: job.request.recorder_node.clone(),
            result: verdict.result,
            action_performed: verdict.performed,
            verified: verdict.verified,
            device: Some(job.lane.device.clone()),
            message: verdict.message.clone(),
            duration_ms: now.boot_ms.saturating_sub(since),
        };
        self.answer(name, answer, Some(job.request.clone()), Then::RemoveClaimed, effects);
        self.note_end(&job, verdict, effects);
    }

    pub(super) fn answer(
        &mut self,
        name: RecordName,
        answer: Answer,
        request: Option<Request>,
        then: Then,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Answer(name.clone(), answer.clone(), request.clone()));
        self.put(name, State::Answering(answer, request, then), None);
    }

    pub(super) fn answered(
        &mut self,
        name: RecordName,
        written: Result<(), String>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (answer, request, then) = match self.take(&name) {
            Some(State::Answering(answer, request, then)) => (answer, request, then),
            other => return self.put_back(name, other),
        };
        if let Err(why) = written {
            let note = format!("cannot write its answer yet, will try again: {why}");
            effects.push(Effect::Note(name.clone(), note));
            let retry = Some(now.boot_ms.saturating_add(DISK_RETRY_MS));
            return self.put(name, State::Answering(answer, request, then), retry);
        }
        if let Some(id) = &answer.request_id
            && self.ids.get(id) == Some(&name)
        {
            self.ids.remove(id);
        }
        self.forget_sight(&name);
        // A power-on that blocks a waiting fence is dropped before it is ordered.
        self.yield_returns(effects);
        let is_kept =
            answer.request_id.as_ref().is_some_and(|id| self.order_on(&name, id, now, effects));
        effects.push(match then {
            Then::RemoveClaimed if is_kept => return effects.push(Effect::Look(name)),
            Then::RemoveClaimed => Effect::RemoveClaimed(name.clone()),
            Then::RemovePending => Effect::RemovePending(name.clone()),
            Then::SetAside => Effect::SetAside(name.clone(), answer.message),
        });
        // A client may have created a new request under the same name meanwhile.
        effects.push(Effect::Look(name));
    }

    pub(super) fn expire(&mut self, name: RecordName, job: Job, effects: &mut Vec<Effect>) {
        let why = "its deadline passed while it waited for its turn".to_owned();
        let answer = refusal_of(&job.request, FenceResult::Expired, why);
        self.answer(name, answer, Some(job.request), Then::RemovePending, effects);
    }
}

/// Why the file of a claimed request now forbids its execution.
pub(super) fn refusal(
    job: &Job,
    parsed: &Result<Request, Rejection>,
    client_gone: bool,
    begun_before: bool,
    now: Now,
) -> Option<(FenceResult, String)> {
    let (result, why) = if begun_before {
        (FenceResult::Rejected, "this request_id was begun before")
    } else if parsed.as_ref() != Ok(&job.request) {
        (FenceResult::Rejected, "the request changed while it waited")
    } else if !is_awaited(job.request.held, Some(!client_gone)) {
        (FenceResult::Withdrawn, "its client is gone: it no longer holds the request")
    } else if job.deadline_at(now) <= now.boot_ms {
        (FenceResult::Expired, "its deadline has passed")
    } else {
        return None;
    };
    Some((result, why.to_owned()))
}

/// The answer to a request that is not executed.
pub(super) fn refusal_of(request: &Request, result: FenceResult, why: String) -> Answer {
    Answer {
        request_id: Some(request.request_id.clone()),
        target_node: request.target_node.clone(),
        action: request.action.as_str().to_owned(),
        recorder_node: request.recorder_node.clone(),
        result,
        action_performed: "none",
        verified: false,
        device: request.device.clone(),
        message: why,
        duration_ms: 0,
    }
}
