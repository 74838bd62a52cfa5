//! Writing logs from a process of its own.
//!
//! A disk that stands still (frozen for a snapshot, dying, served by a host that is gone) holds
//! whoever writes to it inside the kernel. No signal and no time limit ends such a call, and a
//! process with a thread in it cannot exit. So the programs that fence touch no log: each starts a
//! second process of itself, a [`LogProcess`], which takes lines on its standard input and confirms
//! each one. Its starter waits for a confirmation as long as it likes, and ends when it likes. The
//! second process writes what it was sent as soon as the disk responds.
//!
//! It holds nothing of its starter open, and is in a process group of its own, so that a signal to
//! the starter's group does not reach it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fence_log::shown_line;
use fence_spool::PlaceError;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use crate::writer::{DETAILED_LOG, EVENTS_LOG, NOT_WRITTEN, READABLE_LOG, append_line};
use crate::{AuditEvent, AuditLog};

/// What a [`LogProcess`] is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Each line sent is an event for the logs in this directory.
    Audit(PathBuf),
    /// Each line sent is appended to this file.
    Lines(PathBuf),
    /// This directory of logs is made where it is missing. Nothing is sent.
    Directory(PathBuf),
    /// This directory of logs and the logs in it are looked at, and nothing is made. Nothing is
    /// sent.
    Look(PathBuf),
}

impl Task {
    fn words(&self) -> (&'static str, &Path) {
        match self {
            Task::Audit(path) => (AUDIT, path),
            Task::Lines(path) => (LINES, path),
            Task::Directory(path) => (DIRECTORY, path),
            Task::Look(path) => (LOOK, path),
        }
    }
}

/// A process that writes logs, seen from the program that started it.
///
/// Nothing here blocks but [`LogProcess::settle`] and [`LogProcess::finish`], each up to its limit.
#[derive(Debug)]
pub struct LogProcess {
    path: PathBuf,
    is_audit: bool,
    /// `None` when it cannot be reached any more.
    to: Option<PipeWriter>,
    /// `None` when the process is gone and was waited for.
    from: Option<PipeReader>,
    /// What does not fit into the pipe yet.
    unsent: Vec<u8>,
    /// A confirmation that has not come whole.
    received: Vec<u8>,
    /// How many confirmations are still to come.
    unconfirmed: usize,
    problems: Vec<String>,
}

impl LogProcess {
    /// Starts this very program again. A failure is one of [`LogProcess::settle`].
    pub fn start(task: &Task) -> Self {
        Self::start_program("/proc/self/exe".as_ref(), task)
    }

    /// Starts `program`, whose `main` calls [`write_logs`].
    pub fn start_program(program: &Path, task: &Task) -> Self {
        let (word, path) = task.words();
        let mut process = LogProcess {
            path: path.to_owned(),
            is_audit: word == AUDIT,
            to: None,
            from: None,
            unsent: Vec::new(),
            received: Vec::new(),
            unconfirmed: usize::from([DIRECTORY, LOOK].contains(&word)),
            problems: Vec::new(),
        };
        let mut command = Command::new(program);
        command.args([OsStr::new(MODE), word.as_ref(), path.as_ref()]);
        command.env_clear().process_group(0).stderr(Stdio::null());
        if let Err(error) = process.run(command) {
            process.problems.push(process.lacking(&cannot_start(&error)));
        }
        process
    }

    /// Starts `command` between two pipes, and lets a thread wait for its end.
    ///
    /// What the caller opens afterwards, the child does not hold: not even between its fork and its
    /// exec. A lock that another process looks for is such a thing. One exception is left: the kernel
    /// refuses the thread a table of open files of its own, and the program does not start in time.
    fn run(&mut self, command: Command) -> io::Result<()> {
        let (stdin, to) = io::pipe()?;
        let (from, stdout) = io::pipe()?;
        do_not_block(&to)?;
        do_not_block(&from)?;
        let childs_ends = Arc::new((stdin, stdout));
        let threads = Arc::clone(&childs_ends);
        let (reports, reported) = mpsc::channel();
        // A thread of its own, because the start waits until the program's file was read. Where
        // there is none to be had, all copies of the pipes' ends close, which says so.
        let thread = thread::Builder::new().name("log-process".into());
        let _ = thread.spawn(move || {
            let has_own_files = unshare(CloneFlags::CLONE_FILES).is_ok();
            let copies = copies(&threads, has_own_files);
            if let Err(error) = &copies {
                let _ = writeln!(&threads.1, "{}", cannot_start(error));
            }
            drop(threads);
            let _ = reports.send(has_own_files);
            if let Ok(ends) = copies {
                run(command, ends, reports);
            }
        });
        // An error is the end of a thread that could not copy, or is not there.
        if reported.recv() == Ok(false) {
            // The kernel refuses a table of its own (a container's filter of system calls). Then the
            // child is waited for until it is its own program; a disk that hangs holds up nobody.
            let _ = reported.recv_timeout(START_TIME_MAX);
        }
        // The last of its owners: the ends close among the files of this thread.
        drop(childs_ends);
        (self.to, self.from) = (Some(to), Some(from));
        Ok(())
    }

