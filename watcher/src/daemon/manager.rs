//! Reports the state of the service to the service manager, without ever waiting for the manager.
//!
//! The manager's socket blocks if the manager does not read. While a cluster file system waits for
//! a fence, any process of the node can be stuck. A stuck manager must not delay the fence.

use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use log::warn;
use sd_notify::NotifyState;

/// How long the end of the process waits for the manager to read the last report.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How many reports wait for a manager that does not read. More would be out of date.
const QUEUE_MAX: usize = 4;

type Words = (Vec<NotifyState<'static>>, Option<SyncSender<()>>);

pub(super) struct Manager {
    words: Option<SyncSender<Words>>,
    /// The report that the service is ready is still to be sent: there was no room for it.
    owes_ready: bool,
}

impl Manager {
    /// The service manager that started this process, if one did.
    pub(super) fn find() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Manager { words: None, owes_ready: false };
        }
        let (sender, words) = mpsc::sync_channel::<Words>(QUEUE_MAX);
        let spawned = thread::Builder::new().name("manager".into()).spawn(move || {
            for (states, heard) in words {
                if let Err(problem) = sd_notify::notify(&states) {
                    warn!(
                        "cannot report the state of the service to the service manager: {problem}"
                    );
                }
                if let Some(heard) = heard {
                    // The receiver is gone when the wait is over.
                    let _ = heard.try_send(());
                }
            }
        });
        Manager { words: spawned.is_ok().then_some(sender), owes_ready: false }
    }

    /// The service is ready, or has read its configuration.
    pub(super) fn notify_ready(&mut self) {
        self.owes_ready = !self.say(vec![NotifyState::Ready], None);
    }

    /// The configuration is being read again, until [`Manager::notify_ready`].
    pub(super) fn notify_reloading(&self) {
        // Without the clock, the manager would not get a value that it requires.
        let Ok(now) = NotifyState::monotonic_usec_now() else { return };
        self.say(vec![NotifyState::Reloading, now], None);
    }

    /// The service lives: for the watchdog.
    pub(super) fn notify_alive(&mut self) {
        if self.owes_ready {
            self.notify_ready();
        }
        self.say(vec![NotifyState::Watchdog], None);
    }

    /// The service stops. Waits a moment for the manager to read this before the process ends.
    pub(super) fn notify_stopping(&self) {
        let (sender, heard) = mpsc::sync_channel(1);
        if self.say(vec![NotifyState::Stopping], Some(sender)) {
            let _ = heard.recv_timeout(LAST_WORDS);
        }
    }

    fn say(&self, states: Vec<NotifyState<'static>>, heard: Option<SyncSender<()>>) -> bool {
        self.words.as_ref().is_some_and(|words| words.try_send((states, heard)).is_ok())
    }
}
