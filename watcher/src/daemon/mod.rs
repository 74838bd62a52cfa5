//! The daemon: one loop that waits for an event, feeds the core, and carries out its effects.
//!
//! The core (`fence_core::watcher`) decides. The daemon has the rest: the spool, the threads that
//! drive devices, the clock and the signals. inotify only wakes the loop: without inotify, the
//! periodic look at the directory finds everything, later.
//!
//! - `setup` raises the limit of open files.
//! - `spooler` carries out the core's effects on the disk.
//! - `worker` drives one execution, step by step, in a separate thread.
//! - `dlm` reports a fence that is certain to DLM.
//! - `examined` answers `check` queries.
//! - `queries` answers the questions of clients; `asker` asks devices for it.
//! - `locks` waits for the end of the previous watcher, and restores the locks' files.
//! - `manager` reports the state of the service to the service manager.
//! - `reload` reads the configuration again.
//! - `wake` turns inotify and signals into events.
//! - `returning` powers the targets of reboots on, and reports the outcomes.
//! - `report` describes the service for `fence-watcher status`.
//! - `words` describes the core's events and effects for the log.
//! - `audit` writes the end of a fence whose agent can no longer write it.

mod asker;
mod audit;
mod dlm;
mod examined;
mod locks;
mod manager;
mod queries;
mod reload;
mod report;
mod returning;
mod setup;
mod spooler;
mod wake;
mod words;
mod worker;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::{Context, anyhow};
use fence_clock::{boot_id, now};
use fence_core::execution::Verdict;
use fence_core::watcher::{self as core, Effect, Event};
use fence_device::ExecutorClient;
use fence_protocol::{FenceResult, NodeName, RecordName, RequestId};
use fence_spool::{SpoolError, WatcherLock, WatcherSpool};
use log::{error, info, trace, warn};

use crate::config::{ConfigError, WatcherConfig};
use crate::devices::{ConfiguredDevice, Devices};
use manager::Manager;
use queries::Question;
use reload::Reloader;
pub use reload::Source;
use report::Reporter;
use returning::Returns;
use spooler::Spooler;

