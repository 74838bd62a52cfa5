//! The watcher's side of the executor: starts it, hands out jobs, replaces it when it is lost.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::family::end_marked;
use super::mark::Mark;
use super::{Command, Greeting, JobLine, KILL_TIME_MS_MAX, Outcome, ResultLine, json_line};
use crate::Limit;

/// How long an executor may take to start and to get its lock.
const START_TIME_MAX: Duration = Duration::from_secs(5);

/// How long after a program's limit its result may arrive. An executor that says nothing for longer
/// is stuck, keeps nobody's limit, and is killed with all it runs.
const RESULT_DELAY_MS_MAX: u64 = 3_000;

/// How long the keepers of an executor that is lost may take to end their programs: somewhat longer than
/// they wait for a program that does not die.
const KEEPERS_GONE_MS_MAX: u16 = 1_000;

/// How long a job may wait for room in the socket.
const SEND_TIME_MAX: Duration = Duration::from_secs(2);

/// The stack of a thread that reads lines and hands them on, or waits.
const STACK_BYTES: usize = 128 * 1024;

/// The way to the executor. Clones share one executor, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct ExecutorClient {
    shared: Arc<Shared>,
}

impl ExecutorClient {
    /// Starts `program args… lock_file`, which must call [`executor_main`](crate::executor_main) with
    /// that path, and waits until it holds its shared lock.
    ///
    /// A watcher first takes that lock exclusively and lets go of it again: then nothing that an
    /// earlier one started runs any more.
    pub fn start(program: &Path, args: &[&str], lock_file: &Path) -> io::Result<Self> {
        let mut arguments: Vec<OsString> = args.iter().map(OsString::from).collect();
        arguments.push(lock_file.into());
        let shared = Shared {
            program: program.to_owned(),
            arguments,
            connection: Mutex::new(None),
            next_id: AtomicU64::new(1),
        };
        shared.connection()?;
        Ok(ExecutorClient { shared: Arc::new(shared) })
    }

    /// Runs `command` and waits for its end, until its limit and at worst some seconds more.
    ///
    /// Many may run at once. An executor that is found dead is started again, once.
    pub fn run(&self, command: Command) -> Outcome {
        let limit = command.limit;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let line = json_line(&JobLine { id, command });
        for _ in 0..2 {
            let connection = match self.shared.connection() {
                Ok(connection) => connection,
                Err(error) => return Outcome::NotStarted(format!("no executor: {error}")),
            };
            if let Some(result) = connection.send(id, &line) {
                return connection.wait(&result, limit);
            }
        }
        Outcome::NotStarted("the executor died twice before it could be told".to_owned())
    }
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    arguments: Vec<OsString>,
    connection: Mutex<Option<Arc<Connection>>>,
    next_id: AtomicU64,
}

impl Shared {
    fn connection(&self) -> io::Result<Arc<Connection>> {
        let mut slot = lock(&self.connection);
        if let Some(connection) = &*slot
            && lock(&connection.waiting).is_some()
        {
            return Ok(Arc::clone(connection));
        }
        let connection = Connection::open(&self.program, &self.arguments)?;
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(connection) = lock(&self.connection).take() {
            // The thread that reads holds the socket as well, so closing alone would end nothing.
            let _ = lock(&connection.writer).shutdown(Shutdown::Both);
        }
    }
}

#[derive(Debug)]
struct Connection {
    writer: Mutex<UnixStream>,
    /// `None` once it is being waited for, when its number may become somebody else's.
    executor: Mutex<Option<Child>>,
    /// The executor's own number.
    pid: Pid,
    /// At its end when neither the executor nor a keeper lives; `None` once somebody waits for that.
    life: Mutex<Option<PipeReader>>,
    /// By what the executor's processes are known.
    mark: Option<Mark>,
    /// Who waits for which result; `None` once the executor is lost.
    waiting: Mutex<Option<HashMap<u64, SyncSender<Outcome>>>>,
}

