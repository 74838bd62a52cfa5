//! The end of a run: the exit code, and the texts on standard output and standard error.
//!
//! Pacemaker logs each line of standard error as a warning, even after a success, and interprets
//! some words in it. Therefore a success writes no line and a failure writes one, and these words
//! are written only on purpose. All texts for standard error pass through this module; steps pass
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
    /// Whether the text on standard output is the answer itself, and not a comment on the result.
    is_answer: bool,
    stderr: Vec<String>,
}

/// The longest line on standard error, in bytes.
const LINE_BYTES_MAX: usize = 1024;

impl Ending {
    /// Success, with this comment on standard output. If it cannot be written, the run succeeds all
    /// the same.
    pub fn success(stdout: impl Into<String>) -> Self {
        Ending { code: 0, stdout: stdout.into(), is_answer: false, stderr: Vec::new() }
    }

    /// Success, if this text, the answer, can be written to standard output.
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

    /// A failure whose words Pacemaker is to interpret: an expired time, an unknown action.
    pub fn failure_as_said(text: &str) -> Self {
        Ending { code: 1, stderr: vec![bounded(text, LINE_BYTES_MAX)], ..Ending::success("") }
    }

    /// The same ending, with other problems of the run. They do not change the result.
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

    /// Writes the texts and returns the exit code. A missing reader does not change the result.
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
        // An answer waits for its reader, which may be a pager. A fence does not wait for a reader.
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

/// Writes `text` to standard error in parts, and waits at most `limit` for each part; drops the
/// rest. A reader that has stopped reading delays nothing.
pub(crate) fn tell(text: &str, limit: Duration) {
    let mut stderr = io::stderr().lock();
    for part in text.as_bytes().chunks(PART_BYTES) {
        if !takes(&stderr, limit) || stderr.write_all(part).is_err() {
            return;
        }
    }
}

/// Whether `to` accepts [`PART_BYTES`] within `limit` without blocking: a pipe with less room is
/// not ready.
fn takes(to: &impl AsFd, limit: Duration) -> bool {
    let mut polled = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    poll(&mut polled, limit).is_ok_and(|ready| ready > 0)
}

/// The bytes that a ready pipe accepts at once: `PIPE_BUF`.
const PART_BYTES: usize = 4096;

/// How long the end of a run waits for its reader.
const READER_TIME: Duration = Duration::from_millis(100);

/// `text` without the words from which Pacemaker concludes an expired time or an unknown action. A
/// device's message or a path may contain them.
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
            // The name of an environment variable stays as it is. Pacemaker looks for small
            // letters.
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

/// `name` after `what`, without the words that Pacemaker interprets.
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
