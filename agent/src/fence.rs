//! `off`, `on` and `reboot`: one request, and the waiting for its answer.
//!
//! What an answer means and when to give up is decided in `fence_core::agent`; here its steps are
//! carried out, and each of them leaves its trace in the audit, which another process writes: a log
//! whose disk hangs holds up neither the request nor the answer. Whatever ends this process, the
//! request is void from then on, because nobody holds it any more.

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
    AuditResult, FenceResult, RecordName, Request, RequestId, Requested, bounded,
};
use fence_spool::{ClientSpool, Liveness, Look, SpoolError, Stage, Submitted, Withdrawal};
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

/// Fences, as `settings` says, for an agent that started at `start_boot_ms`.
pub(crate) fn run(settings: &FenceSettings, start_boot_ms: u64) -> Ending {
    let signals = Signals::take_over();
    let mut attempt = Attempt::new(settings, start_boot_ms);
    let (end, request) = attempt.carry_out(&signals);
    // Whoever gave up no longer holds its request while a log hangs. One that is done is dropped after
    // the audit, which leaves the kernel the time to forget its watch.
    let _request = request.filter(|_| end.ending.is_success());
    attempt.conclude(end, &signals)
}

/// One fence on its way.
struct Attempt<'a> {
    settings: &'a FenceSettings,
    budget: Budget,
    request_id: Option<RequestId>,
    /// None before it was time for it.
    discovery: Option<Discovery>,
    /// Why it is not known whether Kubernetes has the target, where that matters.
    unnamed: Option<String>,
    recorder_node: String,
    /// None before there was anything to write.
    audit: Option<LogProcess>,
    /// A watcher has the request and writes its end: the audit has one end for each.
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

    fn carry_out(&mut self, signals: &Signals) -> (FenceEnding, Option<Submitted>) {
        let settings = self.settings;
        for ignored in &settings.ignored {
            self.say(Level::Warn, &ignored.to_string());
            self.problems.extend(ignored.is_by_hand.then(|| ignored.to_string()));
        }
        if let Some(problem) = clock::problem() {
            let why = format!("nothing was requested: {problem}");
            return (failed(settings, FenceResult::Rejected, &why), None);
        }
        if let Some(signal) = self.sleep(signals) {
            let why = format!("stopped by {signal} during the delay; nothing was requested");
            return (failed(settings, FenceResult::Withdrawn, &why), None);
        }
        let (found, wrong_node, naming) = self.discover();
        // Whoever wants it to stop may have said so meanwhile, and nothing has been begun yet.
        if let Some(signal) = signals.wait(None, 0) {
            let why = format!("stopped by {signal}; nothing was requested");
            return (failed(settings, FenceResult::Withdrawn, &why), None);
        }
        if let Some(why) = wrong_node {
            return (
                failed(settings, FenceResult::Rejected, &format!("nothing was requested: {why}")),
                None,
            );
        }
        if settings.responder == Responder::Nnf
            && settings.action == fence_protocol::FenceAction::On
        {
            return (nothing_to_do(), None);
        }
        let found = match naming {
            None | Some(Naming::Known) => found,
            // The site says nowhere where Kubernetes is: that plug is a name of its own is the site's word.
            Some(Naming::NotAsked(why)) => {
                format!("{found}; {}", bounded(&why, NAMING_BYTES_MAX))
            }
            Some(Naming::NotKnown(why)) => {
                let why = bounded(&why, NAMING_BYTES_MAX);
                let found = format!("{found}; {why}");
                self.unnamed = Some(why);
                found
            }
            Some(Naming::Unknown(why)) => {
                let why = format!("nothing was requested: {why}");
                return (failed(settings, FenceResult::Rejected, &why), None);
            }
        };
        let id = RequestId::random();
        let names = match settings.responder.names(&settings.target, &id) {
            Ok(names) => names,
            Err(error) => {
                return (failed(settings, FenceResult::Rejected, &error.to_string()), None);
            }
        };
        self.request_id = Some(id.clone());
        let submitted = self.submit(&id, &names);
        // Only now: nothing that a log costs may delay the request.
        self.record(Status::Requested, &self.introduction(&found), None);
        match submitted {
            Ok((spool, submitted)) => {
                let end = self.wait(signals, &id, &names, &spool, &submitted);
                (end, Some(submitted))
            }
            Err(error) => (
                failed(settings, FenceResult::Rejected, &format!("nothing was requested: {error}")),
                None,
            ),
        }
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

    /// Learns which file systems the target holds, and gives it in words; whether the target is the
    /// name of another node than the cluster means; and what Kubernetes says about the name, where it
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
            let naming = match asked {
                Some(Ok(asked)) => asked.join().unwrap_or_else(|_| ask()),
                // There are no threads left.
                Some(Err(_)) => ask(),
                None => None,
            };
            (discovery, wrong_node.flatten(), naming)
        });
        let words = discovery.to_words();
        self.discovery = Some(discovery);
        (words, wrong_node, naming)
    }

    /// The names of the file systems, as far as they are known.
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
        // Before there is a lock on the request: an agent that is killed must leave no child that bears it.
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
            self.progress.step("no watch is left: looking from time to time instead");
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
        // A responder of another kind writes no audit, whatever watcher served the spool before it.
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

    /// Shows the waiting to whoever sees it, and gives the instant until which to wait.
    fn show(&mut self, stop_boot_ms: u64, until: u64) -> u64 {
        if !self.progress.is_watched() {
            return until;
        }
        let whom = match self.settings.responder {
            Responder::FenceWatcher => "fence-watcher",
            Responder::Script => "the responder",
            Responder::Nnf => "nnf-sos",
        };
        let total = self.budget.elapsed(stop_boot_ms).as_secs();
        self.progress.waiting(&format!(
            "waiting for {whom}: {} of '{}' ({} s of {total} s)",
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
        self.record(status, &end.details, Some(&end.result));
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

    fn record(&mut self, status: Status, details: &str, result: Option<&AuditResult>) {
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
        self.say(
            level,
            &format!(
                "{}: target={} action={} request={} result={} took_ms={} details={details}",
                status.as_str(),
                settings.target,
                settings.action,
                event.request_id.as_deref().unwrap_or("-"),
                result.map_or("-", AuditResult::as_str),
                duration_ms.unwrap_or(0),
            ),
        );
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

/// The longest reason for which it is not known whether Kubernetes has a node.
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
    // Whether it lives matters only to one who has nothing to read.
    let watcher = if answers.is_empty() { watcher(spool) } else { core::Serving::Alive };
    AnswerSight { answers, watcher }
}

/// Leaves a request that somebody took to who took it. Gives what the answer says that came at this
/// very moment, if its writer saw us wait for it: then the end is ours after all.
fn hand_over(submitted: &Submitted, look: impl Fn() -> AnswerSight) -> Option<Outcome> {
    submitted.hand_over();
    let outcome = core::decided(&look())?;
    submitted.take_back().then_some(outcome)
}

/// Whether a responder may still have the request. One that nobody has dealt with is taken back: nobody
/// may do so later.
fn is_open(outcome: &Outcome, spool: &ClientSpool, submitted: &Submitted) -> bool {
    match outcome {
        // An answered one is the responder's to remove, and a simple one may fail when it finds it gone.
        Outcome::WrongAnswer(_) => {
            withdraw(spool, submitted) != core::Withdrawal::Withdrawn
                && is_under_way(spool, submitted)
        }
        Outcome::Unknown(_) | Outcome::Stuck(..) => true,
        Outcome::Success(_) | Outcome::Failure(_) | Outcome::Withdrawn(_) => false,
    }
}

/// Whether the request is left to a watcher that still has it, whatever else lies there as an answer.
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
        Ok(Withdrawal::Withdrawn) => core::Withdrawal::Withdrawn,
        Ok(Withdrawal::Taken) => core::Withdrawal::Taken,
        Err(error) => core::Withdrawal::Failed(error.to_string()),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
