//! The watcher's limit of open files.

use log::warn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files as far as the system allows, up to [`FILES_MAX`].
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(FILES_MAX).max(soft), hard)
    });
    if let Err(problem) = raised {
        warn!("the limit of open files stays as it is: {problem}");
    }
}

/// The watcher's limit of open files: the usual 1024 are too few for a burst.
const FILES_MAX: u64 = 16_384;
