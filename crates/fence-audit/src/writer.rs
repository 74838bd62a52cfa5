//! Appending to the logs: one write(2) of one whole line each, so that the lines of agents that run
//! at the same time never mix.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::AuditEvent;

/// The operators' log: `time level text`.
pub const EVENTS_LOG: &str = "fence-events.log";

/// The log of `KEY=value` lines.
pub const READABLE_LOG: &str = "fence-events-readable.log";

/// The log of JSON lines.
pub const DETAILED_LOG: &str = "fence-events-detailed.jsonl";

/// The three logs of one directory, opened once.
#[derive(Debug)]
pub struct AuditLog {
    events: Log,
    readable: Log,
    detailed: Log,
}

impl AuditLog {
    /// Opens the logs in `log_dir`, making the files where they are missing. What cannot be opened
    /// is reported by [`AuditLog::record`].
    pub fn open(log_dir: &Path) -> Self {
        AuditLog {
            events: Log::open(log_dir.join(EVENTS_LOG)),
            readable: Log::open(log_dir.join(READABLE_LOG)),
            detailed: Log::open(log_dir.join(DETAILED_LOG)),
        }
    }

    /// Appends `event` to each log, and returns what went wrong, each problem once.
    pub fn record(&mut self, event: &AuditEvent) -> Vec<String> {
        let mut problems: Vec<String> = [
            self.events.append(&event.to_operator_line()),
            self.readable.append(&event.to_readable_line()),
            self.detailed.append(&event.to_json_line()),
        ]
        .into_iter()
        .filter_map(Result::err)
        .collect();
        problems.dedup();
        problems
    }
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Result<File, String>,
}

impl Log {
    fn open(path: PathBuf) -> Self {
        let file = fence_spool::open_append(&path).map_err(|error| error.to_string());
        Log { path, file }
    }

    fn append(&mut self, line: &str) -> Result<(), String> {
        let file = self.file.as_mut().map_err(|problem| problem.clone())?;
        let cause = match file.write(line.as_bytes()) {
            Ok(written) if written == line.len() => return Ok(()),
            Ok(written) => format!("only {written} of {} bytes were written", line.len()),
            Err(error) => error.to_string(),
        };
        Err(format!("cannot append to '{}': {cause}", self.path.display()))
    }
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
    fn a_directory_that_is_missing_is_one_problem_and_not_three() {
        let mut log = AuditLog::open(Path::new("/nonexistent/logs"));

        let problems = log.record(&event("x"));

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("/nonexistent"), "{problems:?}");
    }

    #[test]
    fn one_log_that_cannot_be_written_does_not_keep_the_others_from_it() {
        let directory = Directory::new();
        fs::create_dir(directory.0.join(READABLE_LOG)).unwrap();

        let problems = AuditLog::open(&directory.0).record(&event("x"));

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(fs::read_to_string(directory.0.join(DETAILED_LOG)).unwrap().ends_with("}\n"));
    }
}
