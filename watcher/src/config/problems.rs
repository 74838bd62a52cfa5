//! The problems of a configuration file, collected with their lines.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line in the file, from 1; `None` if the problem is not in the file.
    pub line: Option<usize>,
    /// What is wrong, and what to write instead.
    pub text: String,
}

/// Why a configuration gives no settings.
#[derive(Debug)]
pub enum ConfigError {
    /// The file does not exist.
    Missing(PathBuf),
    /// The file must not be trusted: its owner, its mode or its place is wrong.
    Refused(PathBuf, String),
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The content is wrong.
    Problems {
        /// The file.
        path: PathBuf,
        /// All problems by line, at least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// All problems, each with its place: `file:line: text`.
    pub fn lines(&self) -> Vec<String> {
        let ConfigError::Problems { path, problems } = self else { return vec![self.to_string()] };
        let with_place = |Problem { line, text }: &Problem| match line {
            Some(line) => format!("{}:{line}: {text}", path.display()),
            None => text.clone(),
        };
        problems.iter().map(with_place).collect()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Missing(path) => write!(
                f,
                "there is no configuration file '{}', so the watcher knows no fence device.\n\
                 {HOW_TO_START}",
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

/// The problems found so far. All readers of one file share them, hence the cells.
#[derive(Debug)]
pub(super) struct Problems {
    line_starts: Vec<usize>,
    /// Lines that are not TOML: all other problems of such a line are its consequences.
    broken_lines: RefCell<BTreeSet<usize>>,
    found: RefCell<BTreeSet<Problem>>,
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

    /// The line, from 1, of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) + 1
    }

    /// Notes an error of the TOML parser.
    pub(super) fn syntax(&self, offset: usize, text: &str) {
        self.at(offset, text);
        self.broken_lines.borrow_mut().insert(self.line(offset));
    }

    /// Notes a problem at `offset`.
    pub(super) fn at(&self, offset: usize, text: impl Into<String>) {
        let line = self.line(offset);
        if !self.broken_lines.borrow().contains(&line) {
            self.found.borrow_mut().insert(Problem { line: Some(line), text: text.into() });
        }
    }

    /// Notes a problem outside the file.
    pub(super) fn anywhere(&self, text: String) {
        self.found.borrow_mut().insert(Problem { line: None, text });
    }

    pub(super) fn into_result(self, path: &Path) -> Result<(), ConfigError> {
        let problems = Vec::from_iter(self.found.into_inner());
        if problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Problems { path: path.to_owned(), problems })
    }
}

const HOW_TO_START: &str = "\
Write a file with a device and the nodes that it fences, for example

    [[device]]
    name = \"power\"
    type = \"command\"
    targets = \"n[1-4]\"
    off = [\"/usr/local/sbin/node-power\", \"off\", \"{target}\"]
    on = [\"/usr/local/sbin/node-power\", \"on\", \"{target}\"]
    status = [\"/usr/local/sbin/node-power\", \"status\", \"{target}\"]

and test it with 'fence-watcher check'. To try the watcher without hardware, write a device of type
\"simulated\": every answer of it contains this word.";
