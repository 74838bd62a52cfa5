//! The directories through which the agent and a watcher communicate.
//!
//! A request is a file, and its directory is its state. Each change of state is a single rename or
//! unlink, so a crash at any point leaves the request in one state, and the kernel decides who came
//! first. No other code renames, unlinks or syncs a file of the spool.
//!
//! - [`open_dir`], [`create_dir`], [`open_log_dir`], [`open_append`] walk a path, and refuse a GFS2
//!   file system and each place that others can write to.
//! - [`ClientSpool`]: the agent's half. Submit, withdraw, look for the answer, ask.
//! - [`WatcherSpool`]: the watcher's half. Claim, answer, set aside, prune.
//!
//! This crate does not wait, decide or read the clock: `fence-core` decides, and the programs wait.
//! `fence-protocol` gives a file its meaning.

mod client;
mod dir;
mod error;
mod file;
mod lock;
mod place;
mod record;
mod retention;
mod served;
mod sign;
#[cfg(test)]
mod testing;
mod watch;
mod watcher;

use std::path::{Path, PathBuf};

pub use client::{Asked, ClientSpool, Look, Showing, Stage, Submitted, WithdrawOutcome};
pub use error::{LockError, SpoolError, cause};
pub use file::{FileError, TrustedFile, program_problem};
pub use lock::{Liveness, RunningLock, WatcherLock, is_lock};
pub use place::{
    PlaceError, create_dir, examine_dir, examine_log, examine_log_dir, open_append, open_dir,
    open_log_dir, refuse_gfs2,
};
pub use record::{Facts, Sight};
pub use watcher::{
    Abandoned, ClaimOutcome, QueryText, WatcherSpool, check_answers, check_renames, examine_places,
    is_claim_held,
};

/// The directories of the spool: absolute paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Places {
    /// `REQUEST_DIR`.
    pub requests: PathBuf,
    /// `RESPONSE_DIR`.
    pub responses: PathBuf,
    /// `queries`, beside `REQUEST_DIR`.
    pub queries: PathBuf,
}

impl Places {
    /// The places that follow from the two directories that a user can choose.
    pub fn new(request_dir: impl Into<PathBuf>, response_dir: impl Into<PathBuf>) -> Self {
        let requests = request_dir.into();
        let queries = requests.parent().unwrap_or(Path::new("/")).join("queries");
        Places { requests, responses: response_dir.into(), queries }
    }
}
