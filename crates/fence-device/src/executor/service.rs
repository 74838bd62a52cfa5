//! The executor itself: one loop for all programs.
//!
//! It waits for five things at once: jobs and the watcher's end on the socket, the end of a start, the
//! end of a program (`SIGCHLD`; the end of its output proves nothing, because something in the
//! background may keep that open), output, and the nearest limit. Nothing here blocks: a watcher that
//! does not read its results does not keep anybody's limit from being kept, and neither does a program
//! whose start hangs.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, close, setsid};

use super::family::{end_orphans, kill_programs, kill_session, kill_unborn};
use super::output::Output;
use super::spawn::Started;
use super::start::{self, Starter};
use super::{Greeting, JobLine, Outcome, ResultLine, json_line};
use crate::boot_ms_now;

/// Open files that the executor allows itself, two for each program; the usual 1024 are too few for
/// a burst.
const FILES_MAX: u64 = 16_384;

/// How long a killed program is waited for. One that hangs in the kernel does nothing more by itself,
/// but its result must not come later because of that.
const KILL_TIME_MS_MAX: u64 = 500;

/// How long the executor waits for its killed programs when the watcher is gone.
const LAST_WAIT_MS: u64 = 3_000;

/// A process's number and a boot's identity are shorter.
const NOTE_BYTES_MAX: u64 = 64;

/// The body of the watcher's hidden mode: runs programs for the watcher at the other end of standard
/// input, and returns when that has gone and everything it started has been killed.
///
/// `lock_file` is made if needed, and locked in shared mode until the process ends. To be called
/// first in a fresh, single-threaded process.
pub fn executor_main(lock_file: &Path) -> io::Result<()> {
    close_inherited()?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr().map_err(|_| io::Error::other("this mode is for the watcher's own use"))?;
    let problem = |error: io::Error| format!("executor: \"{}\": {error}", lock_file.display());
    let (greeting, result) = match prepare(lock_file) {
        Ok(lock) => (None, Ok(lock)),
        Err(error) => (Some(problem(error)), Err(())),
    };
    socket.write_all(&json_line(&Greeting { problem: greeting }))?;
    // Who started us has read the problem.
    let Ok(lock) = result else { return Ok(()) };

    let mut executor = Executor::new(socket)?;
    let ended = executor.serve();
    executor.kill_everything();
    if can_note(&lock) {
        // Nothing is left of this session.
        lock.set_len(0)?;
    }
    ended
}

/// Leaves everything that ties the process to who started the watcher.
fn prepare(lock_file: &Path) -> io::Result<File> {
    // Whether and when to end is the watcher's decision, also at Ctrl-C and at shutdown.
    SigSet::all().thread_block()?;
    setsid()?;
    env::set_current_dir("/")?;
    let (_, files_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files_max.min(FILES_MAX), files_max)?;

    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock_file)?;
    lock.lock_shared()?;
    if can_note(&lock) {
        take_over(&lock)?;
    }
    Ok(lock)
}

/// Whether the lock is a file that can hold a note: where nobody waits for an executor's end it is
/// `/dev/null`.
fn can_note(lock: &File) -> bool {
    lock.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Ends what an executor has left that was killed before it could, like its watcher, and notes which
/// session is to be ended should the same happen to this one.
fn take_over(mut lock: &File) -> io::Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut note = Vec::new();
    lock.take(NOTE_BYTES_MAX).read_to_end(&mut note)?;
    if let Some((session, of_boot)) = String::from_utf8_lossy(&note).split_once(' ')
        && of_boot == boot
        && let Ok(session) = session.parse()
    {
        end_orphans(Pid::from_raw(session), LAST_WAIT_MS);
    }
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(format!("{} {boot}", Pid::this()).as_bytes())
}

/// Closes what whoever started the watcher left open, so that no program gets it.
fn close_inherited() -> io::Result<()> {
    let mut inherited: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        inherited.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for number in inherited.into_iter().filter(|number| *number > 2) {
        // One of them was the directory that was read, and is closed by now.
        let _ = close(number);
    }
    Ok(())
}

/// What an event is about: these, or `2 * job + output`.
const SOCKET: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;
const STARTS: u64 = u64::MAX - 3;

