//! The preparation of the watcher's own process: its log, its limit of open files.

use anyhow::Context;
use log::warn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{LogTarget, WatcherConfig};

/// Starts the log at the configured target, or at the target that is read.
pub(super) fn start_log(settings: &WatcherConfig) -> anyhow::Result<()> {
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let target = match settings.log.target {
        LogTarget::Auto if in_journal => fence_log::LogSink::Journal,
        LogTarget::Auto if stderr_leads_nowhere() => fence_log::LogSink::Syslog,
        LogTarget::Auto | LogTarget::Stderr => fence_log::LogSink::Stderr,
        LogTarget::Journal => fence_log::LogSink::Journal,
        LogTarget::Syslog => fence_log::LogSink::Syslog,
    };
    fence_log::init("fence-watcher", target, settings.log.level).context("cannot start the log")
}

/// Raises the limit of open files as far as the system allows, up to [`FILES_MAX`].
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(FILES_MAX).max(soft), hard)
    });
    if let Err(problem) = raised {
        warn!("the limit of open files stays as it is: {problem}");
    }
}

/// Whether output on stderr is lost, as for a daemon that an init script starts.
fn stderr_leads_nowhere() -> bool {
    match (nix::sys::stat::fstat(std::io::stderr()), nix::sys::stat::stat("/dev/null")) {
        (Ok(stderr), Ok(null)) => stderr.st_rdev == null.st_rdev && null.st_rdev != 0,
        (Err(_), _) => true,
        (Ok(_), Err(_)) => false,
    }
}

/// The watcher's limit of open files: the usual 1024 are too few for a burst.
const FILES_MAX: u64 = 16_384;
