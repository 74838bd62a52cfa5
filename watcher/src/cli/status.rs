//! `fence-watcher status`: the state of the running watcher.
//!
//! The watcher reports its state itself: this module reads none of its files.

use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat};
use fence_log::one_line;
use fence_protocol::QueryKind;
use fence_spool::{ClientSpool, Liveness, PlaceError, SpoolError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{LOOK_AT_LOG, ask};
use super::table::{Table, paragraph, span};
use crate::config::SpoolSettings;
use crate::state::{Job, Last, State};

/// The text of `status`, and whether the watcher has a state to show. Tables are at most `width`
/// characters wide. As JSON, a watcher that reports nothing is an object as well.
pub(super) fn status(
    spool: &SpoolSettings,
    json: bool,
    width: usize,
) -> anyhow::Result<(String, bool)> {
    let state = ask(spool, QueryKind::State, None, ANSWER_MS_MAX).and_then(|answer| {
        let refused =
            || anyhow!("fence-watcher refused: {}; {LOOK_AT_LOG}", one_line(&answer.message));
        answer.state.ok_or_else(refused)
    });
    if json {
        return Ok(match state {
            Ok(state) => (format!("{state:#}\n"), true),
            Err(error) => (silence(liveness(spool), &format!("{error:#}")), false),
        });
    }
    let state = State::deserialize(state?).context(NOT_UNDERSTOOD)?;
    Ok((state.text(width), true))
}

/// Whether a watcher serves `spool`; `None` if that is unknown.
fn liveness(spool: &SpoolSettings) -> Option<Liveness> {
    match ClientSpool::open(&spool.places()) {
        Ok(spool) => Some(spool.watcher()),
        // A watcher creates its directories at its start.
        Err(SpoolError::Place(PlaceError::Missing { .. })) => Some(Liveness::Never),
        Err(_) => None,
    }
}

/// The object for a watcher that reports no state: `running` is `false` or `null`, and not a list.
pub(super) fn silence(liveness: Option<Liveness>, message: &str) -> String {
    let (running, pid, last_pid) = match liveness {
        Some(Liveness::Dead { pid }) => (Value::from(false), None, pid),
        Some(Liveness::Never) => (Value::from(false), None, None),
        Some(Liveness::Alive { pid }) => (Value::Null, pid, None),
        None => (Value::Null, None, None),
    };
    let value = json!({ "running": running, "pid": pid, "last_pid": last_pid, "message": message });
    format!("{value:#}\n")
}

impl State {
    fn text(&self, width: usize) -> String {
        let heading = format!(
            "fence-watcher {} on {}, process {}, since {}",
            one_line(&self.version),
            one_line(&self.node),
            self.pid,
            one_line(&seconds(&self.started))
        );
        let mut parts = vec![paragraph(&heading, width), "\n\n".to_owned()];
        parts.push(self.devices().wrapped(width));
        for device in self.devices.iter().filter(|device| device.reachable == Some(false)) {
            let since = device.reachable_since.as_deref().map(seconds).unwrap_or_default();
            let note = format!("'{}' has not been reachable since {since}", one_line(&device.name));
            parts.push(paragraph(&one_line(&note), width) + "\n");
        }
        parts.push(titled("off by a reboot, being brought back", &self.returning(), width));
        let running = jobs("FOR", &self.running, |job| job.since_ms);
        let queued = jobs("TIME LEFT", &self.queued, |job| job.deadline_in_ms);
        for (heading, table) in [("running", running), ("queued", queued)] {
            let is_empty = table.is_empty();
            parts.extend(is_empty.then(|| format!("\nnothing is {heading}\n")));
            parts.push(titled(heading, &table, width));
        }
        parts.push(titled("last results", &self.last_results(), width));
        let counts = self.counts.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<String> =
            counts.map(|(result, count)| format!("{} {count}", one_line(result))).collect();
        let counts = if counts.is_empty() { "none".into() } else { counts.join(", ") };
        let counts = format!("answers since the start: {counts}");
        parts.push(format!("\n{}\n", paragraph(&counts, width)));
        if self.answers_waiting_for_disk > 0 {
            let waiting = self.answers_waiting_for_disk;
            parts.push(format!("answers that wait for space on the disk: {waiting}\n"));
        }
        parts.concat()
    }

    fn devices(&self) -> Table<6> {
        let mut table = Table::new(["DEVICE", "TYPE", "REACHABLE", "RUNNING", "QUEUED", "TARGETS"]);
        for device in &self.devices {
            let reachable = match device.reachable {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "unknown",
            };
            // A limit of each address says nothing about their sum.
            let running = if device.per_address {
                device.running.to_string()
            } else {
                format!("{} of {}", device.running, device.max_concurrent)
            };
            let (queued, targets) = (device.queued.to_string(), &device.targets);
            table.row([&device.name, &device.r#type, reachable, &running, &queued, targets]);
        }
        table
    }

    /// The last fence of each device that had one, with its result.
    fn last_results(&self) -> Table<6> {
        let mut table = Table::new(["TIME", "DEVICE", "TARGET", "ACTION", "RESULT", "DETAILS"]);
        for device in &self.devices {
            let Some(last) = &device.last else { continue };
            let Last { time, target, action, result, message, on_result, .. } = last;
            let power_on = on_result.iter().map(|result| format!("; power-on: {result}"));
            let details = message.clone() + &power_on.collect::<String>();
            table.row([&seconds(time), &device.name, target, action, result, &details]);
        }
        table
    }

    fn returning(&self) -> Table<3> {
        let mut table = Table::new(["TARGET", "DEVICE", "REQUEST"]);
        for job in &self.returning {
            table.row([&job.target, &job.device, &job.request_id]);
        }
        table
    }
}

fn jobs(heading: &str, jobs: &[Job], time_ms: impl Fn(&Job) -> Option<u64>) -> Table<5> {
    let mut table = Table::new(["TARGET", "ACTION", "DEVICE", heading, "REQUEST"]);
    for job in jobs {
        let time = time_ms(job).map(span).unwrap_or_default();
        table.row([&job.target, &job.action, &job.device, &time, &job.request_id]);
    }
    table
}

/// `table` under its heading; nothing if it has no row.
fn titled<const COLUMNS: usize>(heading: &str, table: &Table<COLUMNS>, width: usize) -> String {
    if table.is_empty() {
        return String::new();
    }
    format!("\n{heading}:\n{}", table.wrapped(width))
}

/// A time of the watcher in whole seconds.
fn seconds(time: &str) -> String {
    let instant = DateTime::parse_from_rfc3339(time);
    instant.map_or_else(
        |_| time.to_owned(),
        |instant| instant.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
    )
}

/// How long a running watcher may take to answer.
const ANSWER_MS_MAX: u64 = 5_000;

const NOT_UNDERSTOOD: &str = "the watcher's answer cannot be understood; if the watcher has \
                              another version, run `systemctl restart fence-watcher`";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_is_shown_as_tables() {
        let state: State = serde_json::from_value(json!({
            "pid": 7, "node": "n1", "started": "2026-11-21T20:00:00.123Z", "version": "0.1.0",
            "devices": [
                {"name": "pdu", "type": "command", "reachable": true,
                 "reachable_since": "2026-11-21T20:00:01Z", "running": 1, "queued": 1,
                 "max_concurrent": 1, "per_address": false, "targets": "n[1-3]", "last": {
                    "time": "2026-11-21T20:01:00Z", "target": "n2", "action": "off",
                    "result": "success", "message": "switched\noff"}},
                {"name": "sim", "type": "simulated", "reachable": null, "reachable_since": null,
                 "running": 5, "queued": 0, "max_concurrent": 1, "per_address": true,
                 "targets": "*", "last": null},
                {"name": "bmc", "type": "redfish", "reachable": false,
                 "reachable_since": "2026-11-21T20:00:02.345Z", "running": 0, "queued": 0,
                 "max_concurrent": 2, "per_address": false, "targets": "n4", "last": {
                    "time": "2026-11-21T20:02:00.999Z", "target": "n4", "action": "reboot",
                    "result": "unreachable", "message": "https://bmc4.example.com: no route to host"}}],
            "running": [{"request_id": "id-1", "target": "n3", "action": "reboot",
                         "device": "pdu", "since_ms": 1500}],
            "queued": [{"request_id": "id-2", "target": "n1", "action": "off",
                        "device": "pdu", "deadline_in_ms": 58_000}],
            "counts": {"success": 3, "expired": 0}, "answers_waiting_for_disk": 1,
            "a member of later": true
        }))
        .unwrap();

        assert_eq!(
            state.text(80),
            r"fence-watcher 0.1.0 on n1, process 7, since 2026-11-21T20:00:00Z

DEVICE  TYPE       REACHABLE  RUNNING  QUEUED  TARGETS
pdu     command    yes        1 of 1   1       n[1-3]
sim     simulated  unknown    5        0       *
bmc     redfish    NO         0 of 2   0       n4
'bmc' has not been reachable since 2026-11-21T20:00:02Z

running:
TARGET  ACTION  DEVICE  FOR   REQUEST
n3      reboot  pdu     1.5s  id-1

queued:
TARGET  ACTION  DEVICE  TIME LEFT  REQUEST
n1      off     pdu     58.0s      id-2

last results:
TIME                  DEVICE  TARGET  ACTION  RESULT
    DETAILS
2026-11-21T20:01:00Z  pdu     n2      off     success
    switched\noff
2026-11-21T20:02:00Z  bmc     n4      reboot  unreachable
    https://bmc4.example.com: no route to host

answers since the start: success 3
answers that wait for space on the disk: 1
"
        );
    }

    #[test]
    fn a_state_with_long_names_fits_the_terminal_and_names_stay_whole() {
        let node = |n: u32| format!("rack-{n:02}-node-with-a-name-of-40-letters-x");
        let device = "bmc-of-the-second-rack-on-the-left";
        let job = |n: u32| {
            json!({"request_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "target": node(n),
                   "action": "reboot", "device": device, "since_ms": 1500, "deadline_in_ms": 9})
        };
        let state: State = serde_json::from_value(json!({
            "pid": 4_194_304, "node": node(1), "started": "2026-11-21T20:00:00Z", "version": "0.1.0",
            "devices": [{"name": device, "type": "fence-agent", "reachable": false,
                "reachable_since": "2026-11-21T20:00:02Z", "running": 1, "queued": 1,
                "max_concurrent": 1, "per_address": false, "targets": (1..9).map(node)
                .collect::<Vec<_>>().join(","), "last": {
                    "time": "2026-11-21T20:01:00Z", "target": node(2), "action": "reboot",
                    "result": "unacknowledged", "message": format!("'{}' still shows on", node(2))}}],
            "running": [job(3)], "queued": [job(4)], "counts": {}, "answers_waiting_for_disk": 0
        }))
        .unwrap();

        for width in [60, 80, 100] {
            let text = state.text(width);

            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            for n in 1..9 {
                assert!(text.contains(&node(n)), "{}: {text}", node(n));
            }
            assert_eq!(text.matches(device).count(), 5, "{text}");
            assert_eq!(text.matches("67e55044-10b1-426f-9247-bb680e5fe0c8").count(), 2, "{text}");
        }
    }

    #[test]
    fn the_object_for_a_silent_watcher_says_whether_one_runs() {
        for (liveness, running, pid, last_pid) in [
            (Some(Liveness::Never), json!(false), json!(null), json!(null)),
            (Some(Liveness::Dead { pid: Some(7) }), json!(false), json!(null), json!(7)),
            (Some(Liveness::Alive { pid: Some(7) }), json!(null), json!(7), json!(null)),
            (None, json!(null), json!(null), json!(null)),
        ] {
            let expected =
                json!({"running": running, "pid": pid, "last_pid": last_pid, "message": "x"});
            assert_eq!(serde_json::from_str::<Value>(&silence(liveness, "x")).unwrap(), expected);
        }
    }

    #[test]
    fn an_idle_watcher_says_that_nothing_is_running() {
        let state: State = serde_json::from_value(json!({
            "pid": 7, "node": "n1", "started": "s", "version": "0.1.0", "devices": [],
            "running": [], "queued": [], "counts": {}, "answers_waiting_for_disk": 0
        }))
        .unwrap();

        let text = state.text(80);

        assert!(text.contains("\nnothing is running\n\nnothing is queued\n"), "{text}");
        assert!(text.ends_with("answers since the start: none\n"), "{text}");
    }
}
