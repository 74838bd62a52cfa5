//! The executor itself: one loop that hands jobs to keepers.
//!
//! It waits for four things at once: jobs and the watcher's end on the socket, results of keepers,
//! the end of a child (`SIGCHLD`), and the nearest moment at which a keeper must have reported.
//! Nothing here blocks: neither a watcher that does not read its results nor a keeper that does not
//! move holds up anybody else.
//!
//! Each child of the executor is a keeper, or a process that a dead keeper has left: that one is
//! killed, and the job's result is reported afterwards.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::family::kill_descendants;
use super::keeper::{LIFE, time_spec};
use super::main::KEEPER;
use super::wire::{Received, Wire};
use super::{
    Answer, JobLine, KILL_TIME_MS_MAX, KeeperLine, LAST_WAIT_MS, Purpose, ResultLine, RunOutcome,
    Word, json_line,
};
use crate::boot_ms_now;

/// How long after its limit, in addition to the time that a kill takes, a job's keeper may be
/// silent. A keeper that is silent for longer is stuck, perhaps stopped, and is killed.
const KEEPER_DELAY_MS_MAX: u64 = 500;

/// How much longer a keeper may be silent whose executor itself was stopped meanwhile.
const SPARED_MS: u64 = 2_000;

/// How many keepers wait for a job. Others end.
const IDLE_MAX: usize = 2;

/// How often to look for what a dead keeper left while somebody waits for the result, and
/// afterwards.
const LOOK_AGAIN_MS: u64 = 20;
const LOOK_RARELY_MS: u64 = 1_000;

/// What an event is about: these, or a keeper.
const SOCKET: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;

