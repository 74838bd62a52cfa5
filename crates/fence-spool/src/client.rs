//! The agent's half: submit a request, withdraw it, look for its answer, ask the watcher.
//!
//! A request is held by an exclusive flock on its own file from before it can be seen until
//! [`Submitted`] is dropped, which the end of the process does too, whatever ends it. The client
//! never removes an answer to a request. It removes the answer to a query, because no other program
//! needs it.
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
    /// Opened only by a query: a simple watcher has no such directory.
    queries: PathBuf,
}

/// How a request gets the name that others look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showing {
    /// By a rename.
    Rename,
    /// By a second name, for simple watchers: some look for files that are *created*, and some for
    /// files that are *closed after writing*, and neither see a rename. The file is complete at
    /// once all the same, and replaces none.
    Link,
}

/// A request in the spool. Dropping it gives up the lock that shows that the client waits.
#[derive(Debug)]
pub struct Submitted {
    name: RecordName,
    watched: Watched,
}

/// Where a request lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits to be claimed, and its client waits for the answer.
    Pending,
    /// A watcher has claimed it, and has not answered it yet.
    Claimed,
    /// It is neither: it was answered or withdrawn, or its client is gone.
    Elsewhere,
}

/// What a withdrawal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WithdrawOutcome {
    /// The request was pending, and is gone: no watcher that claims can start it any more.
    Withdrawn,
    /// The request is gone: a watcher has claimed or removed it.
    Taken,
}

