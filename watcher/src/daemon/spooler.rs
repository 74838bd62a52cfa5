//! Carries out the core's effects on the disk, and reports their outcomes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;

use chrono::Utc;
use fence_core::Now;
use fence_core::watcher::{Claim, Content, Event, NOT_FENCED_AGAIN, Sight};
use fence_protocol::{
    Answer, FenceAction, NodeName, ReceivedAnswer, RecordName, Rejection, Request, RequestError,
    RequestId, Requested,
};
use fence_spool::{ClaimOutcome, Sight as SpoolSight, SpoolError, WatcherSpool};
use log::{debug, error, info, trace, warn};

use super::{Wake, report, words};
use crate::config::SpoolSettings;

/// How often old answers are looked for, in milliseconds. The cost grows with each file.
const PRUNE_EVERY_MS: u64 = 3_600_000;

pub(super) struct Spooler {
    pub(super) spool: Arc<WatcherSpool>,
    pub(super) settings: SpoolSettings,
    wake: Sender<Wake>,
    next_prune_boot_ms: u64,
    is_pruning: Arc<AtomicBool>,
}

impl Spooler {
    pub(super) fn new(
        spool: Arc<WatcherSpool>,
        settings: &SpoolSettings,
        wake: Sender<Wake>,
    ) -> Self {
        let settings = settings.clone();
        Spooler { spool, settings, wake, next_prune_boot_ms: 0, is_pruning: Arc::default() }
    }

    /// Logs a failure, and looks at everything again soon if that may help.
    pub(super) fn report(&self, what: &str, problem: &SpoolError) {
        report(what, problem, &self.wake);
    }

    /// The record of `file_name`. A file whose name cannot be a record's is set aside.
    pub(super) fn record(&self, file_name: &str) -> Option<RecordName> {
        let name = RecordName::from_file_name(file_name);
        if name.is_none() {
            warn!("requests: '{file_name}' is no name for a request; set aside");
            self.note_failure(&format!("requests: '{file_name}'"), self.spool.set_aside(file_name));
        }
        name
    }

    /// What the disk shows of a pending request; `None` if it cannot be read at the moment.
    pub(super) fn look(&self, name: &RecordName) -> Option<Sight> {
        let is_answered =
            |id: Option<&_>, target: Option<&_>| self.spool.answered(name, id, target);
        let sight = self.sight_of(name, self.spool.inspect(name), is_answered);
        let found = sight.as_ref().map(words::of_sight);
        trace!("spool: looked at request {name}: {}", found.as_deref().unwrap_or("not readable"));
        sight
    }

    /// What the disk shows of the `wanted` requests, the oldest first: the first client is served
    /// first.
    pub(super) fn look_at_all(
        &self,
        file_names: &[String],
        wanted: impl Fn(&RecordName) -> bool,
    ) -> Vec<(RecordName, Sight)> {
        trace!("spool: looked through the requests: {} files", file_names.len());
        let names = file_names.iter().filter_map(|file_name| self.record(file_name));
        let mut seen: Vec<_> = names
            .filter(wanted)
            .filter_map(|name| self.look(&name).map(|sight| (name, sight)))
            .collect();
        seen.sort_by_key(|(_, sight)| match sight {
            Sight::Content(content) => content.changed.1,
            _ => i64::MIN,
        });
        seen
    }

    /// The requests that an earlier watcher claimed and did not answer.
    pub(super) fn claimed(&self) -> Vec<(RecordName, Sight)> {
        let names = self.spool.claimed().unwrap_or_else(|problem| {
            self.report("cannot look through the claimed requests", &problem);
            Vec::new()
        });
        trace!("spool: looked through the claimed requests: {} files", names.len());
        names
            .into_iter()
            .filter_map(|name| {
                // Only an answer under this name counts: a request that was begun leaves other traces,
                // also without an answer.
                let is_answered = |_: Option<&_>, _: Option<&_>| self.spool.has_answer(&name);
                let found = self.spool.inspect_claimed(&name);
                let request = request_in(&found);
                let sight = match (self.sight_of(&name, found, is_answered)?, request) {
                    (Sight::Answered, Some(request)) if self.is_off_by(&name, &request) => {
                        Sight::OffAnswered(Box::new(request))
                    }
                    (sight, _) => sight,
                };
                Some((name, sight))
            })
            .collect()
    }

