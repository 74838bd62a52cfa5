//! A call of a program: its environment and its limit in every driver, and the meaning of its end.
//!
//! | the end | an order that the program carried out |
//! | --- | --- |
//! | not started | `Failed`, `TooLate` or `Withdrawn`: nothing was done, for certain |
//! | ended by itself | the driver reads the exit code and the output |
//! | a signal, its limit, no result | `Unacknowledged`: anything may have been done |

use fence_core::execution::{OrderReport, PowerReport};
use fence_protocol::{PowerState, bounded};

use crate::{Command, Limit, OUTPUT_BYTES_MAX, RunOutcome};

/// How much of a list of targets is read, in bytes. Most names are far shorter than 16 bytes.
pub(crate) const LIST_BYTES_MAX: usize = 1024 * 1024;

/// The longest message from a program's output, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;

/// The directories in which programs look for other programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Command {
    /// A call of the program and the arguments in `argv`. The program is started before `limit` or
    /// never, and is killed at `limit`. Its environment is `PATH` alone.
    pub fn new(argv: Vec<String>, limit: Limit) -> Self {
        Command {
            argv,
            env: vec![("PATH".to_owned(), PATH.to_owned())],
            stdin: String::new(),
            limit,
            start_not_after_boot_ms: limit.not_after_boot_ms,
            client: None,
            output_bytes_max: OUTPUT_BYTES_MAX,
        }
    }

    /// Makes the program write English, in ASCII.
    #[must_use]
    pub fn plain(self) -> Self {
        self.with_env([("LC_ALL", "C")])
    }

    /// Adds variables to the environment; the last value of a name counts.
    pub(crate) fn with_env<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            let name = name.into();
            self.env.retain(|(other, _)| *other != name);
            self.env.push((name, value.into()));
        }
        self
    }
}

impl RunOutcome {
    /// The report of an order whose program ended like this, unless the exit code and the output
    /// show more. `words` are for people.
    pub(crate) fn order_report(&self, words: String) -> OrderReport {
        match self {
            RunOutcome::NotStarted(_) => OrderReport::Failed(words),
            RunOutcome::TooLate => OrderReport::TooLate,
            RunOutcome::Withdrawn => OrderReport::Withdrawn,
            RunOutcome::Exited { .. }
            | RunOutcome::Signaled { .. }
            | RunOutcome::TimedOut { .. }
            | RunOutcome::ExecutorLost
            | RunOutcome::NotReported => OrderReport::Unacknowledged(words),
        }
    }

    /// How `program` ended, without its output, which may contain a secret.
    pub(crate) fn end_of(&self, program: &str) -> String {
        match self {
            RunOutcome::Exited { code, .. } => format!("{program} exited with {code}"),
            RunOutcome::Signaled { signal, .. } => {
                format!("{program} was ended by signal {signal}")
            }
            RunOutcome::TimedOut { .. } => format!("{program} was killed at its limit"),
            RunOutcome::NotStarted(problem) => problem.clone(),
            RunOutcome::TooLate => format!("it was too late to start {program}"),
            RunOutcome::Withdrawn => {
                format!("{program} was not started: the client did not wait any more")
            }
            RunOutcome::ExecutorLost => {
                format!("the executor was lost while {program} ran; it was killed")
            }
            RunOutcome::NotReported => format!("no result of {program} came in time"),
        }
    }

    /// The program's standard output and standard error.
    fn output(&self) -> (&str, &str) {
        match self {
            RunOutcome::Exited { stdout, stderr, .. }
            | RunOutcome::Signaled { stdout, stderr, .. }
            | RunOutcome::TimedOut { stdout, stderr } => (stdout, stderr),
            _ => ("", ""),
        }
    }
}

/// The output of a program, as one line; `None` if it is empty.
pub fn message(stdout: &str, stderr: &str) -> Option<String> {
    let words: Vec<&str> = stdout.split_whitespace().chain(stderr.split_whitespace()).collect();
    (!words.is_empty()).then(|| bounded(&words.join(" "), MESSAGE_BYTES_MAX))
}

/// The report of an order whose program ended with 0.
pub(crate) fn acknowledged(stdout: &str, stderr: &str) -> OrderReport {
    let words = message(stdout, stderr);
    OrderReport::Acknowledged(words.unwrap_or_else(|| "exit code 0".to_owned()))
}

/// Why the program at `path` did not do what it was run for.
pub(crate) fn failure(path: &str, outcome: &RunOutcome) -> String {
    let end = outcome.end_of(&format!("\"{path}\""));
    // The errors come first, because the end of the message may be cut off.
    let (stdout, stderr) = outcome.output();
    match message(stderr, stdout) {
        Some(message) => format!("{end}: {message}"),
        None => end,
    }
}

/// The state that a program shows, and its complaint beside the state.
pub(crate) type Shown = (PowerReport, Option<String>);

/// No state is shown, because of `detail`.
pub(crate) fn unknown(detail: impl Into<String>) -> PowerReport {
    PowerReport { state: PowerState::Unknown, detail: detail.into() }
}

/// Why an order would not be confirmed, or an "off" not be trusted, if a program shows this. The
/// error is the reason why it shows no state.
pub(crate) fn lack(shown: Result<Shown, String>) -> Option<String> {
    match shown {
        Ok((report, complaint)) if report.state != PowerState::Unknown => complaint,
        Ok((PowerReport { detail, .. }, _)) | Err(detail) => Some(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_certain_only_where_its_program_was_not_started_at_all() {
        let (stdout, stderr) = (String::new, String::new);
        let words = || "why".to_owned();
        for outcome in [
            RunOutcome::Exited { code: 1, stdout: stdout(), stderr: stderr() },
            RunOutcome::Signaled { signal: 9, stdout: stdout(), stderr: stderr() },
            RunOutcome::TimedOut { stdout: stdout(), stderr: stderr() },
            RunOutcome::ExecutorLost,
            RunOutcome::NotReported,
        ] {
            assert_eq!(outcome.order_report(words()), OrderReport::Unacknowledged(words()));
        }
        let not_started = RunOutcome::NotStarted(words());
        assert_eq!(not_started.order_report(words()), OrderReport::Failed(words()));
        assert_eq!(RunOutcome::TooLate.order_report(words()), OrderReport::TooLate);
        assert_eq!(RunOutcome::Withdrawn.order_report(words()), OrderReport::Withdrawn);
    }

    #[test]
    fn a_failure_names_the_program_and_quotes_its_errors_first() {
        let ended =
            RunOutcome::Exited { code: 1, stdout: "said\n".into(), stderr: "ERROR: no".into() };
        assert_eq!(failure("/sbin/x", &ended), "\"/sbin/x\" exited with 1: ERROR: no said");
        assert_eq!(failure("/sbin/x", &RunOutcome::NotStarted("why".into())), "why");
    }
}
