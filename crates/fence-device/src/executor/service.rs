//! The executor itself: one loop that hands jobs to keepers.
//!
//! The loop waits for four events: a job or the watcher's end on the socket, a keeper's result, the
//! end of a child (`SIGCHLD`), and the next instant at which a keeper must have reported. Nothing
//! here blocks: a watcher that does not read its results and a keeper that does not run delay
//! nobody else.
//!
//! Each child of the executor is a keeper, or a process that a dead keeper has left. The executor
//! kills such a process, and reports the job's result afterwards.

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
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::events::Events;
use super::family::kill_descendants;
use super::keeper::LIFE;
use super::main::KEEPER;
use super::wire::{Received, Wire};
use super::{
    Answer, JobLine, KILL_TIME_MS_MAX, KeeperLine, LAST_WAIT_MS, Purpose, RunOutcome, Word,
    json_line,
};
use crate::boot_ms_now;

/// How long after its limit, in addition to the time that a kill takes, a job's keeper may be
/// silent. A keeper that is silent for longer is stuck, perhaps stopped, and is killed.
const KEEPER_DELAY_MS_MAX: u64 = 500;

/// How much longer a keeper may be silent if the executor itself was stopped meanwhile.
const SPARED_MS: u64 = 2_000;

/// How many idle keepers wait for a job. More than these end.
const IDLE_MAX: usize = 2;

/// How often to look for processes of a dead keeper while somebody waits for the result, and
/// afterwards.
const LOOK_AGAIN_MS: u64 = 20;
const LOOK_RARELY_MS: u64 = 1_000;

/// The tokens of events. Any other token is the key of a keeper.
const SOCKET: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;

#[derive(Debug)]
pub(super) struct Executor {
    watcher: Wire,
    lock: File,
    epoll: Epoll,
    events: Events,
    timer_due_ms: Option<u64>,
    /// Jobs without a keeper: orders before questions.
    pending: VecDeque<Pending>,
    /// All keepers that have not been waited for.
    keepers: HashMap<u64, Keeper>,
    next_keeper: u64,
    /// Keepers that wait for a job; the last has had one most recently.
    idle: Vec<u64>,
    /// Jobs of dead keepers. Each is reported when no process of it is left.
    lost: Vec<Lost>,
    /// When to look again for processes that a dead keeper has left; `None` if there are none.
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
    /// The number of its job, and when the keeper must have reported.
    job: Option<(u64, u64)>,
    /// Its time was extended once, because the executor was late.
    is_spared: bool,
    /// It was killed because it did not report in time.
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
        let events = Events::new()?;
        epoll.add(&events.child_ends, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        epoll.add(&events.timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let mut executor = Executor {
            watcher: Wire::new(socket, &epoll, SOCKET)?,
            lock,
            epoll,
            events,
            timer_due_ms: None,
            pending: VecDeque::new(),
            keepers: HashMap::new(),
            next_keeper: 0,
            idle: Vec::new(),
            lost: Vec::new(),
            strays_due_ms: None,
            buffer: vec![0; 64 * 1024],
        };
        // The first job does not wait for the start of its keeper.
        executor.start_keeper()?;
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
                    TIMER => self.events.timer.wait().or_else(not_yet)?,
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

    /// An order does not wait for the start of the keepers of questions.
    fn enqueue(&mut self, job: Pending) {
        let at = match job.purpose {
            Purpose::Order => self.pending.partition_point(|other| other.purpose == Purpose::Order),
            Purpose::Question => self.pending.len(),
        };
        self.pending.insert(at, job);
    }

    /// Hands out the jobs for which there are keepers. Starts one keeper at most: in between, the
    /// loop takes more jobs and enforces the limits.
    fn begin(&mut self) -> io::Result<()> {
        if self.idle.is_empty()
            && !self.pending.is_empty()
            && let Err(error) = self.start_keeper()
            && let Some(job) = self.pending.pop_front()
        {
            let outcome = RunOutcome::NotStarted(format!("cannot start a process: {error}"));
            self.watcher.queue(&result_line(job.id, outcome));
        }
        while !self.pending.is_empty()
            && let Some(key) = self.idle.pop()
            && let Some(keeper) = self.keepers.get_mut(&key)
            && let Some(Pending { id, due_ms, line, .. }) = self.pending.pop_front()
        {
            keeper.job = Some((id, due_ms));
            keeper.is_spared = false;
            if let Some(wire) = &mut keeper.wire {
                wire.queue(&line);
                wire.send(&self.epoll)?;
            }
        }
        Ok(())
    }

    /// Starts this program once more as a keeper.
    ///
    /// The keeper inherits the executor's blocked signals, so no signal ends it before it is ready.
    fn start_keeper(&mut self) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut arguments: Vec<CString> =
            env::args_os().map(|text| CString::new(text.into_vec())).collect::<Result<_, _>>()?;
        arguments.pop();
        arguments.push(CString::new(KEEPER)?);
        let mut files = PosixSpawnFileActions::init()?;
        files.add_dup2(theirs.as_raw_fd(), 0)?;
        // The executor's standard output shows the watcher which processes live. The lock was
        // opened early and has a small number.
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
        self.idle.push(key);
        Ok(())
    }

    /// Takes the results of a keeper; false when there are none.
    fn hear(&mut self, key: u64) -> io::Result<bool> {
        let Some(keeper) = self.keepers.get_mut(&key) else { return Ok(false) };
        let Some(wire) = &mut keeper.wire else { return Ok(false) };
        wire.send(&self.epoll)?;
        // Any error of the socket is followed by the keeper's end.
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
            if let Some((id, _)) = keeper.job.take() {
                self.watcher.queue(&result_line(id, outcome));
            }
            if is_clean {
                self.idle.push(key);
            }
        }
        while self.idle.len() > IDLE_MAX {
            // The keeper that has waited the longest sees its socket close.
            let rested = self.idle.remove(0);
            if let Some(keeper) = self.keepers.get_mut(&rested) {
                keeper.wire = None;
            }
        }
        Ok(true)
    }

