//! The end of a fence in the audit, where the agent cannot write it any more.
//!
//! An agent writes down that it asked, and what came of it. Pacemaker kills one that takes longer than
//! it is allowed to, with SIGKILL: what became of its request only the watcher knows. An agent that gave
//! up and wrote so gets a second end in this way, which is the true one.
//!
//! A disk of logs that hangs would keep a watcher that touches it from ending, and with it the lock
//! that the next watcher waits for. So a process of its own writes each end, and one thread waits for
//! that process.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use chrono::Utc;
use fence_audit::{AuditEvent, LogProcess, Status, Task};
use fence_protocol::{Answer, FenceResult, Request, Requested};
use log::warn;

/// How many ends may wait for a disk that hangs.
const WAITING_MAX: usize = 1_000;

/// How long the end of the service waits for what is still to be written.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// How long a log may take to respond before that is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the start of the service waits for the directory of the logs.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(1);

/// Makes the directory of the agent's logs, where nobody made it yet. The watcher itself can do
/// without.
pub(super) fn make_log_dir(log_dir: &Path) {
    let process = LogProcess::start(&Task::Directory(log_dir.to_owned()));
    for problem in process.finish(DIRECTORY_PATIENCE) {
        warn!("the agent may have no directory for its logs: {problem}");
    }
}

/// The same without waiting, for a watcher that serves requests.
pub(super) fn make_log_dir_meanwhile(log_dir: &Path) {
    let log_dir = log_dir.to_owned();
    let spawned = thread::Builder::new().name("log dir".into()).spawn(move || {
        make_log_dir(&log_dir);
    });
    if let Err(problem) = spawned {
        warn!("the agent may have no directory for its logs: {problem}");
    }
}

/// Where ends are handed in.
pub(super) struct Desk {
    events: SyncSender<(PathBuf, AuditEvent)>,
    /// Disconnected when the last end is written.
    done: Receiver<()>,
}

impl Desk {
    pub(super) fn open() -> Self {
        let (events, received) = mpsc::sync_channel(WAITING_MAX);
        let (alive, done) = mpsc::sync_channel(0);
        let spawned = thread::Builder::new().name("audit".into()).spawn(move || {
            for (log_dir, event) in received {
                write(log_dir, &event);
            }
            drop(alive);
        });
        if let Err(problem) = spawned {
            warn!("the audit will lack the ends of fences whose agents are gone: {problem}");
        }
        Desk { events, done }
    }

    /// Records in `log_dir` what `request`, whose agent is gone, was answered.
    pub(super) fn record_end(&self, log_dir: &Path, request: Request, answer: &Answer) {
        let Some(event) = end(request, answer) else { return };
        if self.events.try_send((log_dir.to_owned(), event)).is_err() {
            lacks(&format!("too many others wait for '{}'", log_dir.display()));
        }
    }

    /// Takes no more, and leaves what is handed in a moment to be written.
    pub(super) fn close(self) {
        drop(self.events);
        if self.done.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            warn!("the audit may lack the ends of fences whose agents are gone: the disk is slow");
        }
    }
}

fn write(log_dir: PathBuf, event: &AuditEvent) {
    let mut log = LogProcess::start(&Task::Audit(log_dir));
    log.record(event);
    log.settle(PATIENCE).iter().for_each(|problem| lacks(problem));
    log.finish(Duration::MAX).iter().for_each(|problem| lacks(problem));
}

fn lacks(problem: &str) {
    warn!("the audit lacks the end of a fence whose agent is gone: {problem}");
}

fn end(request: Request, answer: &Answer) -> Option<AuditEvent> {
    let Requested::Fence(action) = request.action else { return None };
    let success = answer.result == FenceResult::Success;
    Some(AuditEvent {
        timestamp: Utc::now(),
        action: action.as_str().to_owned(),
        target_node: request.target_node?.as_str().to_owned(),
        gfs2_filesystems: request.gfs2_filesystems,
        gfs2_discovery: None,
        status: if success { Status::Completed } else { Status::Failed },
        details: format!("{} (told by fence-watcher: the agent is gone)", answer.message),
        recorder_node: request.recorder_node,
        pacemaker_action: answer.action.clone(),
        request_id: Some(request.request_id.as_str().to_owned()),
        result: Some(answer.result.as_str().to_owned()),
        duration_ms: Some(answer.duration_ms),
    })
}
