//! The agent's half: submit a request, withdraw it, look for its answer, ask the watcher.
//!
//! The client holds an exclusive flock on its request's file, from before the request is visible
//! until [`Submitted`] is dropped. The end of the process, whatever its cause, releases the flock
//! as well. The client never removes an answer to a request. It removes the answer to a query,
//! because no other program needs it.
//!
//! Other crates decide how long to wait and what an answer proves.

use fence_protocol::{Query, RecordName, RequestId};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::{File, Permissions, TryLockError};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dir::Dir;
use crate::record::{self, OpenRefusal, Sight};
use crate::served::Served;
use crate::watch::{Watch, Watched, watch};
use crate::watcher::{CLAIMED, HANDED_OVER_MODE, HELD_MODE, is_held};
use crate::{Liveness, PlaceError, Places, SpoolError, lock};

/// The directories, as a client uses them.
#[derive(Debug)]
pub struct ClientSpool {
    requests: Dir,
    responses: Dir,
    /// Only a query opens it: a simple watcher has no such directory.
    queries: PathBuf,
}

/// How a request becomes visible under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showing {
    /// By a rename.
    Rename,
    /// By a second hard link, for simple watchers: some wait for files that are *created*, some for
    /// files that are *closed after writing*, and neither notice a rename. The file is complete
    /// when it becomes visible, and replaces no other file.
    Link,
}

/// A request in the spool. Dropping it releases the lock that shows that the client waits.
#[derive(Debug)]
pub struct Submitted {
    name: RecordName,
    watched: Watched,
}

/// The stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// No watcher has claimed it, and its client waits for the answer.
    Pending,
    /// A watcher has claimed it, and has not answered it yet.
    Claimed,
    /// Neither: it was answered or withdrawn, or its client is gone.
    Elsewhere,
}

/// The result of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WithdrawOutcome {
    /// The client removed the pending request: no watcher that claims can start it any more.
    Withdrawn,
    /// A watcher has claimed or removed the request.
    Taken,
}

/// The file under an answer's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// There is no such file.
    Absent,
    /// The content of a trusted file.
    Found(Vec<u8>),
    /// Why the file is not trusted.
    Refused(String),
    /// Why the file could not be read this time.
    Failed(String),
}

/// A query in the spool. Dropping it removes the query and its answer.
#[derive(Debug)]
pub struct Asked {
    queries: Dir,
    name: RecordName,
    watched: Watched,
}

impl ClientSpool {
    /// Opens and checks the directories of requests and responses.
    pub fn open(places: &Places) -> Result<Self, SpoolError> {
        ClientSpool::by(Dir::open, places)
    }

    /// The same, and creates missing directories: a simple watcher may not create them.
    pub fn create(places: &Places) -> Result<Self, SpoolError> {
        ClientSpool::by(Dir::create, places)
    }

    fn by(open: fn(&Path) -> Result<Dir, PlaceError>, places: &Places) -> Result<Self, SpoolError> {
        let (requests, responses) = (open(&places.requests)?, open(&places.responses)?);
        Ok(ClientSpool { requests, responses, queries: places.queries.clone() })
    }

    /// Proves that a request could be submitted at this moment: writes a hidden file, makes it
    /// visible as a request, and removes it.
    pub fn try_submitting(&self, showing: Showing) -> Result<(), SpoolError> {
        let id = RequestId::random();
        // Neither name ends in .json: some responders take each .json file for a fence.
        let (temporary, name) = (format!(".monitor-{id}.tmp"), format!(".monitored-{id}.tmp"));
        let shown = self.requests.write_new(&temporary, &TRIED).and_then(|file| {
            file.sync_all().map_err(|error| self.requests.error("sync", &temporary, error))?;
            show(&self.requests, &temporary, &name, showing)
        });
        let removed = self.requests.unlink(&temporary).and(self.requests.unlink(&name));
        shown.and(removed.map(|_| ()))
    }

    /// Puts a request into the spool, held and durable. After an error, the spool has no such
    /// request, or one that nobody holds.
    pub fn submit(&self, name: &RecordName, bytes: &[u8]) -> Result<Submitted, SpoolError> {
        self.submit_as(name, bytes, Showing::Rename)
    }

    /// The same for a watcher that notices requests in this way.
    pub fn submit_as(
        &self,
        name: &RecordName,
        bytes: &[u8],
        showing: Showing,
    ) -> Result<Submitted, SpoolError> {
        self.submit_watched(name, bytes, showing, watch)
    }

