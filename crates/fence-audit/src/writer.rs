//! Appending to the logs: one write(2) for each line, so that the lines of concurrent agents never
//! mix.
//!
//! Each of these functions can hang with the disk, so they belong into a [`crate::LogProcess`].

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::AuditEvent;

/// The operators' log: `time level text`.
pub const EVENTS_LOG: &str = "fence-events.log";

/// The log of `KEY=value` lines.
pub const READABLE_LOG: &str = "fence-events-readable.log";

/// The log of JSON lines.
pub const DETAILED_LOG: &str = "fence-events-detailed.jsonl";

/// The logs of a directory, in the order in which they are written.
pub(crate) const LOGS: [&str; 3] = [EVENTS_LOG, READABLE_LOG, DETAILED_LOG];

/// The words for an event that is in no log.
pub(crate) const NOT_WRITTEN: &str = "the audit was not written";

/// The three logs of one directory, opened once.
#[derive(Debug)]
pub struct AuditLog([Log; LOGS.len()]);

impl AuditLog {
    /// Opens the logs in `log_dir`, and creates missing files. [`AuditLog::record`] reports those
    /// that cannot be opened.
    pub fn open(log_dir: &Path) -> Self {
        AuditLog(LOGS.map(|name| Log::open(log_dir.join(name))))
    }

    /// Appends `event` to each log, and returns the problems, each once. The first also says what
    /// the audit lacks.
    pub fn record(&mut self, event: &AuditEvent) -> Vec<String> {
        let lines = [event.to_operator_line(), event.to_readable_line(), event.to_json_line()];
        let appended = self.0.iter().zip(&lines).map(|(log, line)| log.append(line.as_bytes()));
        let mut problems: Vec<String> = appended.filter_map(Result::err).collect();
        let lack =
            if problems.len() == LOGS.len() { NOT_WRITTEN } else { "the audit is incomplete" };
        problems.dedup();
        if let Some(first) = problems.first_mut() {
            first.insert_str(0, &format!("{lack}: "));
        }
        problems
    }
}

/// A log, opened once; if it cannot be opened, why.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Result<File, String>,
}

impl Log {
    pub(crate) fn open(path: PathBuf) -> Self {
        let file = fence_spool::open_append(&path).map_err(|error| error.to_string());
        Log { path, file }
    }

    /// Appends `line`, which has its line end, although other processes append to the log as well.
    ///
    /// A full disk or a crash can have cut the last line. Then this function writes a line end
    /// first, so that `line` begins a new line. The lock keeps other writers from cutting a line
    /// meanwhile.
    pub(crate) fn append(&self, line: &[u8]) -> Result<(), String> {
        let file = self.file.as_ref().map_err(Clone::clone)?;
        // A file system without locks is written without a lock.
        let is_locked = file.lock().is_ok();
        let before: &[u8] = if ends_in_a_line(file) { b"\n" } else { b"" };
        let written = write(file, &[before, line].concat());
        if is_locked {
            let _ = file.unlock();
        }
        written.map_err(|cause| format!("cannot append to '{}': {cause}", self.path.display()))
    }
}

/// Whether the last line has no end.
fn ends_in_a_line(file: &File) -> bool {
    let mut last = [0];
    let Ok(size) = file.metadata().map(|facts| facts.len()) else { return false };
    size > 0 && file.read_exact_at(&mut last, size - 1).is_ok() && last != *b"\n"
}

