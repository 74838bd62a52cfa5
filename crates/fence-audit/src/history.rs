//! Reading the audit again, with the logs that logrotate(8) has renamed and compressed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fence_protocol::FenceAction;
use fence_spool::PlaceError;
use flate2::read::MultiGzDecoder;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::{AuditEvent, DETAILED_LOG, Status};

/// The wanted events; a field that is `None` admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Events about this target.
    pub node: Option<String>,
    /// Events of this action, in our word or in that of the cluster manager.
    pub action: Option<FenceAction>,
}

impl Filter {
    /// Whether `event` is wanted.
    pub fn admits(&self, event: &AuditEvent) -> bool {
        // The power-on after a reboot is a part of the reboot.
        let own = if event.on_result.is_some() { &event.pacemaker_action } else { &event.action };
        let words = [own, &event.pacemaker_action];
        self.node.as_ref().is_none_or(|node| *node == event.target_node)
            && self.action.is_none_or(|action| words.iter().any(|word| *word == action.as_str()))
    }
}

/// Why the history cannot be read.
#[derive(Debug)]
pub enum HistoryError {
    /// The directory cannot be used.
    Place(PlaceError),
    /// The log in it cannot be opened.
    Open(PathBuf, io::Error),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryError::Place(error) => error.fmt(f),
            HistoryError::Open(path, error) => {
                write!(f, "cannot read '{}': {}", path.display(), fence_spool::cause(error))
            }
        }
    }
}

impl std::error::Error for HistoryError {}

/// The wanted events of the JSON logs in `log_dir`, in the order in which they were written. Lines
/// that are not events (written by hand) are skipped. If a full disk or a crash has cut a line, its
/// event has the readable members, and [`Status::Unknown`] if its status is not among these.
pub fn read(
    log_dir: &Path,
    filter: Filter,
) -> Result<impl Iterator<Item = AuditEvent> + use<>, HistoryError> {
    let directory = fence_spool::open_log_dir(log_dir).map_err(HistoryError::Place)?;
    let logs = logs(&directory)
        .map_err(|(name, errno)| HistoryError::Open(log_dir.join(name), errno.into()))?;
    let events = logs.into_iter().flat_map(events);
    Ok(events.filter(move |event| filter.admits(event)))
}

/// The JSON logs, the last written one at the end; or the one that cannot be read, and why.
fn logs(directory: &OwnedFd) -> Result<Vec<Box<dyn BufRead>>, (String, Errno)> {
    let whole = |errno| (String::new(), errno);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let listing = Dir::openat(directory, ".", flags, Mode::empty()).map_err(whole)?;
    let mut names = BTreeSet::new();
    for entry in listing {
        let entry = entry.map_err(whole)?;
        names
            .extend(entry.file_name().to_str().ok().filter(|name| is_log(name)).map(str::to_owned));
    }
    let mut logs = Vec::new();
    for name in &names {
        let plain = name.strip_suffix(COMPRESSED);
        // logrotate removes the log after it has compressed it: until then, both have the events.
        if plain.is_some_and(|plain| names.contains(plain)) {
            continue;
        }
        let name = name.as_str();
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // It was renamed or removed meanwhile.
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err((name.to_owned(), errno)),
        };
        let written = file.metadata().and_then(|facts| facts.modified()).ok();
        let log: Box<dyn BufRead> = match plain {
            Some(_) => Box::new(BufReader::new(MultiGzDecoder::new(file))),
            None => Box::new(BufReader::new(file)),
        };
        logs.push((name == DETAILED_LOG, written, log));
    }
    logs.sort_by_key(|(is_present, written, _)| (*is_present, *written));
    Ok(logs.into_iter().map(|(.., log)| log).collect())
}

/// Whether a file with this name is the log, or an older one: `….1`, or `…-20260131` with
/// `dateext`, with `.gz` at the end if it is compressed.
fn is_log(name: &str) -> bool {
    name.strip_prefix(DETAILED_LOG).is_some_and(|rest| {
        let rest = rest.strip_suffix(COMPRESSED).unwrap_or(rest);
        let number = rest.strip_prefix(['.', '-']).unwrap_or("");
        rest.is_empty() || !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn events(log: impl BufRead) -> impl Iterator<Item = AuditEvent> {
    // A read error ends the history: a bad disk would return the same error for ever.
    log.split(b'\n').map_while(Result::ok).flat_map(|line| events_in(&line))
}

/// The events in a line: one, unless an event was cut and the next one follows in the same line.
fn events_in(mut line: &[u8]) -> Vec<AuditEvent> {
    if let Ok(event) = serde_json::from_slice(line) {
        return vec![event];
    }
    let mut events = Vec::new();
    while let Some(start) = begin_of_event(line) {
        line = &line[start..];
        let mut values = serde_json::Deserializer::from_slice(line).into_iter();
        if let Some(Ok(event)) = values.next() {
            events.push(event);
            line = &line[values.byte_offset()..];
            continue;
        }
        // No text in an event looks like the beginning of an event: its quotes are escaped.
        let next = begin_of_event(&line[1..]).map_or(line.len(), |next| next + 1);
        events.extend(cut_event(&line[..next]));
        line = &line[next..];
    }
    events
}

/// Where an event begins: all versions write its time first.
fn begin_of_event(line: &[u8]) -> Option<usize> {
    line.windows(BEGIN.len()).position(|part| part == BEGIN)
}

/// The readable part of an event whose end is missing.
fn cut_event(text: &[u8]) -> Option<AuditEvent> {
    let mut members = Map::new();
    // The error is the cut.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(WholeMembers(&mut members));
    let details = members.get("details").and_then(Value::as_str).unwrap_or_default();
    let separator = if details.is_empty() { "" } else { "; " };
    members.insert("details".to_owned(), format!("{details}{separator}{CUT}").into());
    members.entry("status").or_insert_with(|| Status::Unknown.as_str().into());
    serde_json::from_value(Value::Object(members)).ok()
}

/// Takes the members of an object before the first that is not whole.
struct WholeMembers<'a>(&'a mut Map<String, Value>);

impl<'de> Visitor<'de> for WholeMembers<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some((name, value)) = members.next_entry()? {
            self.0.insert(name, value);
        }
        Ok(())
    }
}

