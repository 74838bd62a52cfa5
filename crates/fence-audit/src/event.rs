//! One event and its three forms. Each form is one line, whatever characters the values contain.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use fence_log::{is_plain, one_line};
use fence_protocol::{AuditResult, rfc3339};
use serde::{Deserialize, Serialize, Serializer};

use crate::DiscoveryRecord;

/// The progress of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was requested. The first version also wrote `initiated`.
    #[serde(alias = "initiated")]
    Requested,
    /// It succeeded.
    Completed,
    /// It failed, or its outcome is unknown.
    Failed,
    /// Its agent gave up while a watcher had claimed it: the watcher writes the end. Without a
    /// result: the line in the log is cut before its status.
    Unknown,
}

impl Status {
    /// The word in the logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Requested => "requested",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Unknown => "unknown",
        }
    }
}

/// One event in the life of one fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When it happened.
    #[serde(serialize_with = "milliseconds")]
    pub timestamp: DateTime<Utc>,
    /// The action: `off`, `on` or `reboot`.
    pub action: String,
    /// The target.
    pub target_node: String,
    /// The GFS2 file systems that the target held, as far as known.
    #[serde(default)]
    pub gfs2_filesystems: Vec<String>,
    /// The progress of the fence.
    pub status: Status,
    /// A description for people.
    #[serde(default)]
    pub details: String,
    /// The node on which the agent runs.
    #[serde(default)]
    pub recorder_node: String,
    /// The action in the word of the cluster manager.
    #[serde(default)]
    pub pacemaker_action: String,
    /// The request's identity; none if no request was written.
    #[serde(default)]
    pub request_id: Option<String>,
    /// The result; none while the fence is open.
    #[serde(default)]
    pub result: Option<AuditResult>,
    /// Milliseconds since the agent started, or, if the watcher writes the end, since the request
    /// was written; none while the fence is open.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// How the file systems were found, or why not; none before the search.
    #[serde(default)]
    pub gfs2_discovery: Option<DiscoveryRecord>,
    /// Only of the event that tells what became of the power-on after the answer to a reboot: `on`,
    /// `not confirmed`, `failed`, `not ordered` or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_result: Option<String>,
}

impl AuditEvent {
    /// The line for operators: `time level text`.
    pub(crate) fn to_operator_line(&self) -> String {
        let level = match self.status {
            Status::Requested | Status::Completed => "INFO",
            Status::Failed | Status::Unknown => "ERROR",
        };
        let (action, target) = (one_line(&self.action), one_line(&self.target_node));
        let (time, status) = (rfc3339(self.timestamp), self.status.as_str());
        let mut line = format!("{time} {level} {action} of {target} {status}");
        if let Some(id) = &self.request_id {
            push(&mut line, format_args!(" (request {})", one_line(id)));
        }
        if !self.details.is_empty() {
            push(&mut line, format_args!(": {}", one_line(&self.details)));
        }
        line.push('\n');
        line
    }

    /// The line for scripts: `[time] ACTION=… TARGET=… GFS2=[…] STATUS=… DETAILS=…`. Only the last
    /// value may contain blanks.
    pub(crate) fn to_readable_line(&self) -> String {
        let filesystems: Vec<String> =
            self.gfs2_filesystems.iter().map(|name| word(name)).collect();
        format!(
            "[{}] ACTION={} TARGET={} GFS2=[{}] STATUS={} DETAILS={}\n",
            rfc3339(self.timestamp),
            word(&self.action),
            word(&self.target_node),
            filesystems.join(","),
            self.status.as_str(),
            one_line(&self.details),
        )
    }

    /// The line for programs: one JSON object.
    pub(crate) fn to_json_line(&self) -> String {
        let json = serde_json::to_string(self).expect("texts, numbers and lists have a JSON form");
        let mut line = String::with_capacity(json.len() + 1);
        // JSON itself escapes only the characters below U+0020. The others occur only in strings,
        // where an escape has the same meaning.
        for c in json.chars() {
            if is_plain(c) {
                line.push(c);
            } else {
                push(&mut line, format_args!("\\u{:04x}", u32::from(c)));
            }
        }
        line.push('\n');
        line
    }
}

/// `text` with escapes for the separators of the readable log.
fn word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        if c.is_whitespace() || matches!(c, ',' | '[' | ']') {
            push(&mut word, format_args!("\\u{{{:x}}}", u32::from(c)));
        } else {
            word.push(c);
        }
    }
    word
}

fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a String takes every text");
}

