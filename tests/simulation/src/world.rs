//! What can happen next, and what must never have happened.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use fence_core::Now;
use fence_core::agent::{Expected, Outcome};
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport, Report, Step, Verdict};
use fence_core::watcher::{Event, Job};
use fence_protocol::{
    FenceAction, FenceResult, NodeName, PowerState, RecordName, Request, RequestId, Requested,
};

use crate::actors::{Agent, Deed, Execution, Place, Todo, WatcherProcess};
use crate::disk::{Dir, Disk};

/// What the one device of this world can do.
pub(crate) const ABLE: Abilities = Abilities { off: true, on: true, cycle: false, power: true };

/// How a world is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// How many targets there are.
    pub targets: u8,
    /// How many executions the device allows at the same time.
    pub max_concurrent: usize,
    /// The spool lies in memory: a crash of the host loses it.
    pub in_memory: bool,
    /// How many watcher processes there can be. With the lock only one of them lives at a time.
    pub watchers: usize,
    /// The watchers respect the lock that keeps them apart. Without it only S1 to S4 can hold.
    pub lock: bool,
    /// Keeps a small world small: pauses between two looks at the power take no time, there is no
    /// reboot, older clients are whole ones, and a look at the directory is a look at each file.
    pub is_small: bool,
    /// How long an agent waits, in milliseconds.
    pub patience_ms: u64,
    /// What may go wrong, and how often.
    pub budget: Budget,
    /// A bug that is put in, to show that it is found.
    pub mutation: Option<Mutation>,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// New agents.
    pub agents: u8,
    /// SIGKILL to an agent.
    pub agent_kills: u8,
    /// SIGTERM to an agent.
    pub signals: u8,
    /// SIGKILL to a watcher.
    pub watcher_kills: u8,
    /// SIGTERM to a watcher.
    pub watcher_stops: u8,
    /// Crashes of the host.
    pub host_crashes: u8,
    /// Times that the disk gets full.
    pub full_disks: u8,
    /// Steps of the wall clock.
    pub clock_steps: u8,
    /// Requests of older clients, and files that are none.
    pub foreign_requests: u8,
    /// Answers by others, most of them wrong.
    pub foreign_answers: u8,
    /// Odd behaviour of the device.
    pub device_faults: u8,
    /// Spans of time that pass for no reason.
    pub idle_spans: u8,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The action is started, and the request claimed afterwards.
    ClaimAfterStart,
    /// Nobody looks at the clock before an action.
    NoDeadlineCheck,
    /// An order that was acknowledged counts as done.
    AnswerBeforeConfirmation,
    /// The claimed file is removed before its answer is written.
    DeleteBeforeAnswer,
    /// What was under way at a crash is done again.
    RetryAfterCrash,
    /// A request is executed although its client is gone.
    ClientNotChecked,
    /// An identity that was begun is forgotten when its file's name does not show it.
    IdentityForgotten,
}

/// One thing that can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An agent is started: its target and its action.
    NewAgent(u8, FenceAction),
    /// An agent does its next step.
    AgentStep(usize),
    /// An agent gets SIGTERM.
    SignalAgent(usize),
    /// An agent gets SIGKILL.
    KillAgent(usize),
    /// A watcher process starts.
    StartWatcher(usize),
    /// A watcher does its next step.
    WatcherStep(usize),
    /// A watcher hears of a file through inotify.
    Hear(usize, String),
    /// A watcher looks through the directory.
    Rescan(usize),
    /// A timer of a watcher goes off.
    Tick(usize),
    /// A watcher gets SIGTERM.
    StopWatcher(usize),
    /// A watcher gets SIGKILL; its children die with it.
    KillWatcher(usize),
    /// The device does something about an execution.
    Device(usize, String, Reaction),
    /// A watcher learns that an execution is over.
    Finish(usize),
    /// The host crashes and boots; the bits tell what of the unsynced is left.
    CrashHost(u64),
    /// The disk becomes full, or writable again.
    FillDisk(bool),
    /// The wall clock is set, by so many milliseconds.
    StepClock(i64),
    /// Time passes.
    Advance(u64),
    /// An older client writes a file: its kind, its target.
    ForeignRequest(u8, u8),
    /// It goes on writing a file that it began.
    ForeignCompletes(String),
    /// Somebody else writes an answer to an agent: its kind.
    ForeignAnswer(usize, u8),
}