/// Writes all bytes, in one call unless the disk gets full meanwhile.
fn write(mut file: &File, bytes: &[u8]) -> Result<(), String> {
    let mut written = 0;
    while written < bytes.len() {
        let cause = match file.write(&bytes[written..]) {
            Ok(count @ 1..) => {
                written += count;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) => "the file takes no more".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(match written {
            0 => cause,
            _ => format!("only {written} of {} bytes were written: {cause}", bytes.len()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("fence-audit-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_event_is_one_line_in_each_log() {
        let directory = Directory::new();
        let mut log = AuditLog::open(&directory.0);

        assert_eq!(log.record(&event("first")), [""; 0]);
        assert_eq!(log.record(&event("second")), [""; 0]);

        for name in [EVENTS_LOG, READABLE_LOG, DETAILED_LOG] {
            let text = fs::read_to_string(directory.0.join(name)).unwrap();
            assert_eq!(text.lines().count(), 2, "{name}: {text}");
            assert!(text.lines().next().unwrap().contains("first"), "{name}: {text}");
        }
    }

    #[test]
    fn lines_of_agents_that_run_at_the_same_time_never_mix() {
        let directory = Directory::new();
        thread::scope(|scope| {
            for letter in ["a", "b", "c", "d"] {
                let directory = &directory.0;
                scope.spawn(move || {
                    let mut log = AuditLog::open(directory);
                    for _ in 0..200 {
                        assert!(log.record(&event(&letter.repeat(3000))).is_empty());
                    }
                });
            }
        });

        let text = fs::read_to_string(directory.0.join(DETAILED_LOG)).unwrap();
        assert_eq!(text.lines().count(), 800);
        for line in text.lines() {
            let event: AuditEvent = serde_json::from_str(line).unwrap();
            assert_eq!(event.details, event.details[..1].repeat(3000));
        }
    }

    #[test]
    fn a_line_that_was_cut_does_not_swallow_the_next_one() {
        let directory = Directory::new();
        for name in [EVENTS_LOG, READABLE_LOG, DETAILED_LOG] {
            for (before, lines) in [("", 1), ("whole\n", 2), ("cut", 2), ("\n", 2), ("\0", 2)] {
                fs::write(directory.0.join(name), before).unwrap();

                assert_eq!(AuditLog::open(&directory.0).record(&event("x")), [""; 0]);

                let text = fs::read_to_string(directory.0.join(name)).unwrap();
                assert_eq!(text.lines().count(), lines, "{name} {before:?}: {text:?}");
                let last = text.lines().last().unwrap();
                assert!(last.starts_with(['2', '[', '{']), "{name} {before:?}: {text:?}");
            }
        }
    }

    #[test]
    fn writers_of_one_log_wait_for_each_other_and_hold_it_no_longer_than_a_line() {
        let directory = Directory::new();
        let mut log = AuditLog::open(&directory.0);
        assert_eq!(log.record(&event("first")), [""; 0]);

        let other = File::open(directory.0.join(DETAILED_LOG)).unwrap();
        other.try_lock().expect("nobody writes");
        thread::scope(|scope| {
            let second = scope.spawn(|| log.record(&event("second")));
            fs::write(directory.0.join(DETAILED_LOG), "cut").unwrap();
            other.unlock().unwrap();
            assert_eq!(second.join().unwrap(), [""; 0]);
        });

        let text = fs::read_to_string(directory.0.join(DETAILED_LOG)).unwrap();
        assert_eq!(text, format!("cut\n{}", event("second").to_json_line()));
    }

    #[test]
    fn a_directory_that_is_missing_is_one_problem_and_not_three() {
        let mut log = AuditLog::open(Path::new("/nonexistent/logs"));

        let problems = log.record(&event("x"));

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("/nonexistent"), "{problems:?}");
        assert!(problems[0].starts_with("the audit was not written: "), "{problems:?}");
    }

    #[test]
    fn one_log_that_cannot_be_written_does_not_keep_the_others_from_it() {
        let directory = Directory::new();
        fs::create_dir(directory.0.join(READABLE_LOG)).unwrap();

        let problems = AuditLog::open(&directory.0).record(&event("x"));

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("the audit is incomplete: "), "{problems:?}");
        assert!(fs::read_to_string(directory.0.join(DETAILED_LOG)).unwrap().ends_with("}\n"));
    }
}
