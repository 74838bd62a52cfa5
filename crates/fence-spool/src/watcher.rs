//! The watcher's half: list the pending requests, claim and answer them.
//!
//! A claim is one rename: the kernel decides whether the claim, the client's withdrawal or another
//! watcher came first. An answer is written once and never overwritten. Other crates decide which
//! request to claim and what to answer; `retention` keeps the directories small.

use fence_protocol::{NodeName, RecordName, RequestId};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dir::{Dir, is_plain, is_visible_json};
use crate::record::{self, OpenRefusal, Sight};
use crate::served::Served;
use crate::{
    LockError, PlaceError, Places, RunningLock, SpoolError, WatcherLock, client, examine_dir, lock,
};

/// The directories, as a watcher uses them.
#[derive(Debug)]
pub struct WatcherSpool {
    pub(crate) requests: Dir,
    pub(crate) claimed: Dir,
    pub(crate) rejected: Dir,
    pub(crate) responses: Dir,
    pub(crate) started: Dir,
    pub(crate) returning: Dir,
    pub(crate) queries: Dir,
}

/// The outcome of a claim.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// The request does not exist: its client has withdrawn it.
    Gone,
    /// The request could not be claimed and is still pending.
    Failed(SpoolError),
    /// The request is ours. The watcher must answer it, whatever its content.
    Claimed {
        /// The file as it is now: the pending file may have been another one. [`Sight::Failed`]
        /// also if the claim could not be made durable; then the request must not be started.
        sight: Sight,
        /// Nobody provably holds the file. If the request says that it is held, its client is gone.
        client_gone: bool,
    },
}

/// A request whose client is gone. The client cannot take it back before the value is dropped.
#[derive(Debug)]
pub struct Abandoned {
    /// The client left the end to the watcher ([`crate::Submitted::hand_over`]).
    pub is_handed_over: bool,
    /// Has our shared lock.
    _file: File,
}

/// The content of a query's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryText {
    /// The whole file was read.
    Whole {
        /// Its content.
        bytes: Vec<u8>,
        /// The time of its last change, in milliseconds of the wall clock.
        mtime_ms: i64,
    },
    /// The file has this many bytes, which is too many.
    TooLarge(u64),
}

impl WatcherSpool {
    /// Opens the directories, and creates the watcher's own. With `create` it also creates the two
    /// that a user can choose.
    pub fn open(places: &Places, create: bool) -> Result<Self, SpoolError> {
        let open = if create { Dir::create } else { Dir::open };
        let [requests, responses, queries, claimed, rejected, started, returning] =
            directories(places);
        let spool = WatcherSpool {
            requests: open(&requests)?,
            responses: open(&responses)?,
            claimed: Dir::create(&claimed)?,
            rejected: Dir::create(&rejected)?,
            started: Dir::create(&started)?,
            returning: Dir::create(&returning)?,
            queries: Dir::create(&queries)?,
        };
        refuse_to_use_twice(&[&spool.requests, &spool.responses, &spool.queries])?;
        Ok(spool)
    }

    /// Makes this process the spool's only watcher, until the lock is dropped.
    pub fn lock(&self) -> Result<WatcherLock, LockError> {
        lock::take(&self.requests, &self.served())
    }

