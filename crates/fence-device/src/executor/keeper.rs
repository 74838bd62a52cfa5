//! The keeper: a process that runs one program at a time, and ends all that the program leaves.
//!
//! The keeper is a child subreaper: a process whose parent ends becomes the keeper's child, in any
//! group or session. So every process of a job descends from the job's keeper. When the kernel
//! reports that the keeper has no child (`ECHILD`), no process of the job is left, and only then is
//! the job over: when the program ends or reaches its limit, the keeper kills the other processes
//! and reports afterwards. The keeper gives up a process that hangs in the kernel after some time:
//! such a process does nothing more.
//!
//! The keeper also ends everything when the executor is gone. A keeper without processes takes the
//! next job. Any other keeper ends with its job, and the executor inherits its processes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_name};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, close};

use super::events::Events;
use super::family::kill_descendants;
use super::output::Output;
use super::start::Start;
use super::{
    Command, JobLine, KILL_TIME_MS_MAX, KeeperLine, LAST_WAIT_MS, RunOutcome, Word, json_line,
};
use crate::boot_ms_now;

/// The number of the pipe that shows the watcher that the keeper lives.
pub(super) const LIFE: RawFd = 100;

/// How long after a kill the keeper looks again for processes whose parents it has killed, if no
/// event reports them.
const LOOK_AGAIN_MS: u16 = 20;

/// The body of a keeper. Standard input is the socket to the executor. Standard output is the lock,
/// which all hold and none writes.
pub(super) fn keeper_main() -> io::Result<()> {
    // Opened again and the number closed, so that no program gets it.
    let _life = OpenOptions::new().write(true).open(format!("/proc/self/fd/{LIFE}"))?;
    close(LIFE)?;
    SigSet::all().thread_block()?;
    set_name(c"fence-keeper")?;
    set_child_subreaper(true)?;
    let mut keeper = Keeper {
        socket: UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?),
        events: Events::new()?,
        null: Arc::new(File::open("/dev/null")?),
        buffer: vec![0; 64 * 1024],
    };
    keeper.serve()
}

struct Keeper {
    socket: UnixStream,
    events: Events,
    null: Arc<File>,
    buffer: Vec<u8>,
}

impl Keeper {
    /// Runs jobs until the executor is gone, or a process of a job cannot be ended.
    fn serve(&mut self) -> io::Result<()> {
        let mut jobs = BufReader::new(self.socket.try_clone()?);
        let mut line = Vec::new();
        // If the socket is reset or takes no result, the other end is gone.
        while jobs.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let Word::Job(JobLine { command, .. }) = serde_json::from_slice(&line)? else { break };
            // A job that the executor sent before it died is not begun.
            if self.is_alone()? {
                break;
            }
            let mut job = Job::begin(command, &self.null);
            let is_alone = !self.watch(&mut job)?;
            let time_ms_max = if is_alone { LAST_WAIT_MS } else { KILL_TIME_MS_MAX };
            let is_clean = self.end(&mut job, time_ms_max)?;
            if is_alone {
                break;
            }
            let outcome = job.outcome(&mut self.buffer);
            let result = json_line(&KeeperLine { outcome, is_clean });
            if self.socket.write_all(&result).is_err() || !is_clean {
                break;
            }
            line.clear();
        }
        Ok(())
    }

    fn is_alone(&self) -> io::Result<bool> {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut socket, PollTimeout::ZERO)?;
        Ok(is_ready(&socket[0]))
    }

    /// Waits for the end of the program or of its time, and reads its output meanwhile. False when
    /// the executor is gone.
    fn watch(&mut self, job: &mut Job) -> io::Result<bool> {
        self.events.set_timer(job.limit_ms)?;
        loop {
            if job.is_over() {
                return Ok(true);
            }
            let mut watched = vec![
                PollFd::new(self.socket.as_fd(), PollFlags::empty()),
                in_event(self.events.timer.as_fd()),
                in_event(self.events.child_ends.as_fd()),
            ];
            let start = job.start.as_ref().map(|start| start.wait_fd());
            let outputs = job.outputs.iter().flatten().filter_map(Output::wait_fd);
            watched.extend(start.into_iter().chain(outputs).map(in_event));
            match poll(&mut watched, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let [is_alone, is_late, has_signal] = [0, 1, 2].map(|at| is_ready(&watched[at]));
            drop(watched);
            if is_alone {
                return Ok(false);
            }
            // Reading an output without data does not block.
            job.read(&mut self.buffer);
            job.take_start();
            if has_signal {
                self.events.drain_child_ends()?;
            }
            job.wait_for_leader();
            if is_late && !job.is_over() {
                job.is_killed = true;
                return Ok(true);
            }
        }
    }

    /// Kills the processes of the job until none is left, for at most `time_ms_max`. Returns
    /// whether none is left.
    fn end(&mut self, job: &mut Job, time_ms_max: u64) -> io::Result<bool> {
        let until = boot_ms_now().saturating_add(time_ms_max);
        loop {
            job.take_start();
            // Until the start is over, another child may appear.
            if job.start.is_none() && job.is_gone()? {
                return Ok(true);
            }
            let left_ms = until.saturating_sub(boot_ms_now());
            if left_ms == 0 {
                return Ok(false);
            }
            job.kill();
            let mut watched = vec![in_event(self.events.child_ends.as_fd())];
            watched.extend(job.start.as_ref().map(|start| in_event(start.wait_fd())));
            let look_again = u16::try_from(left_ms).unwrap_or(u16::MAX).min(LOOK_AGAIN_MS);
            let _ = poll(&mut watched, PollTimeout::from(look_again));
            self.events.drain_child_ends()?;
        }
    }
}

