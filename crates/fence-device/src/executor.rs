//! The processes that run all programs: the executor, and a keeper for each program.
//!
//! A killed watcher must not leave a program behind that still fences, and it cannot clean up after
//! SIGKILL. So the watcher runs no program itself. It starts its own binary once more as the
//! *executor*, and talks to the executor over a socket. The socket closes when the watcher dies, in
//! any way. The executor starts the same binary again as *keepers*. A keeper runs one program at a
//! time and is a child subreaper: each process that the program starts descends from the keeper
//! until it ends, also in another group or session, and as an orphan.
//!
//! So the processes of a job are certain, and all of them are ended before the job's result is
//! reported: at the limit, and when the program ends by itself. No process acts after the answer,
//! beside the next order.
//!
//! | killed | what ends the programs |
//! | --- | --- |
//! | a keeper | the executor, a subreaper too: its other children come from dead keepers |
//! | the executor | the keepers, whose sockets close; the watcher waits until they have ended |
//! | the watcher | the executor closes the sockets of the keepers, and ends after them |
//! | both | the keepers; they hold the lock until no process is left |
//! | all | the next executor, by the mark of the programs, which the lock's file names |
//!
//! The executor and its keepers hold a shared lock on a file: a new watcher that gets the exclusive
//! lock knows that none of them lives. They and their programs are a separate session, and each
//! program leads a process group in it.
//!
//! Other ways to find a job's processes are less certain: a program leaves a group or session with
//! one call, `env -i` removes a variable of the environment, which cannot be read of a process that
//! hangs, births can be missed, and cgroups and pid namespaces are not always available. A keeper
//! costs the start of one process, if no keeper is idle.
//!
//! - `client`: the watcher's side. `connection`: one executor as the watcher sees it, and its end.
//! - `main`: the process. `service`: the executor's loop. `wire`: its sockets.
//! - `keeper`: one program, its limit and its end. `spawn`: the start of a program, which may hang;
//!   `start`: the wait for this. `output`: the program's output. `events`: what a keeper and the
//!   executor wait for.
//! - `family`: finds and kills processes. `mark`: identifies the processes of one executor.

mod client;
mod connection;
mod events;
mod family;
mod keeper;
mod main;
mod mark;
mod output;
mod service;
mod spawn;
mod start;
mod wire;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::mark::Mark;
use crate::{Client, Limit};

pub use client::ExecutorClient;
pub use main::executor_main;

/// How much of each of a program's two outputs is kept, in bytes, unless the call sets another
/// bound.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// How long to wait for killed processes. A process that hangs in the kernel does nothing more, and
/// must not delay the result.
const KILL_TIME_MS_MAX: u64 = 500;

/// How long to wait for killed processes after the end of the watcher or the executor.
const LAST_WAIT_MS: u64 = 3_000;

/// A program to run.
///
/// It starts in `/`, in a new process group, with default signals, without the watcher's
/// environment, and never through a shell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program's absolute path, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// What the program reads; `/dev/null` when empty.
    pub stdin: String,
    /// When the program is killed. Its descendants are killed then, or at the program's own end.
    pub limit: Limit,
    /// When the program must have been started. Later, it is not started at all.
    pub start_not_after_boot_ms: u64,
    /// Who must still wait when it is started; `None` if it is started in any case.
    pub client: Option<Client>,
    /// How much of each output is kept, in bytes. The rest is read, counted and dropped.
    pub output_bytes_max: usize,
}