    /// Waits for the children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        self.events.drain_child_ends()?;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                // The library does not name a child that a real-time signal ended, but waits for
                // it.
                Ok(_) | Err(Errno::EINVAL | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let is_gone = |keeper: &Keeper| {
            // A process that is no child any more has just been waited for.
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

    /// Takes the last results of a keeper that has ended. Its processes are the executor's children
    /// by now.
    fn bury(&mut self, key: u64) -> io::Result<()> {
        while self.hear(key)? {}
        self.idle.retain(|idle| *idle != key);
        let Some(keeper) = self.keepers.remove(&key) else { return Ok(()) };
        self.strays_due_ms = Some(0);
        if let Some((id, _)) = keeper.job {
            let outcome = if keeper.is_late {
                RunOutcome::TimedOut { stdout: String::new(), stderr: String::new() }
            } else {
                RunOutcome::ExecutorLost
            };
            let due_ms = boot_ms_now().saturating_add(KILL_TIME_MS_MAX);
            self.lost.push(Lost { id, outcome, due_ms });
        }
        Ok(())
    }

    /// Kills the keepers that did not report in time.
    ///
    /// If the executor itself is late, it was stopped, or the whole machine was. The keeper has
    /// perhaps had no time either, and gets [`SPARED_MS`] more.
    fn keep_limits(&mut self) {
        let now = boot_ms_now();
        for keeper in self.keepers.values_mut() {
            let Some(due_ms) = keeper.due_ms().filter(|due_ms| *due_ms <= now) else { continue };
            if now - due_ms >= KEEPER_DELAY_MS_MAX && !keeper.is_spared {
                keeper.is_spared = true;
                keeper.job = keeper.job.map(|(id, _)| (id, now + SPARED_MS));
            } else {
                keeper.is_late = true;
                keeper.kill();
            }
        }
    }

    /// Ends the processes that dead keepers have left. Reports their jobs when no process is left,
    /// or when one does not die in time.
    fn end_strays(&mut self) {
        let now = boot_ms_now();
        if self.strays_due_ms.is_none_or(|due_ms| due_ms > now) {
            return;
        }
        let is_anybody = self.kill_strays();
        let is_over = |lost: &mut Lost| !is_anybody || lost.due_ms <= now;
        for lost in self.lost.extract_if(.., is_over).collect::<Vec<_>>() {
            self.watcher.queue(&result_line(lost.id, lost.outcome));
        }
        let again_ms = if self.lost.is_empty() { LOOK_RARELY_MS } else { LOOK_AGAIN_MS };
        self.strays_due_ms = is_anybody.then_some(now + again_ms);
    }

    fn kill_strays(&self) -> bool {
        let keepers: BTreeSet<Pid> = self.keepers.values().map(|keeper| keeper.pid).collect();
        kill_descendants(|child| keepers.contains(&child))
    }

    fn set_timer(&mut self) -> io::Result<()> {
        let due_ms = self.keepers.values().filter_map(Keeper::due_ms);
        let due_ms = due_ms.chain(self.strays_due_ms).min();
        if due_ms == self.timer_due_ms {
            return Ok(());
        }
        self.timer_due_ms = due_ms;
        match due_ms {
            None => Ok(self.events.timer.unset()?),
            Some(due_ms) => self.events.set_timer(due_ms),
        }
    }

    /// Closes the sockets of the keepers, which then end their programs, and waits until no process
    /// is left.
    pub(super) fn end_everything(&mut self) {
        self.keepers.values().filter_map(|keeper| keeper.wire.as_ref()).for_each(Wire::shut_down);
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
            let mut events = [PollFd::new(self.events.child_ends.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut events, PollTimeout::from(20_u8));
        }
    }
}

impl Keeper {
    /// When it must have reported its job; `None` without a job, or after it was killed.
    fn due_ms(&self) -> Option<u64> {
        self.job.filter(|_| !self.is_late).map(|(_, due_ms)| due_ms)
    }

    fn kill(&self) {
        // It has not been waited for, so the number is still its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

fn result_line(id: u64, outcome: RunOutcome) -> Vec<u8> {
    json_line(&Answer::Result { id, outcome })
}

fn not_yet(error: Errno) -> nix::Result<()> {
    if error == Errno::EAGAIN { Ok(()) } else { Err(error) }
}