/// What the device does about an order or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// It does what it is told and says so; it shows what is so.
    Honest,
    /// It says yes and does nothing.
    Lies,
    /// It does it and says nothing.
    SilentlyDoes,
    /// It cannot be reached.
    Unreachable,
    /// It hangs until the limit and does it then.
    Hangs,
    /// It does not show the state.
    Mute,
}

/// What is true, whatever the files say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Birth {
    boot: u32,
    deadline_boot_ms: u64,
    agent: Option<usize>,
    /// The wall clock was set back while it lay there: its age cannot be known from files.
    age_is_lost: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ledger {
    births: BTreeMap<RequestId, Birth>,
    executed: BTreeMap<RequestId, u32>,
    executions: u32,
    withdrawn: BTreeSet<RequestId>,
    /// Identities that an older client uses: what an agent withdraws of them is not all there is.
    shared: BTreeSet<RequestId>,
    proven: BTreeSet<RequestId>,
    claimed: BTreeSet<RecordName>,
    checked: BTreeSet<RecordName>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    config: Config,
    budget: Budget,
    boot: u32,
    now: Now,
    disk: Disk,
    agents: Vec<Agent>,
    watchers: Vec<Option<WatcherProcess>>,
    power: BTreeMap<NodeName, PowerState>,
    /// Files that a client which lives has still to complete.
    half_written: BTreeSet<String>,
    ledger: Ledger,
    ids: u32,
    violation: Option<String>,
}

/// When the time of a small world is over: everybody's deadline has passed by then.
const SMALL_WORLD_ENDS_MS: u64 = 33_000;