    /// Sends an event to a process whose task is [`Task::Audit`].
    pub fn record(&mut self, event: &AuditEvent) {
        self.send(&event.to_json_line());
    }

    /// Sends a line, which has no line end but at its own end.
    pub fn send(&mut self, line: &str) {
        self.unsent.extend_from_slice(line.trim_end_matches('\n').as_bytes());
        self.unsent.push(b'\n');
        self.unconfirmed += 1;
        self.push();
    }

    /// Waits until all that was sent is written, at most for `limit`; gives what went wrong since
    /// the last time.
    pub fn settle(&mut self, limit: Duration) -> Vec<String> {
        self.wait(limit, |process| process.unconfirmed == 0)
    }

    /// Sends no more, and waits until the process is gone, at most for `limit`; gives what went
    /// wrong since the last time.
    pub fn finish(mut self, limit: Duration) -> Vec<String> {
        self.push();
        if self.unsent.is_empty() {
            self.to = None;
        }
        self.wait(limit, |process| process.from.is_none())
    }

    fn wait(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) -> Vec<String> {
        let until = Instant::now().checked_add(limit);
        loop {
            self.push();
            self.read();
            if is_done(self) {
                break;
            }
            if self.from.is_none() {
                self.unconfirmed = 0;
                // Why it could not be started, it has said.
                if self.problems.is_empty() {
                    let path = self.path.display();
                    let why = "the process that writes it has ended";
                    self.problems.push(self.lacking(&format!("cannot write to '{path}': {why}")));
                }
                break;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.problems.push(format!(
                    "'{}' did not respond within {} s: its lines are written when it responds",
                    self.path.display(),
                    limit.as_secs_f64()
                ));
                break;
            }
            self.await_news(left);
        }
        std::mem::take(&mut self.problems)
    }

    /// `problem`, with what is not written because of it.
    fn lacking(&self, problem: &str) -> String {
        if self.is_audit { format!("{NOT_WRITTEN}: {problem}") } else { problem.to_owned() }
    }