    /// Whether the answer under `name` shows that the execution of the reboot `request` itself
    /// switched the target off.
    fn is_off_by(&self, name: &RecordName, request: &Request) -> bool {
        let SpoolSight::Content { bytes, .. } = self.spool.inspect_answer(name) else {
            return false;
        };
        let Ok(answer) = ReceivedAnswer::parse(&bytes) else { return false };
        request.action == Requested::Fence(FenceAction::Reboot)
            && answer.success == Some(true)
            && answer.action_performed.as_deref() == Some(FenceAction::Off.as_str())
            && !answer.message.starts_with(NOT_FENCED_AGAIN)
    }

    /// The records of the power-ons that the previous watcher left; `None` if they cannot be listed
    /// at the moment.
    pub(super) fn returning(&self) -> Option<Vec<RecordName>> {
        let names = self.spool.returning();
        names.map_err(|problem| self.report("cannot list the records of power-ons", &problem)).ok()
    }

    /// The request in the record `name` of a power-on, if there is one; an error if the record cannot
    /// be read at the moment.
    pub(super) fn left_returning(&self, name: &RecordName) -> Result<Option<Request>, ()> {
        let found = self.spool.inspect_returning(name);
        let is_its = |request: &Request| RecordName::of_id(&request.request_id) == *name;
        match (request_in(&found).filter(is_its), found) {
            (Some(request), _) => Ok(Some(request)),
            (None, SpoolSight::Gone) => Ok(None),
            (None, SpoolSight::Failed(problem)) => {
                self.report(&format!("request {name}"), &problem);
                Err(())
            }
            (None, _) => {
                warn!("the record {name} is not one of a power-on; removed");
                let removed = self.spool.forget_returning(name);
                self.note_failure(&format!("request {name}"), removed);
                Ok(None)
            }
        }
    }

    pub(super) fn answer(&self, name: RecordName, answer: &Answer) -> Event {
        let bytes = answer.to_json(Utc::now());
        let written = self.spool.answer(&name, &bytes).or_else(|problem| {
            if self.spool.is_current() {
                return Err(problem);
            }
            // The directory was removed while the device worked. The outcome is still known.
            WatcherSpool::open(&self.settings.places(), true)?.answer(&name, &bytes)
        });
        if written.is_ok() {
            debug!("spool: wrote the answer to request {name}");
            log_answer(&name, answer);
        }
        Event::Answered(name, written.map_err(|problem| problem.to_string()))
    }

    /// Removes a claimed request that is answered.
    pub(super) fn remove_claimed(&self, name: &RecordName) {
        debug!("spool: remove the claimed request {name}");
        self.note_failure(&format!("request {name}"), self.spool.remove_claimed(name));
    }

    /// Keeps a claimed request as the record of its power-on. If that fails, the request is removed:
    /// as a claimed request it would count as unanswered.
    pub(super) fn keep_returning(&self, name: &RecordName, id: &RequestId) {
        debug!("spool: keep the claimed request {name} until its target is back");
        let kept = self.spool.keep_returning(name, id);
        let kept = kept.or_else(|problem| self.spool.remove_claimed(name).and(Err(problem)));
        self.note_failure(&format!("request {name}"), kept);
    }

    /// Removes a pending request that is not to be executed.
    pub(super) fn remove_pending(&self, name: &RecordName) {
        debug!("spool: remove the pending request {name}");
        self.note_failure(&format!("request {name}"), self.spool.remove_pending(name));
    }

    /// Sets a pending request aside, because of `why`.
    pub(super) fn set_aside(&self, name: &RecordName, why: &str) {
        warn!("request {name}: refused and set aside: {why}");
        self.note_failure(&format!("request {name}"), self.spool.set_aside(&name.file_name()));
    }

    fn note_failure(&self, what: &str, done: Result<(), SpoolError>) {
        if let Err(problem) = done {
            self.report(what, &problem);
        }
    }