    fn submit_watched(
        &self,
        name: &RecordName,
        bytes: &[u8],
        showing: Showing,
        start: fn(&File) -> nix::Result<Watch>,
    ) -> Result<Submitted, SpoolError> {
        let file = publish(&self.requests, name, bytes, hold, showing)?;
        let submitted = Submitted { name: name.clone(), watched: Watched::new(file, start) };
        match self.requests.sync() {
            // If a watcher already has the request, the client can only wait.
            Err(error) if self.withdraw(&submitted)? == WithdrawOutcome::Withdrawn => Err(error),
            _ => Ok(submitted),
        }
    }

    /// Removes a pending request, if no watcher was faster.
    pub fn withdraw(&self, submitted: &Submitted) -> Result<WithdrawOutcome, SpoolError> {
        let was_there = self.requests.unlink(&submitted.name.file_name())?;
        Ok(if was_there { WithdrawOutcome::Withdrawn } else { WithdrawOutcome::Taken })
    }

    /// The stage of the request of this name, for people. A request that moves meanwhile is found
    /// at its new place.
    pub fn stage(&self, name: &RecordName) -> Result<Stage, SpoolError> {
        let file_name = name.file_name();
        match record::open(&self.requests, &file_name, OFlag::O_RDONLY) {
            Ok(file) if is_held(&file) => return Ok(Stage::Pending),
            // Its client is gone, so no watcher begins it.
            Ok(_) => return Ok(Stage::Elsewhere),
            Err(OpenRefusal::Untrusted(_) | OpenRefusal::System(Errno::ENOENT)) => {}
            Err(OpenRefusal::System(errno)) => {
                return Err(self.requests.error("read", &file_name, errno));
            }
        }
        let claimed = match Dir::open(&self.requests.join(CLAIMED)) {
            Err(PlaceError::Missing { .. }) => return Ok(Stage::Elsewhere),
            opened => opened?,
        };
        Ok(if claimed.has(&file_name)? { Stage::Claimed } else { Stage::Elsewhere })
    }

    /// Looks for the answer of this name. Never blocks, whatever file has the name.
    pub fn look(&self, name: &RecordName) -> Look {
        match look_in(&self.responses, name) {
            Look::Absent => match self.responses.moved() {
                Ok(None) | Err(SpoolError::Place(PlaceError::Missing { .. })) => Look::Absent,
                // The directory was removed and created again during the wait.
                Ok(Some(now)) => look_in(&now, name),
                Err(error) => Look::Failed(error.to_string()),
            },
            found => found,
        }
    }

    /// Whether a watcher of our kind serves this spool.
    pub fn watcher(&self) -> Liveness {
        lock::liveness(&self.requests)
    }

    /// Fails if a watcher of our kind serves this spool and writes its answers to another
    /// directory: each fence would be executed, and reported as failed.
    pub fn check_served(&self) -> Result<(), SpoolError> {
        let Some(served) = self.served() else { return Ok(()) };
        let other = served.other_responses(&self.responses)?;
        refuse_elsewhere("response_dir", &self.responses, other)
    }

    fn served(&self) -> Option<Served> {
        let is_alive = matches!(self.watcher(), Liveness::Alive { .. });
        lock::served(&self.requests).filter(|_| is_alive)
    }

    /// Asks the watcher a query.
    pub fn ask(&self, query: &Query) -> Result<Asked, SpoolError> {
        let queries = Dir::open(&self.queries)?;
        // Each side derives this directory from its own path of the directory of requests.
        if let Some(served) = self.served() {
            refuse_elsewhere("request_dir", &queries, served.other_queries(&queries)?)?;
        }
        // The watcher requires that a query's file name is exactly its identity.
        let name = query.query_id.parse::<RequestId>().and_then(|_| query.query_id.parse());
        let name: RecordName =
            name.map_err(|_| queries.error("ask", &query.query_id, Errno::EINVAL))?;
        // Neither held nor synced: after a crash no client needs the answer.
        let file = publish(&queries, &name, &query.to_json(), |_, _, _| Ok(()), Showing::Rename)?;
        Ok(Asked { queries, name, watched: Watched::new(file, watch) })
    }

    /// The content of the answer to a query; `None` until the watcher has written it.
    pub fn answer_of(&self, asked: &Asked) -> Option<Vec<u8>> {
        match record::inspect(&asked.queries, &answer_name(&asked.name)).0 {
            Sight::Content { bytes, .. } => Some(bytes),
            _ => None,
        }
    }
}

impl Submitted {
    /// The request's name; its answer has the same.
    pub fn name(&self) -> &RecordName {
        &self.name
    }

    /// Gives the request up without an answer, and releases its lock. From now on the watcher
    /// writes the end of the request into the audit; the file's mode says so.
    pub fn hand_over(&self) {
        let file = self.watched.file();
        // If the mode cannot be set, a watcher that answers later still finds the file free.
        let _ = file.set_permissions(Permissions::from_mode(HANDED_OVER_MODE));
        let _ = file.unlock();
    }

