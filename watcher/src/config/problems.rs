//! What is wrong with a configuration file, collected with the lines it stands on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line in the file, from 1; `None` for what does not come from the file.
    pub line: Option<usize>,
    /// What is wrong, and what to write instead.
    pub text: String,
}

impl Problem {
    /// `file:line: text`.
    pub fn with_place(&self, file: &Path) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {}", file.display(), self.text),
            None => self.text.clone(),
        }
    }
}

/// Why there are no settings.
#[derive(Debug)]
pub enum ConfigError {
    /// There is no such file.
    Missing(PathBuf),
    /// The file lies there but must not be believed: its owner, its mode or its place is wrong.
    Refused(PathBuf, String),
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The content is wrong, in these places.
    Problems {
        /// The file.
        path: PathBuf,
        /// All that is wrong, by line; at least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// All that is wrong, each with its place.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ConfigError::Problems { path, problems } => {
                problems.iter().map(|problem| problem.with_place(path)).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Missing(path) => write!(
                f,
                "there is no configuration file '{}', and without one no device is known that \
                 could fence anything.\n{HOW_TO_START}",
                path.display()
            ),
            ConfigError::Refused(path, why) => write!(f, "'{}' is refused: {why}", path.display()),
            ConfigError::Unreadable(path, error) => {
                write!(f, "cannot read '{}': {}", path.display(), fence_spool::cause(error))
            }
            ConfigError::Problems { .. } => f.write_str(&self.lines().join("\n")),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The problems found so far. It is shared by all that read one file, hence the cell.
#[derive(Debug)]
pub(super) struct Problems {
    line_starts: Vec<usize>,
    /// Lines that are no TOML: what else seems wrong with them follows from that.
    broken_lines: RefCell<BTreeSet<usize>>,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(super) fn of(text: &str) -> Self {
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Problems {
            line_starts: line_ends.map(|(position, _)| position + 1).collect(),
            broken_lines: RefCell::default(),
            found: RefCell::default(),
        }
    }

    /// The line, from 1, on which the byte at `offset` stands.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) + 1
    }

    /// Notes what the TOML parser says.
    pub(super) fn syntax(&self, offset: usize, text: &str) {
        self.at(offset, text);
        self.broken_lines.borrow_mut().insert(self.line(offset));
    }

    /// Notes what is wrong at `offset`.
    pub(super) fn at(&self, offset: usize, text: impl Into<String>) {
        let line = self.line(offset);
        if !self.broken_lines.borrow().contains(&line) {
            self.found.borrow_mut().push(Problem { line: Some(line), text: text.into() });
        }
    }

    /// Notes what is wrong outside the file.
    pub(super) fn anywhere(&self, text: String) {
        self.found.borrow_mut().push(Problem { line: None, text });
    }

    pub(super) fn into_result(self, path: &Path) -> Result<(), ConfigError> {
        let mut problems = self.found.into_inner();
        problems.sort();
        problems.dedup();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Problems { path: path.to_owned(), problems })
        }
    }
}

const HOW_TO_START: &str = "\
Write one that says which device fences which nodes, for example

    [[device]]
    name = \"power\"
    type = \"command\"
    targets = \"n[1-4]\"
    off = [\"/usr/local/sbin/node-power\", \"off\", \"{target}\"]
    on = [\"/usr/local/sbin/node-power\", \"on\", \"{target}\"]
    status = [\"/usr/local/sbin/node-power\", \"status\", \"{target}\"]

and test it with 'fence-watcher check'. To try the watcher out without hardware, write a device of
type \"simulated\": it says so in every answer.";
