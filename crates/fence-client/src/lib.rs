//! Queries to the running watcher, through the spool: ask, wait, and check that the watcher runs.
//!
//! A dead watcher never answers. So the client checks regularly, and distinguishes a dead watcher
//! from a slow one within a second, however long the answer may take.
//!
//! The caller decides what the answer means. `fence-spool` has the files.

use std::error::Error;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use fence_clock::{boot_id, boot_ms};
use fence_protocol::{NodeName, Query, QueryAnswer, QueryKind, RequestId};
use fence_spool::{ClientSpool, Liveness, SpoolError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A question, and how long the client waits for the answer.
#[derive(Clone, Copy, Debug)]
pub struct NewQuery<'a> {
    /// The kind of the question.
    pub kind: QueryKind,
    /// The device, if the question is about one.
    pub device: Option<&'a str>,
    /// The target, if the question is about one.
    pub target: Option<&'a NodeName>,
    /// The instant of `CLOCK_BOOTTIME`, in milliseconds, after which the client does not wait.
    pub deadline_boot_ms: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// No watcher runs: it was never started, or has ended, perhaps while the client waited.
    NotRunning(Liveness),
    /// A watcher runs, and gave no answer in time.
    NoAnswer {
        /// Its process, if the watcher has already written it.
        pid: Option<u32>,
    },
    /// Why the answer cannot be read.
    Malformed(String),
    /// The answer belongs to another question.
    OtherQuestion,
    /// The question could not be written.
    Spool(SpoolError),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::NotRunning(liveness) => {
                let state = match liveness {
                    Liveness::Never => "it was never started on this spool".to_owned(),
                    Liveness::Dead { pid: Some(pid) } => format!("process {pid} has ended"),
                    _ => "it has ended".to_owned(),
                };
                write!(
                    f,
                    "no fence-watcher is running on this node ({state}); start it: systemctl start \
                     fence-watcher"
                )
            }
            AskError::NoAnswer { pid: Some(pid) } => {
                write!(f, "fence-watcher (process {pid}) is running but gave no answer")
            }
            AskError::NoAnswer { pid: None } => {
                f.write_str("fence-watcher is running but gave no answer")
            }
            AskError::Malformed(why) => write!(f, "fence-watcher's answer is malformed: {why}"),
            AskError::OtherQuestion => f.write_str("fence-watcher answered another question"),
            AskError::Spool(error) => error.fmt(f),
        }
    }
}

impl Error for AskError {}

/// Asks the watcher that serves `spool`, and waits for its answer. Removes the question and its
/// answer afterwards.
pub fn ask(spool: &ClientSpool, question: &NewQuery<'_>) -> Result<QueryAnswer, AskError> {
    check_alive(spool)?;
    let query = Query {
        query_id: RequestId::random().as_str().to_owned(),
        query: question.kind,
        device: question.device.map(str::to_owned),
        target: question.target.map(|name| name.as_str().to_owned()),
        deadline_boottime_ms: question.deadline_boot_ms,
        boot_id: boot_id().ok(),
        asked_boottime_ms: Some(boot_ms()),
    };
    let asked = spool.ask(&query).map_err(AskError::Spool)?;
    loop {
        // First the time and the watcher, then the answer: an answer at the last moment, or right
        // before the watcher's end, is still taken.
        let (now, alive) = (boot_ms(), check_alive(spool));
        if let Some(bytes) = spool.answer_of(&asked) {
            let answer = QueryAnswer::parse(&bytes).map_err(AskError::Malformed)?;
            let is_ours = answer.query_id == query.query_id;
            return if is_ours { Ok(answer) } else { Err(AskError::OtherQuestion) };
        }
        let pid = alive?;
        if now >= question.deadline_boot_ms {
            return Err(AskError::NoAnswer { pid });
        }
        let event = asked.wait_fd();
        let interval_ms = if event.is_some() { LOOK_INTERVAL_MS } else { UNWATCHED_INTERVAL_MS };
        wait(event, question.deadline_boot_ms.min(now.saturating_add(interval_ms)));
        asked.drain();
    }
}

/// The process of the watcher that serves `spool`, if the watcher has already written it. An error
/// if no watcher runs.
pub fn check_alive(spool: &ClientSpool) -> Result<Option<u32>, AskError> {
    match spool.watcher() {
        Liveness::Alive { pid } => Ok(pid),
        gone => Err(AskError::NotRunning(gone)),
    }
}

/// Waits until one of `events` becomes readable or the instant is reached. It may return early.
pub fn wait<'a>(events: impl IntoIterator<Item = BorrowedFd<'a>>, until_boot_ms: u64) {
    let time = Duration::from_millis(until_boot_ms.saturating_sub(boot_ms()));
    let mut polled: Vec<_> =
        events.into_iter().map(|event| PollFd::new(event, PollFlags::POLLIN)).collect();
    match poll(&mut polled, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => {}
        // The kernel is short of memory. The caller's next look needs none.
        Err(_) => thread::sleep(time.min(Duration::from_millis(100))),
    }
}

/// The longest time between two looks for the answer and for the watcher, without an event.
const LOOK_INTERVAL_MS: u64 = 500;

/// The same if the system has no inotify watch left, so that no event reports the answer.
const UNWATCHED_INTERVAL_MS: u64 = 20;
