//! The watcher's half: see what is pending, claim it, answer it.
//!
//! A claim is one rename, which either wins or finds nothing, against the client's withdrawal and
//! against any other watcher. An answer is written once and never overwritten. Which request is
//! claimed and what the answer says are decided elsewhere; keeping the directories small is
//! `retention`'s.

use fence_protocol::{NodeName, RecordName, RequestId};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dir::{Dir, is_plain, is_visible_json};
use crate::record::{self, Refusal, Sight};
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
    /// Opens the directories, and makes those that are the watcher's own. With `create` the two that
    /// a user can choose are made as well.
    pub fn open(places: &Places, create: bool) -> Result<Self, SpoolError> {
        let open = if create { Dir::create } else { Dir::open };
        let [requests, responses, queries, claimed, rejected, started] = directories(places);
        let spool = WatcherSpool {
            requests: open(&requests)?,
            responses: open(&responses)?,
            claimed: Dir::create(&claimed)?,
            rejected: Dir::create(&rejected)?,
            started: Dir::create(&started)?,
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
        lock::running(&self.requests, &self.claimed)
    }

    /// Makes the lock's file anew where somebody removed it, or put another one into its place; says
    /// whether that was so. Until then the directories show that a watcher serves them.
    pub fn restore_lock(&self, lock: &mut WatcherLock) -> Result<bool, LockError> {
        lock::restore(&self.requests, &self.served(), lock)
    }

    fn served(&self) -> Served {
        Served::of(&self.responses, &self.queries)
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

    /// Reads a claimed request, one that a watcher left behind.
    pub fn inspect_claimed(&self, name: &RecordName) -> Sight {
        record::inspect(&self.claimed, &name.file_name()).0
    }

    /// Takes a request out of its client's reach. With `sync` the claim outlives a crash of the host.
    pub fn claim(&self, name: &RecordName, sync: bool) -> Claim {
        let file_name = name.file_name();
        // What is claimed must be found at its path by those who look for its client. Where no mark can
        // be made, it would count as begun before.
        for directory in [&self.claimed, &self.started] {
            if !directory.is_current() {
                return Claim::Failed(directory.error("use", "", Errno::ENOENT));
            }
        }
        // Opened before: after the claim a lack of descriptors could no longer be waited out.
        let before = match record::open(&self.requests, &file_name, OFlag::O_RDONLY) {
            Ok(file) => Some(file),
            Err(Refusal::System(errno)) if errno != Errno::ENOENT => {
                return Claim::Failed(self.requests.error("read", &file_name, errno));
            }
            // What must not be read is claimed and refused; what is gone, the rename finds gone.
            Err(_) => None,
        };
        match self.requests.rename(&file_name, &self.claimed, &file_name) {
            Ok(()) => {}
            // The same error tells that the directory of claims is gone.
            Err(Errno::ENOENT) if self.requests.lacks(&file_name) => return Claim::Gone,
            Err(errno) => {
                return Claim::Failed(self.requests.rename_error("claim", &file_name, errno));
            }
        }
        let synced =
            if sync { self.claimed.sync().and_then(|()| self.requests.sync()) } else { Ok(()) };
        let (sight, file) = record::inspect_open(&self.claimed, &file_name, before);
        Claim::Claimed {
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

    /// Whether the request `id`, just claimed as `name`, was begun before: under another name, or by
    /// another watcher that should not be there. To be asked between the claim and the start.
    ///
    /// A name other than `<id>`, in its canonical form, leaves a mark of the identity: whoever claims
    /// the same identity under another name, perhaps for another target, would not find it otherwise.
    /// Two that are claimed at the same moment each look for what the other one has left by then, so
    /// that at most one starts.
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

    /// Writes an answer, durably. An answer that is already there stands. One call at a time for one
    /// name.
    pub fn answer(&self, name: &RecordName, bytes: &[u8]) -> Result<(), SpoolError> {
        self.responses.put(&name.file_name(), &name.temporary(), bytes, true).map(drop)
    }

    /// Proves that an answer could be written at this moment, by a hidden file of the size of one, which
    /// is removed again.
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

/// Whether anybody provably holds the claimed request at `path`; `None` where it is gone or not to be
/// read. Any process of the watcher's user may ask.
pub fn is_claim_held(path: &Path) -> Result<Option<bool>, SpoolError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let directory = match Dir::open(directory) {
        Err(PlaceError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    let name = name.to_string_lossy();
    match record::open(&directory, &name, OFlag::O_RDONLY) {
        Ok(file) => Ok(Some(is_held(&file))),
        Err(Refusal::Untrusted(_) | Refusal::System(Errno::ENOENT)) => Ok(None),
        Err(Refusal::System(errno)) => Err(directory.error("read", &name, errno)),
    }
}

/// All directories of a spool: first the three that clients know.
fn directories(places: &Places) -> [PathBuf; 6] {
    let Places { requests, responses, queries } = places.clone();
    let (claimed, rejected) = (requests.join(CLAIMED), requests.join(".rejected"));
    let started = responses.join(".started");
    [requests, responses, queries, claimed, rejected, started]
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
/// another one. Fails if the file system cannot do so; a directory that is missing or cannot be used
/// is passed over.
pub fn check_renames(places: &Places) -> Result<(), SpoolError> {
    [&places.requests, &places.responses, &places.queries]
        .into_iter()
        .filter_map(|path| Dir::open(path).ok())
        .try_for_each(|directory| directory.try_rename())
}

/// Whether an answer could be written at this moment. Directories that are missing or cannot be used are
/// passed over.
pub fn check_answers(places: &Places) -> Result<(), SpoolError> {
    match Dir::open(&places.responses) {
        Ok(responses) => responses.try_writing(ANSWER_BYTES),
        Err(_) => Ok(()),
    }
}

/// The size of an answer, which has a page on the disk.
const ANSWER_BYTES: usize = 4096;

/// Whether somebody holds the client's lock on `file`. The probe is shared, so that two of them never
/// take each other for a client, and ends with `file`.
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
mod tests {
    use super::*;
    use crate::testing::{Pair, Scratch, each_untrusted, mode, name, names, set_mode, write};
    use crate::{Liveness, PlaceError, Stage};
    use std::collections::BTreeSet;
    use std::fs;
    use std::sync::Mutex;

    #[test]
    fn an_examination_refuses_all_that_a_start_refuses_and_makes_nothing() {
        let scratch = Scratch::new();
        let places = Places::new(scratch.join("spool/requests"), scratch.join("spool/responses"));
        assert!(examine_places(&places).is_empty());
        assert!(!scratch.join("spool").exists());

        drop(WatcherSpool::open(&places, true).unwrap());
        assert!(examine_places(&places).is_empty());
        let requests = |name: &str| scratch.join("spool/requests").join(name);
        let responses = |name: &str| scratch.join("spool/responses").join(name);
        for path in [
            requests(""),
            requests(".claimed"),
            requests(".rejected"),
            responses(""),
            responses(".started"),
            places.queries.clone(),
        ] {
            set_mode(&path, 0o770);
            let start = WatcherSpool::open(&places, true).unwrap_err().to_string();
            let found: Vec<String> =
                examine_places(&places).iter().map(ToString::to_string).collect();
            assert!(found.contains(&start), "{start}: {found:?}");
            assert!(start.contains("chmod go-w"), "{start}");
            set_mode(&path, 0o700);
        }
        let twice = Places { queries: places.responses.clone(), ..places.clone() };
        let start = WatcherSpool::open(&twice, true).unwrap_err().to_string();
        assert_eq!(
            examine_places(&twice).iter().map(ToString::to_string).collect::<Vec<_>>(),
            [start]
        );
    }

    #[test]
    fn an_examination_finds_locks_that_cannot_be_taken_and_disturbs_no_watcher() {
        for name in [".watcher.lock", ".running.lock"] {
            let pair = Pair::new();
            fs::create_dir(pair.request(name)).unwrap();

            let found = examine_places(&pair.places);

            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].to_string().contains(name), "{}", found[0]);
        }
        let pair = Pair::new();
        let _lock = pair.watcher.lock().unwrap();
        assert!(examine_places(&pair.places).is_empty());
        assert!(matches!(pair.client.watcher(), Liveness::Alive { .. }));
    }

    #[test]
    fn the_directories_are_made_for_the_owner_alone() {
        let pair = Pair::new();
        for path in [
            pair.places.requests.clone(),
            pair.places.responses.clone(),
            pair.places.queries.clone(),
            pair.request(".claimed"),
            pair.request(".rejected"),
            pair.response(".started"),
        ] {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
    }

    #[test]
    fn without_leave_to_create_the_directories_of_the_user_must_be_there() {
        let pair = Pair::new();
        fs::remove_dir_all(&pair.places.responses).unwrap();

        let error = WatcherSpool::open(&pair.places, false).unwrap_err();

        assert!(matches!(error, SpoolError::Place(PlaceError::Missing { .. })), "{error}");
        set_mode(&pair.places.requests, 0o777);
        assert!(WatcherSpool::open(&pair.places, true).is_err());
    }

    #[test]
    fn one_directory_for_two_purposes_is_refused() {
        let pair = Pair::new();
        let places = Places::new(&pair.places.requests, &pair.places.requests);

        let error = WatcherSpool::open(&places, true).unwrap_err().to_string();

        assert!(error.contains(places.requests.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_directory_that_was_made_again_is_noticed() {
        let directories: [fn(&Pair) -> std::path::PathBuf; 6] = [
            |pair| pair.places.requests.clone(),
            |pair| pair.places.responses.clone(),
            |pair| pair.places.queries.clone(),
            |pair| pair.request(".claimed"),
            |pair| pair.request(".rejected"),
            |pair| pair.response(".started"),
        ];
        for directory in directories {
            let pair = Pair::new();
            let path = directory(&pair);
            assert!(pair.watcher.is_current());

            fs::remove_dir_all(&path).unwrap();
            assert!(!pair.watcher.is_current(), "{} is gone", path.display());
            WatcherSpool::open(&pair.places, true).unwrap();
            assert!(!pair.watcher.is_current(), "{} is another one", path.display());
        }
    }

    #[test]
    fn without_the_directories_of_claims_and_marks_nothing_is_claimed() {
        let directories: [fn(&Pair) -> std::path::PathBuf; 2] =
            [|pair| pair.request(".claimed"), |pair| pair.response(".started")];
        for directory in directories {
            let pair = Pair::new();
            let path = directory(&pair);
            write(&pair.request("n3-1.json"), b"{}");
            let fails = || {
                let claim = pair.watcher.claim(&name("n3-1"), false);
                let Claim::Failed(error) = claim else { panic!("{claim:?}") };
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                assert_eq!(pair.watcher.pending().unwrap(), ["n3-1.json"]);
            };
            fs::rename(&path, path.with_extension("old")).unwrap();
            fails();
            // Another one in its place is not the one that is open.
            WatcherSpool::open(&pair.places, true).unwrap();
            fails();
            fs::remove_dir(path.with_extension("old")).unwrap();
            fails();
        }
    }

    #[test]
    fn whether_an_answer_can_be_written_is_tried_and_leaves_nothing() {
        let pair = Pair::new();
        let before = names(&pair.places.responses);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| pair.watcher.try_answering().unwrap()));
            }
        });
        check_answers(&pair.places).unwrap();
        assert_eq!(names(&pair.places.responses), before);

        fs::remove_dir_all(&pair.places.responses).unwrap();
        let error = pair.watcher.try_answering().unwrap_err().to_string();
        assert!(error.contains(pair.places.responses.to_str().unwrap()), "{error}");
        check_answers(&pair.places).unwrap();
    }

    #[test]
    fn only_visible_json_names_are_pending() {
        let pair = Pair::new();
        for file in ["a.json", "b b.json", "..c.json", ".d.json.tmp", "e.txt", "f.JSON", ".json"] {
            write(&pair.request(file), b"");
            write(&pair.places.queries.join(file), b"");
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(pair.watcher.pending().unwrap()), ["a.json", "b b.json"]);
        assert_eq!(sorted(pair.watcher.queries().unwrap()), ["a.json", "b b.json"]);
    }

    #[test]
    fn a_claim_moves_the_request_and_reads_it_afterwards() {
        let pair = Pair::new();
        let _submitted = pair.client.submit(&name("n"), b"{}").unwrap();

        for sync in [true, false] {
            let claim = pair.watcher.claim(&name("n"), sync);
            if sync {
                let Claim::Claimed { sight: Sight::Content { bytes, .. }, client_gone } = claim
                else {
                    panic!("{claim:?}")
                };
                assert_eq!((&bytes[..], client_gone), (&b"{}"[..], false));
            } else {
                assert!(matches!(claim, Claim::Gone), "{claim:?}");
            }
        }
        assert_eq!(pair.watcher.claimed().unwrap(), [name("n")]);
        assert_eq!(pair.watcher.pending().unwrap(), [""; 0]);
        assert!(matches!(pair.watcher.inspect(&name("n")), Sight::Gone));
        let left = pair.watcher.inspect_claimed(&name("n"));
        assert!(matches!(left, Sight::Content { bytes, .. } if bytes == b"{}"));
        pair.watcher.remove_claimed(&name("n")).unwrap();
        pair.watcher.remove_claimed(&name("n")).unwrap();
        assert_eq!(pair.watcher.claimed().unwrap(), []);
    }

    #[test]
    fn a_claim_tells_whether_the_client_is_still_there() {
        let pair = Pair::new();
        let gone = pair.client.submit(&name("gone"), b"{}").unwrap();
        let held = pair.client.submit(&name("held"), b"{}").unwrap();
        drop(gone);
        write(&pair.request("foreign.json"), b"{}");
        // Another probe at the same time is no client.
        let probe = File::open(pair.request("gone.json")).unwrap();
        probe.try_lock_shared().unwrap();

        for (request, expected) in [("gone", true), ("held", false), ("foreign", true)] {
            let claim = pair.watcher.claim(&name(request), false);
            let Claim::Claimed { client_gone, .. } = claim else { panic!("{claim:?}") };
            assert_eq!(client_gone, expected, "{request}");
            let held = is_claim_held(&pair.watcher.claimed_path(&name(request))).unwrap();
            assert_eq!(held, Some(!expected), "{request}");
        }
        drop(held);
        let held = || is_claim_held(&pair.watcher.claimed_path(&name("held"))).unwrap();
        assert_eq!(held(), Some(false));
        pair.watcher.remove_claimed(&name("held")).unwrap();
        assert_eq!(held(), None);
    }

    #[test]
    fn a_request_is_abandoned_as_soon_as_its_client_is_gone() {
        let pair = Pair::new();
        let client = pair.client.submit(&name("a"), b"{}").unwrap();
        let abandoned = |text: &str| Some(pair.watcher.abandoned(&name(text))?.is_handed_over);
        assert_eq!(abandoned("a"), None, "pending");
        pair.watcher.claim(&name("a"), false);
        assert_eq!(abandoned("a"), None, "claimed");

        drop(client);

        assert_eq!(abandoned("a"), Some(false));
        drop(pair.client.submit(&name("b"), b"{}").unwrap());
        assert_eq!(abandoned("b"), Some(false));
        assert_eq!(abandoned("c"), None);
    }

    #[test]
    fn a_request_that_is_handed_over_can_be_taken_back_until_the_watcher_has_it() {
        let pair = Pair::new();
        let client = pair.client.submit(&name("a"), b"{}").unwrap();
        pair.watcher.claim(&name("a"), false);

        client.hand_over();
        assert!(pair.watcher.abandoned(&name("a")).unwrap().is_handed_over);
        assert!(client.take_back());
        assert!(pair.watcher.abandoned(&name("a")).is_none(), "it is held again");

        client.hand_over();
        let taken_over = pair.watcher.abandoned(&name("a")).unwrap();
        assert!(!client.take_back());
        drop(taken_over);

        assert!(client.take_back());
        drop(client);
        assert!(!pair.watcher.abandoned(&name("a")).unwrap().is_handed_over);
    }

    #[test]
    fn a_requests_stage_is_the_place_where_it_lies() {
        let pair = Pair::new();
        let stage = || pair.client.stage(&name("a")).unwrap();
        assert_eq!(stage(), Stage::Elsewhere);
        let client = pair.client.submit(&name("a"), b"{}").unwrap();
        assert_eq!(stage(), Stage::Pending);
        pair.watcher.claim(&name("a"), false);
        assert_eq!(stage(), Stage::Claimed);
        pair.watcher.remove_claimed(&name("a")).unwrap();
        assert_eq!(stage(), Stage::Elsewhere);
        drop(client);

        drop(pair.client.submit(&name("a"), b"{}").unwrap());
        assert_eq!(stage(), Stage::Elsewhere, "nobody waits for it");
    }

    #[test]
    fn of_many_claimers_exactly_one_wins() {
        let pair = Pair::new();
        let others: Vec<_> =
            (0..4).map(|_| WatcherSpool::open(&pair.places, false).unwrap()).collect();
        for number in 0..300 {
            write(&pair.request(&format!("n{number}.json")), b"{}");
        }
        let won = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for watcher in &others {
                scope.spawn(|| {
                    for number in 0..300 {
                        match watcher.claim(&name(&format!("n{number}")), false) {
                            Claim::Claimed { .. } => won.lock().unwrap().push(number),
                            Claim::Gone => {}
                            Claim::Failed(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        let won = won.into_inner().unwrap();
        assert_eq!(won.len(), 300);
        assert_eq!(won.into_iter().collect::<BTreeSet<_>>().len(), 300);
    }

    #[test]
    fn what_must_not_be_read_can_be_seen_and_claimed_but_is_not_read() {
        let pair = Pair::new();
        each_untrusted(&pair.request("n.json"), |word| {
            let sight = pair.watcher.inspect(&name("n"));
            assert!(matches!(&sight, Sight::Untrusted(why) if why.contains(word)), "{sight:?}");
            let claim = pair.watcher.claim(&name("n"), false);
            let Claim::Claimed { sight: Sight::Untrusted(_), client_gone: true } = claim else {
                panic!("{claim:?}")
            };
            fs::rename(pair.request(".claimed/n.json"), pair.request("n.json")).unwrap();
        });
    }

    #[test]
    fn a_claim_that_fails_leaves_the_request_pending() {
        let pair = Pair::new();
        write(&pair.request("n.json"), b"second");
        write(&pair.request(".claimed/n.json"), b"first");

        let claim = pair.watcher.claim(&name("n"), true);

        let Claim::Failed(error) = claim else { panic!("{claim:?}") };
        let text = format!("cannot claim '{}': File exists", pair.request("n.json").display());
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read(pair.request(".claimed/n.json")).unwrap(), b"first");

        fs::remove_dir_all(pair.request(".claimed")).unwrap();
        let claim = pair.watcher.claim(&name("n"), true);
        assert!(matches!(claim, Claim::Failed(_)), "the request is not gone: {claim:?}");
        assert_eq!(fs::read(pair.request("n.json")).unwrap(), b"second");
    }

    #[test]
    fn a_request_is_known_under_each_name_that_its_answer_can_have() {
        let pair = Pair::new();
        let target: NodeName = "n3".parse().unwrap();
        let known = |id: &RequestId| {
            (
                pair.watcher.answered(&name("x"), Some(id), Some(&target)).unwrap(),
                pair.watcher.answered(&name("x"), Some(id), None).unwrap(),
                pair.watcher.answered(&name("x"), None, None).unwrap(),
            )
        };
        let new = RequestId::random();
        assert_eq!(known(&new), (false, false, false));

        let by_id = RequestId::random();
        pair.watcher.answer(&RecordName::of_id(&by_id), b"{}").unwrap();
        assert_eq!(known(&by_id), (true, true, false));

        let by_target = RequestId::random();
        let both = RecordName::of_target_and_id(&target, &by_target).unwrap();
        pair.watcher.answer(&both, b"{}").unwrap();
        assert_eq!(known(&by_target), (true, false, false));

        let by_mark = RequestId::random();
        assert!(pair.watcher.mark_started(&by_mark).unwrap());
        assert!(!pair.watcher.mark_started(&by_mark).unwrap(), "it was started before");
        assert_eq!(known(&by_mark), (true, true, false));

        pair.watcher.answer(&name("x"), b"{}").unwrap();
        assert_eq!(known(&new), (true, true, true));
    }

    #[test]
    fn a_request_is_known_in_whichever_case_its_identity_is_written() {
        let target: NodeName = "n3".parse().unwrap();
        let lower = RequestId::random();
        let upper: RequestId = lower.as_str().to_ascii_uppercase().parse().unwrap();
        let own_name = |id: &RequestId| name(id.as_str());
        let with_target = |id: &RequestId| name(&format!("n3-{id}"));
        let foreign = |_: &RequestId| name("job-1");
        let names: [&dyn Fn(&RequestId) -> RecordName; 3] = [&own_name, &with_target, &foreign];
        for first in names {
            for (one, other) in [(&lower, &upper), (&upper, &lower)] {
                let pair = Pair::new();
                let is_begun = |id: &RequestId, name: &RecordName| {
                    pair.watcher.was_begun(name, id, Some(&target)).unwrap()
                };
                write(&pair.request(&first(one).file_name()), b"{}");
                assert!(matches!(pair.watcher.claim(&first(one), false), Claim::Claimed { .. }));
                assert!(!is_begun(one, &first(one)), "{one}");

                write(&pair.request("job-2.json"), b"{}");
                assert!(matches!(pair.watcher.claim(&name("job-2"), false), Claim::Claimed { .. }));
                assert!(is_begun(other, &name("job-2")), "{one} as {}", first(one));
                pair.watcher.answer(&first(one), b"{}").unwrap();
                pair.watcher.remove_claimed(&first(one)).unwrap();
                let id = Some(other);
                assert!(pair.watcher.answered(&own_name(other), id, Some(&target)).unwrap());
            }
        }
    }

    #[test]
    fn an_answer_is_never_overwritten() {
        let pair = Pair::new();
        pair.watcher.answer(&name("n"), b"first").unwrap();
        assert_eq!(mode(&pair.response("n.json")), 0o600);

        pair.watcher.answer(&name("n"), b"second").unwrap();
        // What a crash can leave behind: here even another name of the answer itself.
        fs::hard_link(pair.response("n.json"), pair.response(".n.json.tmp")).unwrap();
        pair.watcher.answer(&name("n"), b"third").unwrap();

        assert_eq!(fs::read(pair.response("n.json")).unwrap(), b"first");
        assert_eq!(names(&pair.places.responses), [".started", "n.json"]);
    }

    #[test]
    fn an_unfinished_answer_of_a_crash_does_not_hinder_the_answer() {
        let pair = Pair::new();
        write(&pair.response(".n.json.tmp"), b"{\"succ");

        pair.watcher.answer(&name("n"), b"whole").unwrap();

        assert_eq!(fs::read(pair.response("n.json")).unwrap(), b"whole");
        assert_eq!(names(&pair.places.responses), [".started", "n.json"]);
    }

    #[test]
    fn trying_how_files_are_renamed_leaves_nothing_behind_and_makes_nothing() {
        let pair = Pair::new();
        for leftover in [".try.tmp", ".tried.tmp"] {
            write(&pair.request(leftover), b"of a process that was killed");
        }

        check_renames(&pair.places).unwrap();

        assert_eq!(names(&pair.places.requests), [".claimed", ".rejected"]);
        assert_eq!(names(&pair.places.responses), [".started"]);
        assert_eq!(names(&pair.places.queries), [""; 0]);
        fs::remove_dir(&pair.places.queries).unwrap();
        check_renames(&pair.places).unwrap();
        assert!(!pair.places.queries.exists());
    }

    #[test]
    fn a_file_system_that_replaces_is_told_from_another_failure() {
        let pair = Pair::new();
        let requests = &pair.watcher.requests;
        for errno in [Errno::EINVAL, Errno::ENOSYS, Errno::EOPNOTSUPP] {
            let error = requests.rename_error("claim", "n.json", errno).to_string();
            assert!(error.contains(pair.places.requests.to_str().unwrap()), "{error}");
            assert!(error.contains("tmpfs") && !error.contains("n.json"), "{error}");
        }
        let error = requests.rename_error("claim", "n.json", Errno::ENOSPC).to_string();
        assert!(error.contains("n.json") && error.contains("No space"), "{error}");
    }

    #[test]
    fn a_pending_request_can_be_removed_twice() {
        let pair = Pair::new();
        write(&pair.request("n.json"), b"{}");

        pair.watcher.remove_pending(&name("n")).unwrap();
        pair.watcher.remove_pending(&name("n")).unwrap();

        assert!(!pair.request("n.json").exists());
    }

    #[test]
    fn a_query_that_must_not_be_read_is_none_and_can_be_removed() {
        let pair = Pair::new();
        each_untrusted(&pair.places.queries.join("q.json"), |word| {
            assert_eq!(pair.watcher.read_query("q.json").unwrap(), None, "{word}");
        });
        write(&pair.places.queries.join("q.json"), b"{}");
        let read = pair.watcher.read_query("q.json").unwrap();
        assert!(matches!(read, Some(QueryText::Whole { bytes, .. }) if bytes == b"{}"));
        pair.watcher.remove_query("q.json").unwrap();
        pair.watcher.remove_query("q.json").unwrap();
        assert_eq!(pair.watcher.read_query("q.json").unwrap(), None);
    }

    #[test]
    fn no_file_name_leads_out_of_its_directory() {
        let pair = Pair::new();
        write(&pair.request("n.json"), b"{}");
        for path in ["../requests/n.json", "..", ".", "", "/etc/passwd", "a\0b"] {
            assert_eq!(pair.watcher.read_query(path).unwrap(), None, "{path}");
            assert!(pair.watcher.remove_query(path).is_err(), "{path}");
            assert!(pair.watcher.answer_query(path, b"x").is_err(), "{path}");
            assert!(pair.watcher.set_aside(path).is_err(), "{path}");
        }
        assert!(pair.request("n.json").exists());
    }
}
