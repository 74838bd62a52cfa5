//! `fence-watcher status`: what the running watcher says of itself.
//!
//! The watcher is asked; nothing here reads its files behind its back.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, anyhow};
use fence_log::one_line;
use fence_protocol::QueryKind;
use serde::Deserialize;

use super::ask::ask;
use super::table::{Table, span};
use crate::config::SpoolSettings;

/// The text of `status`.
pub(super) fn status(spool: &SpoolSettings, json: bool) -> anyhow::Result<String> {
    let answer = ask(spool, QueryKind::State, ANSWER_MS_MAX)?;
    let state = answer
        .state
        .ok_or_else(|| anyhow!("fence-watcher refused: {}", one_line(&answer.message)))?;
    if json {
        return Ok(format!("{state:#}\n"));
    }
    let state = State::deserialize(state).context("the watcher's answer is not understood")?;
    Ok(state.text())
}

/// The watcher's state, as far as it is shown. A newer watcher may say more.
#[derive(Debug, Deserialize)]
struct State {
    pid: u32,
    node: String,
    started: String,
    version: String,
    devices: Vec<Device>,
    running: Vec<Running>,
    queued: Vec<Queued>,
    counts: BTreeMap<String, u64>,
    answers_waiting_for_disk: u64,
}

#[derive(Debug, Deserialize)]
struct Device {
    name: String,
    r#type: String,
    reachable: Option<bool>,
    reachable_since: Option<String>,
    running: u64,
    queued: u64,
    max_concurrent: u64,
    per_address: bool,
    targets: String,
    last: Option<Last>,
}

#[derive(Debug, Deserialize)]
struct Last {
    time: String,
    target: String,
    action: String,
    result: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Running {
    request_id: String,
    target: String,
    action: String,
    device: String,
    since_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Queued {
    request_id: String,
    target: String,
    action: String,
    device: String,
    deadline_in_ms: u64,
}

impl Device {
    /// What runs, and how much may.
    fn room(&self) -> String {
        let Device { running, max_concurrent, .. } = self;
        if self.per_address {
            format!("{running} ({max_concurrent} an address)")
        } else {
            format!("{running} of {max_concurrent}")
        }
    }
}

impl State {
    fn text(&self) -> String {
        let mut text = format!(
            "fence-watcher {} on {}, process {}, since {}\n\n",
            one_line(&self.version),
            one_line(&self.node),
            self.pid,
            one_line(&self.started)
        );
        text.push_str(&self.devices());
        for (heading, table) in [("running", self.running()), ("queued", self.queued())] {
            if table.is_empty() {
                put(&mut text, format_args!("\nnothing is {heading}\n"));
            } else {
                put(&mut text, format_args!("\n{heading}:\n{}", table.text()));
            }
        }
        let counts: Vec<String> = self
            .counts
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(result, count)| format!("{} {count}", one_line(result)))
            .collect();
        let counts = if counts.is_empty() { "none".into() } else { counts.join(", ") };
        put(&mut text, format_args!("\nanswers since the start: {counts}\n"));
        if self.answers_waiting_for_disk > 0 {
            let waiting = self.answers_waiting_for_disk;
            put(&mut text, format_args!("answers that wait for space on the disk: {waiting}\n"));
        }
        text
    }

    fn devices(&self) -> String {
        let mut table = Table::new([
            "DEVICE",
            "TYPE",
            "REACHABLE",
            "SINCE",
            "RUNNING",
            "QUEUED",
            "TARGETS",
            "LAST RESULT",
        ]);
        for device in &self.devices {
            let reachable = match device.reachable {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "unknown",
            };
            let last = device.last.as_ref().map(|last| {
                let Last { time, target, action, result, message } = last;
                format!("{time} {action} of {target}: {result} ({message})")
            });
            table.row([
                &device.name,
                &device.r#type,
                reachable,
                device.reachable_since.as_deref().unwrap_or_default(),
                &device.room(),
                &device.queued.to_string(),
                &device.targets,
                last.as_deref().unwrap_or_default(),
            ]);
        }
        table.text()
    }

    fn running(&self) -> Table<5> {
        let mut table = Table::new(["TARGET", "ACTION", "DEVICE", "FOR", "REQUEST"]);
        for job in &self.running {
            let since = span(job.since_ms);
            table.row([&job.target, &job.action, &job.device, &since, &job.request_id]);
        }
        table
    }

    fn queued(&self) -> Table<5> {
        let mut table = Table::new(["TARGET", "ACTION", "DEVICE", "TIME LEFT", "REQUEST"]);
        for job in &self.queued {
            let left = span(job.deadline_in_ms);
            table.row([&job.target, &job.action, &job.device, &left, &job.request_id]);
        }
        table
    }
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes every text");
}

/// How long a watcher that lives may take to answer.
const ANSWER_MS_MAX: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_is_shown_as_tables() {
        let state: State = serde_json::from_value(json!({
            "pid": 7, "node": "n1", "started": "2026-11-21T20:00:00Z", "version": "0.1.0",
            "devices": [
                {"name": "pdu", "type": "command", "reachable": true,
                 "reachable_since": "2026-11-21T20:00:01Z", "running": 1, "queued": 1,
                 "max_concurrent": 1, "per_address": false, "targets": "n[1-3]", "last": {
                    "time": "2026-11-21T20:01:00Z", "target": "n2", "action": "off",
                    "result": "success", "message": "switched\noff"}},
                {"name": "sim", "type": "simulated", "reachable": null, "reachable_since": null,
                 "running": 5, "queued": 0, "max_concurrent": 1, "per_address": true,
                 "targets": "*", "last": null}],
            "running": [{"request_id": "id-1", "target": "n3", "action": "reboot",
                         "device": "pdu", "since_ms": 1500}],
            "queued": [{"request_id": "id-2", "target": "n1", "action": "off",
                        "device": "pdu", "deadline_in_ms": 58_000}],
            "counts": {"success": 3, "expired": 0}, "answers_waiting_for_disk": 1,
            "a member of later": true
        }))
        .unwrap();

        assert_eq!(
            state.text(),
            r"fence-watcher 0.1.0 on n1, process 7, since 2026-11-21T20:00:00Z

DEVICE  TYPE       REACHABLE  SINCE                 RUNNING           QUEUED  TARGETS  LAST RESULT
pdu     command    yes        2026-11-21T20:00:01Z  1 of 1            1       n[1-3]   2026-11-21T20:01:00Z off of n2: success (switched\noff)
sim     simulated  unknown    -                     5 (1 an address)  0       *        -

running:
TARGET  ACTION  DEVICE  FOR   REQUEST
n3      reboot  pdu     1.5s  id-1

queued:
TARGET  ACTION  DEVICE  TIME LEFT  REQUEST
n1      off     pdu     58.0s      id-2

answers since the start: success 3
answers that wait for space on the disk: 1
"
        );
    }

    #[test]
    fn an_idle_watcher_says_that_nothing_is_running() {
        let state: State = serde_json::from_value(json!({
            "pid": 7, "node": "n1", "started": "s", "version": "0.1.0", "devices": [],
            "running": [], "queued": [], "counts": {}, "answers_waiting_for_disk": 0
        }))
        .unwrap();

        let text = state.text();

        assert!(text.contains("\nnothing is running\n\nnothing is queued\n"), "{text}");
        assert!(text.ends_with("answers since the start: none\n"), "{text}");
    }
}
