//! Asking the watcher that runs, through the spool's queries: ask, wait, and look whether it lives.
//!
//! A watcher that dies answers nothing, so whoever waits for it looks from time to time: a dead one is
//! told apart from a slow one within a second, however long the answer may take.
//!
//! What the answer means is the caller's to say, and the files are `fence-spool`'s.

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

/// What is asked, and until when the answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct NewQuery<'a> {
    /// What is asked.
    pub kind: QueryKind,
    /// The device meant, if one is.
    pub device: Option<&'a str>,
    /// The target meant, if one is.
    pub target: Option<&'a NodeName>,
    /// The instant of `CLOCK_BOOTTIME`, in milliseconds, after which nobody waits.
    pub deadline_boot_ms: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// No watcher runs: none ever did, or it has ended, perhaps while it was waited for.
    NotRunning(Liveness),
    /// A watcher runs, and gave no answer in time.
    NoAnswer {
        /// Its process, once it has written it down.
        pid: Option<u32>,
    },
    /// The answer cannot be read, and why.
    Malformed(String),
    /// The answer is one to another question.
    OtherQuestion,
    /// The question could not be written.
    Spool(SpoolError),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_running = |f: &mut fmt::Formatter<'_>, state: fmt::Arguments<'_>| {
            write!(
                f,
                "no fence-watcher is running on this node ({state}); start it: systemctl start \
                 fence-watcher"
            )
        };
        match self {
            AskError::NotRunning(Liveness::Never) => {
                not_running(f, format_args!("it was never started on this spool"))
            }
            AskError::NotRunning(Liveness::Dead { pid: Some(pid) }) => {
                not_running(f, format_args!("process {pid} has ended"))
            }
            AskError::NotRunning(_) => not_running(f, format_args!("it has ended")),
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

/// Asks the watcher that serves `spool`, and waits for its answer. The question and its answer are gone
/// afterwards.
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
        // The time and the watcher are looked at first: an answer that comes while the time runs out, or
        // is the last thing that a watcher does, is still taken.
        let (now, alive) = (boot_ms(), check_alive(spool));
        if let Some(bytes) = spool.answer_of(&asked) {
            return read(&bytes, &query.query_id);
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

/// Fails where no watcher serves `spool`. Gives the process of the one that does, once it has written it
/// down.
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
        // The kernel is short of memory: what is looked at next needs none.
        Err(_) => thread::sleep(time.min(Duration::from_millis(100))),
    }
}

fn read(bytes: &[u8], query_id: &str) -> Result<QueryAnswer, AskError> {
    match QueryAnswer::parse(bytes) {
        Ok(answer) if answer.query_id == query_id => Ok(answer),
        Ok(_) => Err(AskError::OtherQuestion),
        Err(why) => Err(AskError::Malformed(why)),
    }
}

/// The longest time between two looks for an answer that no event announced, and at whether the watcher
/// lives.
const LOOK_INTERVAL_MS: u64 = 500;

/// The same where the system has no watch left to give: then no event announces the answer.
const UNWATCHED_INTERVAL_MS: u64 = 20;
