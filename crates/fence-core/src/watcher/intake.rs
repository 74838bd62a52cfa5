//! What happens to a file in the spool: it is queued, answered at once, looked at again, or
//! ignored.

use fence_protocol::{
    Answer, FenceResult, RecordName, Rejection, Request, RequestError, Requested,
};

use super::{
    Effect, Job, Sight, State, Then, WRITE_GRACE_MS, WRITE_LIMIT_MS, WRITE_LOOK_MS, Watcher,
    refusal_of, route,
};
use crate::Now;
use crate::clock::other_boot;

impl Watcher {
    /// A claimed request of the previous watcher. Whether its execution was started is unknown, so
    /// it is never started again.
    pub(super) fn recovered(&mut self, name: RecordName, sight: Sight, effects: &mut Vec<Effect>) {
        let parsed = match sight {
            Sight::Gone => return,
            Sight::Answered => {
                effects.push(Effect::RemoveClaimed(name));
                return;
            }
            Sight::OffAnswered(request) => {
                let is_ours = self.brings_back(&request.request_id);
                effects.push(Effect::KeepReturning(name, request.request_id.clone()));
                if !is_ours {
                    Self::left_returning(*request, effects);
                }
                return;
            }
            Sight::Untrusted(why) => {
                Err(Rejection::of(RequestError::Member { member: "file", problem: why }))
            }
            Sight::Content(content) => content.parsed,
        };
        let why = "the watcher ended while it executed this request: the outcome is unknown";
        let answer = match &parsed {
            Ok(request) => refusal_of(request, FenceResult::Interrupted, why.to_owned()),
            Err(rejection) => answer_to_unreadable(&name, rejection, FenceResult::Interrupted, why),
        };
        if let Some(id) = &answer.request_id {
            self.ids.insert(id.clone(), name.clone());
        }
        self.answer(name, answer, parsed.ok(), Then::RemoveClaimed, effects);
    }

    pub(super) fn seen(
        &mut self,
        name: RecordName,
        sight: Sight,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let before = match self.records.get(&name).map(|(state, _)| state) {
            None | Some(State::Unlisted) => None,
            Some(State::Young { first_boot_ms, changed_boot_ms, changed }) => {
                Some((*first_boot_ms, *changed_boot_ms, *changed))
            }
            Some(State::Queued(job)) => {
                if matches!(&sight, Sight::Content(content) if content.parsed.as_ref() == Ok(&job.request))
                {
                    return;
                }
                self.queue.remove(&job.lane, &job.machines, job.seq);
                self.ids.remove(&job.request.request_id);
                // The file has new content: forget what was known about the old one.
                self.forget_sight(&name);
                None
            }
            // A running request continues; a new file of the same name is looked at afterwards.
            Some(_) => return,
        };
        self.take(&name);
        match sight {
            Sight::Gone => {
                self.forget_sight(&name);
            }
            Sight::Answered | Sight::OffAnswered(_) => {
                self.forget_sight(&name);
                let why = "it already has an answer: removed, not run".to_owned();
                effects.push(Effect::Note(name.clone(), why));
                effects.push(Effect::RemovePending(name));
            }
            Sight::Untrusted(why) => {
                self.forget_sight(&name);
                effects.push(Effect::SetAside(name, why));
            }
            Sight::Content(content) => match content.parsed {
                Ok(request) => self.take_in(name, request, content.changed.1, now, effects),
                Err(rejection) => {
                    self.unreadable(name, &rejection, content.changed, before, now, effects);
                }
            },
        }
    }

    /// The answer to a question that an older client sent as a request. The answer never reads as a
    /// fence: a client could take a success that names a target for one.
    pub(super) fn inquired(
        &mut self,
        name: RecordName,
        reached: bool,
        words: String,
        effects: &mut Vec<Effect>,
    ) {
        let request = match self.take(&name) {
            Some(State::Inquiring(request)) => request,
            other => return self.put_back(name, other),
        };
        let result = match (reached, &request.target_node) {
            (true, None) => FenceResult::Success,
            (true, Some(_)) => FenceResult::Rejected,
            (false, _) => FenceResult::Unreachable,
        };
        let answer = refusal_of(&request, result, words);
        self.answer(name, answer, Some(request), Then::RemovePending, effects);
    }

