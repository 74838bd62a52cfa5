//! The agent's metadata: read by running the agent, and kept while the agent's file is unchanged.
//!
//! A question that decides on which machine an order acts needs the metadata, so it reads them
//! again after a failure. Other questions have a safe answer without the metadata. For them a
//! failure is kept, so that an agent without metadata delays no fence twice.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};

use super::{FenceAgentDevice, Metadata};
use crate::pool::{ask_until, lock};
use crate::program::failure;
use crate::{Command, Limit, RunOutcome};

/// The metadata of an agent, or why they cannot be read.
#[derive(Debug, Default)]
pub(super) struct Description(Mutex<Option<Kept>>);

/// The result of the last reading, and the mark of the file that was read.
type Kept = (FileMark, Result<Arc<Metadata>, String>);

/// Changes when the agent's file is replaced or written: the device, the inode, the size, and the
/// time of the last change.
type FileMark = (u64, u64, u64, i64, i64);

impl Description {
    /// The result for the file with this mark.
    fn of(&self, mark: FileMark) -> Option<Result<Arc<Metadata>, String>> {
        let kept = lock(&self.0).clone();
        kept.filter(|(known, _)| *known == mark).map(|(_, description)| description)
    }
}

impl FenceAgentDevice {
    /// The metadata, read now unless they are known. After an error, a caller that needs them for
    /// safety must refuse.
    pub(super) fn metadata(&self, limit: Limit) -> Result<Arc<Metadata>, String> {
        let mark = file_mark(&self.settings.agent, limit)?;
        match self.description.of(mark) {
            Some(Ok(metadata)) => Ok(metadata),
            _ => self.read_metadata(mark, limit),
        }
    }

    /// The metadata for a question that has a safe answer without them: not read again after a
    /// failure.
    pub(super) fn metadata_if_readable(&self, limit: Limit) -> Option<Arc<Metadata>> {
        let mark = file_mark(&self.settings.agent, limit).ok()?;
        let known = self.description.of(mark);
        known.unwrap_or_else(|| self.read_metadata(mark, limit)).ok()
    }

    /// The metadata of the last reading, without any I/O.
    pub(super) fn known_metadata(&self) -> Option<Arc<Metadata>> {
        lock(&self.description.0).as_ref().and_then(|(_, description)| description.clone().ok())
    }

    /// Whether reading the metadata failed the last time.
    pub(super) fn is_undescribed(&self) -> bool {
        matches!(*lock(&self.description.0), Some((_, Err(_))))
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
        // The end at a shorter limit proves nothing about this agent.
        let is_own_end = matches!(outcome, RunOutcome::Exited { .. } | RunOutcome::Signaled { .. });
        if is_own_end || matches!(outcome, RunOutcome::TimedOut { .. }) && own_limit <= limit {
            *lock(&self.description.0) = Some((mark, description.clone()));
        }
        description
    }
}

/// The mark of the file at `path`. A separate thread looks, because the file's server may be dead.
fn file_mark(path: &str, limit: Limit) -> Result<FileMark, String> {
    let owned = path.to_owned();
    let seen = ask_until(limit, move || {
        let file = fs::metadata(owned)?;
        Ok((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    });
    seen.map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no program '{path}'"),
        _ => format!("cannot look at '{path}': {error}"),
    })
}

/// How long an agent may take to write its metadata, as with Pacemaker.
const METADATA_MS: u64 = 10_000;

/// How much of the metadata is read. The longest known metadata have 12 KiB.
const METADATA_BYTES_MAX: usize = 256 * 1024;
