//! `fence-watcher history`: the audit, one row for each fence.
//!
//! The audit has a line for the beginning of a fence and one for its end. A fence without an end is
//! what an operator looks for, so it has a row of its own too.

use std::collections::HashMap;
use std::path::Path;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use fence_audit::history::{Filter, HistoryError, read};
use fence_audit::{AuditEvent, DiscoveryRecord, Status};
use serde::{Serialize, Serializer};

use super::table::{Table, span};

/// Which fences are wanted; a field that is `None` lets all through.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) node: Option<String>,
    pub(super) action: Option<String>,
    pub(super) result: Option<String>,
    pub(super) since: Option<DateTime<Utc>>,
}

/// The text of `history`.
pub(super) fn history(log_dir: &Path, wanted: Wanted, json: bool) -> Result<String, HistoryError> {
    let Wanted { node, action, result, since } = wanted;
    // Result and time are a whole fence's, not one line's: they are looked at after the joining.
    let filter = Filter { node, action, result: None, since: None };
    let mut fences = join(read(log_dir, filter)?);
    fences.retain(|fence| {
        since.is_none_or(|since| fence.time >= since)
            && result.as_ref().is_none_or(|result| *result == fence.result)
    });
    if json {
        let json = serde_json::to_string_pretty(&fences);
        return Ok(json.expect("texts, numbers and lists have a JSON form") + "\n");
    }
    if fences.is_empty() {
        return Ok(format!("no fence is recorded in '{}' that fits\n", log_dir.display()));
    }
    Ok(text(&fences))
}

/// The instant that `--since` names: RFC 3339, or so long ago (`2h`).
pub(super) fn since(text: &str) -> Result<DateTime<Utc>, String> {
    let ago = crate::config::milliseconds(text)
        .and_then(|milliseconds| i64::try_from(milliseconds).ok())
        .and_then(TimeDelta::try_milliseconds);
    let instant = match ago {
        Some(ago) => Utc::now().checked_sub_signed(ago),
        None => DateTime::parse_from_rfc3339(text).ok().map(|instant| instant.to_utc()),
    };
    instant.ok_or_else(|| "write 30m, 2h, 7d or a time such as 2026-01-31T12:00:00Z".to_owned())
}

/// One fence: its beginning and its end.
#[derive(Debug, Serialize)]
struct Fence {
    #[serde(serialize_with = "as_rfc3339")]
    time: DateTime<Utc>,
    target_node: String,
    action: String,
    /// The result, or [`OPEN`].
    result: String,
    duration_ms: Option<u64>,
    details: String,
    gfs2_filesystems: Vec<String>,
    gfs2_discovery: Option<DiscoveryRecord>,
    recorder_node: String,
    request_id: Option<String>,
}

/// Puts ends to beginnings, in the order of the beginnings. The last end of several holds: the watcher
/// adds one where the agent did not wait for it. Events without a request's identity belong to the same
/// fence when they concern the same target and action.
fn join(events: impl Iterator<Item = AuditEvent>) -> Vec<Fence> {
    let mut fences: Vec<Fence> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for event in events {
        let key = match &event.request_id {
            // The case of an identity's letters means nothing.
            Some(id) => id.to_ascii_lowercase(),
            None => format!("{}\n{}", event.target_node, event.action),
        };
        match (event.status, known.get(&key).copied()) {
            (Status::Requested, _) | (Status::Unknown, None) => {
                known.insert(key, fences.len());
                fences.push(begun(event));
            }
            // A cut line says nothing of a fence that is known.
            (Status::Unknown, Some(_)) => {}
            (Status::Completed | Status::Failed, Some(position)) => {
                if event.request_id.is_none() {
                    known.remove(&key);
                }
                end(&mut fences[position], event);
            }
            (Status::Completed | Status::Failed, None) => {
                let mut fence = begun(event.clone());
                end(&mut fence, event);
                fences.push(fence);
            }
        }
    }
    fences
}

fn begun(event: AuditEvent) -> Fence {
    Fence {
        time: event.timestamp,
        target_node: event.target_node,
        action: event.action,
        result: OPEN.to_owned(),
        duration_ms: None,
        details: event.details,
        gfs2_filesystems: event.gfs2_filesystems,
        gfs2_discovery: event.gfs2_discovery,
        recorder_node: event.recorder_node,
        request_id: event.request_id,
    }
}

