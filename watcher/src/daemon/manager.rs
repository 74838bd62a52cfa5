//! Tells the service manager how the service is, without ever waiting for it.
//!
//! Its socket blocks when the manager does not read. A manager that is stuck, as everything can be
//! on a node whose cluster file system is waiting for a fence, must not keep that fence waiting.

use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use log::warn;
use sd_notify::NotifyState;

/// How long the last words are given to be heard.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What waits for a manager that does not read: more would be old news.
const QUEUE_MAX: usize = 4;

type Words = (Vec<NotifyState<'static>>, Option<SyncSender<()>>);

pub(super) struct Manager {
    words: Option<SyncSender<Words>>,
    /// It was not told yet that the service is ready, for want of room.
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
                    warn!("the service manager cannot be told how the service is: {problem}");
                }
                if let Some(heard) = heard {
                    // Whoever waited may have gone.
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
        // A clock that cannot be read would leave the manager without what it asks for.
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

    /// The service stops. Gives these words a moment to be heard before the process ends.
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
