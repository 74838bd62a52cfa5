//! What happens, and what must never happen.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use fence_core::Now;
use fence_core::agent::{Expected, Outcome};
use fence_core::execution::{Abilities, Verdict};
use fence_core::watcher::Event;
use fence_protocol::{
    FenceAction, FenceResult, NodeName, PowerState, RecordName, Request, RequestId, Requested,
};

use crate::action::{Action, Budget, Config, Mutation, Reaction};
use crate::actors::{Agent, Deed, Place, Todo, WatcherProcess};
use crate::disk::{Dir, Disk};
use crate::setup::{SHARED, Setup};

/// What each device of this world can do.
pub(crate) const ABLE: Abilities = Abilities { off: true, on: true, cycle: false, power: true };

/// The true state, whatever the files say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Birth {
    pub(crate) boot: u32,
    pub(crate) at_boot_ms: u64,
    pub(crate) deadline_boot_ms: u64,
    pub(crate) agent: Option<usize>,
    /// The wall clock was set back while the file existed: its age cannot be known from files.
    pub(crate) age_is_lost: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ledger {
    pub(crate) births: BTreeMap<RequestId, Birth>,
    pub(crate) executed: BTreeMap<RequestId, u32>,
    pub(crate) executions: u32,
    pub(crate) withdrawn: BTreeSet<RequestId>,
    /// Identities that an older client uses: an agent may withdraw its file of such an identity
    /// while another file remains.
    pub(crate) shared: BTreeSet<RequestId>,
    pub(crate) proven: BTreeSet<RequestId>,
    /// What other implementations of watchers executed.
    pub(crate) taken: BTreeSet<RequestId>,
    pub(crate) claimed: BTreeSet<RecordName>,
    pub(crate) checked: BTreeSet<RecordName>,
    /// Answered reboots whose power-on has no recorded outcome yet.
    pub(crate) on_due: BTreeSet<RequestId>,
    /// Reboots whose power-on has a recorded outcome.
    pub(crate) on_noted: BTreeSet<RequestId>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub(crate) config: Config,
    pub(crate) budget: Budget,
    /// The current content of the configuration file.
    pub(crate) setup: Setup,
    pub(crate) boot: u32,
    pub(crate) now: Now,
    pub(crate) disk: Disk,
    pub(crate) agents: Vec<Agent>,
    pub(crate) watchers: Vec<Option<WatcherProcess>>,
    pub(crate) power: BTreeMap<NodeName, PowerState>,
    /// Files that a living client must still complete.
    pub(crate) half_written: BTreeSet<String>,
    pub(crate) ledger: Ledger,
    pub(crate) ids: u32,
    violation: Option<String>,
}

/// How long a watcher that was asked to stop serves free devices.
pub(crate) const STOP_MS: u64 = 45_000;

