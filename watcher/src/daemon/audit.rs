//! The end of a fence in the audit, where the agent cannot write it any more.
//!
//! An agent writes down that it asked, and what came of it. Pacemaker kills one that takes longer than
//! it is allowed to, with SIGKILL: what became of its request only the watcher knows. An agent that gave
//! up and wrote so gets a second end in this way, which is the true one.

use std::path::Path;
use std::thread;

use chrono::Utc;
use fence_audit::{AuditEvent, AuditLog, Status};
use fence_protocol::{Answer, FenceResult, Request, Requested};
use log::warn;

/// Records in `log_dir` what `request`, whose agent is gone, was answered.
pub(super) fn record_end(log_dir: &Path, request: Request, answer: &Answer) {
    let Some(event) = end(request, answer) else { return };
    let log_dir = log_dir.to_owned();
    // A log that cannot be written, or hangs, must never stop a fence.
    let spawned = thread::Builder::new().name("audit".into()).spawn(move || {
        for problem in AuditLog::open(&log_dir).record(&event) {
            warn!("the audit lacks the end of a fence whose agent is gone: {problem}");
        }
    });
    if let Err(problem) = spawned {
        warn!("the audit lacks the end of a fence whose agent is gone: {problem}");
    }
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
