//! One executor as the watcher sees it: its socket, who waits for which result, and its end.
//!
//! A silent executor may be dead, stuck, or slow: on a loaded machine a process waits for seconds.
//! The end of a dead executor is seen at once. A silent executor is asked whether it lives before
//! anything is killed, and has [`ALIVE_TIME_MAX`] to answer. If the result of a question does not
//! come, the question ends alone: it changes nothing, and its keeper ends the program at the limit.
//! If the result of an order does not come, the executor is ended first, because no order may be
//! reported while its program runs.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::family::end_marked;
use super::mark::Mark;
use super::{
    Answer, Greeting, JobLine, KILL_TIME_MS_MAX, LAST_WAIT_MS, Purpose, RunOutcome, Word, json_line,
};
use crate::Limit;
use crate::pool::lock;

/// How long an executor may take to start and to lock its file.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// How long after a program's limit its result may arrive. Then the executor is asked whether it
/// lives.
const RESULT_DELAY_MS_MAX: u64 = 3_000;

/// How long an executor may take to answer whether it lives. On an idle machine it answers within a
/// millisecond. A loaded machine delays a process for less than this.
const ALIVE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the keepers of a lost executor may take to end their programs: longer than they wait
/// for a program that does not die.
const KEEPERS_GONE_MS_MAX: u64 = LAST_WAIT_MS + KILL_TIME_MS_MAX;

/// The stack of a thread that reads lines and hands them on, or waits.
const STACK_BYTES: usize = 128 * 1024;

/// How many programs a warning about a lost executor names.
const NAMED_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Connection {
    /// Lines to the executor, each with the job that it is about; `None` after the last line.
    lines: Mutex<Option<Sender<Line>>>,
    socket: UnixStream,
    /// `None` as soon as it is waited for: then its number may become that of another process.
    executor: Mutex<Option<Child>>,
    /// The executor's own number.
    pub(super) pid: Pid,
    /// Ends when neither the executor nor a keeper lives; `None` as soon as a thread waits for
    /// this.
    life: Mutex<Option<PipeReader>>,
    /// The mark of the executor's processes.
    mark: Option<Mark>,
    /// Those who wait for a result, by their jobs; `None` after the loss of the executor.
    waiting: Mutex<Option<HashMap<u64, Waiting>>>,
    /// Since when the executor owes the answer whether it lives.
    asked: Mutex<Option<Instant>>,
}

type Line = (Option<u64>, Vec<u8>);

/// The end of a job; `None` if the executor certainly did not get the job.
type Reply = Option<RunOutcome>;

/// Somebody who waits for a result.
#[derive(Debug)]
struct Waiting {
    reply: SyncSender<Reply>,
    purpose: Purpose,
    program: String,
    /// The executor may have the job.
    is_sent: bool,
}

impl Connection {
    pub(super) fn open(program: &Path, arguments: &[OsString]) -> io::Result<Arc<Self>> {
        let (ours, theirs) = UnixStream::pair()?;
        let (life, life_theirs) = io::pipe()?;
        // The builder owns the other end of the socket, and is dropped before we wait for its end.
        let mut executor = process::Command::new(program)
            .arg0(env::args_os().next().as_deref().unwrap_or(OsStr::new("executor")))
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .stdout(life_theirs)
            .spawn()?;
        let pid = Pid::from_raw(executor.id().cast_signed());
        let (results, mark) = match greeted(&ours, arguments) {
            Ok(greeted) => greeted,
            Err(error) => {
                executor.kill()?;
                executor.wait()?;
                return Err(error);
            }
        };
        let socket = ours.try_clone()?;
        let (sender, lines) = channel();
        let connection = Arc::new(Connection {
            lines: Mutex::new(Some(sender)),
            socket: ours,
            executor: Mutex::new(Some(executor)),
            pid,
            life: Mutex::new(Some(life)),
            mark,
            waiting: Mutex::new(Some(HashMap::new())),
            asked: Mutex::new(None),
        });
        if let Err(error) = connection.start_threads(results, lines, socket) {
            connection.abandon("cannot be served for want of threads");
            connection.bury();
            return Err(error);
        }
        Ok(connection)
    }

    fn start_threads(
        self: &Arc<Self>,
        results: BufReader<UnixStream>,
        lines: Receiver<Line>,
        socket: UnixStream,
    ) -> io::Result<()> {
        let thread =
            |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let (reading, writing, watching) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        thread("executor's jobs").spawn(move || writing.deliver(&lines, socket))?;
        thread("executor's end").spawn(move || watching.await_end())?;
        thread("executor").spawn(move || reading.distribute(results))?;
        Ok(())
    }

