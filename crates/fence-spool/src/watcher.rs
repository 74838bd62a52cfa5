//! The watcher's half: see what is pending, claim it, answer it.
//!
//! A claim is one rename, which either wins or finds nothing, against the client's withdrawal and
//! against any other watcher. An answer is written once and never overwritten. Other crates decide
//! which request to claim and what to answer; `retention` keeps the directories small.

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
    /// There was nothing to claim: its client has withdrawn it.
    Gone,
    /// The request could not be claimed and is still pending.
    Failed(SpoolError),
    /// The request is ours. It must be answered, whatever is in it.
    Claimed {
        /// The file as it is now: what was seen while it was pending may have been another one.
        /// [`Sight::Failed`] also when the claim could not be made durable; it must not be started.
        sight: Sight,
        /// Nobody provably holds the file. Of a request that says it is held, this means that its
        /// client is gone.
        client_gone: bool,
    },
}

/// A request whose client is gone. While the value lives the client cannot come back to it.
#[derive(Debug)]
pub struct Abandoned {
    /// Its client said that it leaves the end to the watcher ([`crate::Submitted::hand_over`]).
    pub is_handed_over: bool,
    /// Bears our shared lock.
    _file: File,
}

/// What a query's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryText {
    /// It was read.
    Whole {
        /// Its content.
        bytes: Vec<u8>,
        /// The time of its last change, in milliseconds of the wall clock.
        mtime_ms: i64,
    },
    /// It has this many bytes, too many to be read.
    TooLarge(u64),
}

impl WatcherSpool {
    /// Opens the directories, and makes those that are the watcher's own. With `create` the two
    /// that a user can choose are made as well.
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

    /// Makes this process the spool's one watcher, for as long as the lock is kept.
    pub fn lock(&self) -> Result<WatcherLock, LockError> {
        lock::take(&self.requests, &self.served())
    }