    /// Undoes [`Submitted::hand_over`]; false if the watcher already writes the end of the request.
    pub fn take_back(&self) -> bool {
        let file = self.watched.file();
        file.try_lock().is_ok() && file.set_permissions(Permissions::from_mode(HELD_MODE)).is_ok()
    }

    /// A descriptor that becomes readable when the request is claimed, removed or replaced. `None`
    /// if the system has no free inotify watch: then look from time to time.
    ///
    /// A change before the first wait may have left no event, so look first.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.wait_fd()
    }

    /// Discards the events so far, so that [`Submitted::wait_fd`] waits for the next event.
    pub fn drain(&self) {
        self.watched.drain();
    }

    /// Removes the watch after the last wait. Do other work before dropping the value: the kernel
    /// then needs no time to close the watch.
    pub fn unwatch(&self) {
        self.watched.unwatch();
    }
}

impl Asked {
    /// A descriptor that becomes readable when the watcher has removed the query, which it does
    /// after its answer. See [`Submitted::wait_fd`].
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.wait_fd()
    }

    /// Discards the events so far.
    pub fn drain(&self) {
        self.watched.drain();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let names = [self.name.file_name(), self.name.temporary(), answer_name(&self.name)];
        for name in names {
            // Pruning removes a file that stays here.
            let _ = self.queries.unlink(&name);
        }
    }
}

/// Fails if the watcher serves another directory than `ours`.
fn refuse_elsewhere(
    setting: &'static str,
    ours: &Dir,
    served: Option<&Path>,
) -> Result<(), SpoolError> {
    let ours = ours.path().to_owned();
    served.map_or(Ok(()), |served| {
        Err(SpoolError::ServedElsewhere { setting, ours, served: served.to_owned() })
    })
}

fn look_in(responses: &Dir, name: &RecordName) -> Look {
    let file_name = name.file_name();
    match record::inspect(responses, &file_name).0 {
        Sight::Gone => Look::Absent,
        Sight::Content { bytes, .. } => Look::Found(bytes),
        Sight::Untrusted(reason) => Look::Refused(reason),
        Sight::Failed(error) => Look::Failed(error.to_string()),
        Sight::TooLarge(size) => {
            let path = responses.join(&file_name);
            Look::Refused(format!("'{}' is too large ({size} bytes)", path.display()))
        }
    }
}

/// The file name of the answer to the query `name`.
pub(crate) fn answer_name(name: &RecordName) -> String {
    format!("{name}.answer")
}

/// Writes a record, makes it `ready`, and only then gives it its visible name.
fn publish(
    dir: &Dir,
    name: &RecordName,
    bytes: &[u8],
    ready: fn(&Dir, &str, &File) -> Result<(), SpoolError>,
    showing: Showing,
) -> Result<File, SpoolError> {
    let (temporary, name) = (name.temporary(), name.file_name());
    let file = dir.write_new(&temporary, bytes)?;
    let shown = ready(dir, &temporary, &file).and_then(|()| show(dir, &temporary, &name, showing));
    if let Err(error) = shown {
        // The first error is reported; pruning removes a file that stays here.
        let _ = dir.unlink(&temporary);
        return Err(error);
    }
    Ok(file)
}

/// Gives the file `temporary` its name `name`; fails if a file has that name.
fn show(dir: &Dir, temporary: &str, name: &str, showing: Showing) -> Result<(), SpoolError> {
    if showing == Showing::Link {
        match dir.link_as(temporary, name) {
            Ok(()) => {
                // For watchers that wait for `close_write`. A faster watcher has the file already.
                let _ = dir.file(name, OFlag::O_WRONLY);
                // A name that stays is hidden, and pruning removes it.
                let _ = dir.unlink(temporary);
                return Ok(());
            }
            // The errors of a file system without hard links.
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {}
            Err(errno) => return Err(dir.error("submit", name, errno)),
        }
    }
    dir.rename(temporary, dir, name).map_err(|errno| dir.rename_error("submit", name, errno))
}

/// The size of a request, to find out whether the disk has room for one.
const TRIED: [u8; 4096] = [b' '; 4096];

/// Locks a request before it is visible, so that no watcher finds a request of ours without a lock.
fn hold(dir: &Dir, name: &str, file: &File) -> Result<(), SpoolError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => dir.error("lock", name, Errno::EWOULDBLOCK),
        TryLockError::Error(error) => dir.error("lock", name, error),
    })?;
    file.sync_all().map_err(|error| dir.error("sync", name, error))
}

#[cfg(test)]
mod tests;
