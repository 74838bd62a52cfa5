//! How a run ends: the exit code, and the words on standard output and standard error.
//!
//! Pacemaker logs each line of standard error as a warning, even of a run that succeeded, and reads
//! some words in it: so there is none on success and one on failure, and those words stand there only
//! where they are meant. Everything that goes to standard error passes through here or, for steps,
//! through `without_read_words`.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use fence_log::{shown_line, stdout_was_closed};
use fence_protocol::bounded;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::parameters::AGENT;

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    code: u8,
    stdout: String,
    /// Whether the text on standard output is what was asked for, and not only words about it.
    is_answer: bool,
    stderr: Vec<String>,
}

/// The longest line on standard error, in bytes.
const LINE_BYTES_MAX: usize = 1024;

impl Ending {
    /// Success, with these words on standard output. They change nothing of what was done.
    pub fn success(stdout: impl Into<String>) -> Self {
        Ending { code: 0, stdout: stdout.into(), is_answer: false, stderr: Vec::new() }
    }

    /// Success, if this text, which was asked for, can be written to standard output.
    pub fn answer(stdout: impl Into<String>) -> Self {
        Ending { is_answer: true, ..Ending::success(stdout) }
    }

    /// A `status` of off: the one exit code that is neither success nor failure.
    pub fn status_off() -> Self {
        Ending { code: 2, ..Ending::answer("Status: OFF\n") }
    }

    /// Failure: what failed, for which target, what to do.
    pub fn failure(text: &str) -> Self {
        Ending::failure_as_said(&without_read_words(text))
    }

    /// A failure whose words Pacemaker is to read: an expired time, an unknown action.
    pub fn failure_as_said(text: &str) -> Self {
        Ending { code: 1, stderr: vec![bounded(text, LINE_BYTES_MAX)], ..Ending::success("") }
    }

    /// The same ending, with what else went wrong on the way; it changes nothing of the result.
    #[must_use]
    pub fn with_problems(mut self, problems: &[String]) -> Self {
        let problems =
            problems.iter().map(|text| bounded(&without_read_words(text), LINE_BYTES_MAX));
        self.stderr.extend(problems);
        self
    }

    /// Whether the run did not fail.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }

    /// Says the words and gives the exit code. A reader that is gone changes nothing.
    pub fn conclude(mut self, quiet: bool) -> ExitCode {
        let written = self.write_stdout();
        if let Err(error) = written
            && self.is_answer
        {
            self.code = 1;
            self.stderr = vec![format!("cannot write to standard output: {error}")];
        }
        if !quiet && !self.stderr.is_empty() {
            tell(&self.stderr_line(), READER_TIME);
        }
        ExitCode::from(self.code)
    }

    fn write_stdout(&self) -> io::Result<()> {
        if self.stdout.is_empty() {
            return Ok(());
        }
        if stdout_was_closed() {
            return Err(io::Error::other("it is closed"));
        }
        let mut stdout = io::stdout().lock();
        // What was asked for waits for its reader, which may be a pager. A fence waits for nobody.
        if !self.is_answer && !takes(&stdout, READER_TIME) {
            return Ok(());
        }
        match stdout.write_all(self.stdout.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn stderr_line(&self) -> String {
        format!("{AGENT}: {}\n", shown_line(&self.stderr.join("; ")))
    }
}

/// Writes to standard error what can be written within `limit` for each part, and drops the rest. A reader
/// that has stopped reading holds up nothing.
pub(crate) fn tell(text: &str, limit: Duration) {
    let mut stderr = io::stderr().lock();
    for part in text.as_bytes().chunks(PART_BYTES) {
        if !takes(&stderr, limit) || stderr.write_all(part).is_err() {
            return;
        }
    }
}

/// Whether `to` takes [`PART_BYTES`] within `limit` without blocking: a pipe with less room is not ready.
fn takes(to: &impl AsFd, limit: Duration) -> bool {
    let mut polled = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    poll(&mut polled, limit).is_ok_and(|ready| ready > 0)
}

/// What a pipe that is ready takes at once: `PIPE_BUF`.
const PART_BYTES: usize = 4096;

/// How long the end of a run waits for a reader of its words.
const READER_TIME: Duration = Duration::from_millis(100);

/// `text` without the words from which Pacemaker concludes an expired time or an unknown action:
/// they may stand in a device's message or in a path.
pub(crate) fn without_read_words(text: &str) -> String {
    let words = [
        ("timeout", "time-out"),
        ("timed out", "timed-out"),
        ("unsupported action", "unsupported-action"),
        ("unrecognised", "un-recognised"),
        ("unrecognized", "un-recognized"),
    ];
    let mut text = text.to_owned();
    for (word, other) in words {
        let mut from = 0;
        while let Some(at) = text[from..].to_ascii_lowercase().find(word).map(|at| from + at) {
            let end = at + word.len();
            // The name of an environment variable, which nobody could find otherwise. Pacemaker looks for
            // small letters.
            let is_variable =
                text[..at].ends_with('_') && text[at..end].to_ascii_uppercase() == text[at..end];
            from = if is_variable {
                end
            } else {
                text.replace_range(at..end, other);
                at + other.len()
            };
        }
    }
    text
}

/// `name` after `what`, without the words that Pacemaker reads.
pub(crate) fn named(what: &str, name: &str) -> String {
    let split = name.replace("timeout", "time-out");
    let hint = if split == name { "" } else { " (written without the hyphen in 'time-out')" };
    format!("{what}{split}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_message_cannot_make_pacemaker_conclude_what_is_not_so() {
        let text =
            "the device said 'Connection Timed Out (TIMEOUT)', UNRECOGNIZED, Unsupported action";

        let line = Ending::failure(text).stderr_line().to_ascii_lowercase();

        for word in ["timeout", "timed out", "unrecognized", "unrecognised", "unsupported action"] {
            assert!(!line.contains(word), "{line}");
        }
        assert_eq!(without_read_words("FENCE_TIMEOUT timeout"), "FENCE_TIMEOUT time-out");
        assert!(Ending::failure_as_said("timed out").stderr_line().contains("timed out"));
    }

    #[test]
    fn whatever_goes_wrong_is_one_line() {
        let ending = Ending::failure("a\nb").with_problems(&["c\u{85}d".into(), "e".into()]);

        assert_eq!(ending.stderr_line(), "fence_gfs2_recorder: a\\nb; c\\u{85}d; e\n");
        // What shows an escape of its own is not escaped once more.
        let ending = Ending::failure("it contains '\\u{7}'");
        assert_eq!(ending.stderr_line(), "fence_gfs2_recorder: it contains '\\u{7}'\n");
    }

    #[test]
    fn a_problem_on_the_way_does_not_undo_a_success() {
        let ending = Ending::success("Success: Rebooted\n").with_problems(&["no log".into()]);

        assert!(ending.is_success());
    }
}