const WALL_MS: i64 = 1_800_000_000_000;

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(config: Config) -> Self {
        World {
            config,
            budget: config.budget,
            setup: config.setup,
            boot: 1,
            now: Now { boot_ms: 10_000, wall_ms: WALL_MS },
            disk: Disk::default(),
            agents: Vec::new(),
            watchers: vec![None; config.watchers],
            power: BTreeMap::new(),
            half_written: BTreeSet::new(),
            ledger: Ledger::default(),
            ids: 0,
            violation: None,
        }
    }

    /// The invariant that was broken, and how.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The total number of executions that were started.
    pub fn executions(&self) -> u32 {
        self.ledger.executions
    }

    /// The number of agents that succeeded.
    pub fn successes(&self) -> usize {
        let success = |a: &&Agent| matches!(a.place, Place::Ended(Some(Outcome::Success(_))));
        self.agents.iter().filter(success).count()
    }

    /// Carries out `action` and checks the invariants.
    pub fn apply(&mut self, action: &Action) {
        self.spend(action);
        match action {
            Action::NewAgent(target, fence) => self.new_agent(*target, *fence),
            Action::AgentStep(index) => self.agent_step(*index, false),
            Action::SignalAgent(index) => self.agent_step(*index, true),
            Action::KillAgent(index) => {
                self.agents[*index].place = Place::Ended(None);
                self.disk.release(*index);
            }
            Action::StartWatcher(index) => self.start_watcher(*index),
            Action::WatcherStep(index) => self.watcher_step(*index),
            Action::Hear(index, name) => {
                if let (Some(watcher), Some(name)) =
                    (&mut self.watchers[*index], RecordName::from_file_name(name))
                {
                    watcher.todo.push_back(Todo::Look(name));
                }
            }
            Action::Rescan(index) => {
                self.watchers[*index].iter_mut().for_each(|w| w.todo.push_back(Todo::Scan));
            }
            Action::Tick(index) => self.feed(*index, Event::Tick),
            Action::Reload(index, setup) => {
                self.setup = *setup;
                let now = self.watcher_now();
                if let Some(watcher) = &mut self.watchers[*index] {
                    watcher.reload(&self.config, *setup, self.boot, now);
                    self.check_joins(*index);
                }
            }
            Action::StopWatcher(index) => self.stop_watcher(*index),
            Action::KillWatcher(index) => self.watchers[*index] = None,
            Action::Device(index, name, reaction) => self.device(*index, name, *reaction),
            Action::PowerOn(index, id, reaction) => self.power_on(*index, id, *reaction),
            Action::Told(index) => self.tell(*index),
            Action::List(index, succeeds) => {
                let device = self.watchers[*index].as_mut().and_then(|w| w.asked.pop_front());
                let targets = (0..self.config.targets).map(Self::target).collect();
                if let Some(device) = device {
                    self.feed(*index, Event::Targets(device, succeeds.then_some(targets)));
                }
            }
            Action::CrashHost(bits) => self.crash_host(*bits),
            Action::FillDisk(is_full) => self.disk.is_full = *is_full,
            Action::StepClock(by_ms) => {
                self.now.wall_ms += by_ms;
                if *by_ms < 0 {
                    self.ledger.births.values_mut().for_each(|birth| birth.age_is_lost = true);
                }
            }
            Action::Advance(span_ms) => {
                self.now.boot_ms += span_ms;
                self.now.wall_ms += i64::try_from(*span_ms).unwrap_or(0);
            }
            Action::ForeignRequest(kind, target) => self.foreign_request(*kind, *target),
            Action::ForeignCompletes(name) => self.foreign_completes(name),
            Action::ForeignTakes(name) => self.foreign_takes(name),
            Action::ForeignAnswer(index, kind) => self.foreign_answer(*index, *kind),
        }
        self.check_idle();
    }

    /// The watcher learns what an execution or a power-on has reported.
    fn tell(&mut self, index: usize) {
        let told = self.watchers[index].as_mut().and_then(|w| w.told.pop_front());
        if let Some(mut event) = told {
            if let Event::Finished(_, verdict) = &mut event {
                self.mutate_end(verdict);
            }
            self.feed(index, event);
            self.end_if_stopped(index);
        }
    }

    fn stop_watcher(&mut self, index: usize) {
        let serve_until = match self.config.mutation {
            Some(Mutation::StopServesNobody) => None,
            _ => Some(self.now.boot_ms + STOP_MS),
        };
        if let Some(watcher) = &mut self.watchers[index] {
            watcher.stopping = Some(watcher.core.begun().cloned().collect());
            watcher.stopped_boot_ms = self.now.boot_ms;
        }
        if self.config.mutation != Some(Mutation::StopForgotten) {
            self.feed(index, Event::Stop(serve_until));
        }
        self.end_if_stopped(index);
    }

    fn start_watcher(&mut self, index: usize) {
        let process = WatcherProcess::start(&self.config, self.setup, self.boot, &self.disk);
        self.watchers[index] = Some(process);
        if self.config.mutation == Some(Mutation::RetryAfterCrash) {
            for name in self.disk.list(Dir::Claimed) {
                self.disk.rename(Dir::Claimed, &name, Dir::Requests, &name);
            }
        }
    }

    fn spend(&mut self, action: &Action) {
        let budget = &mut self.budget;
        let count = match action {
            Action::NewAgent(..) => &mut budget.agents,
            Action::KillAgent(_) => &mut budget.agent_kills,
            Action::SignalAgent(_) => &mut budget.signals,
            Action::KillWatcher(_) => &mut budget.watcher_kills,
            Action::StopWatcher(_) => &mut budget.watcher_stops,
            Action::Reload(..) => &mut budget.reloads,
            Action::CrashHost(_) => &mut budget.host_crashes,
            Action::FillDisk(true) => &mut budget.full_disks,
            Action::StepClock(_) => &mut budget.clock_steps,
            Action::ForeignRequest(..) => &mut budget.foreign_requests,
            Action::ForeignAnswer(..) | Action::ForeignTakes(_) => &mut budget.foreign_answers,
            Action::Device(.., reaction) | Action::PowerOn(.., reaction)
                if *reaction != Reaction::Honest =>
            {
                &mut budget.device_faults
            }
            Action::Advance(7_000) => &mut budget.idle_spans,
            _ => return,
        };
        *count = count.saturating_sub(1);
    }

    pub(crate) fn new_id(&mut self) -> RequestId {
        self.ids += 1;
        let text = format!("00000000-0000-4000-8000-{:012}", self.ids);
        text.parse().expect("the text has a UUID's form")
    }

    pub(crate) fn target(index: u8) -> NodeName {
        format!("n{index}").parse().expect("a letter and digits are a name")
    }

    fn new_agent(&mut self, target: u8, action: FenceAction) {
        let (request_id, target) = (self.new_id(), Self::target(target));
        let deadline_boot_ms = self.now.boot_ms + self.config.patience_ms;
        let request = Request {
            request_id: request_id.clone(),
            timestamp: instant(self.now.wall_ms),
            action: Requested::Fence(action),
            target_node: Some(target.clone()),
            gfs2_filesystems: Vec::new(),
            recorder_node: String::new(),
            deadline: None,
            boot_id: Some(format!("boot-{}", self.boot)),
            deadline_boottime_ms: Some(deadline_boot_ms),
            device: (self.config.is_named && self.ids.is_multiple_of(2)).then(|| SHARED.to_owned()),
            held: true,
        };
        let index = self.agents.len();
        let birth = Birth {
            boot: self.boot,
            at_boot_ms: self.now.boot_ms,
            deadline_boot_ms,
            agent: Some(index),
            age_is_lost: false,
        };
        self.ledger.births.insert(request_id.clone(), birth);
        self.agents.push(Agent {
            name: RecordName::of_id(&request_id),
            expected: Expected { request_id, target, action },
            request,
            stop_boot_ms: deadline_boot_ms + 1_000,
            place: Place::Start,
        });
        if self.config.is_small {
            // No process sees a file under its temporary name.
            self.agent_step(index, false);
        }
    }

    fn agent_step(&mut self, index: usize, signalled: bool) {
        let agent = &mut self.agents[index];
        agent.step(index, signalled, &mut self.disk, self.now);
        let id = agent.request.request_id.clone();
        match &agent.place {
            Place::Tried(_, fence_core::agent::Withdrawal::Withdrawn) => {
                self.ledger.withdrawn.insert(id);
            }
            Place::Ended(Some(Outcome::Success(_))) if !self.ledger.proven.contains(&id) => {
                self.broken(format!("S3: agent {index} succeeded without proof"));
            }
            _ => {}
        }
    }

    /// The time from the watcher's view.
    pub(crate) fn watcher_now(&self) -> Now {
        match self.config.mutation {
            Some(Mutation::NoDeadlineCheck) => Now { boot_ms: 10_000, ..self.now },
            _ => self.now,
        }
    }

    pub(crate) fn feed(&mut self, index: usize, event: Event) {
        let now = self.watcher_now();
        if let Some(watcher) = &mut self.watchers[index] {
            watcher.feed(event, now);
        }
        self.check_joins(index);
    }

    fn watcher_step(&mut self, index: usize) {
        let now = self.watcher_now();
        self.mutate(index, now);
        let Some(watcher) = &mut self.watchers[index] else { return };
        let deed = watcher.step(&mut self.disk, now);
        self.check_joins(index);
        match deed {
            Deed::Nothing => {}
            Deed::Claimed(name) => {
                self.ledger.claimed.insert(name);
            }
            Deed::Checked(name) => {
                let agent = self.agents.iter().find(|agent| agent.name == name);
                if agent.is_some_and(|agent| !agent.is_alive()) {
                    self.broken(format!("S4: {name} is started, but no client waits for it"));
                }
                self.ledger.checked.insert(name);
            }
            Deed::Begun(name) => self.check_begin(index, &name),
            Deed::Answered(name, Some(answer)) => {
                if answer.result == FenceResult::Success {
                    self.check_success(index, &name, &answer);
                }
            }
            Deed::Answered(name, None) => self.note_answered(&name),
            Deed::PoweredOn(id) => self.check_power_on(index, &id),
            Deed::Returned(id) => {
                if self.config.mutation != Some(Mutation::OnForgottenWhenAnswered) {
                    self.ledger.on_due.remove(&id);
                    self.ledger.on_noted.insert(id);
                }
            }
        }
        self.end_if_stopped(index);
    }

    /// A process that was asked to stop ends when it has nothing left to do.
    fn end_if_stopped(&mut self, index: usize) {
        let is_over =
            |w: &WatcherProcess| w.stopping.is_some() && w.todo.is_empty() && w.core.is_idle();
        if self.watchers[index].as_ref().is_some_and(is_over) {
            self.watchers[index] = None;
        }
    }

    /// Injects a bug into what an execution reports at its end.
    fn mutate_end(&self, verdict: &mut Verdict) {
        match (self.config.mutation, &mut verdict.off) {
            (Some(Mutation::SecondFenceForOneDeath), off) => *off = None,
            (Some(Mutation::FenceBeforeDeathCounts), Some(off)) => off.at_boot_ms = u64::MAX,
            _ => {}
        }
    }

    /// Injects the bug.
    fn mutate(&mut self, index: usize, now: Now) {
        use fence_core::watcher::{Claim, Effect};
        let Some(watcher) = &mut self.watchers[index] else { return };
        let next = match watcher.todo.front() {
            Some(Todo::Effect(effect)) => Some(effect.as_ref()),
            _ => None,
        };
        match (self.config.mutation, next) {
            (Some(Mutation::ClaimAfterStart), Some(Effect::Claim { name, .. })) => {
                let name = name.clone();
                let Some(file) = self.disk.file(Dir::Requests, &name.file_name()) else { return };
                let parsed = Request::parse(&file.bytes);
                let claim = Claim::Claimed { parsed, client_gone: false, begun_before: false };
                let later = watcher.todo.pop_front();
                watcher.feed(Event::Claim(name, claim), now);
                watcher.todo.extend(later);
            }
            (Some(Mutation::DeleteBeforeAnswer), Some(Effect::Answer(name, ..))) => {
                self.disk.unlink(Dir::Claimed, &name.file_name());
            }
            (Some(Mutation::IdentityForgotten), _) => {
                for id in self.disk.list(Dir::Started) {
                    self.disk.unlink(Dir::Started, &id);
                }
            }
            (Some(Mutation::ClientNotChecked), _) => self.pretend_that_it_is_held(index),
            _ => {}
        }
    }

    /// Every look finds the lock on the claimed file taken, though no process holds it.
    fn pretend_that_it_is_held(&mut self, index: usize) {
        let Some(watcher) = &self.watchers[index] else { return };
        let Some(Todo::Claimed(name, _)) = watcher.todo.front() else { return };
        let name = name.file_name();
        if let Some(file) = self.disk.file(Dir::Claimed, &name)
            && file.held_by.is_none()
        {
            let (bytes, mtime_ms) = (file.bytes.clone(), file.mtime_ms);
            self.disk.unlink(Dir::Claimed, &name);
            self.disk.create(Dir::Claimed, &name, bytes, mtime_ms, Some(usize::MAX), true);
        }
    }

    fn crash_host(&mut self, bits: u64) {
        for index in 0..self.agents.len() {
            if self.agents[index].is_alive() {
                self.agents[index].place = Place::Ended(None);
            }
        }
        self.watchers.iter_mut().for_each(|watcher| *watcher = None);
        if self.config.in_memory {
            self.disk.lose_everything();
            self.ledger.claimed.clear();
            // No request is left that could start again; a reused identity is a new one.
            self.ledger.executed.clear();
        } else {
            self.disk.crash(bits);
            let disk = &self.disk;
            self.ledger.claimed.retain(|name| disk.has(Dir::Claimed, &name.file_name()));
        }
        self.ledger.checked.clear();
        // The recorded outcomes of power-ons may be lost with the logs.
        self.ledger.on_due.clear();
        self.half_written.clear();
        self.boot += 1;
        self.now.boot_ms = 10_000;
        self.now.wall_ms += 30_000;
    }

    pub(crate) fn broken(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

pub(crate) fn instant(wall_ms: i64) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp_millis(wall_ms).unwrap_or_default()
}
