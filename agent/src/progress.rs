//! What is told while the agent works: steps for those who asked for them, and for a terminal a
//! line that shows the waiting and disappears.

use std::fs::File;
use std::io::{self, IsTerminal, Write};

use chrono::{SecondsFormat, Utc};
use fence_log::one_line;
use fence_protocol::bounded;

use crate::invocation::Telling;
use crate::outcome::without_read_words;
use crate::parameters::AGENT;

/// The widest waiting line, in bytes: it must not wrap, or erasing it leaves a rest.
const LINE_BYTES_MAX: usize = 79;

/// Where the steps go.
#[derive(Debug)]
pub(crate) struct Progress {
    verbose: bool,
    terminal: bool,
    shown: bool,
    debug: Option<File>,
    problem: Option<String>,
}

impl Progress {
    /// Opens the debug file, if one is wanted. That it cannot be opened is only a
    /// [`Progress::problem`].
    pub(crate) fn open(telling: &Telling) -> Self {
        let opened = telling.debug_file.as_deref().map(fence_spool::open_append);
        let (debug, problem) = match opened {
            None => (None, None),
            Some(Ok(file)) => (Some(file), None),
            Some(Err(error)) => (None, Some(format!("no debug file: {error}"))),
        };
        Progress {
            verbose: telling.verbose && !telling.quiet,
            terminal: !telling.quiet && io::stderr().is_terminal(),
            shown: false,
            debug,
            problem,
        }
    }

    /// Why there is no debug file, though one is wanted.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether somebody sees the waiting line.
    pub(crate) fn is_watched(&self) -> bool {
        self.terminal
    }

    /// Tells one step.
    pub(crate) fn step(&mut self, text: &str) {
        let text = one_line(text);
        if let Some(file) = &mut self.debug {
            let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
            let pid = std::process::id();
            // The debug file is a copy; what is wrong with it was told when it was opened.
            let _ = file.write_all(format!("{time} {AGENT}[{pid}]: {text}\n").as_bytes());
        }
        if self.verbose {
            self.erase();
            let text = without_read_words(&text);
            let _ = io::stderr().write_all(format!("{AGENT}: {text}\n").as_bytes());
        }
    }

    /// Shows what is waited for, in place of what was shown before.
    pub(crate) fn waiting(&mut self, text: &str) {
        if self.terminal {
            let line = format!("\r\x1b[K{}", bounded(&one_line(text), LINE_BYTES_MAX));
            let _ = io::stderr().write_all(line.as_bytes());
            self.shown = true;
        }
    }

    fn erase(&mut self) {
        if self.shown {
            let _ = io::stderr().write_all(b"\r\x1b[K");
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}
