//! Reports the state of the service to the service manager, without ever waiting for the manager.
//!
//! The manager's socket blocks if the manager does not read. While a cluster file system waits for
//! a fence, any process of the node can be stuck. A stuck manager must not delay the fence.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use fence_clock::now;
use fence_core::watcher::Watcher;
use fence_protocol::FenceAction;
use log::warn;
use sd_notify::NotifyState;

/// How long the end of the process waits for the manager to read the last report.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How many reports wait for a manager that does not read. More would be out of date.
const QUEUE_MAX: usize = 4;

/// How often the status changes while a fence runs, in milliseconds.
const STATUS_PERIOD_MS: u64 = 1_000;

/// A report to the service manager.
#[derive(Default)]
struct Message {
    states: Vec<NotifyState<'static>>,
    status: Option<String>,
    /// Hears when the manager has the report.
    heard: Option<SyncSender<()>>,
}

#[derive(Default)]
pub(super) struct Manager {
    words: Option<SyncSender<Message>>,
    /// The report that the service is ready is still to be sent: there was no room for it.
    owes_ready: bool,
    /// The status that the manager has, or gets next.
    status: String,
    /// A status waits for a manager that does not read.
    shows: Arc<AtomicBool>,
}

impl Manager {
    /// The service manager that started this process, if one did.
    pub(super) fn find() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Manager::default();
        }
        let (sender, words) = mpsc::sync_channel::<Message>(QUEUE_MAX);
        let shows = Arc::new(AtomicBool::new(false));
        let waiting = Arc::clone(&shows);
        let spawned = thread::Builder::new().name("manager".into()).spawn(move || {
            for Message { mut states, status, heard } in words {
                states.extend(status.as_deref().map(NotifyState::Status));
                if let Err(problem) = sd_notify::notify(&states) {
                    warn!(
                        "cannot report the state of the service to the service manager: {problem}"
                    );
                }
                if status.is_some() {
                    waiting.store(false, Relaxed);
                }
                if let Some(heard) = heard {
                    // The receiver is gone when the wait is over.
                    let _ = heard.try_send(());
                }
            }
        });
        let words = spawned.is_ok().then_some(sender);
        Manager { words, shows, ..Manager::default() }
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

    /// Shows what `core` does, if a service manager listens. Returns when to show it again, in
    /// milliseconds of `CLOCK_BOOTTIME`.
    pub(super) fn show(&mut self, core: &Watcher, devices: usize, is_ending: bool) -> u64 {
        let Some(words) = &self.words else { return u64::MAX };
        let now_boot_ms = now().boot_ms;
        let status = status(core, devices, is_ending, now_boot_ms);
        // One status waits at most: a ping of the watchdog must find room.
        if status != self.status && !self.shows.swap(true, Relaxed) {
            let message = Message { status: Some(status.clone()), ..Message::default() };
            if words.try_send(message).is_ok() {
                self.status.clone_from(&status);
            } else {
                self.shows.store(false, Relaxed);
            }
        }
        let is_to_change = core.running().next().is_some() || status != self.status;
        if is_to_change { now_boot_ms.saturating_add(STATUS_PERIOD_MS) } else { u64::MAX }
    }

    fn say(&self, states: Vec<NotifyState<'static>>, heard: Option<SyncSender<()>>) -> bool {
        self.words
            .as_ref()
            .is_some_and(|words| words.try_send(Message { states, heard, status: None }).is_ok())
    }
}

/// What the watcher does now, in one line: `ready; 2 devices; fencing n3 with bmc for 4 s`.
pub(super) fn status(core: &Watcher, devices: usize, is_ending: bool, now_boot_ms: u64) -> String {
    let mut parts = vec![if is_ending { "stopping" } else { "ready" }.to_owned()];
    parts.push(format!("{devices} device{}", if devices == 1 { "" } else { "s" }));
    parts.extend(core.running().map(|(_, job, since_boot_ms)| {
        let doing = if job.action == FenceAction::On { "powering on" } else { "fencing" };
        let seconds = now_boot_ms.saturating_sub(since_boot_ms) / 1_000;
        format!("{doing} {} with {} for {seconds} s", job.target, job.lane.device)
    }));
    let returning = core.returning();
    parts.extend(
        returning.map(|job| format!("powering on {} with {}", job.target, job.lane.device)),
    );
    let waiting = core.queued().count();
    if waiting > 0 {
        parts.push(format!("{waiting} waiting"));
    }
    parts.join("; ")
}