    /// The lock of the processes that run children for a watcher of this spool.
    pub fn running_lock(&self) -> RunningLock<'_> {
        RunningLock { requests: &self.requests, claimed: &self.claimed }
    }

    /// Creates the lock's file again if somebody removed or replaced it. Returns whether it did so.
    /// Until then the directories show that a watcher serves them.
    pub fn restore_lock(&self, lock: &mut WatcherLock) -> Result<bool, LockError> {
        lock::restore(&self.requests, &self.served(), lock)
    }

    fn served(&self) -> Served {
        Served::of(&self.responses, &self.queries)
    }

    /// Whether all paths still lead to the open directories. They do not if somebody removed a
    /// directory and created it again.
    pub fn is_current(&self) -> bool {
        let Self { requests, claimed, rejected, responses, started, returning, queries } = self;
        [requests, claimed, rejected, responses, started, returning, queries]
            .into_iter()
            .all(Dir::is_current)
    }

    /// The file names of the pending requests, in no order. It lists the whole directory.
    pub fn pending(&self) -> Result<Vec<String>, SpoolError> {
        visible_json(&self.requests)
    }

    /// The names of the claimed requests, in no order.
    pub fn claimed(&self) -> Result<Vec<RecordName>, SpoolError> {
        let names = self.claimed.names()?;
        Ok(names.iter().filter_map(|name| RecordName::from_file_name(name)).collect())
    }

    /// The names of the records of targets that a reboot has switched off, in no order; see
    /// [`WatcherSpool::keep_returning`].
    pub fn returning(&self) -> Result<Vec<RecordName>, SpoolError> {
        let names = self.returning.names()?;
        Ok(names.iter().filter_map(|name| RecordName::from_file_name(name)).collect())
    }

    /// The file names of the queries, in no order.
    pub fn queries(&self) -> Result<Vec<String>, SpoolError> {
        visible_json(&self.queries)
    }

    /// Reads a pending request, and changes nothing. Never blocks, whatever file has the name.
    pub fn inspect(&self, name: &RecordName) -> Sight {
        record::inspect(&self.requests, &name.file_name()).0
    }

    /// Reads a claimed request that an earlier watcher left.
    pub fn inspect_claimed(&self, name: &RecordName) -> Sight {
        record::inspect(&self.claimed, &name.file_name()).0
    }

    /// Reads the record of a target that a reboot has switched off.
    pub fn inspect_returning(&self, name: &RecordName) -> Sight {
        record::inspect(&self.returning, &name.file_name()).0
    }

    /// Claims a request, so that its client cannot withdraw it. With `sync` the claim survives a
    /// crash of the host.
    pub fn claim(&self, name: &RecordName, sync: bool) -> ClaimOutcome {
        let file_name = name.file_name();
        // Others look for the client at the path of the claimed file. If no mark can be created,
        // the request would count as begun before.
        for directory in [&self.claimed, &self.started] {
            if !directory.is_current() {
                return ClaimOutcome::Failed(directory.error("use", "", Errno::ENOENT));
            }
        }
        // Opened before the claim: after it, the watcher cannot wait for a free descriptor.
        let before = match record::open(&self.requests, &file_name, OFlag::O_RDONLY) {
            Ok(file) => Some(file),
            Err(OpenRefusal::System(errno)) if errno != Errno::ENOENT => {
                return ClaimOutcome::Failed(self.requests.error("read", &file_name, errno));
            }
            // An untrusted file is claimed and refused; if the file is gone, the rename fails.
            Err(_) => None,
        };
        match self.requests.rename(&file_name, &self.claimed, &file_name) {
            Ok(()) => {}
            // A missing directory of claims gives the same error.
            Err(Errno::ENOENT) if self.requests.lacks(&file_name) => return ClaimOutcome::Gone,
            Err(errno) => {
                let error = self.requests.rename_error("claim", &file_name, errno);
                return ClaimOutcome::Failed(error);
            }
        }
        let synced =
            if sync { self.claimed.sync().and_then(|()| self.requests.sync()) } else { Ok(()) };
        let (sight, file) = record::inspect_open(&self.claimed, &file_name, before);
        ClaimOutcome::Claimed {
            sight: synced.map_or_else(Sight::Failed, |()| sight),
            client_gone: file.is_none_or(|file| !is_held(&file)),
        }
    }

    /// A claimed or pending request that no client holds any more; `None` while a client holds it.
    pub fn abandoned(&self, name: &RecordName) -> Option<Abandoned> {
        let file_name = name.file_name();
        let open = |directory| record::open(directory, &file_name, OFlag::O_RDONLY).ok();
        let found = [&self.claimed, &self.requests].into_iter().find_map(open);
        let file = found.filter(|file| !is_held(file))?;
        // Read under the lock: before that, the client may have taken the request back.
        let mode = file.metadata().ok().map(|facts| facts.permissions().mode() & 0o777);
        Some(Abandoned { is_handed_over: mode == Some(HANDED_OVER_MODE), _file: file })
    }

    /// The path of the claimed request `name`, for [`is_claim_held`].
    pub fn claimed_path(&self, name: &RecordName) -> PathBuf {
        self.claimed.join(&name.file_name())
    }

    /// Whether a request of this name, or of this identity under another name, was answered or
    /// started.
    pub fn answered(
        &self,
        name: &RecordName,
        id: Option<&RequestId>,
        target: Option<&NodeName>,
    ) -> Result<bool, SpoolError> {
        let has = |name: &RecordName| self.responses.has(&name.file_name());
        if has(name)? {
            return Ok(true);
        }
        let Some(id) = id else { return Ok(false) };
        let by_target = target.and_then(|target| RecordName::of_target_and_id(target, id).ok());
        Ok(has(&RecordName::of_id(id))?
            || by_target.as_ref().map_or(Ok(false), has)?
            || self.started.has(&id.canonical())?)
    }

    /// Whether an answer has exactly this name.
    pub fn has_answer(&self, name: &RecordName) -> Result<bool, SpoolError> {
        self.responses.has(&name.file_name())
    }

    /// Reads the answer of exactly this name.
    pub fn inspect_answer(&self, name: &RecordName) -> Sight {
        record::inspect(&self.responses, &name.file_name()).0
    }

    /// Whether the request `id`, just claimed as `name`, was begun before: under another name, or
    /// by another watcher that should not exist. Call it between the claim and the start.
    ///
    /// A name other than `<id>`, in its canonical form, leaves a mark of the identity. Otherwise a
    /// claim of the same identity under another name, perhaps for another target, would not find
    /// it. Of two such claims at the same moment, each looks for the traces of the other, so that
    /// at most one starts.
    pub fn was_begun(
        &self,
        name: &RecordName,
        id: &RequestId,
        target: Option<&NodeName>,
    ) -> Result<bool, SpoolError> {
        if self.answered(name, Some(id), target)? {
            return Ok(true);
        }
        let of_id = RecordName::of_id(id);
        if *name == of_id {
            return Ok(false);
        }
        Ok(!self.mark_started(id)? || self.claimed.has(&of_id.file_name())?)
    }

    /// Marks the request `id` as started; false if it was already marked.
    pub(crate) fn mark_started(&self, id: &RequestId) -> Result<bool, SpoolError> {
        let mark = id.canonical();
        match self.started.file(&mark, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL) {
            Ok(_) => self.started.sync().map(|()| true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.started.error("create", &mark, errno)),
        }
    }

    /// Writes an answer durably. An existing answer stays. At most one call at a time for each
    /// name.
    pub fn answer(&self, name: &RecordName, bytes: &[u8]) -> Result<(), SpoolError> {
        self.responses.put(&name.file_name(), &name.temporary(), bytes, true).map(drop)
    }

    /// Proves that an answer could be written at this moment: writes a hidden file of the same size
    /// and removes it.
    pub fn try_answering(&self) -> Result<(), SpoolError> {
        self.responses.try_writing(ANSWER_BYTES)
    }

    /// Removes a pending request, if it still exists.
    pub fn remove_pending(&self, name: &RecordName) -> Result<(), SpoolError> {
        self.requests.unlink(&name.file_name()).map(drop)
    }

    /// Removes a claimed request, if it still exists. Call it after the answer is written: if a
    /// crash undoes the removal, the answer shows that the request is done.
    pub fn remove_claimed(&self, name: &RecordName) -> Result<(), SpoolError> {
        self.claimed.unlink(&name.file_name()).map(drop)
    }

    /// Keeps the claimed request `name`, an answered reboot, as the record that its target is to be
    /// switched on again. The record is named by the identity, because a client may use `name`
    /// again.
    pub fn keep_returning(&self, name: &RecordName, id: &RequestId) -> Result<(), SpoolError> {
        let (file_name, kept) = (name.file_name(), RecordName::of_id(id).file_name());
        match self.claimed.rename(&file_name, &self.returning, &kept) {
            Ok(()) => Ok(()),
            // A missing directory of the records gives the same error.
            Err(Errno::ENOENT) if self.claimed.lacks(&file_name) => Ok(()),
            Err(errno) => Err(self.claimed.rename_error("keep", &file_name, errno)),
        }
    }

    /// Removes the record of [`WatcherSpool::keep_returning`], if it exists.
    pub fn forget_returning(&self, name: &RecordName) -> Result<(), SpoolError> {
        self.returning.unlink(&name.file_name()).map(drop)
    }

    /// The content of a query's file, if it is trusted. The error may pass.
    pub fn read_query(&self, file_name: &str) -> Result<Option<QueryText>, SpoolError> {
        if !is_plain(file_name) {
            return Ok(None);
        }
        match record::inspect(&self.queries, file_name).0 {
            Sight::Content { bytes, facts } => {
                Ok(Some(QueryText::Whole { bytes, mtime_ms: facts.mtime_ms }))
            }
            Sight::TooLarge(size) => Ok(Some(QueryText::TooLarge(size))),
            Sight::Gone | Sight::Untrusted(_) => Ok(None),
            Sight::Failed(problem) => Err(problem),
        }
    }

    /// Writes the answer to a query, unless its client is gone and has removed the query.
    pub fn answer_query(&self, query_id: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let name: RecordName =
            query_id.parse().map_err(|_| self.queries.error("answer", query_id, Errno::EINVAL))?;
        if self.queries.lacks(&name.file_name()) {
            return Ok(());
        }
        let answer = client::answer_name(&name);
        self.queries.put(&answer, &format!(".{answer}.tmp"), bytes, false).map(drop)
    }

    /// Removes a query, if it still exists. Call it after the answer is written, because the client
    /// waits for the removal.
    pub fn remove_query(&self, file_name: &str) -> Result<(), SpoolError> {
        if !is_plain(file_name) {
            return Err(self.queries.error("remove", file_name, Errno::EINVAL));
        }
        self.queries.unlink(file_name).map(drop)
    }
}