#[derive(Debug)]
pub(super) struct Executor {
    watcher: Wire,
    lock: File,
    epoll: Epoll,
    signals: SignalFd,
    timer: TimerFd,
    timer_due_ms: Option<u64>,
    /// Jobs that have no keeper yet: orders before questions.
    pending: VecDeque<Pending>,
    /// All keepers that have not been waited for.
    keepers: HashMap<u64, Keeper>,
    next_keeper: u64,
    /// Keepers that wait for a job; the last has had one most recently.
    idle: Vec<u64>,
    /// When which keeper must have reported.
    due: BTreeSet<(u64, u64)>,
    /// Jobs whose keepers have died; they are reported when nothing of theirs is left.
    lost: Vec<Lost>,
    /// When to look again for what a dead keeper has left; `None` when nothing is.
    strays_due_ms: Option<u64>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    purpose: Purpose,
    /// When a keeper must have reported.
    due_ms: u64,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Keeper {
    pid: Pid,
    /// `None` once the keeper has closed its end.
    wire: Option<Wire>,
    /// The job that it runs: its number, and when the keeper must have reported.
    job: Option<(u64, u64)>,
    /// It has had time once more, because the executor came late.
    is_spared: bool,
    /// It was killed because it had not.
    is_late: bool,
}

#[derive(Debug)]
struct Lost {
    id: u64,
    outcome: RunOutcome,
    due_ms: u64,
}

impl Executor {
    /// The executor of the watcher at the other end of `socket`. Its keepers hold `lock`.
    pub(super) fn new(socket: UnixStream, lock: File) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut child_ends = SigSet::empty();
        child_ends.add(Signal::SIGCHLD);
        let signals =
            SignalFd::with_flags(&child_ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let timer = TimerFd::new(
            ClockId::CLOCK_BOOTTIME,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let mut executor = Executor {
            watcher: Wire::new(socket, &epoll, SOCKET)?,
            lock,
            epoll,
            signals,
            timer,
            timer_due_ms: None,
            pending: VecDeque::new(),
            keepers: HashMap::new(),
            next_keeper: 0,
            idle: Vec::new(),
            due: BTreeSet::new(),
            lost: Vec::new(),
            strays_due_ms: None,
            buffer: vec![0; 64 * 1024],
        };
        // The first job does not wait for its keeper's start.
        let first = executor.start_keeper()?;
        executor.idle.push(first);
        Ok(executor)
    }

    /// Serves until the watcher is gone.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let is_idle = self.pending.is_empty();
            let timeout = if is_idle { EpollTimeout::NONE } else { EpollTimeout::ZERO };
            let count = match self.epoll.wait(&mut events, timeout) {
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
                    keeper => drop(self.hear(keeper)?),
                }
            }
            self.begin()?;
            self.keep_limits();
            self.end_strays();
            self.set_timer()?;
            self.watcher.send(&self.epoll)?;
        }
    }

    /// Takes jobs from the socket; false when the watcher is gone.
    fn receive(&mut self) -> io::Result<bool> {
        let lines = match self.watcher.receive(&mut self.buffer)? {
            Received::Lines(lines) => lines,
            Received::Nothing => return Ok(true),
            Received::End => return Ok(false),
        };
        for line in lines {
            match serde_json::from_slice(&line)? {
                Word::AreYouAlive => self.watcher.queue(&json_line(&Answer::Alive)),
                Word::Job(JobLine { id, purpose, command }) => {
                    let limit_ms = command.limit.not_after_boot_ms;
                    let due_ms = limit_ms.saturating_add(KILL_TIME_MS_MAX + KEEPER_DELAY_MS_MAX);
                    self.enqueue(Pending { id, purpose, due_ms, line });
                }
            }
        }
        Ok(true)
    }

    /// Each keeper that is started takes its time: an order does not wait for those of questions.
    fn enqueue(&mut self, job: Pending) {
        let at = match job.purpose {
            Purpose::Order => self.pending.partition_point(|other| other.purpose == Purpose::Order),
            Purpose::Question => self.pending.len(),
        };
        self.pending.insert(at, job);
    }

    /// Hands out the jobs for which there are keepers. Starts one keeper at most: in between,
    /// whoever sends many jobs must get rid of them, and limits must be kept.
    fn begin(&mut self) -> io::Result<()> {
        if self.idle.is_empty() && !self.pending.is_empty() {
            match self.start_keeper() {
                Ok(key) => self.idle.push(key),
                Err(error) => {
                    let outcome =
                        RunOutcome::NotStarted(format!("cannot start a process: {error}"));
                    if let Some(job) = self.pending.pop_front() {
                        self.report(job.id, outcome);
                    }
                }
            }
        }
        while let Some(key) = self.idle.pop() {
            let Some(job) = self.pending.pop_front() else {
                self.idle.push(key);
                break;
            };
            self.hand_out(key, job)?;
        }
        Ok(())
    }

    fn hand_out(&mut self, key: u64, job: Pending) -> io::Result<()> {
        let Pending { id, due_ms, line, .. } = job;
        let Some(keeper) = self.keepers.get_mut(&key) else { return Ok(()) };
        keeper.job = Some((id, due_ms));
        keeper.is_spared = false;
        self.due.insert((due_ms, key));
        if let Some(wire) = &mut keeper.wire {
            wire.queue(&line);
            wire.send(&self.epoll)?;
        }
        Ok(())
    }

    /// Starts this program once more as a keeper.
    ///
    /// It inherits the executor's blocked signals, so none ends it before it is ready.
    fn start_keeper(&mut self) -> io::Result<u64> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut arguments: Vec<CString> =
            env::args_os().map(|text| CString::new(text.into_vec())).collect::<Result<_, _>>()?;
        arguments.pop();
        arguments.push(CString::new(KEEPER)?);
        let mut files = PosixSpawnFileActions::init()?;
        files.add_dup2(theirs.as_raw_fd(), 0)?;
        // The executor's standard output shows the watcher who lives. The lock was opened early and
        // has a small number.
        files.add_dup2(1, LIFE)?;
        files.add_dup2(self.lock.as_raw_fd(), 1)?;
        let key = self.next_keeper;
        let wire = Some(Wire::new(ours, &self.epoll, key)?);
        let environment: Vec<CString> = env::vars_os()
            .map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')))
            .collect::<Result<_, _>>()?;
        let attributes = PosixSpawnAttr::init()?;
        let pid = posix_spawn("/proc/self/exe", &files, &attributes, &arguments, &environment)?;
        self.next_keeper += 1;
        self.keepers.insert(key, Keeper { pid, wire, job: None, is_spared: false, is_late: false });
        Ok(key)
    }

    /// Takes what a keeper has to report; false when there is nothing.
    fn hear(&mut self, key: u64) -> io::Result<bool> {
        let Some(keeper) = self.keepers.get_mut(&key) else { return Ok(false) };
        let Some(wire) = &mut keeper.wire else { return Ok(false) };
        wire.send(&self.epoll)?;
        // Whatever is wrong with the socket: what follows is the keeper's end.
        let lines = match wire.receive(&mut self.buffer).unwrap_or(Received::End) {
            Received::Lines(lines) => lines,
            Received::Nothing => return Ok(false),
            Received::End => {
                keeper.wire = None;
                self.idle.retain(|idle| *idle != key);
                return Ok(false);
            }
        };
        for line in lines {
            let KeeperLine { outcome, is_clean } = serde_json::from_slice(&line)?;
            if let Some((id, due_ms)) = keeper.job.take() {
                self.due.remove(&(due_ms, key));
                self.watcher.queue(&result_line(id, outcome));
            }
            if is_clean {
                self.idle.push(key);
            }
        }
        while self.idle.len() > IDLE_MAX {
            // The one that has waited the longest sees its socket close.
            let rested = self.idle.remove(0);
            if let Some(keeper) = self.keepers.get_mut(&rested) {
                keeper.wire = None;
            }
        }
        Ok(true)
    }

    /// Waits for the children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        // Many ends may hide behind one signal, so its details are of no use.
        while self.signals.read_signal()?.is_some() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                // One that a real-time signal ended is not named by the library, but waited for.
                Ok(_) | Err(Errno::EINVAL | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let is_gone = |keeper: &Keeper| {
            // Whatever is not a child any more has just been waited for.
            !matches!(
                waitpid(keeper.pid, Some(WaitPidFlag::WNOHANG)),
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
            )
        };
        let gone = self.keepers.iter().filter(|(_, keeper)| is_gone(keeper));
        for key in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.bury(key)?;
        }
        Ok(())
    }

    /// Takes the last words of a keeper that has ended. What it has left is the executor's by now.
    fn bury(&mut self, key: u64) -> io::Result<()> {
        while self.hear(key)? {}
        self.idle.retain(|idle| *idle != key);
        let Some(keeper) = self.keepers.remove(&key) else { return Ok(()) };
        self.strays_due_ms = Some(0);
        if let Some((id, due_ms)) = keeper.job {
            self.due.remove(&(due_ms, key));
            let nothing = String::new;
            let outcome = if keeper.is_late {
                RunOutcome::TimedOut { stdout: nothing(), stderr: nothing() }
            } else {
                RunOutcome::ExecutorLost
            };
            self.lost.push(Lost {
                id,
                outcome,
                due_ms: boot_ms_now().saturating_add(KILL_TIME_MS_MAX),
            });
        }
        Ok(())
    }

    /// Kills the keepers that should have reported.
    ///
    /// An executor that comes late itself was stopped, or the whole machine was: then a keeper has
    /// perhaps had no time either, and gets [`SPARED_MS`].
    fn keep_limits(&mut self) {
        let now = boot_ms_now();
        while let Some(&(due_ms, key)) = self.due.first()
            && due_ms <= now
        {
            self.due.pop_first();
            let Some(keeper) = self.keepers.get_mut(&key) else { continue };
            if let Some((_, job_due_ms)) = &mut keeper.job
                && now - due_ms >= KEEPER_DELAY_MS_MAX
                && !keeper.is_spared
            {
                keeper.is_spared = true;
                *job_due_ms = now + SPARED_MS;
                self.due.insert((*job_due_ms, key));
                continue;
            }
            keeper.is_late = true;
            keeper.kill();
        }
    }

    /// Ends what dead keepers have left, and reports their jobs when nothing is left, or when what
    /// is left does not die.
    fn end_strays(&mut self) {
        let now = boot_ms_now();
        if self.strays_due_ms.is_none_or(|due_ms| due_ms > now) {
            return;
        }
        let is_anybody = self.kill_strays();
        let is_over = |lost: &mut Lost| !is_anybody || lost.due_ms <= now;
        for lost in self.lost.extract_if(.., is_over).collect::<Vec<_>>() {
            self.report(lost.id, lost.outcome);
        }
        let again_ms = if self.lost.is_empty() { LOOK_RARELY_MS } else { LOOK_AGAIN_MS };
        self.strays_due_ms = is_anybody.then_some(now + again_ms);
    }

    fn kill_strays(&self) -> bool {
        let keepers: BTreeSet<Pid> = self.keepers.values().map(|keeper| keeper.pid).collect();
        kill_descendants(|child| keepers.contains(&child))
    }

    fn set_timer(&mut self) -> io::Result<()> {
        let due_ms = self.due.first().map(|(due_ms, _)| *due_ms);
        let due_ms = due_ms.into_iter().chain(self.strays_due_ms).min();
        if due_ms == self.timer_due_ms {
            return Ok(());
        }
        self.timer_due_ms = due_ms;
        match due_ms {
            None => self.timer.unset()?,
            Some(due_ms) => {
                let instant = Expiration::OneShot(time_spec(due_ms));
                self.timer.set(instant, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
        }
        Ok(())
    }

    fn report(&mut self, id: u64, outcome: RunOutcome) {
        self.watcher.queue(&result_line(id, outcome));
    }

    /// Lets go of the keepers, which end what they run, and waits until nothing is left.
    pub(super) fn end_everything(&mut self) {
        for keeper in self.keepers.values() {
            keeper.let_go();
        }
        let now = boot_ms_now();
        let (patience_ms, until) = (now + 2 * KILL_TIME_MS_MAX, now + LAST_WAIT_MS);
        while self.reap().is_ok() {
            let now = boot_ms_now();
            if now >= patience_ms {
                self.keepers.values().for_each(Keeper::kill);
            }
            if !self.kill_strays() && self.keepers.is_empty() || now >= until {
                return;
            }
            let mut events = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut events, PollTimeout::from(20_u8));
        }
    }
}

impl Keeper {
    /// Shows the keeper that the executor is gone.
    fn let_go(&self) {
        if let Some(wire) = &self.wire {
            wire.shut_down();
        }
    }

    fn kill(&self) {
        // It has not been waited for, so its number is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

fn result_line(id: u64, outcome: RunOutcome) -> Vec<u8> {
    json_line(&Answer::Result(ResultLine { id, outcome }))
}

fn not_yet(error: Errno) -> nix::Result<()> {
    if error == Errno::EAGAIN { Ok(()) } else { Err(error) }
}
