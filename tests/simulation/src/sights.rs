//! What the files of the spool show: the watcher's looks, as `fence-spool` and the daemon implement
//! them.

use fence_core::Now;
use fence_core::watcher::{Claim, Content, NOT_FENCED_AGAIN, Sight};
use fence_protocol::{RecordName, Rejection, Request, RequestError};

use crate::disk::{Dir, Disk};

pub(crate) fn rest_of_claim(disk: &mut Disk, name: &RecordName, now: Now) -> Claim {
    let file = disk.file(Dir::Claimed, &name.file_name());
    let client_gone = file.is_none_or(|file| file.held_by.is_none());
    let parsed = file.map_or_else(
        || Err(Rejection::of(RequestError::Incomplete)),
        |file| Request::parse(&file.bytes),
    );
    let begun_before = parsed.as_ref().is_ok_and(|request| was_begun(disk, name, request, now));
    Claim::Claimed { parsed, client_gone, begun_before }
}

/// Same as `fence_spool::WatcherSpool::was_begun`.
fn was_begun(disk: &mut Disk, name: &RecordName, request: &Request, now: Now) -> bool {
    if is_answered(disk, name, request) {
        return true;
    }
    let id = request.request_id.canonical();
    let of_id = format!("{id}.json");
    if name.file_name() == of_id {
        return false;
    }
    let is_new = disk.create(Dir::Started, &id, Vec::new(), now.wall_ms, None, true);
    disk.sync(Dir::Started);
    !is_new || disk.has(Dir::Claimed, &of_id)
}

/// The possible names of an answer.
pub(crate) fn shown_by(request: &Request) -> Vec<String> {
    let id = request.request_id.canonical();
    let of_target = request.target_node.as_ref().map(|target| format!("{target}-{id}.json"));
    [Some(format!("{id}.json")), of_target].into_iter().flatten().collect()
}

/// Same as `fence_spool::WatcherSpool::answered`.
pub(crate) fn is_answered(disk: &Disk, name: &RecordName, request: &Request) -> bool {
    disk.has(Dir::Responses, &name.file_name())
        || shown_by(request).iter().any(|other| disk.has(Dir::Responses, other))
        || disk.has(Dir::Started, &request.request_id.canonical())
}

pub(crate) fn claimed_sight(disk: &Disk, name: &RecordName) -> Sight {
    let Some(file) = disk.file(Dir::Claimed, &name.file_name()) else { return Sight::Gone };
    let parsed = Request::parse(&file.bytes);
    if let Some(answer) = disk.file(Dir::Responses, &name.file_name()) {
        return match parsed {
            Ok(request) if is_off_of_reboot(&answer.bytes) => Sight::OffAnswered(Box::new(request)),
            _ => Sight::Answered,
        };
    }
    Sight::Content(Box::new(Content { parsed, changed: (file.bytes.len() as u64, file.mtime_ms) }))
}

/// Whether an answer says that a reboot has switched its target off, in its own execution.
pub(crate) fn is_off_of_reboot(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.contains("\"action\":\"reboot\"")
        && text.contains("\"action_performed\":\"off\"")
        && !text.contains(NOT_FENCED_AGAIN)
}

pub(crate) fn sight(disk: &Disk, dir: Dir, name: &RecordName) -> Sight {
    let Some(file) = disk.file(dir, &name.file_name()) else { return Sight::Gone };
    let parsed = Request::parse(&file.bytes);
    let known = parsed.as_ref().is_ok_and(|request| is_answered(disk, name, request));
    if disk.has(Dir::Responses, &name.file_name()) || known {
        return Sight::Answered;
    }
    Sight::Content(Box::new(Content { parsed, changed: (file.bytes.len() as u64, file.mtime_ms) }))
}