    fn await_news(&self, left: Option<Duration>) {
        let mut awaited = Vec::new();
        awaited.extend(self.from.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        if !self.unsent.is_empty() {
            awaited
                .extend(self.to.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: a rest of less than a millisecond is not spun away.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        // Interrupted or not: what is there is looked at.
        let _ = poll(&mut awaited, timeout);
    }

    /// Sends what fits.
    fn push(&mut self) {
        while let Some(to) = &mut self.to
            && !self.unsent.is_empty()
        {
            match to.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.to = None,
            }
        }
    }

    /// Takes the confirmations that have come.
    fn read(&mut self) {
        let mut chunk = [0; 4096];
        while let Some(from) = &mut self.from {
            match from.read(&mut chunk) {
                Ok(0) => self.from = None,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.from = None,
            }
        }
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let problem = String::from_utf8_lossy(&line[..end]).into_owned();
            let problem =
                if problem.starts_with(CANNOT_START) { self.lacking(&problem) } else { problem };
            self.unconfirmed = self.unconfirmed.saturating_sub(1);
            if !problem.is_empty() && !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }
}

/// A child's end of its standard input, and two copies of the one of its standard output: the second
/// is closed when the child is gone, or tells why it did not start.
type Ends = (PipeReader, PipeWriter, PipeWriter);

/// Copies of a child's ends of the pipes. If this thread has a table of open files of its own, nothing
/// else stays open in it.
fn copies((stdin, stdout): &(PipeReader, PipeWriter), has_own_files: bool) -> io::Result<Ends> {
    let copies = (stdin.try_clone()?, stdout.try_clone()?, stdout.try_clone()?);
    if has_own_files {
        // A copy of the other end of a pipe would keep its reader waiting.
        close_others(&[copies.0.as_raw_fd(), copies.1.as_raw_fd(), copies.2.as_raw_fd()])?;
    }
    Ok(copies)
}

/// Runs `command` to its end. Drops `reports` when it has become its own program.
fn run(mut command: Command, (stdin, stdout, mut end): Ends, reports: mpsc::Sender<bool>) {
    let started = command.stdin(stdin).stdout(stdout).spawn();
    // It holds the process's own ends of the pipes.
    drop(command);
    drop(reports);
    match started {
        Ok(mut child) => drop(child.wait()),
        // Its starter may be gone as well.
        Err(error) => drop(writeln!(end, "{}", cannot_start(&error))),
    }
}

fn cannot_start(error: &io::Error) -> String {
    format!("{CANNOT_START}: {error}")
}

fn do_not_block(pipe: impl AsFd) -> io::Result<()> {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// What a [`LogProcess`] does, if these arguments, which follow the program's name, start one;
/// false if not. Call it before anything else.
pub fn write_logs(arguments: &[OsString]) -> bool {
    let [mode, word, path] = arguments else { return false };
    if mode != MODE {
        return false;
    }
    // Where the open files cannot be listed, they stay open.
    let _ = close_others(&[]);
    let path = Path::new(path);
    match word.to_str() {
        Some(AUDIT) => {
            // What cannot be made is reported with the first event.
            let _ = make_directory(path);
            let mut log = AuditLog::open(path);
            confirm_each(|line| match serde_json::from_slice(line) {
                Ok(event) => log.record(&event).join("; "),
                Err(error) => format!("not an event: {error}"),
            });
        }
        Some(LINES) => {
            let mut file = fence_spool::open_append(path).map_err(|error| error.to_string());
            confirm_each(|line| append(&mut file, path, line).err().unwrap_or_default());
        }
        Some(DIRECTORY) => confirm(&make_directory(path).err().unwrap_or_default()),
        Some(LOOK) => confirm(&look(path).join("; ")),
        _ => return false,
    }
    true
}

/// Does `write` with each whole line of standard input, and confirms each with what went wrong.
fn confirm_each(mut write: impl FnMut(&[u8]) -> String) {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    while stdin.read_until(b'\n', &mut line).is_ok() {
        // A starter that was killed may have sent half a line.
        let Some(whole) = line.strip_suffix(b"\n") else { return };
        confirm(&write(whole));
        line.clear();
    }
}

fn confirm(problem: &str) {
    // A starter that is gone needs no confirmation.
    let _ = writeln!(io::stdout(), "{}", shown_line(problem));
}

fn append(file: &mut Result<File, String>, path: &Path, line: &[u8]) -> Result<(), String> {
    let file = file.as_ref().map_err(Clone::clone)?;
    append_line(file, &[line, b"\n"].concat())
        .map_err(|cause| format!("cannot append to '{}': {cause}", path.display()))
}

fn make_directory(path: &Path) -> Result<(), String> {
    match fence_spool::open_log_dir(path) {
        Err(PlaceError::Missing { .. }) => {
            fence_spool::create_dir(path).map(drop).map_err(|error| error.to_string())
        }
        other => other.map(drop).map_err(|error| error.to_string()),
    }
}

/// What keeps the logs in the directory `path` from being written.
fn look(path: &Path) -> Vec<String> {
    if let Err(problem) = fence_spool::examine_log_dir(path) {
        return vec![problem.to_string()];
    }
    let logs = [EVENTS_LOG, READABLE_LOG, DETAILED_LOG].map(|name| path.join(name));
    let problems = logs.iter().filter_map(|log| fence_spool::examine_log(log).err());
    // Without the directory there is no log in it.
    let problems = problems.filter(|problem| !matches!(problem, PlaceError::Missing { .. }));
    problems.map(|problem| problem.to_string()).collect()
}

/// Closes what is open in this thread, but the standard ones and `kept`. What the starter's own
/// starter left open is such a thing: a lock or a pipe that somebody waits for must not be held for
/// as long as a disk stands still.
fn close_others(kept: &[RawFd]) -> io::Result<()> {
    let entries = std::fs::read_dir("/proc/thread-self/fd")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = numbers.filter(|number| *number > 2 && !kept.contains(number));
    for number in others.collect::<Vec<RawFd>>() {
        // The listing's own is closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// How long the start of a process may hold up its starter, where the kernel gives a thread no table of
/// open files of its own.
const START_TIME_MAX: Duration = Duration::from_millis(500);

const CANNOT_START: &str = "cannot start the process that writes logs";

/// The hidden first argument of a process that writes logs.
const MODE: &str = "--log-process";
const AUDIT: &str = "audit";
const LINES: &str = "lines";
const DIRECTORY: &str = "directory";
const LOOK: &str = "look";
