//! The one small process that runs all programs.
//!
//! A watcher that is killed must not leave a program behind that still fences, and it cannot clean
//! up when it is killed by SIGKILL. So it runs no program itself: it starts its own binary once more
//! as the *executor*, and talks to it over a socket that closes when the watcher dies, however it
//! dies. The executor then kills everything it started, and ends. Should the executor be the one that
//! dies, the client kills what it left; should both die at once, the next executor does, to which the
//! lock's file tells the session. While it lives it holds a shared lock on a file: a new watcher
//! that gets the exclusive lock knows that nothing of the old one runs any more.
//!
//! The executor is a session of its own, and each program a process group in it. That is how the
//! programs' descendants are found: only one that makes itself a session (`setsid`) may stay behind.
//! What a program leaves in the background when it ends is not touched until the watcher ends.
//!
//! - `client`: the watcher's side.
//! - `service`: the executor's loop.
//! - `spawn`: the start of one program, which may hang; `start`: waiting for that. `output`: what it
//!   writes. `family`: killing it and its
//!   descendants.

mod client;
mod family;
mod output;
mod service;
mod spawn;
mod start;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Client, Limit};

pub use client::ExecutorClient;
pub use service::executor_main;

/// How much of each of a program's two outputs is usually kept, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// A program to run.
///
/// It starts in `/`, as a process group of its own, with default signals and nothing of the watcher's
/// environment, and never through a shell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program's absolute path, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// What the program reads; `/dev/null` when empty.
    pub stdin: String,
    /// When the program and its descendants are killed.
    pub limit: Limit,
    /// When the program must have been started; later it is not started at all.
    pub start_not_after_boot_ms: u64,
    /// Who must still wait when it is started; `None` for what is started in any case.
    pub client: Option<Client>,
    /// How much of each output is kept, in bytes. The rest is read, counted and forgotten.
    pub output_bytes_max: usize,
}

impl fmt::Debug for Command {
    /// Only what is in nobody's way: secrets travel in the environment and on standard input.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("argv", &self.argv).finish_non_exhaustive()
    }
}

/// What came of running a program. Output is readable text: no control characters but newline and tab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The program ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it wrote to its standard output.
        stdout: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// A signal that was not ours ended it.
    Signaled {
        /// The signal's number; 0 for one without a name.
        signal: i32,
        /// What it wrote to its standard output.
        stdout: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// It was killed at its limit.
    TimedOut {
        /// What it wrote to its standard output.
        stdout: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// It was certainly not started, for this reason.
    NotStarted(String),
    /// It was certainly not started, because it was too late for that.
    TooLate,
    /// It was certainly not started, because its client did not wait any more.
    Withdrawn,
    /// The executor died or did not answer: the program may have run, and has been killed.
    ExecutorLost,
}

impl Outcome {
    /// The same with `change` made to what the program wrote.
    pub(crate) fn map_output(self, change: impl Fn(String) -> String) -> Self {
        match self {
            Outcome::Exited { code, stdout, stderr } => {
                Outcome::Exited { code, stdout: change(stdout), stderr: change(stderr) }
            }
            Outcome::Signaled { signal, stdout, stderr } => {
                Outcome::Signaled { signal, stdout: change(stdout), stderr: change(stderr) }
            }
            Outcome::TimedOut { stdout, stderr } => {
                Outcome::TimedOut { stdout: change(stdout), stderr: change(stderr) }
            }
            other @ (Outcome::NotStarted(_)
            | Outcome::TooLate
            | Outcome::Withdrawn
            | Outcome::ExecutorLost) => other,
        }
    }
}

/// The executor's first line: whether it is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    problem: Option<String>,
}

/// A line to the executor.
#[derive(Debug, Serialize, Deserialize)]
struct JobLine {
    id: u64,
    command: Command,
}

/// A line from the executor.
#[derive(Debug, Serialize, Deserialize)]
struct ResultLine {
    id: u64,
    outcome: Outcome,
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of texts and numbers cannot fail to be written; the reader ends at an empty line.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