/// What wakes the loop.
#[derive(Debug)]
pub(crate) enum Wake {
    /// This file appeared in the directory of requests, or was written.
    Request(String),
    /// The same in the directory of queries.
    Query(String),
    /// Events may have been lost, or a directory was moved: look at everything.
    Rescan,
    /// Look at everything soon: a look failed for a passing lack of descriptors, memory or threads.
    /// Or the file of a lock or a directory of the watcher is gone, perhaps because the directory
    /// around it is being removed.
    LookAgain,
    /// An execution is over.
    Finished(RecordName, Verdict),
    /// A device has reacted to the order that powers the target of this request on.
    OnOrdered(RequestId),
    /// The power-on of the target of this request is over.
    OnOver(RequestId, Verdict),
    /// A question that came as a request has its answer.
    Inquired(RecordName, bool, String),
    /// A device listed its targets, or did not.
    Listed(Arc<ConfiguredDevice>, Option<BTreeSet<NodeName>>),
    /// A device was or was not reached.
    Reached(Arc<ConfiguredDevice>, bool),
    /// The thread of a question has ended: the question in this file, if it was a query.
    Asked(Option<String>),
    /// The configuration is to be read again.
    Reload,
    /// The configuration was read again.
    Loaded(Box<Result<WatcherConfig, ConfigError>>),
    /// The service is to end.
    Stop(&'static str),
}

/// How the service ended.
#[derive(PartialEq)]
enum End {
    Stopped,
    /// An execution did not end in time: its programs have to be ended with this process.
    Overran,
    /// A directory of the spool was replaced: begin again with the new one.
    SpoolReplaced,
    /// Another watcher serves the spool as well, and does not see this one.
    Supplanted,
}

/// How long before the end of its time a stopping watcher begins the last request, in milliseconds.
/// A request that does not end in time is interrupted. Most devices need less.
const LAST_BEGIN_MS: u64 = 15_000;

/// How often a watcher without inotify looks for requests, in milliseconds. A burst of agents can
/// use up the kernel's share of one user.
const BLIND_PERIOD_MS: u64 = 1_000;

/// The pause before a look that failed is repeated, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1_000;

/// Runs the service until a signal ends it. `source` reads the settings again for a reload.
pub fn run(mut settings: WatcherConfig, source: &Source) -> anyhow::Result<()> {
    // The directory in which an administrator starts the service may lie on GFS2.
    std::env::set_current_dir("/").context("cannot change to '/'")?;
    let signals = wake::block_signals().context("cannot block signals")?;
    fence_log::init("fence-watcher", settings.log.target, settings.log.level)
        .context("cannot start the log")?;
    settings.reports().iter().for_each(|report| warn!("configuration: {report}"));
    let (wake, events) = mpsc::channel();
    wake::watch_signals(signals, wake.clone()).context("cannot start the signals' thread")?;
    setup::raise_file_limit();
    let result = loop {
        match serve(&mut settings, source, &wake, &events) {
            Ok(End::SpoolReplaced) => warn!("the spool was replaced: beginning anew"),
            Ok(End::Stopped) => break Ok(()),
            Ok(End::Supplanted) => {
                break Err(anyhow!("another fence-watcher serves this spool: this one has ended"));
            }
            Ok(End::Overran) => {
                break Err(anyhow!("what ran did not come to its end in time and is interrupted"));
            }
            Err(problem) => break Err(problem),
        }
    };
    log::logger().flush();
    result
}

/// Serves one spool. At the end, `settings` has the configuration that was in force.
fn serve(
    settings: &mut WatcherConfig,
    source: &Source,
    wake: &Sender<Wake>,
    events: &Receiver<Wake>,
) -> anyhow::Result<End> {
    let places = settings.spool.places();
    let spool = Arc::new(WatcherSpool::open(&places, true)?);
    let lock = spool.lock()?;
    fence_spool::check_renames(&places)?;
    locks::wait_for_children_of_a_predecessor(&spool)?;
    let executor = ExecutorClient::start(
        "/proc/self/exe".as_ref(),
        &["--executor"],
        &spool.running_lock().path(),
    )
    .context("cannot start the helper process that runs commands")?;
    audit::make_log_dir(&settings.log.log_dir);
    let reloader = Reloader::new(Arc::clone(source), wake.clone());
    let mut daemon = Daemon::new(settings.clone(), spool, lock, executor, reloader, wake.clone())?;
    let inotify = wake::watch_spool(&places, wake.clone());
    daemon.period_max_ms = if inotify.is_some() { u64::MAX } else { BLIND_PERIOD_MS };
    daemon.recover();
    daemon.rescan();
    daemon.manager.notify_ready();
    info!(
        "ready: node={} pid={} requests='{}'",
        settings.node,
        std::process::id(),
        places.requests.display()
    );
    let end = daemon.run(events);
    daemon.audit.close();
    *settings = daemon.settings;
    Ok(end)
}

fn core_settings(settings: &WatcherConfig, boot_id: &str) -> core::Settings {
    core::Settings {
        boot_id: boot_id.to_owned(),
        default_deadline_ms: settings.spool.default_deadline_ms,
        max_running: settings.service.max_running,
    }
}

struct Daemon {
    settings: WatcherConfig,
    boot_id: String,
    lock: WatcherLock,
    executor: ExecutorClient,
    reloader: Reloader,
    core: core::Watcher,
    spooler: Spooler,
    devices: Arc<Devices>,
    reporter: Reporter,
    audit: audit::Desk,
    queries: queries::Desk,
    manager: Manager,
    wake: Sender<Wake>,
    returns: Returns,
    /// The longest time between two rounds, whatever the settings say.
    period_max_ms: u64,
    next_round_boot_ms: u64,
    /// Set when no new request is begun any more: why, and how long running executions may take.
    ending: Option<(End, u64)>,
}

impl Daemon {
    fn new(
        settings: WatcherConfig,
        spool: Arc<WatcherSpool>,
        lock: WatcherLock,
        executor: ExecutorClient,
        reloader: Reloader,
        wake: Sender<Wake>,
    ) -> anyhow::Result<Self> {
        let boot_id = boot_id()
            .context("cannot read this boot's identity, /proc/sys/kernel/random/boot_id")?;
        let devices = Arc::new(Devices::build(&settings, &executor));
        devices.prepare();
        Ok(Daemon {
            core: core::Watcher::new(core_settings(&settings, &boot_id), devices.facts()),
            spooler: Spooler::new(Arc::clone(&spool), &settings.spool, wake.clone()),
            reporter: Reporter::new(&settings.node),
            audit: audit::Desk::open(&boot_id),
            queries: queries::Desk::new(spool, Arc::clone(&devices), &boot_id, wake.clone()),
            manager: Manager::find(),
            settings,
            boot_id,
            lock,
            executor,
            reloader,
            devices,
            wake,
            returns: Returns::default(),
            period_max_ms: u64::MAX,
            next_round_boot_ms: now().boot_ms,
            ending: None,
        })
    }