/// Whether a client provably holds the claimed request at `path`; `None` if the file is gone or not
/// trusted. Any process of the watcher's user may call this.
pub fn is_claim_held(path: &Path) -> Result<Option<bool>, SpoolError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let directory = match Dir::open(directory) {
        Err(PlaceError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    let name = name.to_string_lossy();
    match record::open(&directory, &name, OFlag::O_RDONLY) {
        Ok(file) => Ok(Some(is_held(&file))),
        Err(OpenRefusal::Untrusted(_) | OpenRefusal::System(Errno::ENOENT)) => Ok(None),
        Err(OpenRefusal::System(errno)) => Err(directory.error("read", &name, errno)),
    }
}

/// All directories of a spool; the first three are those that clients know.
fn directories(places: &Places) -> [PathBuf; 7] {
    let Places { requests, responses, queries } = places.clone();
    let (claimed, rejected) = (requests.join(CLAIMED), requests.join(".rejected"));
    let (started, returning) = (responses.join(".started"), requests.join(".returning"));
    [requests, responses, queries, claimed, rejected, started, returning]
}

/// Fails if a directory has two purposes: an answer among the requests could be read as a request.
fn refuse_to_use_twice(directories: &[&Dir]) -> Result<(), SpoolError> {
    for (at, one) in directories.iter().enumerate() {
        for other in &directories[..at] {
            if one.is_same(other)? {
                let operation = "use the directory twice, for two purposes:";
                return Err(other.error(operation, "", Errno::EINVAL));
            }
        }
    }
    Ok(())
}

/// All reasons for which a watcher would not start with these places. Creates no directory, and
/// does not disturb a watcher that serves them.
pub fn examine_places(places: &Places) -> Vec<SpoolError> {
    let all = directories(places);
    let mut problems: Vec<SpoolError> =
        all.iter().filter_map(|path| Some(examine_dir(path).err()?.into())).collect();
    let open = |path: &PathBuf| Dir::open(path).ok();
    let there: Vec<Dir> = all[..3].iter().filter_map(open).collect();
    problems.extend(refuse_to_use_twice(&there.iter().collect::<Vec<_>>()).err());
    if let Some(requests) = open(&places.requests) {
        problems.extend(lock::examine(&requests, open(&all[3]).as_ref()));
    }
    problems.extend(check_renames(places).err());
    // Directories below a refused directory are refused for the same reason.
    let mut known = BTreeSet::new();
    problems.retain(|problem| known.insert(problem.to_string()));
    problems
}

/// Fails if the file system of a directory cannot rename a file without replacing another one, as a
/// claim and an answer require. Skips a directory that is missing or cannot be used.
pub fn check_renames(places: &Places) -> Result<(), SpoolError> {
    [&places.requests, &places.responses, &places.queries]
        .into_iter()
        .filter_map(|path| Dir::open(path).ok())
        .try_for_each(|directory| directory.try_rename())
}

/// Fails if no answer could be written at this moment. Skips a directory that is missing or cannot
/// be used.
pub fn check_answers(places: &Places) -> Result<(), SpoolError> {
    match Dir::open(&places.responses) {
        Ok(responses) => responses.try_writing(ANSWER_BYTES),
        Err(_) => Ok(()),
    }
}

/// The size of an answer in bytes: a page on the disk.
const ANSWER_BYTES: usize = 4096;

/// Whether a client holds its lock on `file`. The lock for this test is shared, so that two tests
/// never take each other for a client. It ends with `file`.
pub(crate) fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The directory of claimed requests, in the directory of requests.
pub(crate) const CLAIMED: &str = ".claimed";

/// The mode of a request whose client waits.
pub(crate) const HELD_MODE: u32 = 0o600;

/// The mode of a request whose client gave up without an answer.
pub(crate) const HANDED_OVER_MODE: u32 = 0o400;

fn visible_json(dir: &Dir) -> Result<Vec<String>, SpoolError> {
    let mut names = dir.names()?;
    names.retain(|name| is_visible_json(name));
    Ok(names)
}

#[cfg(test)]
mod tests;
