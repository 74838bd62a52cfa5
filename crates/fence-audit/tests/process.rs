//! The process that writes logs, with a log that does not respond: another process holds its lock,
//! which makes a writer wait as on a frozen disk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::DateTime;
use fence_audit::history::{Filter, read};
use fence_audit::{AuditEvent, DETAILED_LOG, EVENTS_LOG, LogProcess, Status, Task};

/// Far more time than anything needs that does not hang.
const PATIENCE: Duration = Duration::from_mins(1);

const AT_ONCE: Duration = Duration::from_millis(20);

#[test]
fn events_are_confirmed_when_they_are_written_and_in_their_order() {
    let directory = Directory::new();
    let mut log = LogProcess::start_program(&program(), &Task::Audit(directory.0.clone()));
    let events: Vec<_> = (0..20).map(|number| event(&format!("{number}\n"))).collect();

    for event in &events {
        log.record(event);
    }

    assert_eq!(log.settle(PATIENCE), [""; 0]);
    assert_eq!(directory.events(), events);
    assert_eq!(log.settle(Duration::ZERO), [""; 0]);
}

#[test]
fn a_log_that_does_not_respond_is_reported_and_written_once_when_it_does() {
    let directory = Directory::new();
    let held = directory.held(DETAILED_LOG);
    let mut log = LogProcess::start_program(&program(), &Task::Audit(directory.0.clone()));
    log.record(&event("first"));
    let problems = log.settle(AT_ONCE);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains(directory.0.to_str().unwrap()), "{problems:?}");
    assert!(problems[0].contains("did not respond within 0.02 s"), "{problems:?}");

    log.record(&event("second"));
    // As at the end of the program that started it.
    drop(log);
    drop(held);

    directory.await_events(2);
    assert_eq!(directory.events(), [event("first"), event("second")]);
    let others = fs::read_to_string(directory.0.join(EVENTS_LOG)).unwrap();
    assert_eq!(others.lines().count(), 2, "{others}");
}

#[test]
fn more_than_a_pipe_holds_is_sent_without_waiting_and_arrives() {
    let directory = Directory::new();
    let held = directory.held(DETAILED_LOG);
    let mut log = LogProcess::start_program(&program(), &Task::Audit(directory.0.clone()));
    let details = "x".repeat(50_000);

    for _ in 0..40 {
        log.record(&event(&details));
    }
    assert_eq!(log.settle(AT_ONCE).len(), 1);
    drop(held);

    assert_eq!(log.settle(PATIENCE), [""; 0]);
    assert_eq!(directory.events().len(), 40);
}

#[test]
fn lines_are_appended_to_one_file_and_a_problem_is_reported_once() {
    let directory = Directory::new();
    let file = directory.0.join("debug");
    fs::write(&file, "cut").unwrap();
    let mut log = LogProcess::start_program(&program(), &Task::Lines(file.clone()));
    log.send("one");
    log.send("two\n");
    assert_eq!(log.finish(PATIENCE), [""; 0]);
    assert_eq!(fs::read_to_string(file).unwrap(), "cut\none\ntwo\n");

    let mut log = LogProcess::start_program(&program(), &Task::Lines("/nonexistent/x".into()));
    log.send("one");
    log.send("two");
    let problems = log.settle(PATIENCE);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("'/nonexistent' does not exist: run "), "{problems:?}");
}

#[test]
fn a_directory_of_logs_is_made_where_it_is_missing() {
    let directory = Directory::new();
    for path in [directory.0.join("a/b"), directory.0.join("a/b"), directory.0.clone()] {
        let log = LogProcess::start_program(&program(), &Task::Directory(path.clone()));
        assert_eq!(log.finish(PATIENCE), [""; 0]);
        assert!(path.is_dir());
    }
    fs::write(directory.0.join("file"), "").unwrap();
    let task = Task::Directory(directory.0.join("file/b"));
    let problems = LogProcess::start_program(&program(), &task).finish(PATIENCE);
    assert!(problems.len() == 1 && problems[0].contains("not a directory"), "{problems:?}");
}

#[test]
fn a_process_that_cannot_be_started_or_ends_at_once_is_reported() {
    for (program, words) in
        [("/nonexistent", "cannot start the process"), ("/bin/true", "has ended")]
    {
        let task = Task::Audit("/var/log/nowhere".into());
        let mut log = LogProcess::start_program(program.as_ref(), &task);
        log.record(&event("x"));
        let problems = log.settle(PATIENCE);
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        assert!(problems[0].starts_with("the audit was not written: "), "{problems:?}");
    }
}

/// The child is a copy of the thread that starts it, until it has become its own program.
#[test]
fn what_is_opened_after_the_start_is_not_among_the_files_of_the_thread_that_starts_it() {
    let directory = Directory::new();
    let _log = LogProcess::start_program(&program(), &Task::Audit(directory.0.clone()));
    let lock = directory.0.join("lock");
    let opened = File::create(&lock).unwrap();

    let number = opened.as_raw_fd().to_string();
    let holds = |starter: &PathBuf| {
        fs::read_link(starter.join("fd").join(&number)).is_ok_and(|path| path == lock)
    };
    assert!(!starters().is_empty());
    // A process that another test is starting may hold it for a moment.
    let begin = Instant::now();
    while starters().iter().any(holds) {
        assert!(begin.elapsed() < PATIENCE, "the thread that starts the process has the file");
        thread::yield_now();
    }
}

/// The threads of this program that start processes which write logs.
fn starters() -> Vec<PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_starter = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "log-process\n")
    };
    tasks.filter(is_starter).collect()
}

#[test]
fn no_file_of_the_starter_is_held_open() {
    let directory = Directory::new();
    let file = directory.0.join("debug");
    let lock = directory.0.join("lock");
    let mut child = Command::new("sh")
        .args(["-c", "exec 9>\"$1\"; shift; exec \"$0\" \"$@\""])
        .args([&program(), &lock])
        .args(["--log-process", "lines"])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.as_ref().unwrap().write_all(b"one\n").unwrap();
    let mut confirmed = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut confirmed).unwrap();
    assert_eq!(confirmed, "\n");

    let open = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let open: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
    assert!(open.contains(&file) && !open.contains(&lock), "{open:?}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// The example `log_process`, which cargo builds for these tests beside them.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/log_process")
}

fn event(details: &str) -> AuditEvent {
    AuditEvent {
        timestamp: DateTime::from_timestamp_millis(1_800_000_000_123).unwrap(),
        action: "off".into(),
        target_node: "n3".into(),
        gfs2_filesystems: Vec::new(),
        status: Status::Requested,
        details: details.into(),
        recorder_node: "n1".into(),
        pacemaker_action: "off".into(),
        request_id: None,
        result: None,
        duration_ms: None,
        gfs2_discovery: None,
        on_result: None,
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fence-audit-process-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o750).create(&path).unwrap();
        Directory(path)
    }

    /// A log that makes each writer wait until the value is dropped.
    fn held(&self, name: &str) -> File {
        let file = File::create(self.0.join(name)).unwrap();
        file.lock().unwrap();
        file
    }

    fn events(&self) -> Vec<AuditEvent> {
        read(&self.0, Filter::default()).unwrap().collect()
    }

    fn await_events(&self, count: usize) {
        for _ in 0..PATIENCE.as_millis() / 5 {
            if self.events().len() == count {
                return;
            }
            // No event announces the writes of a process whose starter has ended.
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