    fn run(&mut self, events: &Receiver<Wake>) -> End {
        loop {
            let next =
                self.core.next_tick_boot_ms().unwrap_or(u64::MAX).min(self.next_round_boot_ms);
            let next = self.ending.as_ref().map_or(next, |(_, limit)| next.min(*limit));
            let (devices, is_ending) = (self.devices.here().count(), self.ending.is_some());
            let next = next.min(self.manager.show(&self.core, devices, is_ending));
            let wait = Duration::from_millis(next.saturating_sub(now().boot_ms));
            match events.recv_timeout(wait) {
                Ok(event) => self.woken(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the daemon holds a sender"),
            }
            // A flood of events delays neither the watchdog nor a deadline.
            while now().boot_ms < self.next_round_boot_ms
                && let Ok(event) = events.try_recv()
            {
                self.woken(event);
            }
            self.feed(Event::Tick);
            if now().boot_ms >= self.next_round_boot_ms {
                self.round();
            }
            if let Some(end) = self.ended() {
                return end;
            }
        }
    }

    fn woken(&mut self, event: Wake) {
        match event {
            Wake::Request(file_name) => self.see(&file_name),
            Wake::Query(file_name) => self.query(&file_name),
            Wake::Rescan => self.rescan(),
            Wake::LookAgain => {
                let soon = now().boot_ms.saturating_add(LOOK_AGAIN_MS);
                self.next_round_boot_ms = self.next_round_boot_ms.min(soon);
            }
            Wake::Finished(name, verdict) => {
                if let Some(job) = self.core.executed(&name) {
                    self.reporter.finished(job, &verdict);
                    self.returns.finished(job, &verdict);
                }
                self.feed(Event::Finished(name, verdict));
            }
            Wake::OnOrdered(id) => self.feed(Event::OnOrdered(id)),
            Wake::OnOver(id, verdict) => self.feed(Event::OnOver(id, verdict)),
            Wake::Inquired(name, reached, words) => {
                self.feed(Event::Inquired(name, reached, words));
            }
            // Reports about devices of an older configuration are ignored.
            Wake::Listed(device, targets) if self.devices.has(&device) => {
                self.feed(Event::Targets(device.name.clone(), targets));
            }
            Wake::Reached(device, reached) if self.devices.has(&device) => {
                self.reporter.reached(&device.name, reached);
            }
            Wake::Listed(..) | Wake::Reached(..) => {}
            Wake::Reload => self.reload(None),
            Wake::Loaded(result) => self.loaded(*result),
            Wake::Asked(file_name) => self.queries.done(file_name),
            Wake::Stop(signal) => {
                info!("{signal}: what runs is finished; free devices are served until then");
                self.manager.notify_stopping();
                self.end(End::Stopped);
            }
        }
    }

    fn end(&mut self, end: End) {
        if self.ending.is_none() {
            let limit = now().boot_ms.saturating_add(self.settings.service.stop_limit_ms);
            let serve_until = match end {
                End::Stopped => Some(limit.saturating_sub(LAST_BEGIN_MS)),
                End::Overran | End::SpoolReplaced | End::Supplanted => None,
            };
            self.ending = Some((end, limit));
            self.feed(Event::Stop(serve_until));
        } else if end == End::Stopped
            && let Some((before, _)) = &mut self.ending
        {
            *before = End::Stopped;
        }
    }

    /// How the service ended, as soon as all executions are answered or the time for them is over.
    fn ended(&mut self) -> Option<End> {
        let (_, limit) = self.ending.as_ref()?;
        if self.core.is_idle() {
            return self.ending.take().map(|(end, _)| end);
        }
        if now().boot_ms >= *limit {
            let names: Vec<_> = self.core.running().map(|(name, ..)| name.clone()).collect();
            for name in names {
                let message = "the watcher was stopped while it executed this request: the \
                               outcome is unknown";
                let verdict = Verdict::failure(FenceResult::Interrupted, message.to_owned());
                self.feed(Event::Finished(name, verdict));
            }
            self.give_up_returns();
            // The process ends in any case: no program may run beside the next watcher.
            return self.ending.take().map(|(end, _)| match end {
                End::SpoolReplaced => End::Overran,
                other => other,
            });
        }
        None
    }

    /// The periodic tasks: the watchdog, the look at the whole spool, old answers.
    fn round(&mut self) {
        self.next_round_boot_ms = self.next_period_boot_ms();
        self.manager.notify_alive();
        // A claimed request that was not readable at the start may be readable now.
        self.recover();
        self.rescan();
        self.keep_locks();
        self.queries.go_on();
        self.spooler.prune_now_and_then(now());
    }

    /// When the time between two rounds is over.
    fn next_period_boot_ms(&self) -> u64 {
        let watchdog_ms = sd_notify::watchdog_enabled()
            .and_then(|limit| u64::try_from(limit.as_millis() / 2).ok())
            .unwrap_or(u64::MAX);
        let period_ms = self.settings.service.rescan_ms.min(watchdog_ms).min(self.period_max_ms);
        now().boot_ms.saturating_add(period_ms)
    }

    fn rescan(&mut self) {
        if !self.spooler.spool.is_current() {
            return self.end(End::SpoolReplaced);
        }
        match self.spooler.spool.pending() {
            Ok(file_names) => {
                let unknown = |name: &RecordName| !self.core.knows(name);
                let seen = self.spooler.look_at_all(&file_names, unknown);
                for (name, sight) in seen {
                    self.feed(Event::Seen(name, sight));
                }
            }
            Err(problem) => self.spooler.report("cannot look through the requests", &problem),
        }
        match self.spooler.spool.queries() {
            Ok(file_names) => file_names.iter().for_each(|file_name| self.query(file_name)),
            Err(problem) => self.spooler.report("cannot look through the queries", &problem),
        }
    }

    fn see(&mut self, file_name: &str) {
        if let Some(name) = self.spooler.record(file_name)
            && let Some(sight) = self.spooler.look(&name)
        {
            self.feed(Event::Seen(name, sight));
        }
    }

    fn recover(&mut self) {
        // First: a claimed request may become such a record.
        self.recover_returns();
        let is_news = |(name, _): &(RecordName, _)| !self.core.knows(name);
        for (name, sight) in self.spooler.claimed().into_iter().filter(is_news).collect::<Vec<_>>()
        {
            warn!("request {name}: was under way when the previous watcher ended");
            self.feed(Event::Recovered(name, sight));
        }
    }

    fn query(&mut self, file_name: &str) {
        let state = || self.reporter.state(&self.core, &self.devices, now());
        let query_id = self.queries.take(file_name, self.core.devices(), state, now());
        if query_id.is_some() {
            self.reload(query_id);
        }
    }

    /// Feeds the core and carries out its effects, until there are no more.
    fn feed(&mut self, event: Event) {
        let mut effects: VecDeque<Effect> = self.decide(event).into();
        while let Some(effect) = effects.pop_front() {
            if let Some(event) = self.carry_out(effect) {
                effects.extend(self.decide(event));
            }
        }
    }

    /// The core's effects of `event`.
    fn decide(&mut self, event: Event) -> Vec<Effect> {
        // Ticks are too many for the log.
        if event != Event::Tick {
            trace!("core: event: {}", words::of_event(&event));
        }
        let effects = self.core.handle(event, now());
        for effect in &effects {
            trace!("core: effect: {}", words::of_effect(effect));
        }
        effects
    }

    /// Carries out `effect`, and returns its outcome if the core waits for one.
    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Look(name) => return self.spooler.look(&name).map(|it| Event::Seen(name, it)),
            Effect::Claim { name, sync } => {
                let claim = self.spooler.claim(&name, sync);
                return Some(Event::Claim(name, claim));
            }
            Effect::Answer(name, answer, request) => {
                return Some(self.answer(&name, &answer, request));
            }
            Effect::Execute(name, job) => {
                info!(
                    "begun: request={} target={} action={} device={}",
                    job.request.request_id, job.target, job.action, job.lane.device
                );
                let device = self.devices.get(&job.lane.device).cloned();
                let power_on = self.returns.begin(&job);
                worker::execute(device, &self.spooler.spool, name, job, power_on, &self.wake);
            }
            Effect::PowerOn(_)
            | Effect::EndPowerOn(_)
            | Effect::Returned(..)
            | Effect::ForgetReturning(_) => return self.carry_out_return(effect),
            Effect::Inquire(name, request) => {
                let question = Question::Inquiry(name, Box::new(request));
                self.queries.ask(question, self.core.devices());
            }
            Effect::AskTargets(device) => self.queries.ask(Question::Targets(device), &[]),
            Effect::RemoveClaimed(name) => self.spooler.remove_claimed(&name),
            Effect::KeepReturning(name, id) => self.spooler.keep_returning(&name, &id),
            Effect::RemovePending(name) => self.spooler.remove_pending(&name),
            Effect::SetAside(name, why) => self.spooler.set_aside(&name, &why),
            Effect::Note(name, text) => warn!("request {name}: {text}"),
        }
        None
    }
}

/// Logs a failure, and has the loop look at everything again soon if that may help.
fn report(what: &str, problem: &SpoolError, wake: &Sender<Wake>) {
    error!("{what}: {problem}");
    if problem.is_passing() {
        // The receiver is gone only when the daemon is.
        let _ = wake.send(Wake::LookAgain);
    }
}