    /// The lock of those who run children for a watcher of this spool.
    pub fn running_lock(&self) -> RunningLock<'_> {
        RunningLock { requests: &self.requests, claimed: &self.claimed }
    }

    /// Makes the lock's file anew where somebody removed it, or put another one into its place;
    /// says whether that was so. Until then the directories show that a watcher serves them.
    pub fn restore_lock(&self, lock: &mut WatcherLock) -> Result<bool, LockError> {
        lock::restore(&self.requests, &self.served(), lock)
    }

    fn served(&self) -> Served {
        Served::of(&self.responses, &self.queries)
    }

    /// Whether all paths still lead to the directories that are open. They do not when a directory
    /// was removed and made again.
    pub fn is_current(&self) -> bool {
        let Self { requests, claimed, rejected, responses, started, returning, queries } = self;
        [requests, claimed, rejected, responses, started, returning, queries]
            .into_iter()
            .all(Dir::is_current)
    }

    /// The file names of what is pending, in no order. It lists the whole directory.
    pub fn pending(&self) -> Result<Vec<String>, SpoolError> {
        visible_json(&self.requests)
    }

    /// The names of what is claimed, in no order.
    pub fn claimed(&self) -> Result<Vec<RecordName>, SpoolError> {
        let names = self.claimed.names()?;
        Ok(names.iter().filter_map(|name| RecordName::from_file_name(name)).collect())
    }

    /// The names of the records of targets that a reboot has made off, in no order; see
    /// [`WatcherSpool::keep_returning`].
    pub fn returning(&self) -> Result<Vec<RecordName>, SpoolError> {
        let names = self.returning.names()?;
        Ok(names.iter().filter_map(|name| RecordName::from_file_name(name)).collect())
    }

    /// The file names of the queries, in no order.
    pub fn queries(&self) -> Result<Vec<String>, SpoolError> {
        visible_json(&self.queries)
    }

    /// Reads a pending request without changing anything. Never blocks, whatever lies there.
    pub fn inspect(&self, name: &RecordName) -> Sight {
        record::inspect(&self.requests, &name.file_name()).0
    }

    /// Reads a claimed request, one that a watcher left behind.
    pub fn inspect_claimed(&self, name: &RecordName) -> Sight {
        record::inspect(&self.claimed, &name.file_name()).0
    }

    /// Reads the record of a target that a reboot has made off.
    pub fn inspect_returning(&self, name: &RecordName) -> Sight {
        record::inspect(&self.returning, &name.file_name()).0
    }

    /// Takes a request out of its client's reach. With `sync` the claim outlives a crash of the
    /// host.
    pub fn claim(&self, name: &RecordName, sync: bool) -> ClaimOutcome {
        let file_name = name.file_name();
        // What is claimed must be found at its path by those who look for its client. Where no mark
        // can be made, it would count as begun before.
        for directory in [&self.claimed, &self.started] {
            if !directory.is_current() {
                return ClaimOutcome::Failed(directory.error("use", "", Errno::ENOENT));
            }
        }
        // Opened before: after the claim a lack of descriptors could no longer be waited out.
        let before = match record::open(&self.requests, &file_name, OFlag::O_RDONLY) {
            Ok(file) => Some(file),
            Err(OpenRefusal::System(errno)) if errno != Errno::ENOENT => {
                return ClaimOutcome::Failed(self.requests.error("read", &file_name, errno));
            }
            // What must not be read is claimed and refused; what is gone, the rename finds gone.
            Err(_) => None,
        };
        match self.requests.rename(&file_name, &self.claimed, &file_name) {
            Ok(()) => {}
            // The same error tells that the directory of claims is gone.
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

    /// A request, claimed or still pending, that no client holds any more; `None` while one does.
    pub fn abandoned(&self, name: &RecordName) -> Option<Abandoned> {
        let file_name = name.file_name();
        let open = |directory| record::open(directory, &file_name, OFlag::O_RDONLY).ok();
        let found = [&self.claimed, &self.requests].into_iter().find_map(open);
        let file = found.filter(|file| !is_held(file))?;
        // Looked at under the lock: before that the client may have taken the request back.
        let mode = file.metadata().ok().map(|facts| facts.permissions().mode() & 0o777);
        Some(Abandoned { is_handed_over: mode == Some(HANDED_OVER_MODE), _file: file })
    }

    /// Where the claimed request `name` lies, for [`is_claim_held`].
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

    /// Whether there is an answer of this very name.
    pub fn has_answer(&self, name: &RecordName) -> Result<bool, SpoolError> {
        self.responses.has(&name.file_name())
    }

    /// Reads the answer of this very name.
    pub fn inspect_answer(&self, name: &RecordName) -> Sight {
        record::inspect(&self.responses, &name.file_name()).0
    }

    /// Whether the request `id`, just claimed as `name`, was begun before: under another name, or
    /// by another watcher that should not be there. To be asked between the claim and the start.
    ///
    /// A name other than `<id>`, in its canonical form, leaves a mark of the identity: whoever
    /// claims the same identity under another name, perhaps for another target, would not find it
    /// otherwise. Two that are claimed at the same moment each look for what the other one has left
    /// by then, so that at most one starts.
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

    /// Marks the request `id` as started; false when that was done before.
    pub(crate) fn mark_started(&self, id: &RequestId) -> Result<bool, SpoolError> {
        let mark = id.canonical();
        match self.started.file(&mark, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL) {
            Ok(_) => self.started.sync().map(|()| true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.started.error("create", &mark, errno)),
        }
    }

    /// Writes an answer, durably. An answer that is already there stands. One call at a time for
    /// one name.
    pub fn answer(&self, name: &RecordName, bytes: &[u8]) -> Result<(), SpoolError> {
        self.responses.put(&name.file_name(), &name.temporary(), bytes, true).map(drop)
    }

    /// Proves that an answer could be written at this moment, by a hidden file of the size of one,
    /// which is removed again.
    pub fn try_answering(&self) -> Result<(), SpoolError> {
        self.responses.try_writing(ANSWER_BYTES)
    }

    /// Removes a pending request, if it is still there.
    pub fn remove_pending(&self, name: &RecordName) -> Result<(), SpoolError> {
        self.requests.unlink(&name.file_name()).map(drop)
    }

    /// Removes a claimed request, if it is still there: after its answer is written. Should a crash
    /// undo this, the answer tells that it is done.
    pub fn remove_claimed(&self, name: &RecordName) -> Result<(), SpoolError> {
        self.claimed.unlink(&name.file_name()).map(drop)
    }

    /// Keeps the claimed request `name`, a reboot that is answered, as the record that its target is
    /// to be brought back; under its identity, because a client may use its name again.
    pub fn keep_returning(&self, name: &RecordName, id: &RequestId) -> Result<(), SpoolError> {
        let (file_name, kept) = (name.file_name(), RecordName::of_id(id).file_name());
        match self.claimed.rename(&file_name, &self.returning, &kept) {
            Ok(()) => Ok(()),
            // The same error tells that the directory of the records is gone.
            Err(Errno::ENOENT) if self.claimed.lacks(&file_name) => Ok(()),
            Err(errno) => Err(self.claimed.rename_error("keep", &file_name, errno)),
        }
    }

    /// Removes the record of [`WatcherSpool::keep_returning`], if it is there.
    pub fn forget_returning(&self, name: &RecordName) -> Result<(), SpoolError> {
        self.returning.unlink(&name.file_name()).map(drop)
    }

    /// What a query's file holds, if it may be read. The error is one that may pass.
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

    /// Writes the answer to a query, unless its client has gone and taken the query along.
    pub fn answer_query(&self, query_id: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let name: RecordName =
            query_id.parse().map_err(|_| self.queries.error("answer", query_id, Errno::EINVAL))?;
        if self.queries.lacks(&name.file_name()) {
            return Ok(());
        }
        let answer = client::answer_name(&name);
        self.queries.put(&answer, &format!(".{answer}.tmp"), bytes, false).map(drop)
    }

    /// Removes a query, if it is still there: after its answer is written, because its client waits
    /// for this.
    pub fn remove_query(&self, file_name: &str) -> Result<(), SpoolError> {
        if !is_plain(file_name) {
            return Err(self.queries.error("remove", file_name, Errno::EINVAL));
        }
        self.queries.unlink(file_name).map(drop)
    }
}

/// Whether anybody provably holds the claimed request at `path`; `None` where it is gone or not to
/// be read. Any process of the watcher's user may ask.
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

/// All directories of a spool: first the three that clients know.
fn directories(places: &Places) -> [PathBuf; 7] {
    let Places { requests, responses, queries } = places.clone();
    let (claimed, rejected) = (requests.join(CLAIMED), requests.join(".rejected"));
    let (started, returning) = (responses.join(".started"), requests.join(".returning"));
    [requests, responses, queries, claimed, rejected, started, returning]
}

/// An answer in the directory of requests could be read as a request.
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

/// Why a watcher that starts would refuse these places: all of it. Makes no directory, and does not
/// disturb a watcher that serves them.
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
    // Below one directory that is refused, so is each of its own, for the same reason.
    let mut told = BTreeSet::new();
    problems.retain(|problem| told.insert(problem.to_string()));
    problems
}

