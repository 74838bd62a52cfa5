//! The agent's half: submit a request, withdraw it, look for its answer, ask the watcher.
//!
//! A request is held by an exclusive flock on its own file from before it can be seen until
//! [`Submitted`] is dropped, which the end of the process does too, whatever ends it. An answer is
//! never removed here; the answer to a query is, because nobody else wants it.
//!
//! How long to wait and what an answer is worth are decided elsewhere.

use fence_protocol::{Query, RecordName, RequestId};
use nix::errno::Errno;
use nix::sys::inotify::Inotify;
use std::fs::{File, TryLockError};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::record::{self, Sight};
use crate::watch::{Watched, watch};
use crate::{Liveness, Places, SpoolError, lock};

/// The directories, as a client uses them.
#[derive(Debug)]
pub struct ClientSpool {
    requests: Dir,
    responses: Dir,
    /// Opened only by a query: a simple watcher has no such directory.
    queries: PathBuf,
}

/// A request in the spool. Dropping it gives up the lock that says somebody waits.
#[derive(Debug)]
pub struct Submitted {
    name: RecordName,
    watched: Watched,
}

/// What a withdrawal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// The request was pending, and is gone: no watcher that claims can start it any more.
    Withdrawn,
    /// The request was not there: somebody has claimed or removed it.
    Taken,
}

/// What lies under an answer's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// Nothing.
    Absent,
    /// A file that may be believed.
    Found(Vec<u8>),
    /// Something that may not, and why.
    Refused(String),
}

/// A query that was asked. Dropping it removes the query and its answer.
#[derive(Debug)]
pub struct Asked {
    queries: Dir,
    name: RecordName,
    watched: Watched,
}

impl ClientSpool {
    /// Opens and checks the directories of requests and responses.
    pub fn open(places: &Places) -> Result<Self, SpoolError> {
        Ok(ClientSpool {
            requests: Dir::open(&places.requests)?,
            responses: Dir::open(&places.responses)?,
            queries: places.queries.clone(),
        })
    }

    /// Puts a request into the spool, held and durable. After an error none is there.
    pub fn submit(&self, name: &RecordName, bytes: &[u8]) -> Result<Submitted, SpoolError> {
        self.submit_watched(name, bytes, watch)
    }

    fn submit_watched(
        &self,
        name: &RecordName,
        bytes: &[u8],
        start: fn(&File) -> nix::Result<Inotify>,
    ) -> Result<Submitted, SpoolError> {
        let file = publish(&self.requests, name, bytes, hold)?;
        let submitted = Submitted { name: name.clone(), watched: Watched::new(file, start) };
        match self.requests.sync() {
            // A request that is already taken can only be waited for.
            Err(error) if self.withdraw(&submitted)? == Withdrawal::Withdrawn => Err(error),
            _ => Ok(submitted),
        }
    }

    /// Takes a request back, if nobody was faster.
    pub fn withdraw(&self, submitted: &Submitted) -> Result<Withdrawal, SpoolError> {
        let was_there = self.requests.unlink(&submitted.name.file_name())?;
        Ok(if was_there { Withdrawal::Withdrawn } else { Withdrawal::Taken })
    }

    /// Whether a request still lies where it was put: nobody has claimed it yet.
    pub fn is_pending(&self, submitted: &Submitted) -> bool {
        self.requests.has(&submitted.name.file_name())
    }

    /// Looks for the answer of this name. Never blocks, whatever lies there.
    pub fn look(&self, name: &RecordName) -> Look {
        let file_name = name.file_name();
        match record::inspect(&self.responses, &file_name).0 {
            Sight::Gone => Look::Absent,
            Sight::Content { bytes, .. } => Look::Found(bytes),
            Sight::Untrusted(reason) => Look::Refused(reason),
            Sight::Failed(error) => Look::Refused(error.to_string()),
            Sight::TooLarge(size) => {
                let path = self.responses.join(&file_name);
                Look::Refused(format!("'{}' is too large ({size} bytes)", path.display()))
            }
        }
    }

    /// Whether a watcher of our kind serves this spool.
    pub fn watcher(&self) -> Liveness {
        lock::liveness(&self.requests)
    }

    /// Asks the watcher a question.
    pub fn ask(&self, query: &Query) -> Result<Asked, SpoolError> {
        let queries = Dir::open(&self.queries)?;
        let name = match query.query_id.parse::<RequestId>() {
            Ok(id) => RecordName::of_id(&id),
            Err(_) => return Err(queries.error("ask", &query.query_id, Errno::EINVAL)),
        };
        // Neither held nor synced: nobody wants an answer after a crash.
        let file = publish(&queries, &name, &query.to_json(), |_, _, _| Ok(()))?;
        Ok(Asked { queries, name, watched: Watched::new(file, watch) })
    }

    /// The content of the answer to a query, once it is there.
    pub fn answer_of(&self, asked: &Asked) -> Option<Vec<u8>> {
        match record::inspect(&asked.queries, &answer_name(&asked.name)).0 {
            Sight::Content { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// Removes a query and its answer, as dropping it does.
    pub fn forget(&self, asked: Asked) {
        drop(asked);
    }
}

impl Submitted {
    /// The request's name; its answer has the same.
    pub fn name(&self) -> &RecordName {
        &self.name
    }

    /// Becomes readable when the request is claimed, removed or replaced. `None` when the system has
    /// no watch left to give: then one looks from time to time.
    ///
    /// What happened before this is first waited for may have left no event, so look first.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.wait_fd()
    }

    /// Forgets the events so far, so that [`Submitted::wait_fd`] waits for the next one.
    pub fn drain(&self) {
        self.watched.drain();
    }
}

impl Asked {
    /// Becomes readable when the watcher has removed the query, which it does after answering it.
    /// See [`Submitted::wait_fd`].
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.wait_fd()
    }

    /// Forgets the events so far.
    pub fn drain(&self) {
        self.watched.drain();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let names = [self.name.file_name(), self.name.temporary(), answer_name(&self.name)];
        for name in names {
            // What cannot be removed is pruned by its age.
            let _ = self.queries.unlink(&name);
        }
    }
}

/// The file name of the answer to the query `name`.
pub(crate) fn answer_name(name: &RecordName) -> String {
    format!("{name}.answer")
}

/// Writes a record, has it made `ready`, and only then gives it the name that others look for.
fn publish(
    dir: &Dir,
    name: &RecordName,
    bytes: &[u8],
    ready: fn(&Dir, &str, &File) -> Result<(), SpoolError>,
) -> Result<File, SpoolError> {
    let (temporary, name) = (name.temporary(), name.file_name());
    let file = dir.write_new(&temporary, bytes)?;
    let shown = ready(dir, &temporary, &file).and_then(|()| {
        dir.rename(&temporary, dir, &name).map_err(|errno| dir.error("submit", &name, errno))
    });
    if let Err(error) = shown {
        // The first error is the one to tell; a rest that stays is pruned by its age.
        let _ = dir.unlink(&temporary);
        return Err(error);
    }
    Ok(file)
}

/// Locks a request before it can be seen, so that no watcher finds one of ours that nobody holds.
fn hold(dir: &Dir, name: &str, file: &File) -> Result<(), SpoolError> {
    let failed = |operation, source| SpoolError::Io { operation, path: dir.join(name), source };
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => dir.error("lock", name, Errno::EWOULDBLOCK),
        TryLockError::Error(source) => failed("lock", source),
    })?;
    file.sync_all().map_err(|source| failed("sync", source))
}