fn end(fence: &mut Fence, event: AuditEvent) {
    fence.result = event.result.unwrap_or_else(|| event.status.as_str().to_owned());
    fence.duration_ms = event.duration_ms;
    fence.details = event.details;
}

fn text(fences: &[Fence]) -> String {
    let mut table = Table::new(["TIME", "TARGET", "ACTION", "RESULT", "DURATION", "DETAILS"]);
    for fence in fences {
        table.row([
            &fence.time.to_rfc3339_opts(SecondsFormat::Secs, true),
            &fence.target_node,
            &fence.action,
            &fence.result,
            &fence.duration_ms.map(span).unwrap_or_default(),
            &fence.details,
        ]);
    }
    table.text()
}

fn as_rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The result of a fence of which no end is recorded: it runs, or its agent was killed.
const OPEN: &str = "no end recorded";

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: i64, id: Option<&str>, status: Status, result: Option<&str>) -> AuditEvent {
        AuditEvent {
            timestamp: DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap(),
            action: "off".into(),
            target_node: "n3".into(),
            gfs2_filesystems: Vec::new(),
            status,
            details: format!("second {second}"),
            recorder_node: "n1".into(),
            pacemaker_action: "off".into(),
            request_id: id.map(str::to_owned),
            result: result.map(str::to_owned),
            duration_ms: result.map(|_| 1_500),
            gfs2_discovery: None,
        }
    }

    #[test]
    fn beginnings_are_joined_with_their_last_end_and_an_open_fence_is_shown() {
        let fences = join(
            [
                event(0, Some("a"), Status::Requested, None),
                event(1, Some("b"), Status::Requested, None),
                event(2, Some("A"), Status::Completed, Some("success")),
                event(3, Some("c"), Status::Failed, Some("rejected")),
                event(4, Some("d"), Status::Requested, None),
                event(5, Some("d"), Status::Failed, Some("timed-out")),
                event(6, Some("d"), Status::Completed, Some("success")),
            ]
            .into_iter(),
        );

        assert_eq!(
            text(&fences),
            "\
TIME                  TARGET  ACTION  RESULT           DURATION  DETAILS
2027-01-15T08:00:00Z  n3      off     success          1.5s      second 2
2027-01-15T08:00:01Z  n3      off     no end recorded  -         second 1
2027-01-15T08:00:03Z  n3      off     rejected         1.5s      second 3
2027-01-15T08:00:04Z  n3      off     success          1.5s      second 6
"
        );
    }

    #[test]
    fn what_a_cut_line_still_tells_is_a_fence_without_an_end_or_part_of_a_known_one() {
        let fences = join(
            [
                event(0, Some("a"), Status::Unknown, None),
                event(1, Some("b"), Status::Requested, None),
                event(2, Some("b"), Status::Unknown, None),
                event(3, Some("a"), Status::Completed, Some("success")),
            ]
            .into_iter(),
        );

        let results: Vec<&str> = fences.iter().map(|fence| fence.result.as_str()).collect();
        assert_eq!(results, ["success", OPEN]);
        assert_eq!(fences[1].details, "second 1");
    }

    #[test]
    fn events_without_an_identity_are_joined_by_target_and_action() {
        let fences = join(
            [
                event(0, None, Status::Requested, None),
                event(1, None, Status::Completed, None),
                event(2, None, Status::Requested, None),
            ]
            .into_iter(),
        );

        let results: Vec<&str> = fences.iter().map(|fence| fence.result.as_str()).collect();
        assert_eq!(results, ["completed", OPEN]);
    }

    #[test]
    fn since_is_a_span_or_a_time() {
        let instant = since("2h").unwrap();
        let ago = Utc::now() - instant;
        assert!(ago >= TimeDelta::hours(2) && ago < TimeDelta::hours(3));
        assert_eq!(since("1970-01-01T00:00:00Z"), Ok(DateTime::UNIX_EPOCH));
        for text in ["", "yesterday", "2", "99999999999d", "2026-01-31"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
