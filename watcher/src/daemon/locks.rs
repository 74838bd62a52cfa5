//! The locks: waiting for what the watcher before this one left running, and keeping the files
//! while this one runs.

use std::time::Duration;

use anyhow::bail;
use fence_clock::boot_ms;
use fence_spool::{LockError, WatcherSpool};
use log::{error, warn};

use super::spooler::Spooler;
use super::{Daemon, End};

/// How long a new watcher waits for the children of the one before it, in milliseconds. They get
/// SIGKILL at its death. After that it does not start: the service manager tries again.
///
/// An executor whose watcher dies early still ends what an older executor has left (3 s), and then
/// its own keepers (3 s), each of which waits as long for a process that hangs in the kernel. On a
/// machine under load each step also waits for its turn. The usual time is below 0.1 s.
const CHILDREN_GONE_MS: u64 = 20_000;

/// After how long that is said in the log, in milliseconds.
const CHILDREN_SLOW_MS: u64 = 1_000;

/// Nothing is started while a child of the watcher before us may still run.
pub(super) fn wait_for_children_of_a_predecessor(spool: &WatcherSpool) -> anyhow::Result<()> {
    let began = boot_ms();
    let mut is_said = false;
    while !spool.running_lock().try_exclusive() {
        let waited_ms = boot_ms().saturating_sub(began);
        if waited_ms >= CHILDREN_SLOW_MS && !is_said {
            is_said = true;
            warn!("waiting until the children of the previous watcher have ended");
        }
        if waited_ms >= CHILDREN_GONE_MS {
            bail!(
                "the previous watcher's helper process still runs children: end it (it holds '{}'), \
                 or wait until it has ended",
                spool.running_lock().path().display()
            );
        }
        // There is no event for the end of somebody else's lock but to block on it, without bound.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Daemon {
    /// Restores the locks' files where somebody removed them. No other watcher can have started
    /// meanwhile but one of an earlier version, which takes the files for all there is.
    pub(super) fn keep_locks(&mut self) {
        let Spooler { spool, .. } = &self.spooler;
        if !spool.is_current() {
            // What is there now gets a lock of its own.
            return;
        }
        let running = spool.running_lock().restore();
        let lock = spool.restore_lock(&mut self.lock);
        match lock.and_then(|one| Ok(running? || one)) {
            Ok(true) => warn!("a lock's file was removed or replaced while it was held: restored"),
            Err(LockError::Spool(problem)) => {
                self.spooler.report("cannot restore the lock's file", &problem);
            }
            Err(held) if self.ending.is_none() => {
                error!("{held}; no new request is begun here; what runs is finished");
                self.end(End::Supplanted);
            }
            Ok(false) | Err(_) => {}
        }
    }
}