/// The end of the name of a log that logrotate has compressed.
const COMPRESSED: &str = ".gz";

const BEGIN: &[u8] = b"{\"timestamp\"";

/// The remark in the details of an event that was cut.
const CUT: &str = "the line in the log is cut short: the disk was full, or the node crashed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;
    use crate::event::tests::event;
    use fence_protocol::FenceResult;

    const FIRST_VERSION: &str = concat!(
        r#"{"timestamp": "2026-01-02T03:04:05.123456+00:00", "action": "reboot", "#,
        r#""target_node": "n9", "gfs2_filesystems": ["none-detected"], "status": "initiated", "#,
        r#""details": "", "recorder_node": "n1", "pacemaker_action": "reboot"}"#,
    );

    #[test]
    fn lines_that_are_no_events_are_passed_over() {
        let good = event("x").to_json_line();
        let text = format!(
            "{}\n\n\0\u{1}\nnull\n{FIRST_VERSION}\n{{}}\n{good}{}",
            &good[..40],
            &good[..9]
        );

        let read: Vec<AuditEvent> = events(text.as_bytes()).collect();

        assert_eq!(read.len(), 2);
        assert_eq!((read[0].target_node.as_str(), read[0].status), ("n9", Status::Requested));
        assert_eq!(read[1], event("x"));
    }

    fn read_of(text: &str) -> Vec<(String, Status, String)> {
        let part = |event: AuditEvent| (event.target_node, event.status, event.details);
        events(text.as_bytes()).map(part).collect()
    }

    #[test]
    fn events_that_stand_in_one_line_are_all_read() {
        let line = |name: &str| {
            let mut event = event(name);
            // A file system that is named like the member with which events begin.
            let learned = &mut event.gfs2_discovery.as_mut().unwrap().learned;
            learned.insert("timestamp".to_owned(), Vec::new());
            event.to_json_line().trim_end().to_owned()
        };
        let details = |text: &str| -> Vec<String> {
            read_of(text).into_iter().map(|(.., details)| details).collect()
        };
        assert_eq!(details(&format!("{}{}", line("a"), line("b"))), ["a", "b"]);
        assert_eq!(details(&format!("\0\0\0{}", line("a"))), ["a"]);
        assert_eq!(details(&format!("x{} y{}z\n{}", line("a"), line("b"), line("c"))).len(), 3);
        let whole = line("a");
        for cut in 0..whole.len() {
            let read = details(&format!("{}{}\n{}\n", &whole[..cut], line("b"), line("c")));
            assert_eq!(read[read.len() - 2..], ["b", "c"], "{cut}");
            assert!(read.len() <= 3, "{cut}: {read:?}");
        }
        let first_version = format!("{}{FIRST_VERSION}", &FIRST_VERSION[..60]);
        assert_eq!(read_of(&first_version).last().unwrap().0, "n9");
    }

    #[test]
    fn what_was_written_of_a_cut_event_is_read_and_nothing_is_made_up() {
        let whole = event("it is off").to_json_line();
        let before = |member: &str| &whole[..whole.find(&format!(",\"{member}")).unwrap() + 3];

        assert_eq!(read_of(before("target_node")), []);
        let n3 = || "n3".to_owned();
        for member in ["gfs2_filesystems", "status"] {
            assert_eq!(read_of(before(member)), [(n3(), Status::Unknown, CUT.to_owned())]);
        }
        assert_eq!(read_of(before("details")), [(n3(), Status::Failed, CUT.to_owned())]);
        let both = format!("it is off; {CUT}");
        for member in ["recorder_node", "request_id"] {
            assert_eq!(read_of(before(member)), [(n3(), Status::Failed, both.clone())]);
        }
        let cut: Vec<AuditEvent> = events(before("duration_ms").as_bytes()).collect();
        assert_eq!(cut[0].result, Some(FenceResult::Unreachable.into()));
        assert_eq!(cut[0].duration_ms, None);
    }

    #[test]
    fn logs_that_were_put_aside_are_known_by_their_names() {
        let name = |rest: &str| format!("{DETAILED_LOG}{rest}");
        for rest in ["", ".1", ".12", "-20260131", "-1769817600", ".2.gz", "-20260131.gz"] {
            assert!(is_log(&name(rest)), "{rest}");
        }
        for rest in [".", "-", ".1.xz", ".1.gz.gz", ".old", "1", "~", "-2026-01-31"] {
            assert!(!is_log(&name(rest)), "{rest}");
        }
        assert!(!is_log("fence-events.log"));
    }

    #[test]
    fn a_filter_admits_only_what_fits_all_its_fields() {
        let event = event("x");
        let admits = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.admits(&event)
        };

        assert!(admits(|_| {}));
        assert!(admits(|filter| filter.node = Some("n3".into())));
        assert!(!admits(|filter| filter.node = Some("n4".into())));
        assert!(admits(|filter| filter.action = Some(FenceAction::Off)));
        assert!(admits(|filter| filter.action = Some(FenceAction::Reboot)));
        assert!(!admits(|filter| filter.action = Some(FenceAction::On)));
        assert!(!admits(|filter| {
            filter.node = Some("n3".into());
            filter.action = Some(FenceAction::On);
        }));
    }
}
