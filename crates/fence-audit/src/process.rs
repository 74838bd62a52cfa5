//! Writing logs from a separate process.
//!
//! A disk that hangs (frozen for a snapshot, dying, on a host that is down) holds every writer
//! inside the kernel. No signal and no time limit ends such a call, and a process with a thread in
//! it cannot exit. Therefore the agent and the watcher touch no log. Each starts a second process
//! of its own program, a [`LogProcess`], which reads lines from its standard input and confirms
//! each one. The starter limits how long it waits for a confirmation, and can exit at any time. The
//! second process writes all lines that it received as soon as the disk responds.
//!
//! The second process holds no file of its starter open. It has its own process group, so a signal
//! to the starter's group does not reach it.

use std::ffi::{OsStr, OsString};
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

use crate::writer::{LOGS, Log, NOT_WRITTEN};
use crate::{AuditEvent, AuditLog};

/// The task of a [`LogProcess`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Writes each line, an event, into the logs in this directory.
    Audit(PathBuf),
    /// Appends each line to this file.
    Lines(PathBuf),
    /// Creates this directory of logs if it is missing. Takes no lines.
    Directory(PathBuf),
    /// Examines this directory of logs and its logs, and creates nothing. Takes no lines.
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
/// Only [`LogProcess::settle`] and [`LogProcess::finish`] block, each up to its limit.
#[derive(Debug)]
pub struct LogProcess {
    path: PathBuf,
    is_audit: bool,
    /// `None` when the process can no longer be reached.
    to: Option<PipeWriter>,
    /// `None` when the process is gone and was waited for.
    from: Option<PipeReader>,
    /// The bytes that do not fit into the pipe yet.
    unsent: Vec<u8>,
    /// The part of a confirmation that has arrived.
    received: Vec<u8>,
    /// The number of confirmations that are still missing.
    unconfirmed: usize,
    problems: Vec<String>,
}

impl LogProcess {
    /// Starts this program again. [`LogProcess::settle`] reports a failure.
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

    /// Starts `command` between two pipes. A thread waits for its end.
    ///
    /// The child holds no file that the caller opens afterwards, not even between its fork and its
    /// exec: such a file may have a lock that another process looks for. One exception is left: the
    /// kernel refuses the thread a separate table of open files, and the program does not start in
    /// time.
    fn run(&mut self, command: Command) -> io::Result<()> {
        let (stdin, to) = io::pipe()?;
        let (from, stdout) = io::pipe()?;
        do_not_block(&to)?;
        do_not_block(&from)?;
        let childs_ends = Arc::new((stdin, stdout));
        let threads = Arc::clone(&childs_ends);
        let (reports, reported) = mpsc::channel();
        // A thread, because the start waits until the program's file is read. If no thread can be
        // started, all copies of the pipes' ends close, which reports the failure.
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
        // An error shows that the thread could not copy, or does not exist.
        if reported.recv() == Ok(false) {
            // The kernel refuses a separate table (a container's filter of system calls). Then wait
            // until the child has executed its program, for a limited time because the disk may
            // hang.
            let _ = reported.recv_timeout(START_TIME_MAX);
        }
        // This is the last owner, so the ends close in the file table of this thread.
        drop(childs_ends);
        (self.to, self.from) = (Some(to), Some(from));
        Ok(())
    }

    /// Sends an event to a process whose task is [`Task::Audit`].
    pub fn record(&mut self, event: &AuditEvent) {
        self.send(&event.to_json_line());
    }

    /// Sends a line. It may end with a line end, and has no other.
    pub fn send(&mut self, line: &str) {
        self.unsent.extend_from_slice(line.trim_end_matches('\n').as_bytes());
        self.unsent.push(b'\n');
        self.unconfirmed += 1;
        self.push();
    }

    /// Waits until all lines are written, at most for `limit`. Returns the problems since the last
    /// call.
    pub fn settle(&mut self, limit: Duration) -> Vec<String> {
        self.wait(limit, |process| process.unconfirmed == 0)
    }

    /// Sends no more, and waits until the process is gone, at most for `limit`. Returns the
    /// problems since the last call.
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
                // A problem of its start was already reported.
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

    /// `problem`, with its effect on the audit.
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
            // Rounded up, so that the last part of a millisecond is no busy loop.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        // After an interruption, the caller looks at the pipes as well.
        let _ = poll(&mut awaited, timeout);
    }

    /// Sends the bytes that fit into the pipe.
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

    /// Takes the confirmations that have arrived.
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

/// The child's ends of the pipes: one of its standard input and two of its standard output. The
/// second closes when the child is gone, or reports why it did not start.
type Ends = (PipeReader, PipeWriter, PipeWriter);