impl Connection {
    fn open(program: &Path, arguments: &[OsString]) -> io::Result<Arc<Self>> {
        let (ours, theirs) = UnixStream::pair()?;
        let (life, life_theirs) = io::pipe()?;
        // The builder owns the other end of the socket and must be gone before we wait for its end.
        let mut executor = process::Command::new(program)
            .arg0(env::args_os().next().as_deref().unwrap_or(OsStr::new("executor")))
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .stdout(life_theirs)
            .spawn()?;
        let pid = Pid::from_raw(executor.id().cast_signed());
        let (results, mark) = match greeted(&ours) {
            Ok(greeted) => greeted,
            Err(error) => {
                executor.kill()?;
                executor.wait()?;
                return Err(error);
            }
        };
        ours.set_write_timeout(Some(SEND_TIME_MAX))?;
        let connection = Arc::new(Connection {
            writer: Mutex::new(ours),
            executor: Mutex::new(Some(executor)),
            pid,
            life: Mutex::new(Some(life)),
            mark,
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let (reading, watching) = (Arc::clone(&connection), Arc::clone(&connection));
        let thread =
            |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let started = thread("executor").spawn(move || reading.distribute(results));
        let started = started.and(thread("executor's end").spawn(move || watching.await_end()));
        if let Err(error) = started {
            connection.abandon();
            return Err(error);
        }
        Ok(connection)
    }

    /// Notices the executor's end when the socket does not show it: a process that it has made and that
    /// is not a keeper yet holds the other end open.
    fn await_end(&self) {
        while self.look_for_end(WaitPidFlag::empty()) == Err(Errno::EINTR) {}
        self.abandon();
    }

    /// Without taking its number away, which is the reading thread's to do.
    fn look_for_end(&self, flags: WaitPidFlag) -> nix::Result<WaitStatus> {
        waitid(Id::Pid(self.pid), flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
    }

    /// Hands the executor a job; `None` when it certainly did not get it: without the newline at its
    /// end, a line is never acted on.
    fn send(&self, id: u64, line: &[u8]) -> Option<Receiver<Outcome>> {
        if self.look_for_end(WaitPidFlag::WNOHANG) != Ok(WaitStatus::StillAlive) {
            self.abandon();
            return None;
        }
        let (sender, receiver) = sync_channel(1);
        lock(&self.waiting).as_mut()?.insert(id, sender);
        if lock(&self.writer).write_all(line).is_err() {
            self.abandon();
            return None;
        }
        Some(receiver)
    }

    fn wait(&self, result: &Receiver<Outcome>, limit: Limit) -> Outcome {
        let patience_ms = limit.left_ms().saturating_add(RESULT_DELAY_MS_MAX);
        result.recv_timeout(Duration::from_millis(patience_ms)).unwrap_or_else(|_| {
            self.abandon();
            Outcome::ExecutorLost
        })
    }

    /// Hands out results until the executor is gone.
    fn distribute(&self, mut results: BufReader<UnixStream>) {
        let mut line = Vec::new();
        while results.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let Ok(result) = serde_json::from_slice::<ResultLine>(&line) else { break };
            let waiting = lock(&self.waiting).as_mut().and_then(|all| all.remove(&result.id));
            if let Some(sender) = waiting {
                // It does not wait any longer: then it has given up, and the executor with it.
                let _ = sender.send(result.outcome);
            }
            line.clear();
        }
        self.abandon();
        let executor = lock(&self.executor).take();
        // The result says nothing: it was killed.
        let _ = executor.map(|mut executor| executor.wait());
    }

    /// Kills the executor, waits until everything that it started is ended, then tells everybody who
    /// waits.
    ///
    /// In this order: whoever is told may give the next order for the same target. The keepers see their
    /// sockets close when the executor has died, and end what they run. Should a keeper be lost as well,
    /// what it has left bears the mark.
    fn abandon(&self) {
        if let Some(executor) = &mut *lock(&self.executor)
            && executor.kill().is_ok()
            && let Some(life) = lock(&self.life).take()
        {
            await_end_of(&life);
            if let Some(mark) = &self.mark {
                end_marked(mark, KILL_TIME_MS_MAX);
            }
        }
        let waiting = lock(&self.waiting).take();
        for sender in waiting.into_iter().flatten().map(|(_, sender)| sender) {
            // A job that was not sent has nobody who waits, and one that has just given up neither.
            let _ = sender.send(Outcome::ExecutorLost);
        }
    }
}

/// Waits until nobody holds the other end of `life`.
fn await_end_of(life: &PipeReader) {
    // Nobody writes to it, so it has nothing to show but its end.
    let mut end = [PollFd::new(life.as_fd(), PollFlags::empty())];
    while poll(&mut end, PollTimeout::from(KEEPERS_GONE_MS_MAX)) == Err(Errno::EINTR) {}
}

/// Waits for the executor's first line.
fn greeted(socket: &UnixStream) -> io::Result<(BufReader<UnixStream>, Option<Mark>)> {
    socket.set_read_timeout(Some(START_TIME_MAX))?;
    let mut results = BufReader::new(socket.try_clone()?);
    let mut line = Vec::new();
    let count = results.read_until(b'\n', &mut line).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(
            "the executor was not ready in time; does somebody else hold its lock file exclusively?",
        ),
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

/// Nothing panics while it holds one of these locks, and the data stays whole if it did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
