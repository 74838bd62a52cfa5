//! The end of a fence in the audit, if the agent can no longer write it.
//!
//! An agent writes its request and the outcome. Pacemaker kills an agent that takes too long with
//! SIGKILL: then only the watcher knows the outcome. An agent that gives up a claimed request
//! leaves the end to the watcher as well, and writes only that it gave up. So each request has one
//! end. The outcome of the power-on that follows the answer to a reboot is another event of the same
//! request.
//!
//! If the disk of the logs hangs, a watcher that touches it cannot end, and keeps the lock for
//! which the next watcher waits. So a separate process writes each end, and one thread waits for
//! that process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use chrono::Utc;
use fence_audit::{AuditEvent, LogProcess, Status, Task};
use fence_clock::now;
use fence_core::Now;
use fence_core::watcher::{Event, OnResult};
use fence_protocol::{Answer, FenceAction, FenceResult, RecordName, Request, Requested};
use fence_spool::{Abandoned, WatcherSpool};
use log::warn;

use super::Daemon;

/// How many ends may wait for a disk that hangs.
const WAITING_MAX: usize = 1_000;

/// How long the end of the service waits for ends that are still to be written.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// How long a log may take to respond before this is reported.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the start of the service waits for the directory of the logs.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(1);

/// Makes the directory of the agent's logs if it does not exist. The watcher itself does not need
/// it.
pub(super) fn make_log_dir(log_dir: &Path) {
    let process = LogProcess::start(&Task::Directory(log_dir.to_owned()));
    for problem in process.finish(DIRECTORY_PATIENCE) {
        warn!("the agent may have no directory for its logs: {problem}");
    }
}

/// The same in a separate thread, for a watcher that serves requests.
pub(super) fn make_log_dir_meanwhile(log_dir: &Path) {
    let log_dir = log_dir.to_owned();
    let make = move || make_log_dir(&log_dir);
    let spawned = thread::Builder::new().name("log dir".into()).spawn(make);
    if let Err(problem) = spawned {
        warn!("the agent may have no directory for its logs: {problem}");
    }
}

/// An event for the logs in this directory, and what follows: whether all went well is its
/// argument. Each entry is handled before the next.
type Entry = (PathBuf, AuditEvent, Box<dyn FnOnce(bool) + Send>);

/// Takes the ends of fences.
pub(super) struct Desk {
    boot_id: String,
    entries: SyncSender<Entry>,
    /// Disconnected after the last end is written.
    done: Receiver<()>,
}

impl Desk {
    pub(super) fn open(boot_id: &str) -> Self {
        let (entries, received) = mpsc::sync_channel::<Entry>(WAITING_MAX);
        let (alive, done) = mpsc::sync_channel(0);
        let spawned = thread::Builder::new().name("audit".into()).spawn(move || {
            for (log_dir, event, then) in received {
                then(write(log_dir, &event));
            }
            drop(alive);
        });
        if let Err(problem) = spawned {
            warn!("the audit will lack the ends of fences whose agents are gone: {problem}");
        }
        Desk { boot_id: boot_id.to_owned(), entries, done }
    }

    /// Records in `log_dir` the answer to a request whose agent is gone.
    pub(super) fn record_end(
        &self,
        log_dir: &Path,
        (request, abandoned): (Request, Abandoned),
        answer: &Answer,
        now: Now,
    ) {
        let duration_ms = duration_ms(&request, answer, now, &self.boot_id);
        if let Some(event) = end(request, answer, duration_ms) {
            // The agent cannot take the request back before the end is written.
            self.record((log_dir.to_owned(), event, Box::new(|_| drop(abandoned))));
        }
    }

    /// Records in `log_dir` the outcome of the power-on after a reboot, and then removes its record.
    pub(super) fn record_return(
        &self,
        log_dir: &Path,
        spool: &Arc<WatcherSpool>,
        request: Request,
        result: &OnResult,
    ) {
        let record = RecordName::of_id(&request.request_id);
        let Some(event) = return_of(request, result) else { return };
        let spool = Arc::clone(spool);
        // Until the outcome is written, the next watcher reports the power-on.
        let forget = move |is_written| {
            if is_written && let Err(problem) = spool.forget_returning(&record) {
                warn!("request {record}: {problem}");
            }
        };
        self.record((log_dir.to_owned(), event, Box::new(forget)));
    }

    fn record(&self, entry: Entry) {
        if let Err(TrySendError::Full((log_dir, ..))) = self.entries.try_send(entry) {
            lacks(&format!("too many others wait for '{}'", log_dir.display()));
        }
    }

    /// Takes no more ends, and waits a moment for those that are still to be written.
    pub(super) fn close(self) {
        drop(self.entries);
        if self.done.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            warn!("the audit may lack the ends of fences whose agents are gone: the disk is slow");
        }
    }
}

impl Daemon {
    /// Writes an answer, and records the end of its request if the agent cannot.
    pub(super) fn answer(
        &mut self,
        name: &RecordName,
        answer: &Answer,
        request: Option<Request>,
    ) -> Event {
        let held = request.filter(|request| request.held);
        let left = || held.as_ref().and_then(|_| self.spooler.spool.abandoned(name));
        // An agent that ends because of the answer writes the end itself: it waited before the
        // answer was written, and has not handed its request over by now.
        let abandoned = left();
        let written = self.spooler.answer(name.clone(), answer);
        if matches!(written, Event::Answered(_, Ok(()))) {
            self.reporter.answered(answer.result);
            let left = abandoned.or_else(|| left().filter(|left| left.is_handed_over));
            if let Some((request, left)) = held.zip(left) {
                let log_dir = &self.settings.log.log_dir;
                self.audit.record_end(log_dir, (request, left), answer, now());
            }
        }
        written
    }
}