    fn take_in(
        &mut self,
        name: RecordName,
        request: Request,
        written_wall_ms: i64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(other) = self.ids.get(&request.request_id) {
            let why = format!("its request_id is already in use by {other}: removed, not run");
            effects.push(Effect::Note(name.clone(), why));
            effects.push(Effect::RemovePending(name));
            return;
        }
        let seen_boot_ms = self.note_sight(&name, &request, now.boot_ms);
        match self.admit(&name, &request, (written_wall_ms, seen_boot_ms), now, effects) {
            Admission::Refuse(result, why) => {
                let answer = refusal_of(&request, result, why);
                self.answer(name, answer, Some(request), Then::RemovePending, effects);
            }
            Admission::Ask => {
                self.put(name.clone(), State::Inquiring(request.clone()), None);
                effects.push(Effect::Inquire(name, request));
            }
            Admission::Wait(until) => self.put(name, State::Unlisted, Some(until)),
            Admission::Queue(job) => {
                self.next_seq += 1;
                self.ids.insert(job.request.request_id.clone(), name.clone());
                self.settle_or_enqueue(name, *job, effects);
            }
        }
    }

    fn admit(
        &mut self,
        name: &RecordName,
        request: &Request,
        (written_wall_ms, seen_boot_ms): (i64, u64),
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Admission {
        let (deadline_boot_ms, deadline_wall_ms) =
            match self.deadline(request, written_wall_ms, now) {
                Ok(deadlines) => deadlines,
                Err(why) => return Admission::Refuse(FenceResult::Expired, why),
            };
        let action = match &request.action {
            Requested::Fence(action) => *action,
            Requested::Inquiry(_) => return Admission::Ask,
            Requested::Unknown(word) => {
                return Admission::Refuse(
                    FenceResult::Rejected,
                    format!("unknown action {word:?}: only off, on and reboot are executed"),
                );
            }
        };
        let Some(target) = request.target_node.clone() else {
            return Admission::Refuse(FenceResult::Rejected, format!("{name} names no target"));
        };
        let named = request.device.as_deref();
        if let Some(until) = self.ask_for_lists(named, &target, seen_boot_ms, now, effects) {
            return Admission::Wait(until.min(deadline_boot_ms));
        }
        match route(&self.devices, named, &target, action) {
            Ok(device) => Admission::Queue(Box::new(Job {
                seq: self.next_seq,
                request: request.clone(),
                action,
                lane: device.lane(&target),
                machines: device.machines(&target),
                target,
                seen_boot_ms,
                deadline_boot_ms,
                deadline_wall_ms,
            })),
            Err(why) => Admission::Refuse(FenceResult::Rejected, why.to_string()),
        }
    }

    /// The instant of `CLOCK_BOOTTIME` after which the request must not start, and the instant of
    /// the wall clock if that clock decides.
    ///
    /// If a client names the boot and its clock, that instant decides, so that a step of the wall
    /// clock changes nothing. For any other client, the wall clock decides: the deadline that the
    /// client names, or else the default after the earliest of the timestamp, the last change of
    /// the file, and now. A request from the future has no known age: the clock was set back since,
    /// or the client's clock is wrong.
    fn deadline(
        &self,
        request: &Request,
        written_wall_ms: i64,
        now: Now,
    ) -> Result<(u64, Option<i64>), String> {
        let up_ms = i64::try_from(now.boot_ms).unwrap_or(i64::MAX);
        let booted_wall_ms = now.wall_ms.saturating_sub(up_ms);
        let (boot_ms, wall_ms) = match (&request.boot_id, request.deadline_boottime_ms) {
            // A UUID: its letters may be in either case.
            (Some(boot_id), _) if !boot_id.eq_ignore_ascii_case(&self.settings.boot_id) => {
                return Err(if written_wall_ms >= booted_wall_ms {
                    other_boot(boot_id, &self.settings.boot_id)
                } else {
                    "it comes from an earlier boot of this node".to_owned()
                });
            }
            (Some(_), Some(deadline)) => (deadline, None),
            _ => {
                let timestamp_wall_ms = request.timestamp.timestamp_millis();
                for (what, wall_ms) in [("file", written_wall_ms), ("timestamp", timestamp_wall_ms)]
                {
                    if wall_ms < booted_wall_ms {
                        return Err(written_before_this_boot(what));
                    }
                    if wall_ms > now.wall_ms.saturating_add(CLOCK_SLACK_MS) {
                        return Err(written_in_the_future(what));
                    }
                }
                let default = i64::try_from(self.settings.default_deadline_ms).unwrap_or(i64::MAX);
                let written = timestamp_wall_ms.min(written_wall_ms).min(now.wall_ms);
                let deadline = request
                    .deadline
                    .map_or(written.saturating_add(default), |instant| instant.timestamp_millis());
                let left = u64::try_from(deadline.saturating_sub(now.wall_ms)).unwrap_or(0);
                (now.boot_ms.saturating_add(left), Some(deadline))
            }
        };
        if boot_ms > now.boot_ms {
            Ok((boot_ms, wall_ms))
        } else {
            Err("its deadline has passed".to_owned())
        }
    }

    /// A file that is not a request. A truncated text may be one that a simple client is still
    /// writing: `before` contains when the file was first seen, when it last changed, and its size
    /// and time then.
    fn unreadable(
        &mut self,
        name: RecordName,
        rejection: &Rejection,
        changed: (u64, i64),
        before: Option<(u64, u64, (u64, i64))>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let age_ms = u64::try_from(now.wall_ms.saturating_sub(changed.1)).unwrap_or(0);
        let (first_boot_ms, changed_boot_ms) = match before {
            Some((first, at, looked)) if looked == changed => (first, at),
            Some((first, ..)) => (first, now.boot_ms),
            None => (now.boot_ms, now.boot_ms.saturating_sub(age_ms)),
        };
        let patience = (changed_boot_ms.saturating_add(WRITE_GRACE_MS))
            .min(first_boot_ms.saturating_add(WRITE_LIMIT_MS));
        if rejection.error == RequestError::Incomplete && now.boot_ms < patience {
            let look_again = patience.min(now.boot_ms.saturating_add(WRITE_LOOK_MS));
            let state = State::Young { first_boot_ms, changed_boot_ms, changed };
            return self.put(name, state, Some(look_again));
        }
        let why = rejection.error.to_string();
        let answer = answer_to_unreadable(&name, rejection, FenceResult::Rejected, &why);
        self.answer(name, answer, None, Then::SetAside, effects);
    }
}

/// The message for a request whose file or timestamp (`what`) is older than this boot.
fn written_before_this_boot(what: &str) -> String {
    format!("it was written before this node was booted, by the time of its {what}")
}

/// The message for a request whose file or timestamp (`what`) is ahead of the wall clock.
fn written_in_the_future(what: &str) -> String {
    format!(
        "the time of its {what} is in the future: the clock was set back or the client's clock is \
         wrong, so its age is unknown; send boot_id and deadline_boottime_ms"
    )
}

/// How far the time of a file or a timestamp may be ahead of the wall clock, in milliseconds: they
/// are read or written with different resolutions.
const CLOCK_SLACK_MS: i64 = 1_000;

enum Admission {
    Refuse(FenceResult, String),
    Ask,
    /// Until this instant, for lists of targets.
    Wait(u64),
    Queue(Box<Job>),
}

/// The answer to a file that contains little: the file's name may still identify the request.
fn answer_to_unreadable(
    name: &RecordName,
    rejection: &Rejection,
    result: FenceResult,
    why: &str,
) -> Answer {
    let tail = name.as_str().get(name.as_str().len().saturating_sub(36)..);
    Answer {
        request_id: rejection
            .request_id
            .clone()
            .or_else(|| tail.and_then(|text| text.parse().ok())),
        target_node: rejection.target_node.clone(),
        action: rejection.action.as_deref().unwrap_or_default().to_owned(),
        recorder_node: rejection.recorder_node.as_deref().unwrap_or_default().to_owned(),
        result,
        action_performed: "none",
        verified: false,
        device: None,
        message: why.to_owned(),
        duration_ms: 0,
    }
}
