//! The locks: waits for the processes of the previous watcher, and restores the files while this
//! watcher runs.

use std::time::Duration;

use anyhow::bail;
use fence_clock::boot_ms;
use fence_spool::{LockError, WatcherSpool};
use log::{error, warn};

use super::spooler::Spooler;
use super::{Daemon, End};

/// How long a new watcher waits for the children of the previous watcher, in milliseconds. They get
/// SIGKILL at its death. After this time the new watcher does not start, and the service manager
/// tries again.
///
/// An executor whose watcher dies early first ends the processes of an older executor (3 s), and
/// then its own keepers (3 s). Each keeper waits as long for a process that hangs in the kernel. On
/// a loaded machine, each step also waits for its turn. The usual time is below 0.1 s.
const CHILDREN_GONE_MS: u64 = 20_000;

/// When the log reports that the watcher still waits, in milliseconds.
const CHILDREN_SLOW_MS: u64 = 1_000;

/// Waits until no child of the previous watcher runs.
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
        // The only event for the end of another process's lock is to block on it, without a bound.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Daemon {
    /// Restores the files of the locks if they were removed. Meanwhile, only a watcher of an
    /// earlier version can have started, which looks at the files alone.
    pub(super) fn keep_locks(&mut self) {
        let Spooler { spool, .. } = &self.spooler;
        if !spool.is_current() {
            // The new directory gets its own lock.
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