/// Writes `event`; whether all went well.
fn write(log_dir: PathBuf, event: &AuditEvent) -> bool {
    let mut log = LogProcess::start(&Task::Audit(log_dir));
    log.record(event);
    let mut problems = log.settle(PATIENCE);
    problems.extend(log.finish(Duration::MAX));
    for problem in &problems {
        lacks(problem);
    }
    problems.is_empty()
}

fn lacks(problem: &str) {
    warn!("the audit lacks the end of a fence whose agent is gone, or of a power-on: {problem}");
}

fn end(request: Request, answer: &Answer, duration_ms: Option<u64>) -> Option<AuditEvent> {
    let Requested::Fence(action) = request.action else { return None };
    let success = answer.result == FenceResult::Success;
    let status = if success { Status::Completed } else { Status::Failed };
    let details = format!("{} (told by fence-watcher: the agent is gone)", answer.message);
    Some(AuditEvent {
        pacemaker_action: answer.action.clone(),
        result: Some(answer.result.into()),
        duration_ms,
        ..event(request, action, status, details)?
    })
}

fn return_of(request: Request, result: &OnResult) -> Option<AuditEvent> {
    let status = match result {
        OnResult::On(_) => Status::Completed,
        OnResult::Unknown => Status::Unknown,
        OnResult::NotConfirmed(_) | OnResult::Failed(_) | OnResult::NotOrdered(_) => Status::Failed,
    };
    let event =
        event(request, FenceAction::On, status, format!("power-on after the answer: {result}"))?;
    Some(AuditEvent { on_result: Some(result.as_str().to_owned()), ..event })
}

/// An event of `request`; `None` without a target.
fn event(
    request: Request,
    action: FenceAction,
    status: Status,
    details: String,
) -> Option<AuditEvent> {
    Some(AuditEvent {
        timestamp: Utc::now(),
        action: action.as_str().to_owned(),
        target_node: request.target_node?.as_str().to_owned(),
        gfs2_filesystems: request.gfs2_filesystems,
        gfs2_discovery: None,
        status,
        details,
        recorder_node: request.recorder_node,
        pacemaker_action: request.action.as_str().to_owned(),
        request_id: Some(request.request_id.as_str().to_owned()),
        result: None,
        duration_ms: None,
        on_result: None,
    })
}

/// The time from the writing of `request` to `answer`, as far as a clock shows it. The duration of
/// the answer is 0 if nothing was executed.
fn duration_ms(request: &Request, answer: &Answer, now: Now, boot_id: &str) -> Option<u64> {
    let executed_ms = Some(answer.duration_ms).filter(|duration_ms| *duration_ms > 0);
    age_ms(request, now, boot_id).max(executed_ms)
}

/// How long ago `request` was written: by the clock of its deadline, which cannot be set, if it is
/// of this boot. A wall clock that was set back does not show it.
fn age_ms(request: &Request, now: Now, boot_id: &str) -> Option<u64> {
    let written_ms = request.timestamp.timestamp_millis();
    let by_boot_clock = || {
        request.boot_id.as_deref().filter(|theirs| *theirs == boot_id)?;
        let given = request.deadline?.timestamp_millis().checked_sub(written_ms)?;
        let written_boot_ms =
            i64::try_from(request.deadline_boottime_ms?).ok()?.checked_sub(given)?;
        i64::try_from(now.boot_ms).ok()?.checked_sub(written_boot_ms)
    };
    let by_wall_clock = || now.wall_ms.checked_sub(written_ms);
    let age = by_boot_clock().filter(|age| *age >= 0).or_else(by_wall_clock)?;
    u64::try_from(age).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};

    fn request(deadline_boottime_ms: Option<u64>) -> Request {
        let timestamp = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
        Request {
            request_id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
            timestamp,
            action: Requested::Fence(fence_protocol::FenceAction::Off),
            target_node: Some("n3".parse().unwrap()),
            gfs2_filesystems: Vec::new(),
            recorder_node: "n1".to_owned(),
            deadline: Some(timestamp + TimeDelta::seconds(50)),
            boot_id: Some("b".to_owned()),
            deadline_boottime_ms,
            device: None,
            held: true,
        }
    }

    #[test]
    fn a_requests_age_counts_from_its_writing_whatever_the_wall_clock_does() {
        let now =
            |boot_ms, wall_s: i64| Now { boot_ms, wall_ms: 1_800_000_000_000 + wall_s * 1_000 };
        for (deadline_boottime_ms, boot_id, now, age) in [
            (Some(150_000), "b", now(119_000, 19), Some(19_000)),
            (Some(150_000), "b", now(119_000, -3_600), Some(19_000)),
            (None, "b", now(119_000, 19), Some(19_000)),
            (None, "b", now(119_000, -3_600), None),
            // An earlier boot, whichever of the two was longer.
            (Some(900_000), "c", now(7_000, 70), Some(70_000)),
            (Some(150_000), "c", now(900_000, 70), Some(70_000)),
            (Some(150_000), "c", now(900_000, -3_600), None),
        ] {
            assert_eq!(age_ms(&request(deadline_boottime_ms), now, boot_id), age, "{now:?}");
        }
    }
}