/// Whether a file of the spool can be renamed as a claim and an answer need it: without replacing
/// another one. Fails if the file system cannot do so; a directory that is missing or cannot be
/// used is passed over.
pub fn check_renames(places: &Places) -> Result<(), SpoolError> {
    [&places.requests, &places.responses, &places.queries]
        .into_iter()
        .filter_map(|path| Dir::open(path).ok())
        .try_for_each(|directory| directory.try_rename())
}

/// Whether an answer could be written at this moment. Directories that are missing or cannot be
/// used are passed over.
pub fn check_answers(places: &Places) -> Result<(), SpoolError> {
    match Dir::open(&places.responses) {
        Ok(responses) => responses.try_writing(ANSWER_BYTES),
        Err(_) => Ok(()),
    }
}

/// The size of an answer, which has a page on the disk.
const ANSWER_BYTES: usize = 4096;

/// Whether somebody holds the client's lock on `file`. The lock for this look is shared, so that
/// two looks never take each other for a client. It ends with `file`.
pub(crate) fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The directory of claimed requests, in that of the requests.
pub(crate) const CLAIMED: &str = ".claimed";

/// The mode of a request for which its client waits.
pub(crate) const HELD_MODE: u32 = 0o600;

/// The mode of a request that its client gave up without an answer.
pub(crate) const HANDED_OVER_MODE: u32 = 0o400;

fn visible_json(dir: &Dir) -> Result<Vec<String>, SpoolError> {
    let mut names = dir.names()?;
    names.retain(|name| is_visible_json(name));
    Ok(names)
}

#[cfg(test)]
mod tests;