fn milliseconds<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*instant))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{DiscoveryOutcome, SourceRecord, SourceState};
    use fence_protocol::FenceResult;
    use serde_json::{Value, json};

    pub(crate) fn event(details: &str) -> AuditEvent {
        AuditEvent {
            timestamp: DateTime::from_timestamp_millis(1_800_000_000_123).unwrap(),
            action: "off".into(),
            target_node: "n3".into(),
            gfs2_filesystems: vec!["storage".into(), "home".into()],
            status: Status::Failed,
            details: details.into(),
            recorder_node: "n1".into(),
            pacemaker_action: "reboot".into(),
            request_id: Some("67e55044".into()),
            result: Some(FenceResult::Unreachable.into()),
            duration_ms: Some(1234),
            gfs2_discovery: Some(discovery("dlm")),
            on_result: None,
        }
    }

    fn discovery(text: &str) -> DiscoveryRecord {
        let why = Some(text.to_owned());
        DiscoveryRecord {
            outcome: DiscoveryOutcome::Found,
            learned: [(text.to_owned(), vec![text.to_owned()])].into(),
            sources: [(text.to_owned(), SourceRecord { state: SourceState::Blind, why })].into(),
        }
    }

    const HOSTILE: &str = "a\nb\rc\u{85}d\u{2028}e\u{2029}f\x1b[2Kg\0h\u{202e}\u{7f}\t\\n\"";

    #[test]
    fn each_form_is_one_line_whatever_the_values_hold() {
        let mut event = event(HOSTILE);
        event.action = HOSTILE.into();
        event.target_node = HOSTILE.into();
        event.recorder_node = HOSTILE.into();
        event.pacemaker_action = HOSTILE.into();
        event.request_id = Some(HOSTILE.into());
        event.gfs2_filesystems = vec![HOSTILE.into()];
        event.gfs2_discovery = Some(discovery(HOSTILE));

        for line in [event.to_operator_line(), event.to_readable_line(), event.to_json_line()] {
            let text = line.strip_suffix('\n').unwrap();
            assert!(text.chars().all(is_plain), "{text:?}");
        }
        let read: AuditEvent = serde_json::from_str(&event.to_json_line()).unwrap();
        assert_eq!(read, event);
    }

    #[test]
    fn a_file_systems_name_cannot_forge_a_field_of_the_readable_log() {
        let mut event = event("no device");
        event.gfs2_filesystems = vec!["a] STATUS=completed DETAILS=[b".into()];

        let line = event.to_readable_line();

        assert_eq!(line.matches(" STATUS=").count(), 1, "{line}");
        assert!(line.ends_with(" STATUS=failed DETAILS=no device\n"), "{line}");
    }

    #[test]
    fn the_readable_line_has_the_form_of_the_first_version() {
        assert_eq!(
            event("no device").to_readable_line(),
            "[2027-01-15T08:00:00.123Z] ACTION=off TARGET=n3 GFS2=[storage,home] STATUS=failed \
             DETAILS=no device\n"
        );
    }

    #[test]
    fn the_operator_line_is_time_level_and_text() {
        assert_eq!(
            event("no device").to_operator_line(),
            "2027-01-15T08:00:00.123Z ERROR off of n3 failed (request 67e55044): no device\n"
        );
    }

    #[test]
    fn the_json_line_has_exactly_the_members_that_readers_know() {
        let mut open = event("");
        open.status = Status::Requested;
        open.result = None;
        open.duration_ms = None;
        for event in [event("x"), open] {
            let value: Value = serde_json::from_str(&event.to_json_line()).unwrap();
            let mut members: Vec<&str> =
                value.as_object().unwrap().keys().map(String::as_str).collect();
            members.sort_unstable();
            assert_eq!(
                members,
                [
                    "action",
                    "details",
                    "duration_ms",
                    "gfs2_discovery",
                    "gfs2_filesystems",
                    "pacemaker_action",
                    "recorder_node",
                    "request_id",
                    "result",
                    "status",
                    "target_node",
                    "timestamp"
                ]
            );
        }
    }

    #[test]
    fn what_was_found_what_could_not_be_told_and_what_was_disabled_are_told_apart() {
        let of = |record| {
            let event = AuditEvent { gfs2_discovery: record, ..event("") };
            let value: Value = serde_json::from_str(&event.to_json_line()).unwrap();
            value["gfs2_discovery"].clone()
        };

        assert_eq!(of(None), Value::Null);
        for (outcome, word) in [
            (DiscoveryOutcome::Found, "found"),
            (DiscoveryOutcome::None, "none"),
            (DiscoveryOutcome::Unknown, "unknown"),
            (DiscoveryOutcome::Disabled, "disabled"),
        ] {
            let empty = json!({"outcome": word, "learned": {}, "sources": {}});
            let words = (of(Some(DiscoveryRecord::of(outcome))), outcome.to_string());
            assert_eq!(words, (empty, word.to_owned()));
        }
        let full = json!({
            "outcome": "found", "learned": {"home": ["home"]},
            "sources": {"home": {"state": "blind", "why": "home"}},
        });
        assert_eq!(of(Some(discovery("home"))), full);
    }
}
