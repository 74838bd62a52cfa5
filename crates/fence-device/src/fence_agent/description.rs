//! The agent's metadata: read by running the agent, and kept while the agent's file stays the same.
//!
//! A question that decides which machine is hit needs the metadata: it is read again until it can
//! be read. Other questions make do without it. For them a failure is remembered, so that an agent
//! that cannot describe itself delays no fence twice.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AgentAction, FenceAgentDevice, Metadata};
use crate::pool::ask_until;
use crate::program::failure;
use crate::{Command, Limit, RunOutcome};

/// What is known of an agent's metadata.
#[derive(Debug, Default)]
pub(super) struct Description(Mutex<Option<Kept>>);

/// What one reading brought, and of which file.
type Kept = (FileMark, Result<Arc<Metadata>, String>);

/// What changes when the agent's file is replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileMark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Description {
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was learned of the file with this mark.
    fn of(&self, mark: FileMark) -> Option<Result<Arc<Metadata>, String>> {
        let kept = self.kept();
        kept.as_ref()
            .filter(|(known, _)| *known == mark)
            .map(|(_, description)| description.clone())
    }
}

impl FenceAgentDevice {
    /// The metadata, read now unless it is known. An error is no permission: who asks to be safe
    /// refuses.
    pub(super) fn metadata(&self, limit: Limit) -> Result<Arc<Metadata>, String> {
        let mark = file_mark(&self.settings.agent, limit)?;
        match self.description.of(mark) {
            Some(Ok(metadata)) => Ok(metadata),
            Some(Err(_)) | None => self.read_metadata(mark, limit),
        }
    }

    /// The metadata for a question that has a safe answer without it: not read once more after a
    /// failure.
    pub(super) fn metadata_if_readable(&self, limit: Limit) -> Option<Arc<Metadata>> {
        let mark = file_mark(&self.settings.agent, limit).ok()?;
        let known = self.description.of(mark);
        known.unwrap_or_else(|| self.read_metadata(mark, limit)).ok()
    }

    /// The metadata that was read last, without any I/O.
    pub(super) fn known_metadata(&self) -> Option<Arc<Metadata>> {
        let kept = self.description.kept();
        kept.as_ref().and_then(|(_, description)| description.clone().ok())
    }

    /// Whether reading the metadata failed the last time.
    pub(super) fn is_undescribed(&self) -> bool {
        matches!(*self.description.kept(), Some((_, Err(_))))
    }

    fn read_metadata(&self, mark: FileMark, limit: Limit) -> Result<Arc<Metadata>, String> {
        let own_limit = Limit::in_ms(METADATA_MS);
        let call = self.call("action=metadata\n".to_owned(), limit.min(own_limit));
        let call = Command { output_bytes_max: METADATA_BYTES_MAX, ..call };
        let outcome = self.executor.ask(call);
        let description = match &outcome {
            RunOutcome::Exited { code: 0, stdout, .. } => Metadata::parse(stdout).map(Arc::new),
            other => Err(failure(&self.settings.agent, other)),
        };
        // A limit that was too short for any agent says nothing of this one.
        let is_telling = match &outcome {
            RunOutcome::Exited { .. } | RunOutcome::Signaled { .. } => true,
            RunOutcome::TimedOut { .. } => own_limit <= limit,
            _ => false,
        };
        if is_telling {
            *self.description.kept() = Some((mark, description.clone()));
        }
        description
    }

    /// Whether the agent has `action`, as far as its metadata is known. An agent that declares
    /// nothing is taken to have it: the worst that comes of that is a question without an answer.
    pub(super) fn declares(metadata: Option<&Metadata>, action: AgentAction) -> bool {
        metadata.is_none_or(|metadata| {
            !metadata.declares_actions() || metadata.has_action(action.as_str())
        })
    }
}

/// The mark of the file at `path`. The file's server may be dead, so a thread of its own looks.
fn file_mark(path: &str, limit: Limit) -> Result<FileMark, String> {
    let owned = path.to_owned();
    let seen = ask_until(limit, move || {
        let file = fs::metadata(owned)?;
        Ok(FileMark {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    });
    seen.map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no program '{path}'"),
        _ => format!("cannot look at '{path}': {error}"),
    })
}

/// How long an agent may take to describe itself, as with Pacemaker.
const METADATA_MS: u64 = 10_000;

/// How much of its description is read. The longest known ones have 12 KiB.
const METADATA_BYTES_MAX: usize = 256 * 1024;
