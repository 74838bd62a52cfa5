//! The output while the agent works: steps, if `verbose` or a debug file asks for them, and on a
//! terminal a line that shows the wait and disappears.

use std::io::{self, IsTerminal};
use std::time::Duration;

use chrono::Utc;
use fence_audit::{LogProcess, Task};
use fence_log::shown_line;
use fence_protocol::{bounded, rfc3339};

use crate::invocation::Telling;
use crate::outcome::{tell, without_read_words};
use crate::parameters::AGENT;

/// The widest waiting line, in bytes: a line that wraps cannot be erased whole.
const LINE_BYTES_MAX: usize = 79;

/// The receivers of the steps.
#[derive(Debug)]
pub(crate) struct Progress {
    verbose: bool,
    terminal: bool,
    shown: bool,
    /// Another process writes the file, because its disk may hang.
    debug: Option<LogProcess>,
}

impl Progress {
    /// Starts the writer of the debug file, if there is to be one. [`Progress::settle`] reports a
    /// file that cannot be opened.
    pub(crate) fn open(telling: &Telling) -> Self {
        Progress {
            verbose: telling.verbose && !telling.quiet,
            terminal: !telling.quiet && io::stderr().is_terminal(),
            shown: false,
            debug: telling.debug_file.clone().map(|path| LogProcess::start(&Task::Lines(path))),
        }
    }

    /// Waits until the debug file has all steps, at most for `limit`. Returns the problems with the
    /// file.
    pub(crate) fn settle(&mut self, limit: Duration) -> Vec<String> {
        let problems = self.debug.as_mut().map(|file| file.settle(limit)).unwrap_or_default();
        problems.into_iter().map(|problem| format!("no debug file: {problem}")).collect()
    }

    /// Whether there is a terminal for the waiting line.
    pub(crate) fn is_watched(&self) -> bool {
        self.terminal
    }

    /// Reports one step.
    pub(crate) fn step(&mut self, text: &str) {
        let text = shown_line(text);
        if let Some(file) = &mut self.debug {
            let (time, pid) = (rfc3339(Utc::now()), std::process::id());
            file.send(&format!("{time} {AGENT}[{pid}]: {text}"));
        }
        if self.verbose {
            self.erase();
            let text = without_read_words(&text);
            tell(&format!("{AGENT}: {text}\n"), Duration::ZERO);
        }
    }

    /// Replaces the waiting line.
    pub(crate) fn waiting(&mut self, text: &str) {
        if self.terminal {
            let line = format!("\r\x1b[K{}", bounded(&shown_line(text), LINE_BYTES_MAX));
            tell(&line, Duration::ZERO);
            self.shown = true;
        }
    }

    /// Tells something that stays on the terminal.
    pub(crate) fn say(&mut self, text: &str) {
        if self.terminal {
            self.erase();
            tell(&format!("{AGENT}: {}\n", without_read_words(&shown_line(text))), Duration::ZERO);
        }
    }

    fn erase(&mut self) {
        if self.shown {
            tell("\r\x1b[K", Duration::ZERO);
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}