#[derive(Debug)]
struct Executor {
    socket: UnixStream,
    epoll: Epoll,
    signals: SignalFd,
    timer: TimerFd,
    timer_due_ms: Option<u64>,
    starter: Starter,
    /// The jobs whose results are still to be reported.
    jobs: HashMap<u64, Job>,
    /// All programs that have not been waited for, those that were given up too.
    by_pid: HashMap<Pid, u64>,
    /// When to look at which job again.
    due: BTreeSet<(u64, u64)>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    waits_for_room: bool,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Job {
    /// `None` while it is being started.
    running: Option<(Pid, [Output; 2])>,
    output_bytes_max: usize,
    due_ms: u64,
    is_killed: bool,
}

impl Executor {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut child_ends = SigSet::empty();
        child_ends.add(Signal::SIGCHLD);
        let signals =
            SignalFd::with_flags(&child_ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let timer = TimerFd::new(
            ClockId::CLOCK_BOOTTIME,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let starter = Starter::new()?;
        epoll.add(starter.wait_fd(), EpollEvent::new(EpollFlags::EPOLLIN, STARTS))?;
        Ok(Executor {
            socket,
            epoll,
            signals,
            timer,
            timer_due_ms: None,
            starter,
            jobs: HashMap::new(),
            by_pid: HashMap::new(),
            due: BTreeSet::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            waits_for_room: false,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Serves until the watcher is gone.
    fn serve(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => 0,
                result => result?,
            };
            for event in &events[..count] {
                match event.data() {
                    // Jobs that were sent before the watcher died are not begun.
                    SOCKET if event.events().contains(EpollFlags::EPOLLHUP) => return Ok(()),
                    SOCKET if !self.receive()? => return Ok(()),
                    SOCKET => {}
                    SIGNALS => self.reap()?,
                    TIMER => self.timer.wait().or_else(not_yet)?,
                    STARTS => self.take_starts()?,
                    output => self.read_output(output),
                }
            }
            self.keep_limits();
            self.set_timer()?;
            self.send()?;
        }
    }

    /// Takes jobs from the socket; false when the watcher is gone.
    fn receive(&mut self) -> io::Result<bool> {
        let count = match self.socket.read(&mut self.buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if is_passing(&error) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut lines = Vec::new();
        for part in self.buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            self.incoming.extend_from_slice(part);
            if part.ends_with(b"\n") {
                lines.push(std::mem::take(&mut self.incoming));
            }
        }
        for line in lines {
            self.begin(serde_json::from_slice(&line)?);
        }
        Ok(true)
    }

    fn begin(&mut self, job: JobLine) {
        let JobLine { id, command } = job;
        let due_ms = command.limit.not_after_boot_ms;
        let output_bytes_max = command.output_bytes_max;
        self.due.insert((due_ms, id));
        self.jobs.insert(id, Job { running: None, output_bytes_max, due_ms, is_killed: false });
        self.starter.begin(id, command);
    }

    /// Takes over the programs that have been started.
    fn take_starts(&mut self) -> io::Result<()> {
        while let Some((id, start)) = self.starter.next() {
            match start {
                Ok(started) => self.started(id, started),
                Err(outcome) => {
                    if let Some(job) = self.jobs.remove(&id) {
                        self.due.remove(&(job.due_ms, id));
                        self.report(id, outcome);
                    }
                }
            }
        }
        // One that has ended already was nobody's when its signal came.
        self.reap()
    }

    fn started(&mut self, id: u64, started: Started) {
        let pid = started.pid;
        self.by_pid.insert(pid, id);
        let Some(job) = self.jobs.get_mut(&id) else {
            // It was given up while it was being started.
            return kill_programs(&[pid]);
        };
        for (pipe, token) in [(&started.stdout, 2 * id), (&started.stderr, 2 * id + 1)] {
            // Should this fail for want of memory, the output is read when the program has ended.
            let _ = self.epoll.add(pipe, EpollEvent::new(EpollFlags::EPOLLIN, token));
        }
        let outputs =
            [started.stdout, started.stderr].map(|pipe| Output::new(pipe, job.output_bytes_max));
        job.running = Some((pid, outputs));
        if job.is_killed {
            // It may have become the program while the other process was looked for.
            kill_programs(&[pid]);
        }
    }

    fn read_output(&mut self, token: u64) {
        let job = self.jobs.get_mut(&(token / 2)).and_then(|job| job.running.as_mut());
        if let Some((_, outputs)) = job {
            outputs[usize::from(token % 2 == 1)].read(&mut self.buffer);
        }
    }

    /// Reports the programs that have ended. Each is asked for by its number: what is still to become a
    /// program is waited for by who makes it.
    fn reap(&mut self) -> io::Result<()> {
        // Many ends may hide behind one signal, so its details are of no use.
        while self.signals.read_signal()?.is_some() {}
        let pids: Vec<Pid> = self.by_pid.keys().copied().collect();
        for pid in pids {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => {
                    self.end(pid, |_, stdout, stderr| Outcome::Exited { code, stdout, stderr });
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => self.end_by_signal(pid, signal as i32),
                // A real-time signal, which the library does not know; it has waited.
                Err(Errno::EINVAL) => self.end_by_signal(pid, 0),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn end_by_signal(&mut self, pid: Pid, signal: i32) {
        self.end(pid, |is_killed, stdout, stderr| {
            if is_killed {
                Outcome::TimedOut { stdout, stderr }
            } else {
                Outcome::Signaled { signal, stdout, stderr }
            }
        });
    }

    fn end(&mut self, pid: Pid, outcome: impl FnOnce(bool, String, String) -> Outcome) {
        if let Some(id) = self.by_pid.remove(&pid) {
            self.over(id, outcome);
        }
    }

    /// Reports what came of a job, unless that was done before.
    fn over(&mut self, id: u64, outcome: impl FnOnce(bool, String, String) -> Outcome) {
        let Some(job) = self.jobs.remove(&id) else { return };
        self.due.remove(&(job.due_ms, id));
        let texts = job.running.map(|(_, outputs)| outputs.map(|o| o.finish(&mut self.buffer)));
        let [stdout, stderr] = texts.unwrap_or_default();
        self.report(id, outcome(job.is_killed, stdout, stderr));
    }

    /// Kills what has reached its limit, and gives up what does not die of it.
    fn keep_limits(&mut self) {
        let now = boot_ms_now();
        let (mut leaders, mut unborn) = (Vec::new(), Vec::new());
        while let Some(&(due_ms, id)) = self.due.first()
            && due_ms <= now
        {
            self.due.pop_first();
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.is_killed {
                self.over(id, |_, stdout, stderr| Outcome::TimedOut { stdout, stderr });
                continue;
            }
            match &job.running {
                Some((pid, _)) => leaders.push(*pid),
                None => unborn.push(start::name(id)),
            }
            job.is_killed = true;
            job.due_ms = now + KILL_TIME_MS_MAX;
            self.due.insert((job.due_ms, id));
        }
        if !leaders.is_empty() {
            kill_programs(&leaders);
        }
        if !unborn.is_empty() {
            kill_unborn(&unborn);
        }
    }

    fn set_timer(&mut self) -> io::Result<()> {
        let due_ms = self.due.first().map(|(due_ms, _)| *due_ms);
        if due_ms == self.timer_due_ms {
            return Ok(());
        }
        self.timer_due_ms = due_ms;
        match due_ms {
            None => self.timer.unset()?,
            Some(due_ms) => {
                let seconds = i64::try_from(due_ms / 1000).unwrap_or(i64::MAX);
                let nanoseconds = i64::try_from(due_ms % 1000).unwrap_or(0) * 1_000_000;
                let instant = Expiration::OneShot(TimeSpec::new(seconds, nanoseconds));
                self.timer.set(instant, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
        }
        Ok(())
    }

    fn report(&mut self, id: u64, outcome: Outcome) {
        self.outgoing.extend(json_line(&ResultLine { id, outcome }));
    }

    fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match self.socket.write(&self.outgoing[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A watcher that is gone shows on the socket as well, and that ends the loop.
                Err(_) => break,
            }
        }
        self.outgoing.drain(..sent);
        if self.outgoing.is_empty() == self.waits_for_room {
            self.waits_for_room = !self.waits_for_room;
            let mut events = EpollFlags::EPOLLIN;
            events.set(EpollFlags::EPOLLOUT, self.waits_for_room);
            self.epoll.modify(&self.socket, &mut EpollEvent::new(events, SOCKET))?;
        }
        Ok(())
    }

    fn kill_everything(&mut self) {
        self.starter.close();
        let leaders: Vec<Pid> = self.by_pid.keys().copied().collect();
        kill_programs(&leaders);
        let until = boot_ms_now() + LAST_WAIT_MS;
        loop {
            // Asked first: what has become a program before the answer is killed below.
            let nothing_comes = self.starter.is_idle();
            kill_unborn(&self.jobs.keys().map(|id| start::name(*id)).collect::<Vec<_>>());
            kill_session(Pid::this());
            let is_quiet = self.take_starts().is_err() || self.by_pid.is_empty();
            if nothing_comes && is_quiet || boot_ms_now() >= until {
                return;
            }
            let mut events = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.starter.wait_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut events, PollTimeout::from(100_u8));
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn not_yet(error: Errno) -> nix::Result<()> {
    if error == Errno::EAGAIN { Ok(()) } else { Err(error) }
}