/// Copies of a child's ends of the pipes. If this thread has its own table of open files, no other
/// file stays open in it.
fn copies((stdin, stdout): &(PipeReader, PipeWriter), has_own_files: bool) -> io::Result<Ends> {
    let copies = (stdin.try_clone()?, stdout.try_clone()?, stdout.try_clone()?);
    if has_own_files {
        // While a copy of the other end of a pipe is open, its reader waits.
        close_others(&[copies.0.as_raw_fd(), copies.1.as_raw_fd(), copies.2.as_raw_fd()])?;
    }
    Ok(copies)
}

/// Runs `command` to its end. Drops `reports` when the child has executed its program.
fn run(mut command: Command, (stdin, stdout, mut end): Ends, reports: mpsc::Sender<bool>) {
    let started = command.stdin(stdin).stdout(stdout).spawn();
    // The command holds the child's ends of the pipes.
    drop(command);
    drop(reports);
    match started {
        Ok(mut child) => drop(child.wait()),
        // The starter may be gone as well.
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

/// Runs as a [`LogProcess`] if these arguments, without the program's name, start one; false if
/// they do not. Call it before anything else.
pub fn write_logs(arguments: &[OsString]) -> bool {
    let [mode, word, path] = arguments else { return false };
    if mode != MODE {
        return false;
    }
    // Open files that cannot be listed stay open.
    let _ = close_others(&[]);
    let path = Path::new(path);
    match word.to_str() {
        Some(AUDIT) => {
            // A failure is reported with the first event.
            let _ = make_directory(path);
            let mut log = AuditLog::open(path);
            confirm_each(|line| match serde_json::from_slice(line) {
                Ok(event) => log.record(&event).join("; "),
                Err(error) => format!("not an event: {error}"),
            });
        }
        Some(LINES) => {
            let log = Log::open(path.to_owned());
            let append = |line: &[u8]| log.append(&[line, b"\n"].concat());
            confirm_each(|line| append(line).err().unwrap_or_default());
        }
        Some(DIRECTORY) => confirm(&make_directory(path).err().unwrap_or_default()),
        Some(LOOK) => confirm(&look(path).join("; ")),
        _ => return false,
    }
    true
}

/// Calls `write` for each whole line of standard input, and confirms each line with the problem.
fn confirm_each(mut write: impl FnMut(&[u8]) -> String) {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    while stdin.read_until(b'\n', &mut line).is_ok() {
        // A killed starter may have sent half a line.
        let Some(whole) = line.strip_suffix(b"\n") else { return };
        confirm(&write(whole));
        line.clear();
    }
}

fn confirm(problem: &str) {
    // A starter that is gone needs no confirmation.
    let _ = writeln!(io::stdout(), "{}", shown_line(problem));
}

fn make_directory(path: &Path) -> Result<(), String> {
    match fence_spool::open_log_dir(path) {
        Err(PlaceError::Missing { .. }) => {
            fence_spool::create_dir(path).map(drop).map_err(|error| error.to_string())
        }
        other => other.map(drop).map_err(|error| error.to_string()),
    }
}

/// Why the logs in the directory `path` cannot be written.
fn look(path: &Path) -> Vec<String> {
    if let Err(problem) = fence_spool::examine_log_dir(path) {
        return vec![problem.to_string()];
    }
    let problems = LOGS.iter().filter_map(|name| fence_spool::examine_log(&path.join(name)).err());
    // A missing directory has no logs.
    let problems = problems.filter(|problem| !matches!(problem, PlaceError::Missing { .. }));
    problems.map(|problem| problem.to_string()).collect()
}

/// Closes all files of this thread but the standard ones and `kept`, also those that the starter
/// has inherited: while a disk hangs, this process must not hold a lock or a pipe that others wait
/// for.
fn close_others(kept: &[RawFd]) -> io::Result<()> {
    let entries = std::fs::read_dir("/proc/thread-self/fd")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = numbers.filter(|number| *number > 2 && !kept.contains(number));
    for number in others.collect::<Vec<RawFd>>() {
        // The number of the listing itself is closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// How long the start of a process may delay its starter if the kernel refuses a thread a separate
/// table of open files.
const START_TIME_MAX: Duration = Duration::from_millis(500);

const CANNOT_START: &str = "cannot start the process that writes logs";

/// The hidden first argument of a process that writes logs.
const MODE: &str = "--log-process";
const AUDIT: &str = "audit";
const LINES: &str = "lines";
const DIRECTORY: &str = "directory";
const LOOK: &str = "look";
