//! `off`, `on` and `reboot`: one request, and the wait for its answer.
//!
//! `fence_core::agent` decides what an answer means and when to give up. This module carries out
//! its steps and reports them to the audit. Another process writes the audit: a log on a disk that
//! hangs delays neither the request nor the answer. When this process ends, for whatever reason,
//! the request is void, because nobody holds it any more.

use std::thread;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use fence_audit::{AuditEvent, LogProcess, Status, Task};
use fence_core::agent::{
    self as core, AnswerSight, Event, Expected, Judgement, Outcome, Step, Waiting,
};
use fence_core::budget::Budget;
use fence_log::Syslog;
use fence_protocol::{
    AuditResult, FenceAction, FenceResult, RecordName, Request, RequestId, Requested, bounded,
};
use fence_spool::{ClientSpool, Liveness, Look, SpoolError, Stage, Submitted, WithdrawOutcome};
use gfs2_discovery::Target;
use log::Level;

use crate::clock::{self, boot_id, boot_ms};
use crate::discovery::{self, Discovery, Naming};
use crate::ending::{
    FenceEnding, failed, fence_ending, found_nothing, nothing_to_do, nothing_was_fenced, rebooted,
};
use crate::invocation::{FenceSettings, Responder};
use crate::outcome::Ending;
use crate::parameters::AGENT;
use crate::progress::Progress;
use crate::returning;
use crate::signals::Signals;
use crate::target;

/// Fences as `settings` requires, for an agent that started at `start_boot_ms`.
pub(crate) fn run(settings: &FenceSettings, start_boot_ms: u64) -> Ending {
    let signals = Signals::take_over();
    let mut attempt = Attempt::new(settings, start_boot_ms);
    let (end, request) = match attempt.carry_out(&signals) {
        Ok((end, request)) => (end, Some(request)),
        Err(end) => (end, None),
    };
    // An agent that gave up no longer holds its request while a log hangs. After a success the
    // request is dropped after the audit: the kernel needs this time to forget the watch.
    let _request = request.filter(|_| end.ending.is_success());
    attempt.conclude(end, &signals)
}

/// One fence under way.
struct Attempt<'a> {
    settings: &'a FenceSettings,
    budget: Budget,
    request_id: Option<RequestId>,
    /// None before the search.
    discovery: Option<Discovery>,
    /// Why it is not known whether Kubernetes has the target, if that matters.
    unnamed: Option<String>,
    recorder_node: String,
    /// None before the first event.
    audit: Option<LogProcess>,
    /// A watcher has the request and writes its end: the audit has one end for each request.
    is_left_to_watcher: bool,
    syslog: Option<Syslog>,
    progress: Progress,
    problems: Vec<String>,
}

impl<'a> Attempt<'a> {
    fn new(settings: &'a FenceSettings, start_boot_ms: u64) -> Self {
        let progress = Progress::open(&settings.telling);
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        Attempt {
            settings,
            budget: Budget::new(start_boot_ms, settings.time_max),
            request_id: None,
            discovery: None,
            unnamed: None,
            recorder_node: hostname.to_string_lossy().into_owned(),
            audit: None,
            is_left_to_watcher: false,
            syslog: Syslog::connect(AGENT),
            problems: Vec::new(),
            progress,
        }
    }

    /// Submits the request and waits for its end. The error is an end without a request.
    fn carry_out(&mut self, signals: &Signals) -> Result<(FenceEnding, Submitted), FenceEnding> {
        let settings = self.settings;
        for ignored in &settings.ignored {
            self.say(Level::Warn, &ignored.to_string());
            self.problems.extend(ignored.is_by_hand.then(|| ignored.to_string()));
        }
        let rejected = |why: &str| {
            failed(settings, FenceResult::Rejected, &format!("nothing was requested: {why}"))
        };
        let stopped = |signal: &str| {
            let why = format!("stopped by {signal}; nothing was requested");
            failed(settings, FenceResult::Withdrawn, &why)
        };
        if let Some(problem) = clock::problem() {
            return Err(rejected(&problem));
        }
        if let Some(signal) = self.sleep(signals) {
            return Err(stopped(&format!("{signal} during the delay")));
        }
        let (found, wrong_node, naming) = self.discover();
        // A signal may have come meanwhile, and nothing has begun yet.
        if let Some(signal) = signals.wait(None, 0) {
            return Err(stopped(signal));
        }
        if let Some(why) = wrong_node {
            return Err(rejected(&why));
        }
        if settings.responder == Responder::Nnf && settings.action == FenceAction::On {
            return Err(nothing_to_do());
        }
        let found = match naming {
            None | Some(Naming::Known) => found,
            // No kubectl is configured here: that the plug has a name of its own is the site's
            // word.
            Some(Naming::NotAsked(why)) => format!("{found}; {}", bounded(&why, NAMING_BYTES_MAX)),
            Some(Naming::NotKnown(why)) => {
                let why = self.unnamed.insert(bounded(&why, NAMING_BYTES_MAX));
                format!("{found}; {why}")
            }
            Some(Naming::Unknown(why)) => return Err(rejected(&why)),
        };
        let id = RequestId::random();
        let names = settings
            .responder
            .names(&settings.target, &id)
            .map_err(|error| failed(settings, FenceResult::Rejected, &error.to_string()))?;
        self.request_id = Some(id.clone());
        let submitted = self.submit(&id, &names);
        // Not before: no log may delay the request.
        self.write_event(Status::Requested, &self.introduction(&found), None);
        let (spool, submitted) = submitted.map_err(|error| rejected(&error.to_string()))?;
        Ok((self.wait(signals, &id, &names, &spool, &submitted), submitted))
    }