const WALL_MS: i64 = 1_800_000_000_000;

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(config: Config) -> Self {
        World {
            config,
            budget: config.budget,
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

    /// How many executions were started in all.
    pub fn executions(&self) -> u32 {
        self.ledger.executions
    }

    /// How many agents succeeded.
    pub fn successes(&self) -> usize {
        let success = |a: &&Agent| matches!(a.place, Place::Ended(Some(Outcome::Success(_))));
        self.agents.iter().filter(success).count()
    }

    /// All that can happen next, without faults if `calm`.
    pub fn actions(&self, calm: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.violation.is_some() {
            return actions;
        }
        for (index, agent) in self.agents.iter().enumerate().filter(|(_, a)| a.is_alive()) {
            // Between two looks nothing changes by looking again, but for the clock.
            if self.agent_can_move(agent) {
                actions.push(Action::AgentStep(index));
            }
        }
        for index in 0..self.watchers.len() {
            self.watcher_actions(index, calm, &mut actions);
        }
        if let Some(span) = self.next_instant() {
            actions.push(Action::Advance(span));
        }
        if !calm {
            self.faults(&mut actions);
        }
        actions
    }

    fn agent_can_move(&self, agent: &Agent) -> bool {
        match &agent.place {
            Place::Waiting(_) => {
                let answers = [agent.name.file_name(), agent.other_name()];
                self.now.boot_ms >= agent.stop_boot_ms
                    || answers.iter().any(|name| self.disk.has(Dir::Responses, name))
            }
            _ => true,
        }
    }

    fn watcher_actions(&self, index: usize, calm: bool, actions: &mut Vec<Action>) {
        let Some(watcher) = &self.watchers[index] else {
            let is_free = !self.config.lock || self.watchers.iter().all(Option::is_none);
            if is_free && (!calm || index == 0) {
                actions.push(Action::StartWatcher(index));
            }
            return;
        };
        for (name, execution) in &watcher.executions {
            self.device_actions(index, name, &execution.step, calm, actions);
        }
        if !watcher.todo.is_empty() {
            actions.push(Action::WatcherStep(index));
            return;
        }
        if !watcher.finished.is_empty() {
            actions.push(Action::Finish(index));
        }
        if watcher.core.next_tick_boot_ms().is_some_and(|at| at <= self.now.boot_ms) {
            actions.push(Action::Tick(index));
        }
        for file_name in self.disk.list(Dir::Requests) {
            let Some(name) = RecordName::from_file_name(&file_name) else { continue };
            let is_dull = calm || self.config.is_small;
            if !is_dull || !watcher.core.knows(&name) {
                actions.push(Action::Hear(index, file_name));
            }
        }
    }

    fn device_actions(
        &self,
        index: usize,
        name: &RecordName,
        step: &Step,
        calm: bool,
        actions: &mut Vec<Action>,
    ) {
        let mut push = |reaction| {
            actions.push(Action::Device(index, name.as_str().to_owned(), reaction));
        };
        match step {
            Step::Pause(_) | Step::Done(_) => {
                let execution = self.watchers[index].as_ref().and_then(|w| w.executions.get(name));
                let is_over =
                    |e: &Execution| self.config.is_small || self.now.boot_ms >= e.until_boot_ms;
                if execution.is_some_and(is_over) {
                    push(Reaction::Honest);
                }
            }
            Step::Order(..) | Step::AskPower(_) => {
                push(Reaction::Honest);
                if !calm && self.budget.device_faults > 0 {
                    let faults: &[_] = match step {
                        Step::Order(..) => &[
                            Reaction::Lies,
                            Reaction::SilentlyDoes,
                            Reaction::Unreachable,
                            Reaction::Hangs,
                        ],
                        _ => &[Reaction::Mute, Reaction::Hangs],
                    };
                    for fault in faults {
                        push(*fault);
                    }
                }
            }
        }
    }

    fn faults(&self, actions: &mut Vec<Action>) {
        let budget = &self.budget;
        for target in 0..self.config.targets {
            if budget.agents > 0 {
                actions.push(Action::NewAgent(target, FenceAction::Off));
                if !self.config.is_small {
                    actions.push(Action::NewAgent(target, FenceAction::Reboot));
                }
            }
            if budget.foreign_requests > 0 {
                let kinds: &[u8] = if self.config.is_small { &[0, 3] } else { &[0, 1, 2, 3, 4] };
                actions.extend(kinds.iter().map(|kind| Action::ForeignRequest(*kind, target)));
            }
        }
        for (index, _) in self.agents.iter().enumerate().filter(|(_, a)| a.is_alive()) {
            if budget.agent_kills > 0 {
                actions.push(Action::KillAgent(index));
            }
            if budget.signals > 0 && matches!(self.agents[index].place, Place::Waiting(_)) {
                actions.push(Action::SignalAgent(index));
            }
            if budget.foreign_answers > 0 {
                actions.extend((0..5).map(|kind| Action::ForeignAnswer(index, kind)));
            }
        }
        for (index, _) in self.watchers.iter().enumerate().filter(|(_, w)| w.is_some()) {
            if budget.watcher_kills > 0 {
                actions.push(Action::KillWatcher(index));
            }
            if budget.watcher_stops > 0 {
                actions.push(Action::StopWatcher(index));
            }
            let is_free = self.watchers[index].as_ref().is_some_and(|w| w.todo.is_empty());
            if is_free && !self.config.is_small && !self.disk.list(Dir::Requests).is_empty() {
                actions.push(Action::Rescan(index));
            }
        }
        if budget.host_crashes > 0 {
            actions.extend([0, u64::MAX, 0x5555_5555_5555_5555].map(Action::CrashHost));
        }
        if budget.full_disks > 0 || self.disk.is_full {
            actions.push(Action::FillDisk(!self.disk.is_full));
        }
        if budget.clock_steps > 0 {
            actions.extend([3_600_000, -3_600_000, -20_000].map(Action::StepClock));
        }
        if budget.idle_spans > 0 {
            actions.push(Action::Advance(7_000));
        }
        actions.extend(self.half_written.iter().cloned().map(Action::ForeignCompletes));
    }

    /// How long until a clock moves somebody on; `None` when nobody waits for one.
    fn next_instant(&self) -> Option<u64> {
        if self.config.is_small && self.now.boot_ms > SMALL_WORLD_ENDS_MS {
            return None;
        }
        let agents = self.agents.iter().filter(|a| a.is_alive()).map(|a| a.stop_boot_ms);
        let watchers = self.watchers.iter().flatten().flat_map(|watcher| {
            let pausing = watcher.executions.values().filter(|_| !self.config.is_small);
            let pauses = pausing.map(|execution| execution.until_boot_ms);
            watcher.core.next_tick_boot_ms().into_iter().chain(pauses).collect::<Vec<_>>()
        });
        let next = agents.chain(watchers).filter(|at| *at > self.now.boot_ms).min()?;
        Some(next - self.now.boot_ms)
    }

    /// Does `action` and checks the invariants.
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
            Action::StartWatcher(index) => {
                let process = WatcherProcess::start(&self.config, self.boot, &self.disk);
                self.watchers[*index] = Some(process);
                if self.config.mutation == Some(Mutation::RetryAfterCrash) {
                    for name in self.disk.list(Dir::Claimed) {
                        self.disk.rename(Dir::Claimed, &name, Dir::Requests, &name);
                    }
                }
            }
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
            Action::StopWatcher(index) => {
                if let Some(watcher) = &mut self.watchers[*index] {
                    watcher.is_stopping = true;
                }
                self.feed(*index, Event::Stop);
                self.end_if_stopped(*index);
            }
            Action::KillWatcher(index) => self.watchers[*index] = None,
            Action::Device(index, name, reaction) => self.device(*index, name, *reaction),
            Action::Finish(index) => {
                let finished = self.watchers[*index].as_mut().and_then(|w| w.finished.pop_front());
                if let Some((name, verdict)) = finished {
                    self.feed(*index, Event::Finished(name, verdict));
                    self.end_if_stopped(*index);
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
            Action::ForeignAnswer(index, kind) => self.foreign_answer(*index, *kind),
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
            Action::CrashHost(_) => &mut budget.host_crashes,
            Action::FillDisk(true) => &mut budget.full_disks,
            Action::StepClock(_) => &mut budget.clock_steps,
            Action::ForeignRequest(..) => &mut budget.foreign_requests,
            Action::ForeignAnswer(..) => &mut budget.foreign_answers,
            Action::Device(.., reaction) if *reaction != Reaction::Honest => {
                &mut budget.device_faults
            }
            Action::Advance(7_000) => &mut budget.idle_spans,
            _ => return,
        };
        *count = count.saturating_sub(1);
    }

    fn new_id(&mut self) -> RequestId {
        self.ids += 1;
        let text = format!("00000000-0000-4000-8000-{:012}", self.ids);
        text.parse().expect("the text has a UUID's form")
    }

    fn target(index: u8) -> NodeName {
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
            device: None,
            held: true,
        };
        let index = self.agents.len();
        let birth =
            Birth { boot: self.boot, deadline_boot_ms, agent: Some(index), age_is_lost: false };
        self.ledger.births.insert(request_id.clone(), birth);
        self.agents.push(Agent {
            name: RecordName::of_id(&request_id),
            expected: Expected { request_id, target, action },
            request,
            stop_boot_ms: deadline_boot_ms + 1_000,
            place: Place::Start,
        });
        if self.config.is_small {
            // Nobody sees what is written under a temporary name.
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
                self.broken(format!("S3: agent {index} succeeded and nothing proves it"));
            }
            _ => {}
        }
    }

    /// The time as the watcher sees it.
    fn watcher_now(&self) -> Now {
        match self.config.mutation {
            Some(Mutation::NoDeadlineCheck) => Now { boot_ms: 10_000, ..self.now },
            _ => self.now,
        }
    }

    fn feed(&mut self, index: usize, event: Event) {
        let now = self.watcher_now();
        if let Some(watcher) = &mut self.watchers[index] {
            watcher.feed(event, now);
        }
    }

    fn watcher_step(&mut self, index: usize) {
        let now = self.watcher_now();
        self.mutate(index, now);
        let Some(watcher) = &mut self.watchers[index] else { return };
        let deed = watcher.step(&mut self.disk, now);
        match deed {
            Deed::Nothing => {}
            Deed::Claimed(name) => {
                self.ledger.claimed.insert(name);
            }
            Deed::Checked(name) => {
                let agent = self.agents.iter().find(|agent| agent.name == name);
                if agent.is_some_and(|agent| !agent.is_alive()) {
                    self.broken(format!("S4: {name} is begun and nobody waits for it"));
                }
                self.ledger.checked.insert(name);
            }
            Deed::Answered(name, answer) => {
                if let Some(answer) = answer
                    && answer.result == FenceResult::Success
                    && answer.request_id.is_some_and(|id| !self.ledger.proven.contains(&id))
                {
                    self.broken(format!("S3: {name} is answered success and nothing proves it"));
                }
            }
        }
        self.end_if_stopped(index);
    }

    /// A process that was told to stop ends when it has nothing left to do.
    fn end_if_stopped(&mut self, index: usize) {
        let is_over = |w: &WatcherProcess| w.is_stopping && w.todo.is_empty() && w.core.is_idle();
        if self.watchers[index].as_ref().is_some_and(is_over) {
            self.watchers[index] = None;
        }
    }

    /// Puts the bug in.
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
            (Some(Mutation::DeleteBeforeAnswer), Some(Effect::Answer(name, _))) => {
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

    /// Whoever looks finds the lock on the claimed file taken, though nobody holds it.
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

    /// The device is about to be given the first order of an execution.
    fn check_start(&mut self, index: usize, name: &RecordName, job: &Job) {
        let (id, target) = (&job.request.request_id, &job.target);
        if !self.ledger.claimed.contains(name) {
            return self.broken(format!("S1: {name} is executed and not claimed"));
        }
        let count = self.ledger.executed.entry(id.clone()).or_default();
        *count += 1;
        let count = *count;
        self.ledger.executions += 1;
        if count > 1 {
            return self.broken(format!("S2: {id} is executed {count} times"));
        }
        if self.ledger.withdrawn.contains(id) && !self.ledger.shared.contains(id) {
            return self.broken(format!("S4: {id} is executed after its withdrawal"));
        }
        if let Some(birth) = self.ledger.births.get(id)
            && !birth.age_is_lost
        {
            if birth.boot != self.boot {
                return self.broken(format!("S4: {id} of an earlier boot is executed"));
            }
            if birth.deadline_boot_ms <= self.now.boot_ms {
                return self.broken(format!("S4: {id} is executed after its deadline"));
            }
        }
        if job.request.held && !self.ledger.checked.contains(name) {
            return self.broken(format!("S4: {id} is executed and its client was not looked for"));
        }
        let here = self.watchers[index].iter().flat_map(|w| w.executions.values());
        let same = here.clone().filter(|e| e.job.target == *target).count();
        let running = here.count();
        let watchers = self.watchers.iter().flatten();
        let elsewhere = watchers.filter(|w| w.busy().contains(target)).count();
        if same > 1 || (self.config.lock && elsewhere > 1) {
            return self.broken(format!("S6: {target} is acted on twice at the same time"));
        }
        if running > self.config.max_concurrent {
            self.broken("S6: the device does more at the same time than it may".to_owned());
        }
    }

    fn device(&mut self, index: usize, name: &str, reaction: Reaction) {
        let Ok(name) = name.parse::<RecordName>() else { return };
        let mutation = self.config.mutation;
        let now = self.now.boot_ms;
        let Some(watcher) = &mut self.watchers[index] else { return };
        let Some(execution) = watcher.executions.get_mut(&name) else { return };
        let mut begun = None;
        let target = execution.job.target.clone();
        let mut late = None;
        let report = match execution.step.clone() {
            Step::Done(verdict) => {
                let id = execution.job.request.request_id.clone();
                let has_proof = execution.has_proof;
                watcher.executions.remove(&name);
                return self.over(index, name, &id, has_proof, verdict);
            }
            Step::Pause(_) => Report::Paused,
            Step::Order(..)
                if now >= execution.job.deadline_boot_ms
                    && mutation != Some(Mutation::NoDeadlineCheck) =>
            {
                Report::Order(OrderReport::TooLate)
            }
            Step::Order(order, limit) => {
                if !std::mem::replace(&mut execution.has_begun, true) {
                    begun = Some(execution.job.clone());
                }
                late = (reaction == Reaction::Hangs).then_some(limit);
                let (is_done, report) = ordered(reaction);
                if is_done {
                    let off = order == Order::Off;
                    self.power.insert(target, if off { PowerState::Off } else { PowerState::On });
                }
                Report::Order(report)
            }
            Step::AskPower(limit) => {
                let state = match reaction {
                    Reaction::Honest => self.power.get(&target).copied().unwrap_or(PowerState::On),
                    _ => PowerState::Unknown,
                };
                late = (reaction == Reaction::Hangs).then_some(limit);
                execution.has_proof |= match execution.job.action {
                    FenceAction::On => state == PowerState::On,
                    FenceAction::Off | FenceAction::Reboot => state == PowerState::Off,
                };
                Report::Power(PowerReport { state, detail: String::new() })
            }
        };
        let now = late.unwrap_or(now).max(now);
        execution.step = match (&report, mutation) {
            (
                Report::Order(OrderReport::Acknowledged(_)),
                Some(Mutation::AnswerBeforeConfirmation),
            ) => Step::Done(Verdict {
                result: FenceResult::Success,
                verified: true,
                performed: execution.job.action.as_str(),
                message: String::new(),
            }),
            _ => execution.plan.next(report, now),
        };
        execution.until_boot_ms = match execution.step {
            Step::Pause(span_ms) => now + span_ms,
            _ => now,
        };
        if let Some(job) = begun {
            self.check_start(index, &name, &job);
        }
    }

    fn over(
        &mut self,
        index: usize,
        name: RecordName,
        id: &RequestId,
        has_proof: bool,
        verdict: Verdict,
    ) {
        if verdict.result == FenceResult::Success {
            if has_proof {
                self.ledger.proven.insert(id.clone());
            } else {
                return self
                    .broken(format!("S3: {id} counts as done and the device showed nothing"));
            }
        }
        if let Some(watcher) = &mut self.watchers[index] {
            watcher.finished.push_back((name, verdict));
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
            // Nothing is left that could be begun again; an identity that is used anew is a new one.
            self.ledger.executed.clear();
        } else {
            self.disk.crash(bits);
            let disk = &self.disk;
            self.ledger.claimed.retain(|name| disk.has(Dir::Claimed, &name.file_name()));
        }
        self.ledger.checked.clear();
        self.half_written.clear();
        self.boot += 1;
        self.now.boot_ms = 10_000;
        self.now.wall_ms += 30_000;
    }

    /// 0: whole, under its id. 1: half, to be completed. 2: the identity of an agent, under another
    /// name. 3: an identity of an older client again, under another name. 4: no request at all.
    fn foreign_request(&mut self, kind: u8, target: u8) {
        let again = self.ledger.births.iter().find(|(_, b)| match kind {
            2 => b.agent.is_some(),
            _ => b.agent.is_none(),
        });
        let again = again.map(|(id, birth)| (id.clone(), birth.agent.is_some(), birth.boot));
        let id = match (kind, again) {
            (2 | 3, Some((id, was_an_agents, boot))) => {
                if was_an_agents && boot != self.boot {
                    // Its own file is protected by its boot identity and leaves no durable trace
                    // before its answer: whoever uses the identity anew asks anew.
                    self.ledger.executed.remove(&id);
                }
                id
            }
            _ => self.new_id(),
        };
        let request = Request {
            request_id: id.clone(),
            timestamp: instant(self.now.wall_ms),
            action: Requested::Fence(FenceAction::Off),
            target_node: Some(Self::target(target)),
            gfs2_filesystems: Vec::new(),
            recorder_node: String::new(),
            deadline: None,
            boot_id: None,
            deadline_boottime_ms: None,
            device: None,
            held: false,
        };
        let name = match kind {
            2 | 3 => format!("job-{}.json", self.ids),
            _ => format!("{id}.json"),
        };
        let mut bytes = request.to_json();
        match kind {
            1 => bytes.truncate(bytes.iter().rposition(|b| *b == b'"').map_or(0, |at| at + 1)),
            4 => bytes = b"[]".to_vec(),
            _ => {}
        }
        let is_new = self.disk.create(Dir::Requests, &name, bytes, self.now.wall_ms, None, false);
        if is_new {
            if kind == 1 {
                self.half_written.insert(name);
            }
            let birth = Birth {
                boot: self.boot,
                deadline_boot_ms: self.now.boot_ms + 60_000,
                agent: None,
                age_is_lost: self.ledger.births.get(&id).is_some_and(|birth| birth.age_is_lost),
            };
            // Asked for anew under an identity that exists, it lives anew; that it runs once is S2.
            self.ledger.shared.insert(id.clone());
            self.ledger.births.insert(id, birth);
        }
    }

    fn foreign_completes(&mut self, name: &str) {
        self.half_written.remove(name);
        let Some(file) = self.disk.file(Dir::Requests, name) else { return };
        let mut bytes = file.bytes.clone();
        bytes.extend_from_slice(b"}\n");
        self.disk.write(Dir::Requests, name, bytes, self.now.wall_ms);
    }

    /// Every kind is one that proves nothing.
    fn foreign_answer(&mut self, index: usize, kind: u8) {
        let agent = &self.agents[index];
        let (id, target) = (&agent.request.request_id, &agent.expected.target);
        let text = match kind {
            0 => format!(r#"{{"request_id":"{id}","success":tr"#),
            1 => format!(
                r#"{{"request_id":"00000000-0000-4000-8000-999999999999","success":true,"target_node":"{target}"}}"#
            ),
            2 => format!(r#"{{"request_id":"{id}","success":true,"target_node":"other"}}"#),
            3 => format!(r#"{{"request_id":"{id}","success":"true","target_node":"{target}"}}"#),
            _ => format!(r#"{{"request_id":"{id}","success":true,"action_performed":"on"}}"#),
        };
        let name = if kind.is_multiple_of(2) { agent.name.file_name() } else { agent.other_name() };
        let bytes = text.into_bytes();
        self.disk.create(Dir::Responses, &name, bytes, self.now.wall_ms, None, false);
    }

    /// Whether nothing is left to happen but faults, while a watcher is there.
    pub fn is_at_rest(&self) -> bool {
        let mut watchers = self.watchers.iter().flatten().peekable();
        watchers.peek().is_some()
            && watchers.all(|watcher| watcher.core.next_tick_boot_ms().is_none())
            && self.actions(true).is_empty()
    }

    /// What must hold when nothing is left to happen.
    pub fn check_end(&mut self) {
        if !self.config.lock {
            return;
        }
        let left = self.disk.list(Dir::Claimed);
        if !left.is_empty() {
            return self.broken(format!("S5: {left:?} were claimed and are not answered"));
        }
        let disk = &self.disk;
        let unanswered = self
            .ledger
            .claimed
            .iter()
            .find(|name| !disk.has(Dir::Responses, &name.file_name()))
            .cloned();
        if let Some(name) = unanswered {
            self.broken(format!("S5: {name} was claimed and has no answer"));
        }
    }

    fn broken(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

/// Whether the device does what it is told, and what it says.
fn ordered(reaction: Reaction) -> (bool, OrderReport) {
    match reaction {
        Reaction::Honest => (true, OrderReport::Acknowledged(String::new())),
        Reaction::Lies => (false, OrderReport::Acknowledged(String::new())),
        Reaction::Unreachable => (false, OrderReport::Unreachable(String::new())),
        Reaction::SilentlyDoes => (true, OrderReport::Unacknowledged(String::new())),
        Reaction::Hangs => (true, OrderReport::Unacknowledged("hangs".to_owned())),
        Reaction::Mute => (false, OrderReport::Unacknowledged("mute".to_owned())),
    }
}

fn instant(wall_ms: i64) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp_millis(wall_ms).unwrap_or_default()
}
