//! Tells the service manager how the service is, without ever waiting for it.
//!
//! Its socket blocks when the manager does not read. A manager that is stuck, as everything can be on
//! a node whose cluster file system is waiting for a fence, must not keep that fence waiting.

use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use log::warn;
use sd_notify::NotifyState;

/// How long the last words are given to be heard.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What waits for a manager that does not read: more would be old news.
const QUEUE_MAX: usize = 4;

type Words = (NotifyState<'static>, Option<SyncSender<()>>);

pub(super) struct Manager(Option<SyncSender<Words>>);

impl Manager {
    /// The service manager that started this process, if one did.
    pub(super) fn find() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Manager(None);
        }
        let (sender, words) = mpsc::sync_channel::<Words>(QUEUE_MAX);
        let spawned = thread::Builder::new().name("manager".into()).spawn(move || {
            for (state, heard) in words {
                if let Err(problem) = sd_notify::notify(&[state]) {
                    warn!("the service manager cannot be told how the service is: {problem}");
                }
                if let Some(heard) = heard {
                    // Whoever waited may have gone.
                    let _ = heard.try_send(());
                }
            }
        });
        Manager(spawned.is_ok().then_some(sender))
    }

    pub(super) fn is_ready(&self) {
        self.say(NotifyState::Ready, None);
    }

    pub(super) fn is_alive(&self) {
        self.say(NotifyState::Watchdog, None);
    }

    /// Says so, and gives the words a moment to be heard before the process ends.
    pub(super) fn is_stopping(&self) {
        let (sender, heard) = mpsc::sync_channel(1);
        if self.say(NotifyState::Stopping, Some(sender)) {
            let _ = heard.recv_timeout(LAST_WORDS);
        }
    }

    fn say(&self, state: NotifyState<'static>, heard: Option<SyncSender<()>>) -> bool {
        self.0.as_ref().is_some_and(|words| words.try_send((state, heard)).is_ok())
    }
}