/// What lies under an answer's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// Nothing.
    Absent,
    /// A file that is trusted.
    Found(Vec<u8>),
    /// A file that is not trusted, and why.
    Refused(String),
    /// Something that could not be read this time, and why not.
    Failed(String),
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
        ClientSpool::by(Dir::open, places)
    }

    /// The same, and makes the directories that are missing: a simple watcher may not do it.
    pub fn create(places: &Places) -> Result<Self, SpoolError> {
        ClientSpool::by(Dir::create, places)
    }

    fn by(open: fn(&Path) -> Result<Dir, PlaceError>, places: &Places) -> Result<Self, SpoolError> {
        let (requests, responses) = (open(&places.requests)?, open(&places.responses)?);
        Ok(ClientSpool { requests, responses, queries: places.queries.clone() })
    }

    /// Writes and shows a hidden file as a request is, and removes it: fails where no request could
    /// be submitted at this moment.
    pub fn try_submitting(&self, showing: Showing) -> Result<(), SpoolError> {
        let id = RequestId::random();
        // Neither name ends in .json: some responders take each file that does for a fence.
        let (temporary, name) = (format!(".monitor-{id}.tmp"), format!(".monitored-{id}.tmp"));
        let shown = self.requests.write_new(&temporary, &TRIED).and_then(|file| {
            file.sync_all().map_err(|error| self.requests.error("sync", &temporary, error))?;
            show(&self.requests, &temporary, &name, showing)
        });
        let removed = self.requests.unlink(&temporary).and(self.requests.unlink(&name));
        shown.and(removed.map(|_| ()))
    }

    /// Puts a request into the spool, held and durable. After an error none is there,
    /// or none that anybody holds.
    pub fn submit(&self, name: &RecordName, bytes: &[u8]) -> Result<Submitted, SpoolError> {
        self.submit_as(name, bytes, Showing::Rename)
    }

    /// The same for a watcher that sees requests in this way.
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
            // A request that is already taken can only be waited for.
            Err(error) if self.withdraw(&submitted)? == WithdrawOutcome::Withdrawn => Err(error),
            _ => Ok(submitted),
        }
    }

    /// Takes a request back, if nobody was faster.
    pub fn withdraw(&self, submitted: &Submitted) -> Result<WithdrawOutcome, SpoolError> {
        let was_there = self.requests.unlink(&submitted.name.file_name())?;
        Ok(if was_there { WithdrawOutcome::Withdrawn } else { WithdrawOutcome::Taken })
    }

    /// Where the request of this name lies, for people: a request that moves meanwhile is found in
    /// the place to which it moved.
    pub fn stage(&self, name: &RecordName) -> Result<Stage, SpoolError> {
        let file_name = name.file_name();
        match record::open(&self.requests, &file_name, OFlag::O_RDONLY) {
            Ok(file) if is_held(&file) => return Ok(Stage::Pending),
            // Its client is gone, so nobody begins it.
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

    /// Looks for the answer of this name. Never blocks, whatever lies there.
    pub fn look(&self, name: &RecordName) -> Look {
        match look_in(&self.responses, name) {
            Look::Absent => match self.responses.moved() {
                Ok(None) | Err(SpoolError::Place(PlaceError::Missing { .. })) => Look::Absent,
                // The directory was removed while we wait, and made again.
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

    /// Fails where a watcher of our kind lives and writes its answers elsewhere: each fence would
    /// happen, and be reported as failed.
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
        // Beside the directory of requests, by the path that each side has for it.
        let served = self.served();
        if let Some(served) = &served {
            refuse_elsewhere("request_dir", &queries, served.other_queries(&queries)?)?;
        }
        // The watcher wants a query's name to be its identity letter for letter.
        let name = query.query_id.parse::<RequestId>().and_then(|_| query.query_id.parse());
        let name: RecordName =
            name.map_err(|_| queries.error("ask", &query.query_id, Errno::EINVAL))?;
        // Neither held nor synced: nobody wants an answer after a crash.
        let file = publish(&queries, &name, &query.to_json(), |_, _, _| Ok(()), Showing::Rename)?;
        Ok(Asked { queries, name, watched: Watched::new(file, watch) })
    }

    /// The content of the answer to a query, once it is there.
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

    /// Gives the request up without an answer: its end in the audit is from here on the watcher's
    /// to write, which the file's mode says. Nobody holds the request any more.
    pub fn hand_over(&self) {
        let file = self.watched.file();
        // Where the mode cannot be set, a watcher that answers later still finds the file free.
        let _ = file.set_permissions(Permissions::from_mode(HANDED_OVER_MODE));
        let _ = file.unlock();
    }

    /// Takes back what was handed over; false if the watcher has taken the end of the request over.
    pub fn take_back(&self) -> bool {
        let file = self.watched.file();
        file.try_lock().is_ok() && file.set_permissions(Permissions::from_mode(HELD_MODE)).is_ok()
    }

    /// Becomes readable when the request is claimed, removed or replaced. `None` when the system
    /// has no watch left to give: then one looks from time to time.
    ///
    /// What happened before this is first waited for may have left no event, so look first.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.wait_fd()
    }

    /// Forgets the events so far, so that [`Submitted::wait_fd`] waits for the next one.
    pub fn drain(&self) {
        self.watched.drain();
    }

    /// Ends the watching, once nothing is waited for any more. Do something else before dropping
    /// the value: the kernel then needs no time to close it.
    pub fn unwatch(&self) {
        self.watched.unwatch();
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

/// Writes a record, has it made `ready`, and only then gives it the name that others look for.
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
        // The first error is the one to tell; a rest that stays is pruned by its age.
        let _ = dir.unlink(&temporary);
        return Err(error);
    }
    Ok(file)
}

/// Gives the file `temporary` its name `name`, where nothing of that name may be.
fn show(dir: &Dir, temporary: &str, name: &str, showing: Showing) -> Result<(), SpoolError> {
    if showing == Showing::Link {
        match dir.link_as(temporary, name) {
            Ok(()) => {
                // For those who look for the end of the writing. Who was faster has it already.
                let _ = dir.file(name, OFlag::O_WRONLY);
                // A name that stays is hidden, and is pruned by its age.
                let _ = dir.unlink(temporary);
                return Ok(());
            }
            // What a file system without hard links says.
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {}
            Err(errno) => return Err(dir.error("submit", name, errno)),
        }
    }
    dir.rename(temporary, dir, name).map_err(|errno| dir.rename_error("submit", name, errno))
}

/// As much as a request has, to find out whether there is room for one.
const TRIED: [u8; 4096] = [b' '; 4096];

/// Locks a request before it can be seen, so that no watcher finds one of ours that nobody holds.
fn hold(dir: &Dir, name: &str, file: &File) -> Result<(), SpoolError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => dir.error("lock", name, Errno::EWOULDBLOCK),
        TryLockError::Error(error) => dir.error("lock", name, error),
    })?;
    file.sync_all().map_err(|error| dir.error("sync", name, error))
}

#[cfg(test)]
mod tests;
