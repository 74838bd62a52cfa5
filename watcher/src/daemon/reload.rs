//! A new configuration for the running service: the whole configuration, or nothing of it.
//!
//! A separate thread reads the file, because a path in it may hang. If a client asks while the file
//! is being read, the file may have changed since, so it is read once more.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use fence_core::watcher::Event;
use fence_protocol::{QueryAnswer, QueryCode};
use log::{error, info, warn};

use super::{Daemon, Wake, audit, core_settings};
use crate::config::{ConfigError, WatcherConfig};
use crate::devices::Devices;

/// Reads the settings.
pub type Source = Arc<dyn Fn() -> Result<WatcherConfig, ConfigError> + Send + Sync>;

pub(super) struct Reloader {
    source: Source,
    wake: Sender<Wake>,
    /// The queries for which the file is being read; `None` if it is not being read.
    served: Option<Vec<String>>,
    /// The queries that came meanwhile, for which the file is read once more.
    waiting: Option<Vec<String>>,
}

impl Reloader {
    pub(super) fn new(source: Source, wake: Sender<Wake>) -> Self {
        Reloader { source, wake, served: None, waiting: None }
    }

    /// Starts to read the configuration, for a query or without a query.
    fn ask(&mut self, query_id: Option<String>) {
        self.waiting.get_or_insert_default().extend(query_id);
        if self.served.is_none() {
            self.read();
        }
    }

    /// Reads the configuration for the queries that came meanwhile; false if there are none.
    fn read(&mut self) -> bool {
        self.served = self.waiting.take();
        if self.served.is_none() {
            return false;
        }
        let (source, wake) = (Arc::clone(&self.source), self.wake.clone());
        let read = move || {
            // The receiver is gone only when the daemon is.
            let _ = wake.send(Wake::Loaded(Box::new(source())));
        };
        if let Err(error) = thread::Builder::new().name("configuration".into()).spawn(read) {
            let problem = ConfigError::Unreadable("the configuration".into(), error);
            let _ = self.wake.send(Wake::Loaded(Box::new(Err(problem))));
        }
        true
    }
}

impl Daemon {
    /// Starts to read the configuration again, for a query or because of a signal.
    pub(super) fn reload(&mut self, query_id: Option<String>) {
        self.manager.notify_reloading();
        self.reloader.ask(query_id);
    }

    /// Takes over a configuration that was read, if it is valid.
    pub(super) fn loaded(&mut self, read: Result<WatcherConfig, ConfigError>) {
        let result = match read {
            Ok(settings) => match fixed(&self.settings, &settings) {
                problems if problems.is_empty() => Ok(self.reconfigure(settings)),
                problems => Err(problems),
            },
            Err(error) => Err(error.lines()),
        };
        log(&result);
        for query_id in self.reloader.served.take().unwrap_or_default() {
            self.queries.reloaded(&answer(&query_id, &result));
        }
        if !self.reloader.read() && self.ending.is_none() {
            self.manager.notify_ready();
        }
    }

    /// Changes everything that can change while the service runs. Returns the message for it.
    fn reconfigure(&mut self, settings: WatcherConfig) -> String {
        let before = std::mem::replace(&mut self.settings, settings);
        let settings = &self.settings;
        ::log::set_max_level(settings.log.level);
        settings.reports().iter().for_each(|report| warn!("configuration: {report}"));
        audit::make_log_dir_meanwhile(&settings.log.log_dir);
        self.spooler.settings.clone_from(&settings.spool);
        self.devices = Arc::new(Devices::build(settings, &self.executor));
        self.devices.prepare();
        self.queries.asker.devices = Arc::clone(&self.devices);
        let find = |settings: &WatcherConfig, name: &str| {
            settings.devices.iter().find(|device| device.name == name).cloned()
        };
        self.reporter.retain(|name| find(&before, name) == find(settings, name));
        let core_settings = core_settings(settings, &self.boot_id);
        self.feed(Event::Reconfigured(core_settings, self.devices.facts()));
        self.next_round_boot_ms = self.next_round_boot_ms.min(self.next_period_boot_ms());
        let count = self.devices.here().count();
        let devices = if count == 1 { "device" } else { "devices" };
        format!("the configuration was read again: {count} {devices} for this node")
    }
}

/// Why `new` cannot replace `old` while the service runs.
fn fixed(old: &WatcherConfig, new: &WatcherConfig) -> Vec<String> {
    let path = |path: &std::path::Path| format!("'{}'", path.display());
    let fixed = [
        ("request_dir", path(&old.spool.request_dir), path(&new.spool.request_dir)),
        ("response_dir", path(&old.spool.response_dir), path(&new.spool.response_dir)),
        ("[log] target", format!("{:?}", old.log.target), format!("{:?}", new.log.target)),
        ("the name of this node", old.node.clone(), new.node.clone()),
    ];
    let changed = fixed.into_iter().filter(|(_, old, new)| old != new);
    changed
        .map(|(what, old, new)| {
            format!("{what} cannot change while the watcher runs (from {old} to {new}): restart it")
        })
        .collect()
}

/// Logs the outcome.
fn log(result: &Result<String, Vec<String>>) {
    match result {
        Ok(message) => info!("{message}"),
        Err(problems) => {
            for problem in problems {
                // A hint of several lines is for a terminal.
                error!("configuration: {}", problem.lines().next().unwrap_or_default());
            }
            error!("{REFUSED}");
        }
    }
}

/// The answer to the query `id`.
fn answer(id: &str, result: &Result<String, Vec<String>>) -> QueryAnswer {
    match result {
        Ok(message) => QueryAnswer::new(id, QueryCode::Yes, message),
        Err(problems) => {
            let mut answer = QueryAnswer::new(id, QueryCode::WrongQuery, REFUSED);
            answer.problems.clone_from(problems);
            answer
        }
    }
}

const REFUSED: &str = "the new configuration is refused, the old one stays in force";
