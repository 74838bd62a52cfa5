//! The watcher's half: see what is pending, claim it, answer it.
//!
//! A claim is one rename, which either wins or finds nothing, against the client's withdrawal and
//! against any other watcher. An answer is written once and never overwritten. Which request is
//! claimed and what the answer says are decided elsewhere; keeping the directories small is
//! `retention`'s.

use fence_protocol::{NodeName, RecordName, RequestId};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::{File, TryLockError};

use crate::dir::{Dir, is_plain, is_visible_json};
use crate::record::{self, Sight};
use crate::{LockError, Places, RunningLock, SpoolError, WatcherLock, client, lock};

/// The directories, as a watcher uses them.
#[derive(Debug)]
pub struct WatcherSpool {
    pub(crate) requests: Dir,
    pub(crate) claimed: Dir,
    pub(crate) rejected: Dir,
    pub(crate) responses: Dir,
    pub(crate) started: Dir,
    pub(crate) queries: Dir,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claim {
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

impl WatcherSpool {
    /// Opens the directories, and makes those that are the watcher's own. With `create` the two that
    /// a user can choose are made as well.
    pub fn open(places: &Places, create: bool) -> Result<Self, SpoolError> {
        let open = if create { Dir::create } else { Dir::open };
        let spool = WatcherSpool {
            requests: open(&places.requests)?,
            responses: open(&places.responses)?,
            claimed: Dir::create(&places.requests.join(".claimed"))?,
            rejected: Dir::create(&places.requests.join(".rejected"))?,
            started: Dir::create(&places.responses.join(".started"))?,
            queries: Dir::create(&places.queries)?,
        };
        // An answer in the directory of requests could be read as a request.
        let pairs = [
            (&spool.requests, &spool.responses),
            (&spool.requests, &spool.queries),
            (&spool.responses, &spool.queries),
        ];
        for (one, other) in pairs {
            if one.is_same(other)? {
                return Err(one.error(
                    "use the directory twice, for two purposes:",
                    "",
                    Errno::EINVAL,
                ));
            }
        }
        Ok(spool)
    }

    /// Makes this process the spool's one watcher, for as long as the lock is kept.
    pub fn lock(&self) -> Result<WatcherLock, LockError> {
        lock::take(&self.requests)
    }

    /// The lock of those who run children for a watcher of this spool.
    pub fn running_lock(&self) -> RunningLock<'_> {
        lock::running(&self.requests)
    }

    /// Whether all paths still lead to the directories that are open. They do not when a directory
    /// was removed and made again.
    pub fn is_current(&self) -> bool {
        let Self { requests, claimed, rejected, responses, started, queries } = self;
        [requests, claimed, rejected, responses, started, queries].into_iter().all(Dir::is_current)
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

    /// The file names of the queries, in no order.
    pub fn queries(&self) -> Result<Vec<String>, SpoolError> {
        visible_json(&self.queries)
    }

    /// Reads a pending request without changing anything. Never blocks, whatever lies there.
    pub fn inspect(&self, name: &RecordName) -> Sight {
        record::inspect(&self.requests, &name.file_name()).0
    }

    /// Takes a request out of its client's reach. With `sync` the claim outlives a crash of the host.
    pub fn claim(&self, name: &RecordName, sync: bool) -> Claim {
        let file_name = name.file_name();
        match self.requests.rename(&file_name, &self.claimed, &file_name) {
            Ok(()) => {}
            // The same error tells that the directory of claims is gone.
            Err(Errno::ENOENT) if !self.requests.has(&file_name) => return Claim::Gone,
            Err(errno) => return Claim::Failed(self.requests.error("claim", &file_name, errno)),
        }
        let synced =
            if sync { self.claimed.sync().and_then(|()| self.requests.sync()) } else { Ok(()) };
        let (sight, file) = record::inspect(&self.claimed, &file_name);
        Claim::Claimed {
            sight: synced.map_or_else(Sight::Failed, |()| sight),
            client_gone: file.is_none_or(|file| !is_held(&file)),
        }
    }

    /// Whether a request of this name, or of this identity under another name, was answered or
    /// started. In doubt it was.
    pub fn answered(
        &self,
        name: &RecordName,
        id: Option<&RequestId>,
        target: Option<&NodeName>,
    ) -> bool {
        let by_target = |id| RecordName::of_target_and_id(target?, id).ok();
        let has = |name: &RecordName| self.responses.has(&name.file_name());
        has(name)
            || id.is_some_and(|id| {
                has(&RecordName::of_id(id))
                    || by_target(id).as_ref().is_some_and(has)
                    || self.started.has(id.as_str())
            })
    }

    /// Records that the request `id` is started, for one whose answer is not named after it; false
    /// when that was recorded before, and it must not be started again.
    pub fn mark_started(&self, id: &RequestId) -> Result<bool, SpoolError> {
        match self.started.file(id.as_str(), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL) {
            Ok(_) => self.started.sync().map(|()| true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.started.error("create", id.as_str(), errno)),
        }
    }

    /// Writes an answer, durably. An answer that is already there stands. One call at a time for one
    /// name.
    pub fn answer(&self, name: &RecordName, bytes: &[u8]) -> Result<(), SpoolError> {
        self.responses.put(&name.file_name(), &name.temporary(), bytes, true).map(drop)
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

    /// The content of a query, if it is one that may be read.
    pub fn read_query(&self, file_name: &str) -> Option<Vec<u8>> {
        match is_plain(file_name).then(|| record::inspect(&self.queries, file_name).0)? {
            Sight::Content { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// Writes the answer to a query, unless its client has gone and taken the query along.
    pub fn answer_query(&self, query_id: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let name: RecordName =
            query_id.parse().map_err(|_| self.queries.error("answer", query_id, Errno::EINVAL))?;
        if !self.queries.has(&name.file_name()) {
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

/// Whether somebody holds the client's lock on `file`. The probe is shared, so that two of them never
/// take each other for a client, and ends with `file`.
fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn visible_json(dir: &Dir) -> Result<Vec<String>, SpoolError> {
    let mut names = dir.names()?;
    names.retain(|name| is_visible_json(name));
    Ok(names)
}