    /// Sleeps for the delay; a signal ends it.
    fn sleep(&mut self, signals: &Signals) -> Option<&'static str> {
        let until = self.budget.delayed_boot_ms(self.settings.delay);
        if until > boot_ms() {
            self.progress.step(&format!("delay: seconds={}", self.settings.delay.as_secs_f64()));
        }
        while boot_ms() < until {
            let signal = signals.wait(None, until);
            if signal.is_some() {
                return signal;
            }
        }
        None
    }

    /// Finds the file systems that the target holds, and returns them in words; why the target is
    /// another node than the cluster means; and what Kubernetes says about the name, if that
    /// matters.
    fn discover(&mut self) -> (String, Option<String>, Option<Naming>) {
        let settings = self.settings;
        let (plug, nodename) = (settings.target.as_str(), settings.nodename.as_deref());
        let wanted = target::wanted(nodename, settings.dlm_node);
        let time = || self.budget.search(boot_ms());
        let target = Target { plug, nodename };
        let ask = || settings.naming.as_ref().map(|search| Naming::of(Some(plug), search, time()));
        let (discovery, wrong_node, naming) = thread::scope(|scope| {
            let is_needed = settings.naming.is_some();
            let asked = is_needed.then(|| thread::Builder::new().spawn_scoped(scope, ask));
            let (discovery, nodes) = Discovery::of(target, settings.discovery.as_ref(), time());
            let wrong_node = target::is_doubtful(plug, wanted).then(|| {
                let ask = || discovery::nodes(plug, wanted, &settings.cluster, time());
                target::refusal(plug, wanted, &nodes.unwrap_or_else(ask))
            });
            // Without a free thread, Kubernetes is asked now.
            let naming = asked.and_then(|asked| match asked.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(naming)) => naming,
                Err(_) | Ok(Err(_)) => ask(),
            });
            (discovery, wrong_node.flatten(), naming)
        });
        let words = discovery.to_words();
        self.discovery = Some(discovery);
        (words, wrong_node, naming)
    }

    /// The names of the file systems that discovery found.
    fn filesystems(&self) -> Vec<String> {
        self.discovery.as_ref().map(Discovery::filesystems).unwrap_or_default()
    }

    fn introduction(&self, found: &str) -> String {
        match &self.settings.nodename {
            Some(node) if node != self.settings.target.as_str() => {
                format!("cluster node '{}'; {found}", bounded(node, 253))
            }
            _ => found.to_owned(),
        }
    }

    fn submit(
        &mut self,
        id: &RequestId,
        names: &[RecordName],
    ) -> Result<(ClientSpool, Submitted), SpoolError> {
        let settings = self.settings;
        let spool = settings.responder.open(&settings.places)?;
        spool.check_served()?;
        // Before the request is locked: a child that inherits the lock would outlive a killed
        // agent.
        self.audit();
        let now_boot_ms = boot_ms();
        let deadline_boot_ms = self.budget.deadline_boot_ms();
        let left = i64::try_from(deadline_boot_ms.saturating_sub(now_boot_ms)).unwrap_or(i64::MAX);
        let now = Utc::now();
        let boot_id = boot_id().ok();
        let request = Request {
            request_id: id.clone(),
            timestamp: now,
            action: Requested::Fence(settings.action),
            target_node: Some(settings.target.clone()),
            gfs2_filesystems: self.filesystems(),
            recorder_node: self.recorder_node.clone(),
            deadline: now.checked_add_signed(TimeDelta::milliseconds(left)),
            deadline_boottime_ms: boot_id.as_ref().map(|_| deadline_boot_ms),
            boot_id,
            device: settings.device.clone(),
            held: true,
        };
        let submitted =
            spool.submit_as(&names[0], &request.to_json(), settings.responder.showing())?;
        self.progress.step(&format!("written: request={id} file={}.json", names[0]));
        Ok((spool, submitted))
    }

    fn wait(
        &mut self,
        signals: &Signals,
        id: &RequestId,
        names: &[RecordName],
        spool: &ClientSpool,
        submitted: &Submitted,
    ) -> FenceEnding {
        let settings = self.settings;
        let expected = Expected {
            request_id: id.clone(),
            target: settings.target.clone(),
            action: settings.action,
        };
        let responder = match settings.responder {
            Responder::FenceWatcher => core::ResponderKind::FenceWatcher,
            Responder::Script | Responder::Nnf => core::ResponderKind::Other,
        };
        let stop_boot_ms = self.budget.stop_boot_ms();
        let mut waiting =
            Waiting::new(responder, stop_boot_ms, milliseconds(settings.poll_interval));
        if submitted.wait_fd().is_none() {
            self.progress
                .step("no watch is left: the agent looks for the answer from time to time");
        }
        let look = || look(spool, names, &expected);
        let mut event = Event::Looked(look());
        let outcome = loop {
            match waiting.next(event, boot_ms()) {
                Step::Wait(until) => {
                    let until = self.show(stop_boot_ms, until);
                    let signal = signals.wait(submitted.wait_fd(), until);
                    submitted.drain();
                    event = match signal {
                        Some(signal) => Event::Signal(signal, look()),
                        None => Event::Looked(look()),
                    };
                }
                Step::Withdraw => event = Event::Withdrawal(withdraw(spool, submitted), look()),
                Step::Done(outcome) => break outcome,
            }
        };
        let outcome = match outcome {
            Outcome::Unknown(_) | Outcome::Stuck(..) => {
                hand_over(submitted, look).unwrap_or(outcome)
            }
            decided => decided,
        };
        submitted.unwatch();
        let watcher = match outcome {
            Outcome::Success(_) => core::Serving::Alive,
            _ => watcher(spool),
        };
        let is_open = is_open(&outcome, spool, submitted);
        // A responder of another kind writes no audit, even if a watcher served the spool before
        // it.
        let has_watcher = match settings.responder {
            Responder::FenceWatcher => watcher != core::Serving::Never,
            Responder::Script | Responder::Nnf => watcher == core::Serving::Alive,
        };
        self.is_left_to_watcher = is_open && has_watcher;
        if let (Outcome::Success(answer), Some(why)) = (&outcome, &self.unnamed)
            && found_nothing(answer)
        {
            return nothing_was_fenced(settings, answer, why);
        }
        fence_ending(settings, outcome, self.elapsed(), watcher)
    }

    /// Shows the wait on a terminal, and returns the instant until which to wait.
    fn show(&mut self, stop_boot_ms: u64, until: u64) -> u64 {
        if !self.progress.is_watched() {
            return until;
        }
        let total = self.budget.elapsed(stop_boot_ms).as_secs();
        self.progress.waiting(&format!(
            "waiting for {}: {} of '{}' ({} s of {total} s)",
            self.settings.responder,
            self.settings.action,
            self.settings.target,
            self.elapsed().as_secs()
        ));
        until.min(boot_ms().saturating_add(1000))
    }

    fn conclude(mut self, end: FenceEnding, signals: &Signals) -> Ending {
        let status = if end.ending.is_success() {
            Status::Completed
        } else if self.is_left_to_watcher {
            Status::Unknown
        } else {
            Status::Failed
        };
        self.write_event(status, &end.details, Some(&end.result));
        let limit = self.budget.log(boot_ms());
        if let Some(audit) = &mut self.audit {
            for problem in audit.settle(limit) {
                self.say(Level::Warn, &problem);
                self.problems.push(problem);
            }
        }
        self.problems.extend(self.progress.settle(self.budget.log(boot_ms()).min(limit)));
        let may_show = end.on_follows && self.settings.is_by_hand && self.progress.is_watched();
        let ending = match &self.request_id {
            Some(id)
                if may_show && returning::show(self.settings, id, signals, &mut self.progress) =>
            {
                rebooted()
            }
            _ => end.ending,
        };
        ending.with_problems(&self.problems)
    }

    fn audit(&mut self) -> &mut LogProcess {
        let log_dir = &self.settings.log_dir;
        self.audit.get_or_insert_with(|| LogProcess::start(&Task::Audit(log_dir.clone())))
    }

    fn write_event(&mut self, status: Status, details: &str, result: Option<&AuditResult>) {
        let settings = self.settings;
        let duration_ms = result.map(|_| milliseconds(self.elapsed()));
        let event = AuditEvent {
            timestamp: Utc::now(),
            action: settings.action.as_str().to_owned(),
            target_node: settings.target.as_str().to_owned(),
            gfs2_filesystems: self.filesystems(),
            status,
            details: details.to_owned(),
            recorder_node: self.recorder_node.clone(),
            pacemaker_action: settings.action_word.clone(),
            request_id: self.request_id.as_ref().map(|id| id.as_str().to_owned()),
            result: result.cloned(),
            duration_ms,
            gfs2_discovery: self.discovery.as_ref().map(Discovery::to_record),
            on_result: None,
        };
        self.audit().record(&event);
        let level = match status {
            Status::Requested | Status::Completed => Level::Info,
            Status::Failed | Status::Unknown => Level::Error,
        };
        let line = format!(
            "{}: target={} action={} request={} result={} took_ms={} details={details}",
            status.as_str(),
            settings.target,
            settings.action,
            event.request_id.as_deref().unwrap_or("-"),
            result.map_or("-", AuditResult::as_str),
            duration_ms.unwrap_or(0),
        );
        self.say(level, &line);
    }

    fn say(&mut self, level: Level, text: &str) {
        if let Some(syslog) = &mut self.syslog {
            syslog.send(level, text);
        }
        self.progress.step(text);
    }

    fn elapsed(&self) -> Duration {
        self.budget.elapsed(boot_ms())
    }
}

