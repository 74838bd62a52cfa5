//! The processes that run all programs: the executor, and a keeper for each program.
//!
//! A watcher that is killed must not leave a program behind that still fences, and it cannot clean
//! up when it is killed by SIGKILL. So it runs no program itself: it starts its own binary once
//! more as the *executor*, and talks to it over a socket that closes when the watcher dies, however
//! it dies. The executor starts the same binary again as *keepers*, each of which runs one program
//! at a time and is a child subreaper: whatever a program starts, and however that makes itself a
//! group, a session or an orphan, descends from the program's keeper until it ends.
//!
//! So it is certain what a job has left, and all of it is ended before the job's result is
//! reported: at the limit, and also when the program ends by itself. Nothing acts after the answer,
//! beside the next order.
//!
//! | who is killed | who ends the programs |
//! | --- | --- |
//! | a keeper | the executor, a subreaper too: its children that are not keepers are what is left |
//! | the executor | the keepers, whose sockets close; the watcher waits until they are gone |
//! | the watcher | the executor lets go of the keepers, and ends after them |
//! | both | the keepers; they hold the lock until nothing is left |
//! | all | the next executor, by the mark that the programs bear and the lock's file hands on |
//!
//! The executor and its keepers hold a shared lock on a file: a new watcher that gets the exclusive
//! lock knows that none of them lives. They and what they run are a session of their own, and each
//! program leads a process group in it.
//!
//! Other ways to find a job's processes are less certain. A group or session is left by one call, a
//! variable of the environment is lost at `env -i` and cannot be read of a process that hangs,
//! births can be missed, cgroups and pid namespaces are not always to be had. A keeper costs the
//! start of one process, and only where none is idle.
//!
//! - `client`: the watcher's side. `connection`: one executor as the watcher sees it, and its end.
//! - `main`: the process. `service`: the executor's loop. `wire`: its sockets.
//! - `keeper`: one program, its limit and its end. `spawn`: the start, which may hang; `start`:
//!   waiting for that. `output`: what the program writes.
//! - `family`: finding and killing processes. `mark`: how one executor's are known.

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

/// How much of each of a program's two outputs is usually kept, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// How long killed processes are waited for. One that hangs in the kernel does nothing more by
/// itself, but its result must not come later because of that.
const KILL_TIME_MS_MAX: u64 = 500;

/// How long killed processes are waited for when the watcher or the executor is gone.
const LAST_WAIT_MS: u64 = 3_000;

/// A program to run.
///
/// It starts in `/`, as a process group of its own, with default signals and nothing of the
/// watcher's environment, and never through a shell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program's absolute path, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// What the program reads; `/dev/null` when empty.
    pub stdin: String,
    /// When the program is killed. Its descendants are killed then, or when it ends by itself.
    pub limit: Limit,
    /// When the program must have been started; later it is not started at all.
    pub start_not_after_boot_ms: u64,
    /// Who must still wait when it is started; `None` for what is started in any case.
    pub client: Option<Client>,
    /// How much of each output is kept, in bytes. The rest is read, counted and forgotten.
    pub output_bytes_max: usize,
}

impl Command {
    /// The command line for a log. An argument that is named as a secret, or that may hold one
    /// among other things (a text with blanks, such as a script), is not shown: secrets of ours are
    /// on no command line, but a command of the administrator's may have one.
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
    // A login in a URL.
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

/// The letters with which programs are given a password or a login.
const SECRET_LETTERS: [&str; 3] = ["-p", "-P", "-u"];

/// What stands in the name of a secret.
const SECRET_WORDS: [&str; 6] = ["pass", "pwd", "secret", "token", "key", "auth"];

impl fmt::Debug for Command {
    /// Only what is in nobody's way: secrets travel in the environment and on standard input.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("argv", &self.argv).finish_non_exhaustive()
    }
}

/// What came of running a program. Output is readable text: no control characters but newline and
/// tab.
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
    /// The executor or the program's keeper died or did not answer: the program may have run, and
    /// has been killed.
    ExecutorLost,
    /// The executor did not report in time. Only a question ends like this: its program is killed
    /// at its limit, by its keeper, whether somebody waits for the result or not.
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

/// The executor's first line: whether it is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    problem: Option<String>,
    /// What the processes of this executor have in common.
    mark: Option<Mark>,
}

/// What a program is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// It changes something: its end must be certain before it is reported.
    Order,
    /// It changes nothing, and never stands in an order's way.
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

/// A line to the executor. That of a job is handed to a keeper as it is.
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

/// A line from a keeper to the executor, about the job that it was given.
#[derive(Debug, Serialize, Deserialize)]
struct KeeperLine {
    outcome: RunOutcome,
    /// Nothing of the job is left, and the keeper takes the next.
    is_clean: bool,
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of texts and numbers cannot fail to be written; the reader ends at an empty
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
