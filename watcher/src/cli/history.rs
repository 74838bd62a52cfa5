//! `fence-watcher history`: the audit, one row for each fence.
//!
//! The audit has a line for the beginning of a fence and one for its end. Operators look for fences
//! without an end, so these have a row as well. The place of the request in the spool shows whether
//! such a fence still waits or runs.

use std::collections::HashMap;
use std::path::Path;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Utc};
use fence_audit::history::{Filter, HistoryError, read};
use fence_audit::{AuditEvent, DiscoveryRecord, Status};
use fence_protocol::{AuditResult, FenceAction, NodeName, RecordName, RequestId};
use fence_spool::{ClientSpool, Liveness, Stage};
use serde::{Serialize, Serializer};

use super::shown::Shown;
use super::table::{Table, paragraph, span};
use crate::config::SpoolSettings;

/// The wanted fences; a field that is `None` admits all.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) node: Option<String>,
    pub(super) action: Option<FenceAction>,
    pub(super) result: Option<Shown>,
    pub(super) since: Option<DateTime<Utc>>,
}

/// The text of `history`. A table is at most `width` characters wide.
pub(super) fn history(
    log_dir: &Path,
    spool: &SpoolSettings,
    wanted: Wanted,
    json: bool,
    width: usize,
) -> Result<String, HistoryError> {
    let Wanted { node, action, result, since } = wanted;
    // Result and time belong to a whole fence and not to a line, so they are compared after the
    // join.
    let mut fences = join(read(log_dir, Filter { node, action })?);
    fences.retain(|fence| since.is_none_or(|since| fence.time >= since));
    look_up(&mut fences, spool);
    fences.retain(|fence| result.as_ref().is_none_or(|result| *result == fence.result));
    if json {
        let json = serde_json::to_string_pretty(&fences);
        return Ok(json.expect("texts, numbers and lists have a JSON form") + "\n");
    }
    if fences.is_empty() {
        let nothing = format!("no matching fence is recorded in '{}'", log_dir.display());
        return Ok(paragraph(&nothing, width) + "\n");
    }
    Ok(text(&fences, width))
}

/// The object instead of the list of fences if the audit cannot be read.
pub(super) fn unread(message: &str) -> String {
    format!("{:#}\n", serde_json::json!({ "message": message }))
}

/// The instant of `--since`: a time ago (`2h`), or a date or time, which is local unless it has an
/// offset.
pub(super) fn since(text: &str) -> Result<DateTime<Utc>, String> {
    let ago = crate::config::milliseconds(text)
        .and_then(|milliseconds| i64::try_from(milliseconds).ok())
        .and_then(TimeDelta::try_milliseconds);
    let instant = match ago {
        Some(ago) => Utc::now().checked_sub_signed(ago),
        None => with_offset(text)
            .or_else(|| local(text, Local::now().date_naive()).and_then(instant_here)),
    };
    instant.ok_or_else(|| {
        "write how long ago (30m, 2h, 7d), or a date or time (2026-01-31, '2026-01-31 12:00', \
         12:00, 2026-01-31T12:00:00Z, 2026-01-31T12:00:00+01:00; local without an offset)"
            .to_owned()
    })
}

/// A date and time with an offset, `Z` or `+01:00`.
fn with_offset(text: &str) -> Option<DateTime<Utc>> {
    let forms = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"];
    let text = text.replacen(' ', "T", 1).replacen(' ', "", 1);
    let of = |form| DateTime::parse_from_str(&text, form).ok();
    forms.into_iter().find_map(of).map(|instant| instant.to_utc())
}