impl Command {
    /// The command line for a log, without arguments that may contain a secret: those with the name
    /// of a secret, and those with blanks, such as scripts. No command line of ours contains a
    /// secret, but an administrator's command may.
    fn shown(&self) -> String {
        let mut is_secret = false;
        let words = self.argv.iter().map(|word| {
            let hidden = std::mem::replace(&mut is_secret, is_secret_option(word));
            if hidden { "***".to_owned() } else { shown_word(word) }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Whether the next word is a secret.
fn is_secret_option(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=') && names_secret(word)
}

fn shown_word(word: &str) -> String {
    let is_glued = SECRET_LETTERS.iter().any(|letter| word.len() > 2 && word.starts_with(letter));
    if word.contains(char::is_whitespace) || is_glued {
        return "***".to_owned();
    }
    match word.split_once('=') {
        Some((name, _)) if names_secret(name) => return format!("{name}=***"),
        _ => {}
    }
    // A URL may contain a login.
    match word.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (login, rest))) if !login.contains('/') => format!("{scheme}://***@{rest}"),
        _ => word.to_owned(),
    }
}

fn names_secret(name: &str) -> bool {
    let is_letter = SECRET_LETTERS.contains(&name);
    let name = name.to_ascii_lowercase();
    is_letter || SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The options for a password or a login.
const SECRET_LETTERS: [&str; 3] = ["-p", "-P", "-u"];

/// Parts of the names of secrets.
const SECRET_WORDS: [&str; 6] = ["pass", "pwd", "secret", "token", "key", "auth"];

impl fmt::Debug for Command {
    /// Without the environment and the standard input, which contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("argv", &self.argv).finish_non_exhaustive()
    }
}

/// The result of running a program. Output is readable text, without control characters except
/// newline and tab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunOutcome {
    /// The program ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it wrote to its standard output.
        stdout: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// Another process's signal ended it.
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
    /// The executor or the program's keeper died or did not respond: the program may have run, and
    /// has been killed.
    ExecutorLost,
    /// The executor did not report in time. Only a question ends like this: its keeper kills the
    /// program at its limit in any case.
    NotReported,
}

impl RunOutcome {
    /// The same with `change` made to what the program wrote.
    pub(crate) fn map_output(mut self, change: impl Fn(&str) -> String) -> Self {
        if let RunOutcome::Exited { stdout, stderr, .. }
        | RunOutcome::Signaled { stdout, stderr, .. }
        | RunOutcome::TimedOut { stdout, stderr } = &mut self
        {
            (*stdout, *stderr) = (change(stdout), change(stderr));
        }
        self
    }
}

/// The executor's first line: whether the executor is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    problem: Option<String>,
    /// The mark of this executor's processes.
    mark: Option<Mark>,
}

/// The purpose of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// It changes something: its end must be certain before it is reported.
    Order,
    /// It changes nothing, and never delays an order.
    Question,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Order => "an order",
            Purpose::Question => "a question",
        })
    }
}

/// A line to the executor. The line of a job goes to a keeper unchanged.
#[derive(Debug, Serialize, Deserialize)]
enum Word<J> {
    Job(J),
    /// The executor answers at its next turn.
    AreYouAlive,
}

#[derive(Debug, Serialize, Deserialize)]
struct JobLine {
    id: u64,
    purpose: Purpose,
    command: Command,
}

/// A line from the executor.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Result { id: u64, outcome: RunOutcome },
    Alive,
}

/// A line from a keeper to the executor, about the keeper's job.
#[derive(Debug, Serialize, Deserialize)]
struct KeeperLine {
    outcome: RunOutcome,
    /// No process of the job is left, and the keeper takes the next job.
    is_clean: bool,
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of texts and numbers can always be written. The reader would end at an empty
    // line.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_in_a_log_has_no_secret() {
        for (argv, shown) in [
            (&["/sbin/pdu", "off", "n3"][..], "/sbin/pdu off n3"),
            (&["/sbin/pdu", "--password", "s3cret", "n3"], "/sbin/pdu --password *** n3"),
            (&["/sbin/pdu", "--pass=s3cret", "n3"], "/sbin/pdu --pass=*** n3"),
            (&["/bin/env", "API_TOKEN=s3cret", "x"], "/bin/env API_TOKEN=*** x"),
            (&["/bin/curl", "-u", "a:s3cret", "x"], "/bin/curl -u *** x"),
            (&["/bin/curl", "https://a:s3cret@pdu/x@y"], "/bin/curl https://***@pdu/x@y"),
            (&["/bin/curl", "https://pdu/x@y"], "/bin/curl https://pdu/x@y"),
        ] {
            let command = Command {
                argv: argv.iter().map(|&word| word.to_owned()).collect(),
                env: vec![("IPMI_PASSWORD".to_owned(), "s3cret".to_owned())],
                stdin: "password=s3cret\n".to_owned(),
                limit: Limit { not_after_boot_ms: 0 },
                start_not_after_boot_ms: 0,
                client: None,
                output_bytes_max: 0,
            };
            assert_eq!(command.shown(), shown);
        }
    }
}