struct Job {
    limit_ms: u64,
    output_bytes_max: usize,
    /// `None` once it is over.
    start: Option<Start>,
    /// Why the program was not started.
    refused: Option<RunOutcome>,
    leader: Option<Pid>,
    outputs: Option<[Output; 2]>,
    /// How the program ended, once it was waited for.
    ended: Option<Ended>,
    is_killed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Code(i32),
    /// 0 for a signal without a name.
    Signal(i32),
}

impl Job {
    fn begin(command: Command, null: &Arc<File>) -> Self {
        let (limit_ms, output_bytes_max) =
            (command.limit.not_after_boot_ms, command.output_bytes_max);
        let (start, refused) = match Start::begin(command, Arc::clone(null)) {
            Ok(start) => (Some(start), None),
            Err(error) => {
                let problem = format!("cannot start a thread: {error}");
                (None, Some(RunOutcome::NotStarted(problem)))
            }
        };
        Job {
            limit_ms,
            output_bytes_max,
            start,
            refused,
            leader: None,
            outputs: None,
            ended: None,
            is_killed: false,
        }
    }

    fn take_start(&mut self) {
        match self.start.take().map(Start::take) {
            None => {}
            Some(Err(not_over)) => self.start = Some(not_over),
            Some(Ok(Err(outcome))) => self.refused = Some(outcome),
            Some(Ok(Ok(started))) => {
                self.leader = Some(started.pid);
                let pipes = [started.stdout, started.stderr];
                self.outputs = Some(pipes.map(|pipe| Output::new(pipe, self.output_bytes_max)));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ended.is_some() || self.refused.is_some()
    }

    fn read(&mut self, buffer: &mut [u8]) {
        for output in self.outputs.iter_mut().flatten() {
            output.read(buffer);
        }
    }

    /// Waits for the program alone: the library does not name a child that a real-time signal
    /// ended.
    fn wait_for_leader(&mut self) {
        let Some(leader) = self.leader.filter(|_| self.ended.is_none()) else { return };
        match waitpid(leader, Some(WaitPidFlag::WNOHANG)) {
            // A real-time signal ended it, which the library does not know.
            Err(Errno::EINVAL | Errno::ECHILD) => self.ended = Some(Ended::Signal(0)),
            Ok(status) => self.note(status),
            Err(_) => {}
        }
    }

    fn note(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) if Some(pid) == self.leader => {
                self.ended = Some(Ended::Code(code));
            }
            WaitStatus::Signaled(pid, signal, _) if Some(pid) == self.leader => {
                self.ended = Some(Ended::Signal(signal as i32));
            }
            _ => {}
        }
    }

    /// Waits for the children that have ended. True when no child, and so no descendant, is left.
    fn is_gone(&mut self) -> io::Result<bool> {
        loop {
            self.wait_for_leader();
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return Ok(false),
                Err(Errno::ECHILD) => return Ok(true),
                Ok(status) => self.note(status),
                Err(Errno::EINVAL | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn kill(&self) {
        // The program's group first, while the number is certainly the program's.
        if let Some(leader) = self.leader.filter(|_| self.ended.is_none()) {
            // A group that is gone needs no kill.
            let _ = killpg(leader, Signal::SIGKILL);
        }
        kill_descendants(|_| false);
    }

    fn outcome(self, buffer: &mut [u8]) -> RunOutcome {
        if let Some(outcome) = self.refused {
            return outcome;
        }
        let texts = self.outputs.map(|outputs| outputs.map(|output| output.finish(buffer)));
        let [stdout, stderr] = texts.unwrap_or_default();
        match self.ended {
            Some(Ended::Code(code)) => RunOutcome::Exited { code, stdout, stderr },
            Some(Ended::Signal(signal)) if !self.is_killed => {
                RunOutcome::Signaled { signal, stdout, stderr }
            }
            _ => RunOutcome::TimedOut { stdout, stderr },
        }
    }
}

fn in_event(file: std::os::fd::BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(file, PollFlags::POLLIN)
}

fn is_ready(polled: &PollFd<'_>) -> bool {
    polled.any().unwrap_or(true)
}
