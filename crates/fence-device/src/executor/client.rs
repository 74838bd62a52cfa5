//! The watcher's side: starts the executor, hands out jobs, replaces an executor that is lost.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use log::{debug, warn};

use super::connection::Connection;
use super::{Command, JobLine, Purpose, RunOutcome};
use crate::pool::lock;
use crate::{Subject, boot_ms_now};

/// The connection to the executor. Clones share one executor, which ends with the last clone.
#[derive(Clone, Debug)]
pub struct ExecutorClient {
    shared: Arc<Shared>,
}

impl ExecutorClient {
    /// Starts `program args… lock_file`, which must call [`executor_main`](crate::executor_main)
    /// with that path, and waits until it holds its shared lock.
    ///
    /// A watcher first locks that file exclusively and unlocks it again: then no program of an
    /// earlier watcher runs any more.
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

    /// Runs `command`, which changes something, and waits for its end, until its limit and at worst
    /// some seconds more. No process of the command runs when this returns.
    ///
    /// Many commands may run at once. If the executor is dead, it is started again, once.
    pub fn run(&self, command: Command) -> RunOutcome {
        self.run_for(Purpose::Order, command)
    }

    /// The same for a `command` that changes nothing. If its result does not come in time, the
    /// command ends alone ([`RunOutcome::NotReported`]), and never ends an order.
    pub fn ask(&self, command: Command) -> RunOutcome {
        self.run_for(Purpose::Question, command)
    }

    pub(crate) fn run_for(&self, purpose: Purpose, command: Command) -> RunOutcome {
        let start_not_after_ms = command.start_not_after_boot_ms;
        if boot_ms_now() >= start_not_after_ms.min(command.limit.not_after_boot_ms) {
            return RunOutcome::TooLate;
        }
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (begin_ms, left_ms) = (boot_ms_now(), command.limit.left_ms());
        let subject = Subject::of_this_thread();
        debug!("program {id}: {subject}{} ({purpose}, at most {left_ms} ms)", command.shown());
        let outcome = self.run_job(&JobLine { id, purpose, command });
        let took_ms = boot_ms_now().saturating_sub(begin_ms);
        debug!("program {id}: {subject}{} after {took_ms} ms", outcome.end_of("it"));
        outcome
    }

    fn run_job(&self, job: &JobLine) -> RunOutcome {
        for _ in 0..2 {
            let connection = match self.shared.connection() {
                Ok(connection) => connection,
                Err(error) => return RunOutcome::NotStarted(format!("no executor: {error}")),
            };
            if let Some(outcome) = connection.run(job) {
                return outcome;
            }
        }
        RunOutcome::NotStarted("the executor died twice before it got the job".to_owned())
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
        if let Some(connection) = &*slot {
            connection.give_up_if_stuck();
            if connection.is_open() {
                return Ok(Arc::clone(connection));
            }
        }
        let connection = Connection::open(&self.program, &self.arguments)
            .inspect_err(|error| warn!("no executor can be started: {error}"))?;
        if slot.is_some() {
            warn!("a new executor was started: pid {}", connection.pid);
        }
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(connection) = lock(&self.connection).take() {
            connection.close();
        }
    }
}