    /// Removes old answers in a separate thread, so that no request waits for it.
    pub(super) fn prune_now_and_then(&mut self, now: Now) {
        if now.boot_ms < self.next_prune_boot_ms || self.is_pruning.swap(true, Ordering::AcqRel) {
            return;
        }
        self.next_prune_boot_ms = now.boot_ms.saturating_add(PRUNE_EVERY_MS);
        let (spool, busy) = (Arc::clone(&self.spool), Arc::clone(&self.is_pruning));
        let keep_ms = i64::try_from(self.settings.keep_answers_ms).unwrap_or(i64::MAX);
        let (older_than, keep_max) = (now.wall_ms - keep_ms, self.settings.keep_answers_max);
        let spawned = thread::Builder::new().name("prune".into()).spawn(move || {
            match spool.prune_answers(older_than, keep_max) {
                Ok(0) => {}
                Ok(count) => info!("removed {count} old answers"),
                Err(problem) => warn!("cannot remove old answers: {problem}"),
            }
            busy.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            self.is_pruning.store(false, Ordering::Release);
        }
    }

    pub(super) fn claim(&self, name: &RecordName, sync: bool) -> Claim {
        let (sight, client_gone) = match self.spool.claim(name, sync) {
            ClaimOutcome::Gone => {
                debug!("spool: request {name} was gone before it was claimed");
                return Claim::Gone;
            }
            ClaimOutcome::Failed(problem) => {
                debug!("spool: request {name} was not claimed: {problem}");
                // If a directory is gone, no claim succeeds before a new beginning.
                if !self.spool.is_current() {
                    let _ = self.wake.send(Wake::Rescan);
                }
                return Claim::Failed(problem.to_string());
            }
            ClaimOutcome::Claimed { sight, client_gone } => (sight, client_gone),
        };
        debug!("spool: claimed request {name}");
        let unread = |why: String| Err(Rejection::of(RequestError::NotJson(why)));
        let parsed = match sight {
            SpoolSight::Content { bytes, .. } => Request::parse(&bytes),
            SpoolSight::TooLarge(size) => Err(Rejection::of(RequestError::TooLarge(size))),
            SpoolSight::Untrusted(why) => unread(why),
            SpoolSight::Failed(problem) => unread(problem.to_string()),
            SpoolSight::Gone => unread("it was gone when it was read".to_owned()),
        };
        let begun_before = parsed.as_ref().is_ok_and(|request| {
            let was_begun =
                self.spool.was_begun(name, &request.request_id, request.target_node.as_ref());
            // In doubt, the request counts as begun.
            was_begun.unwrap_or_else(|problem| {
                error!("request {name}: {problem}");
                true
            })
        });
        Claim::Claimed { parsed, client_gone, begun_before }
    }

    /// The core's form of `sight`; `is_answered` returns whether the request has its answer.
    fn sight_of(
        &self,
        name: &RecordName,
        sight: SpoolSight,
        is_answered: impl Fn(Option<&RequestId>, Option<&NodeName>) -> Result<bool, SpoolError>,
    ) -> Option<Sight> {
        let (parsed, changed) = match sight {
            SpoolSight::Gone => return Some(Sight::Gone),
            SpoolSight::Untrusted(why) => return Some(Sight::Untrusted(why)),
            SpoolSight::TooLarge(size) => {
                (Err(Rejection::of(RequestError::TooLarge(size))), (size, 0))
            }
            SpoolSight::Failed(problem) => {
                // The next look through the spool sees it again.
                self.report(&format!("request {name}"), &problem);
                return None;
            }
            SpoolSight::Content { bytes, facts } => {
                (Request::parse(&bytes), (facts.size, facts.mtime_ms))
            }
        };
        let (id, target) = match &parsed {
            Ok(request) => (Some(&request.request_id), request.target_node.as_ref()),
            Err(rejection) => (rejection.request_id.as_ref(), rejection.target_node.as_ref()),
        };
        match is_answered(id, target) {
            Ok(true) => Some(Sight::Answered),
            Ok(false) => Some(Sight::Content(Box::new(Content { parsed, changed }))),
            // The request is neither executed nor removed before this is known.
            Err(problem) => {
                self.report(&format!("request {name}"), &problem);
                None
            }
        }
    }
}

/// The request that was read, if it is one.
fn request_in(found: &SpoolSight) -> Option<Request> {
    match found {
        SpoolSight::Content { bytes, .. } => Request::parse(bytes).ok(),
        _ => None,
    }
}

fn log_answer(name: &RecordName, answer: &Answer) {
    let id = answer.request_id.as_ref().map_or(name.as_str(), |id| id.as_str());
    let target = answer.target_node.as_ref().map_or("", |target| target.as_str());
    let device = answer.device.as_deref().unwrap_or("");
    let line = format!(
        "answered: request={id} target={target} action={} device={device} result={} verified={} \
         duration_ms={} {}",
        answer.action, answer.result, answer.verified, answer.duration_ms, answer.message
    );
    match answer.result.code() {
        0 => info!("{line}"),
        _ => warn!("{line}"),
    }
}