/// The longest reason why it is not known whether Kubernetes has a node, in bytes.
const NAMING_BYTES_MAX: usize = 512;

fn look(spool: &ClientSpool, names: &[RecordName], expected: &Expected) -> AnswerSight {
    let answers: Vec<_> = names
        .iter()
        .filter_map(|name| match spool.look(name) {
            Look::Absent => None,
            Look::Found(bytes) => Some(expected.judge(&bytes)),
            Look::Refused(why) => Some(Judgement::Wrong(why)),
            Look::Failed(why) => Some(Judgement::NotYet(why)),
        })
        .collect();
    // Only an agent without an answer needs to know whether the watcher lives.
    let watcher = if answers.is_empty() { watcher(spool) } else { core::Serving::Alive };
    AnswerSight { answers, watcher }
}

/// Leaves a request that was taken to its taker. Returns the outcome of an answer that came at this
/// very moment, if its writer still saw the agent wait: then the agent reports the end after all.
fn hand_over(submitted: &Submitted, look: impl Fn() -> AnswerSight) -> Option<Outcome> {
    submitted.hand_over();
    let outcome = core::decided(&look())?;
    submitted.take_back().then_some(outcome)
}

/// Whether a responder may still have the request. A request that nobody has taken is withdrawn, so
/// that nobody takes it later.
fn is_open(outcome: &Outcome, spool: &ClientSpool, submitted: &Submitted) -> bool {
    match outcome {
        // The responder removes a request that it answered; a simple responder may fail if it is
        // gone.
        Outcome::WrongAnswer(_) => {
            withdraw(spool, submitted) != core::Withdrawal::Withdrawn
                && is_under_way(spool, submitted)
        }
        Outcome::Unknown(_) | Outcome::Stuck(..) => true,
        Outcome::Success(_) | Outcome::Failure(_) | Outcome::Withdrawn(_) => false,
    }
}

/// Whether a watcher still has the request, whatever file lies under the answer's name.
fn is_under_way(spool: &ClientSpool, submitted: &Submitted) -> bool {
    submitted.hand_over();
    let is_claimed = spool.stage(submitted.name()).is_ok_and(|stage| stage == Stage::Claimed);
    is_claimed || !submitted.take_back()
}

fn watcher(spool: &ClientSpool) -> core::Serving {
    match spool.watcher() {
        Liveness::Alive { .. } => core::Serving::Alive,
        Liveness::Dead { .. } => core::Serving::Dead,
        Liveness::Never => core::Serving::Never,
    }
}

fn withdraw(spool: &ClientSpool, submitted: &Submitted) -> core::Withdrawal {
    match spool.withdraw(submitted) {
        Ok(WithdrawOutcome::Withdrawn) => core::Withdrawal::Withdrawn,
        Ok(WithdrawOutcome::Taken) => core::Withdrawal::Taken,
        Err(error) => core::Withdrawal::Failed(error.to_string()),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