    /// Whether the executor takes jobs, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.waiting).is_some()
    }

    /// Has the executor run a job, and waits for its end. A job was certainly not received if its
    /// line has no newline: the executor ignores such a line.
    pub(super) fn run(&self, job: &JobLine) -> Reply {
        if self.look_for_end(WaitPidFlag::WNOHANG) != Ok(WaitStatus::StillAlive) {
            self.abandon("has ended");
            return None;
        }
        let (sender, receiver) = sync_channel(1);
        let waiting = Waiting {
            reply: sender,
            purpose: job.purpose,
            program: job.command.argv.first().cloned().unwrap_or_default(),
            is_sent: false,
        };
        lock(&self.waiting).as_mut()?.insert(job.id, waiting);
        self.post(Some(job.id), json_line(&Word::Job(job)));
        self.await_reply(job, &receiver)
    }

    fn await_reply(&self, job: &JobLine, receiver: &Receiver<Reply>) -> Reply {
        let within = |time| receiver.recv_timeout(time).ok();
        let delay = Duration::from_millis(RESULT_DELAY_MS_MAX);
        if let Some(reply) = within(Duration::from_millis(job.command.limit.left_ms()) + delay) {
            return reply;
        }
        self.ask_whether_it_lives();
        if job.purpose == Purpose::Question {
            if let Some(all) = &mut *lock(&self.waiting) {
                all.remove(&job.id);
            }
            // The result may have come in this moment.
            return receiver.try_recv().unwrap_or(Some(RunOutcome::NotReported));
        }
        within(ALIVE_TIME_MAX)
            // An executor that lives waits for the keeper, and perhaps kills it.
            .or_else(|| self.is_silent().is_none().then(|| within(delay)).flatten())
            .unwrap_or_else(|| {
                self.abandon("did not report an order's end in time, even when it was asked");
                receiver.try_recv().unwrap_or(Some(RunOutcome::ExecutorLost))
            })
    }

    fn ask_whether_it_lives(&self) {
        lock(&self.asked).get_or_insert_with(Instant::now);
        self.post(None, json_line(&Word::<()>::AreYouAlive));
    }

    /// How long the executor has owed the answer whether it lives.
    fn is_silent(&self) -> Option<Duration> {
        lock(&self.asked).map(|since| since.elapsed())
    }

    /// Gives up an executor that does not answer whether it lives. An executor with an order is not
    /// given up: the order ends at its own limit.
    pub(super) fn give_up_if_stuck(&self) {
        let has_order =
            |all: &HashMap<u64, Waiting>| all.values().any(|job| job.purpose == Purpose::Order);
        if self.is_silent().is_some_and(|time| time >= ALIVE_TIME_MAX)
            && !lock(&self.waiting).as_ref().is_some_and(has_order)
        {
            self.abandon("did not answer whether it lives");
        }
    }

    fn post(&self, job: Option<u64>, bytes: Vec<u8>) {
        if let Some(lines) = &*lock(&self.lines) {
            // Without a receiver the executor is lost, and all who wait get their replies.
            let _ = lines.send((job, bytes));
        }
    }

    /// Writes the lines to the executor. A separate thread runs this: an executor that reads
    /// nothing for a while delays nobody with a nearer limit.
    fn deliver(&self, lines: &Receiver<Line>, mut socket: UnixStream) {
        for (job, bytes) in lines {
            // Before the write: a job that the executor may have must not be reported as not sent.
            self.set_sent(job, true);
            if socket.write_all(&bytes).is_err() {
                self.set_sent(job, false);
                return self.abandon("takes no jobs");
            }
        }
    }

    fn set_sent(&self, id: Option<u64>, is_sent: bool) {
        if let Some(id) = id
            && let Some(all) = &mut *lock(&self.waiting)
            && let Some(job) = all.get_mut(&id)
        {
            job.is_sent = is_sent;
        }
    }

    /// Waits for the executor's end where the socket does not show it: a child of the executor that
    /// is not a keeper yet holds the other end open.
    fn await_end(&self) {
        while self.look_for_end(WaitPidFlag::empty()) == Err(Errno::EINTR) {}
        self.abandon("has ended");
    }

    /// Leaves the executor's number in use, because the reading thread waits for the process.
    fn look_for_end(&self, flags: WaitPidFlag) -> nix::Result<WaitStatus> {
        waitid(Id::Pid(self.pid), flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
    }

    /// Hands out results until the executor is gone.
    fn distribute(&self, mut results: BufReader<UnixStream>) {
        let mut line = Vec::new();
        while results.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let Ok(answer) = serde_json::from_slice::<Answer>(&line) else { break };
            *lock(&self.asked) = None;
            if let Answer::Result { id, outcome } = answer
                && let Some(job) = lock(&self.waiting).as_mut().and_then(|all| all.remove(&id))
            {
                // Nobody waits for a question that was given up.
                let _ = job.reply.try_send(Some(outcome));
            }
            line.clear();
        }
        self.abandon("has ended");
        self.bury();
    }

    /// Waits for the executor, which was killed: its exit status does not matter.
    fn bury(&self) {
        let executor = lock(&self.executor).take();
        let _ = executor.map(|mut executor| executor.wait());
    }

    /// Kills the executor, waits for the end of all that it started, then replies to all who wait.
    ///
    /// In this order, because the next order for the same target may follow a reply. The keepers
    /// see their sockets close when the executor has died, and end their programs. If a keeper is
    /// lost as well, its processes have the mark.
    fn abandon(&self, why: &str) {
        if let Some(executor) = &mut *lock(&self.executor)
            && executor.kill().is_ok()
            && let Some(life) = lock(&self.life).take()
        {
            await_end_of(&life);
            if let Some(mark) = &self.mark {
                end_marked(mark, KILL_TIME_MS_MAX);
            }
        }
        let Some(waiting) = lock(&self.waiting).take() else { return };
        let is_closed = lock(&self.lines).take().is_none();
        if !is_closed {
            warn!("the executor (pid {}) {why}: it was ended, and {}", self.pid, losses(&waiting));
        }
        for job in waiting.into_values() {
            // Nobody waits for a question that was just given up.
            let _ = job.reply.try_send(job.is_sent.then_some(RunOutcome::ExecutorLost));
        }
    }

    /// Lets the executor end after its last client.
    pub(super) fn close(&self) {
        *lock(&self.lines) = None;
        // The reading thread holds the socket as well, so dropping ours would not close it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The programs that ended with an executor, for a warning.
fn losses(waiting: &HashMap<u64, Waiting>) -> String {
    let lost = waiting.values().filter(|job| job.is_sent);
    let mut lost: Vec<String> =
        lost.map(|job| format!("{} ('{}')", job.purpose, job.program)).collect();
    // Orders before questions.
    lost.sort_unstable();
    match lost.len().checked_sub(NAMED_MAX) {
        _ if lost.is_empty() => "it was running nothing".to_owned(),
        None | Some(0) => format!("with it {}", lost.join(", ")),
        Some(more) => format!("with it {} and {more} more", lost[..NAMED_MAX].join(", ")),
    }
}

/// Waits until nobody holds the other end of `life`.
fn await_end_of(life: &PipeReader) {
    // Nobody writes to the pipe: its only event is its end.
    let mut end = [PollFd::new(life.as_fd(), PollFlags::empty())];
    let limit = Limit::in_ms(KEEPERS_GONE_MS_MAX);
    let left = || PollTimeout::try_from(limit.left_ms()).unwrap_or(PollTimeout::ZERO);
    while poll(&mut end, left()) == Err(Errno::EINTR) {}
}

/// Waits for the executor's first line.
fn greeted(
    socket: &UnixStream,
    arguments: &[OsString],
) -> io::Result<(BufReader<UnixStream>, Option<Mark>)> {
    socket.set_read_timeout(Some(START_TIME_MAX))?;
    let mut results = BufReader::new(socket.try_clone()?);
    let mut line = Vec::new();
    let count = results.read_until(b'\n', &mut line).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(not_ready(arguments)),
        _ => error,
    })?;
    if count == 0 {
        return Err(io::Error::other("the executor ended before it was ready"));
    }
    let Greeting { problem, mark } = serde_json::from_slice(&line)?;
    if let Some(problem) = problem {
        return Err(io::Error::other(problem));
    }
    socket.set_read_timeout(None)?;
    Ok((results, mark))
}

/// Why an executor is not ready in time. The lock is named only if another process holds it.
fn not_ready(arguments: &[OsString]) -> String {
    let seconds = START_TIME_MAX.as_secs();
    let lock_file = arguments.last().map_or(Path::new(""), Path::new);
    let is_held = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(lock_file)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)));
    if is_held {
        let path = lock_file.display();
        return format!("the executor cannot start: another process holds '{path}' exclusively");
    }
    format!("the executor was not ready within {seconds} s: this machine may be overloaded")
}