/// A date, a date and time, or a time of `today`, in local time.
fn local(text: &str, today: NaiveDate) -> Option<NaiveDateTime> {
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let both = |form| NaiveDateTime::parse_from_str(&text.replacen(' ', "T", 1), form).ok();
    let time = |form| NaiveTime::parse_from_str(text, form).ok().map(|time| today.and_time(time));
    date()
        .or_else(|| ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"].into_iter().find_map(both))
        .or_else(|| ["%H:%M:%S%.f", "%H:%M"].into_iter().find_map(time))
}

/// The first instant with this local time. If the clocks skip it, the first instant after that.
fn instant_here(local: NaiveDateTime) -> Option<DateTime<Utc>> {
    let minutes = (0..=MINUTES_SKIPPED_MAX).map(TimeDelta::minutes);
    let shown = minutes.filter_map(|minutes| local.checked_add_signed(minutes));
    let mut instants = shown.filter_map(|local| local.and_local_timezone(Local).earliest());
    instants.next().map(|instant| instant.to_utc())
}

/// One fence: its beginning and its end.
#[derive(Debug, Serialize)]
struct Fence {
    #[serde(serialize_with = "as_rfc3339")]
    time: DateTime<Utc>,
    target_node: String,
    action: String,
    result: Shown,
    #[serde(skip)]
    is_ended: bool,
    duration_ms: Option<u64>,
    details: String,
    gfs2_filesystems: Vec<String>,
    gfs2_discovery: Option<DiscoveryRecord>,
    recorder_node: String,
    request_id: Option<String>,
    /// Of a reboot: the outcome of the power-on after its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_result: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    on_details: String,
}

/// Joins beginnings and ends, in the order of the beginnings. Of several ends, the last one with a
/// known outcome counts: earlier versions of the agent wrote an end when they gave up, and the
/// watcher another one. Events without a request's identity belong to one fence if target and
/// action are the same.
fn join(events: impl Iterator<Item = AuditEvent>) -> Vec<Fence> {
    let mut fences: Vec<Fence> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for event in events {
        let key = match &event.request_id {
            // Identities are equal in upper and lower case.
            Some(id) => id.to_ascii_lowercase(),
            None => format!("{}\n{}", event.target_node, event.action),
        };
        match (event.status, known.get(&key).copied()) {
            (_, position) if event.on_result.is_some() => {
                // If its reboot was in a log that is gone, the power-on has no row.
                if let Some(position) = position {
                    power_on(&mut fences[position], event);
                }
            }
            (Status::Requested, _) | (Status::Unknown, None) => {
                known.insert(key, fences.len());
                fences.push(begun(event));
            }
            (Status::Unknown, Some(position)) => give_up(&mut fences[position], event),
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
    // The event of an agent that gave up has a result.
    let result = event.result.filter(|_| event.status == Status::Unknown);
    Fence {
        time: event.timestamp,
        target_node: event.target_node,
        action: event.action,
        result: result.map_or(Shown::Open, Shown::Ended),
        is_ended: false,
        duration_ms: event.duration_ms,
        details: event.details,
        gfs2_filesystems: event.gfs2_filesystems,
        gfs2_discovery: event.gfs2_discovery,
        recorder_node: event.recorder_node,
        request_id: event.request_id,
        on_result: event.on_result,
        on_details: String::new(),
    }
}

/// Takes over the outcome of the power-on after the answer, which is no end of the fence.
fn power_on(fence: &mut Fence, event: AuditEvent) {
    // A watcher was killed after it wrote the outcome, and the next watcher does not know it.
    if fence.on_result.is_some() && event.status == Status::Unknown {
        return;
    }
    fence.on_result = event.on_result;
    fence.on_details = event.details;
}

fn end(fence: &mut Fence, event: AuditEvent) {
    let result = event.result.map_or(Shown::Status(event.status), Shown::Ended);
    if fence.is_ended && result == Shown::Ended(AuditResult::Unknown) {
        return;
    }
    fence.is_ended = true;
    fence.result = result;
    // Earlier versions of the watcher did not count the time before the claim.
    fence.duration_ms = fence.duration_ms.max(event.duration_ms);
    fence.details = event.details;
}

/// Notes that the agent gave up, unless the end is known. A cut line adds nothing to a known fence.
fn give_up(fence: &mut Fence, event: AuditEvent) {
    if let Some(result) = event.result.filter(|_| !fence.is_ended) {
        fence.result = Shown::Ended(result);
        fence.duration_ms = event.duration_ms;
        fence.details = event.details;
    }
}

/// Finds out which fences without an end wait or run.
fn look_up(fences: &mut [Fence], spool: &SpoolSettings) {
    if fences.iter().all(|fence| fence.is_ended) {
        return;
    }
    // Without a spool nothing waits, and the audit can still be shown.
    let Ok(spool) = ClientSpool::open(&spool.places()) else { return };
    let is_served = matches!(spool.watcher(), Liveness::Alive { .. });
    for fence in fences.iter_mut().filter(|fence| !fence.is_ended) {
        let stages = names(fence).into_iter().filter_map(|name| spool.stage(&name).ok());
        let mut results = stages.filter_map(|stage| match stage {
            Stage::Pending => Some(Shown::Waiting),
            // A request that a dead watcher claimed does not run: the next watcher answers it.
            Stage::Claimed => is_served.then_some(Shown::Running),
            Stage::Elsewhere => None,
        });
        if let Some(result) = results.next() {
            fence.result = result;
        }
    }
}

/// The possible names of the request of `fence` in the spool.
fn names(fence: &Fence) -> Vec<RecordName> {
    let id = fence.request_id.as_deref().and_then(|id| id.parse::<RequestId>().ok());
    let Some(id) = id else { return Vec::new() };
    let target = fence.target_node.parse::<NodeName>().ok();
    let by_target = target.and_then(|target| RecordName::of_target_and_id(&target, &id).ok());
    std::iter::once(RecordName::of_id(&id)).chain(by_target).collect()
}

/// The details without the result, which the table shows in another column.
fn details(fence: &Fence) -> String {
    let (details, result) = (&fence.details, fence.result.as_str());
    let without = |result: &str| details.strip_prefix(result)?.strip_prefix(": ");
    let details = without(result).or_else(|| without(&result.replace('-', " "))).unwrap_or(details);
    if fence.on_details.is_empty() {
        details.to_owned()
    } else {
        format!("{details}; {}", fence.on_details)
    }
}

fn text(fences: &[Fence], width: usize) -> String {
    let mut table = Table::new(["TIME", "TARGET", "ACTION", "RESULT", "DURATION", "DETAILS"]);
    for fence in fences {
        table.row([
            &fence.time.to_rfc3339_opts(SecondsFormat::Secs, true),
            &fence.target_node,
            &fence.action,
            fence.result.as_str(),
            &fence.duration_ms.map(span).unwrap_or_default(),
            &details(fence),
        ]);
    }
    table.wrapped(width)
}

fn as_rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The longest time that clocks skip at once: a day, when a country crosses the date line.
const MINUTES_SKIPPED_MAX: i64 = 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::shown::OPEN;

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
            result: result.map(|word| word.to_owned().into()),
            duration_ms: result.map(|_| 1_500),
            gfs2_discovery: None,
            on_result: None,
        }
    }

    #[test]
    fn what_became_of_a_power_on_belongs_to_its_reboot_and_is_no_end() {
        let power_on = |second| AuditEvent {
            action: "on".into(),
            on_result: Some("not confirmed".into()),
            ..event(second, Some("a"), Status::Failed, None)
        };
        let begin = || event(0, Some("a"), Status::Requested, None);
        let end = || event(1, Some("a"), Status::Completed, Some("success"));
        for events in [[begin(), end(), power_on(2)], [begin(), power_on(2), end()]] {
            let fences = join(events.into_iter());

            assert_eq!((fences.len(), fences[0].result.as_str()), (1, "success"));
            assert_eq!(fences[0].on_result.as_deref(), Some("not confirmed"));
            assert_eq!(details(&fences[0]), "second 1; second 2");
        }
        let open = join([begin(), power_on(2)].into_iter());
        assert_eq!(open[0].result.as_str(), OPEN);
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
            text(&fences, 80),
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

    /// A fence that was begun, with what its agent noted when it gave up, and the end by the
    /// watcher.
    fn given_up() -> [AuditEvent; 3] {
        let mut note = event(19, Some("a"), Status::Unknown, Some("unknown"));
        note.duration_ms = Some(19_000);
        let mut end = event(20, Some("a"), Status::Completed, Some("success"));
        end.duration_ms = Some(19_500);
        [event(0, Some("a"), Status::Requested, None), note, end]
    }

    fn joined(events: &[AuditEvent]) -> (String, Option<u64>, String) {
        let mut fences = join(events.iter().cloned());
        assert_eq!(fences.len(), 1, "{fences:?}");
        let fence = fences.remove(0);
        (fence.result.as_str().to_owned(), fence.duration_ms, fence.details)
    }

    #[test]
    fn the_end_by_the_watcher_holds_against_an_agent_that_gave_up_in_whatever_order() {
        let [begin, note, end] = given_up();
        let whole = ("success".to_owned(), Some(19_500), "second 20".to_owned());
        let noted = ("unknown".to_owned(), Some(19_000), "second 19".to_owned());
        for (events, expected) in [
            (vec![begin.clone(), note.clone(), end.clone()], &whole),
            (vec![begin.clone(), end.clone(), note.clone()], &whole),
            (vec![note.clone(), end.clone()], &whole),
            (vec![begin.clone(), note.clone()], &noted),
            (vec![note.clone()], &noted),
        ] {
            assert_eq!(joined(&events), *expected, "{events:?}");
        }
    }

    #[test]
    fn the_two_ends_of_earlier_versions_are_one_with_the_longer_time() {
        let [begin, note, end] = given_up();
        let agents = AuditEvent { status: Status::Failed, ..note };
        let watchers = AuditEvent {
            status: Status::Failed,
            result: Some("interrupted".to_owned().into()),
            duration_ms: Some(0),
            ..end
        };
        let expected = ("interrupted".to_owned(), Some(19_000), "second 20".to_owned());
        assert_eq!(joined(&[begin.clone(), agents.clone(), watchers.clone()]), expected);
        assert_eq!(joined(&[begin, watchers, agents]).0, "interrupted");
    }

    #[test]
    fn the_result_does_not_stand_twice() {
        for (result, text, shown) in [
            ("unreachable", "unreachable: no route", "no route"),
            ("timed-out", "timed out: no answer", "no answer"),
            ("timed-out", "timed-out: no answer", "no answer"),
            ("success", "n3: success", "n3: success"),
            ("unreachable", "unreachable", "unreachable"),
        ] {
            let mut end = event(0, Some("a"), Status::Failed, Some(result));
            end.details = text.to_owned();
            let fences = join([end].into_iter());
            assert_eq!(details(&fences[0]), shown);
        }
    }

    #[test]
    fn since_is_a_span_a_date_or_a_time() {
        let instant = since("2h").unwrap();
        let ago = Utc::now() - instant;
        assert!(ago >= TimeDelta::hours(2) && ago < TimeDelta::hours(3));
        assert_eq!(since("1970-01-01T00:00:00Z"), Ok(DateTime::UNIX_EPOCH));
        for text in [
            "1970-01-01T01:00:00+01:00",
            "1970-01-01 01:00+0100",
            "1970-01-01 01:00:00 +01:00",
            "1970-01-01T00:00Z",
            "1969-12-31T19:00:00.000-05",
        ] {
            assert_eq!(since(text), Ok(DateTime::UNIX_EPOCH), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2",
            "99999999999d",
            "2026-02-30",
            "2026-01-31T25:00",
            "2026-01-31 12:00 noon",
            "12",
            "31.01.2026",
        ] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_shown_by_the_clock_on_the_wall() {
        let today = NaiveDate::from_ymd_opt(2026, 2, 3).unwrap();
        let show = |text: &str| local(text, today).map(|time| time.to_string());
        for (text, shown) in [
            ("2026-01-31", "2026-01-31 00:00:00"),
            ("2026-01-31 12:30", "2026-01-31 12:30:00"),
            ("2026-01-31T12:30:05", "2026-01-31 12:30:05"),
            ("12:30", "2026-02-03 12:30:00"),
            ("12:30:05", "2026-02-03 12:30:05"),
        ] {
            assert_eq!(show(text).as_deref(), Some(shown), "{text}");
        }
        assert!(instant_here(local("2026-03-29 02:30", today).unwrap()).is_some());
    }
}
