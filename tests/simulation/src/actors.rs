//! Agents and watchers, step by step.
//!
//! These are the shells of the two programs, written a second time for a world in which each system
//! call is a separate step. `fence-core` makes their decisions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::DateTime;
use fence_core::Now;
use fence_core::agent::{self, Expected, ResponderKind, Waiting};
use fence_core::execution::{Method, Plan, Report, Verdict};
use fence_core::watcher::{self as core, Claim, Effect, Event, Job, Sight, Watcher};
use fence_protocol::{Answer, FenceResult, NodeName, RecordName, Request, RequestId};

use crate::action::{Config, Mutation};
use crate::disk::{Dir, Disk};
use crate::setup::{self, Setup};
use crate::sights::{claimed_sight, rest_of_claim, sight};
use crate::world::ABLE;

/// The state of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Its request is not written yet.
    Start,
    /// Its request is written, under a temporary name.
    Written,
    /// Its request is visible.
    Waiting(Waiting),
    /// Its request must be withdrawn.
    Withdrawing(Waiting),
    /// The withdrawal was tried.
    Tried(Waiting, agent::Withdrawal),
    /// The agent ended with this outcome, or without one.
    Ended(Option<agent::Outcome>),
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    pub(crate) request: Request,
    pub(crate) expected: Expected,
    pub(crate) name: RecordName,
    pub(crate) stop_boot_ms: u64,
    pub(crate) place: Place,
}

impl Agent {
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.place, Place::Ended(_))
    }

    /// The next step of an agent that is alive. `signalled` says that it received a signal.
    pub(crate) fn step(&mut self, index: usize, signalled: bool, disk: &mut Disk, now: Now) {
        let sight = self.look(disk);
        self.place = match std::mem::replace(&mut self.place, Place::Ended(None)) {
            Place::Start => {
                let bytes = self.request.to_json();
                let temporary = self.name.temporary();
                let holder = Some(index);
                if disk.create(Dir::Requests, &temporary, bytes, now.wall_ms, holder, true) {
                    Place::Written
                } else {
                    Place::Ended(None)
                }
            }
            Place::Written => {
                let (temporary, name) = (self.name.temporary(), self.name.file_name());
                if disk.rename(Dir::Requests, &temporary, Dir::Requests, &name) {
                    disk.sync(Dir::Requests);
                    let responder = ResponderKind::FenceWatcher;
                    Place::Waiting(Waiting::new(responder, self.stop_boot_ms, 500))
                } else {
                    Place::Ended(None)
                }
            }
            Place::Waiting(waiting) => {
                let event = if signalled {
                    agent::Event::Signal("SIGTERM", sight)
                } else {
                    agent::Event::Looked(sight)
                };
                after(waiting, event, now)
            }
            Place::Withdrawing(waiting) => {
                let was_there = disk.unlink(Dir::Requests, &self.name.file_name());
                let taken = agent::Withdrawal::Taken;
                let withdrawal = if was_there { agent::Withdrawal::Withdrawn } else { taken };
                Place::Tried(waiting, withdrawal)
            }
            Place::Tried(waiting, withdrawal) => {
                after(waiting, agent::Event::Withdrawal(withdrawal, sight), now)
            }
            ended @ Place::Ended(_) => ended,
        };
        if !self.is_alive() {
            disk.release(index);
        }
    }

    fn look(&self, disk: &Disk) -> agent::AnswerSight {
        let names = [self.name.file_name(), self.other_name()];
        let answers = names
            .iter()
            .filter_map(|name| Some(self.expected.judge(&disk.file(Dir::Responses, name)?.bytes)))
            .collect();
        agent::AnswerSight { answers, watcher: agent::Serving::Alive }
    }

    /// The other possible name of the answer.
    pub(crate) fn other_name(&self) -> String {
        format!("{}-{}.json", self.expected.target, self.request.request_id)
    }
}

fn after(mut waiting: Waiting, event: agent::Event, now: Now) -> Place {
    match waiting.next(event, now.boot_ms) {
        agent::Step::Wait(_) => Place::Waiting(waiting),
        agent::Step::Withdraw => Place::Withdrawing(waiting),
        agent::Step::Done(outcome) => Place::Ended(Some(outcome)),
    }
}

/// A pending step of a watcher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Todo {
    Recover(RecordName),
    /// The record of a target that awaited its power-on.
    Left(String),
    Scan,
    Look(RecordName),
    Effect(Box<Effect>),
    /// The rest of a claim, after the rename.
    Claimed(RecordName, bool),
    /// The rest of an answer, after its temporary file was written.
    Publish(RecordName),
}

/// An execution, from the view of its thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Execution {
    pub(crate) job: Job,
    /// The configuration at its start.
    pub(crate) setup: Setup,
    pub(crate) plan: Plan,
    pub(crate) step: fence_core::execution::Step,
    /// The device was given an order.
    pub(crate) has_begun: bool,
    /// That order was not acknowledged, and the device may still carry it out.
    pub(crate) is_in_doubt: bool,
    /// The device showed the state that proves success.
    pub(crate) has_proof: bool,
    pub(crate) until_boot_ms: u64,
}

impl Execution {
    fn begin(job: Job, setup: Setup, mut plan: Plan, now: Now) -> Self {
        let step = plan.next(Report::Begin, now.boot_ms);
        let until_boot_ms = now.boot_ms;
        let (has_begun, is_in_doubt, has_proof) = (false, false, false);
        Execution { job, setup, plan, step, has_begun, is_in_doubt, has_proof, until_boot_ms }
    }
}

/// One watcher process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WatcherProcess {
    pub(crate) core: Watcher,
    pub(crate) setup: Setup,
    /// Steps that follow each other directly; the process does nothing else before they are done.
    pub(crate) todo: VecDeque<Todo>,
    pub(crate) executions: BTreeMap<RecordName, Execution>,
    /// The configuration at the start of each request.
    pub(crate) begun_under: BTreeMap<RequestId, Setup>,
    /// The power-ons, by the requests that switched their targets off.
    pub(crate) returns: BTreeMap<RequestId, Execution>,
    /// The reports of its executions and power-ons. The watcher reads them after its pending steps.
    pub(crate) told: VecDeque<Event>,
    /// Devices that are being asked for their targets.
    pub(crate) asked: VecDeque<String>,
    /// What it has seen under each name, and not forgotten.
    pub(crate) seen: BTreeMap<RecordName, Request>,
    /// The targets that it has switched off.
    pub(crate) offs: BTreeMap<NodeName, Made>,
    /// Where it has switched which targets off, in all executions.
    pub(crate) places: BTreeSet<(NodeName, Option<setup::Place>)>,
    /// The requests that it answers from another execution, as far as that was checked.
    pub(crate) joining: BTreeSet<RecordName>,
    /// The executions that ran when it was asked to stop, and that instant.
    pub(crate) stopping: Option<BTreeSet<RecordName>>,
    pub(crate) stopped_boot_ms: u64,
    /// It decided to order a power-on after it was asked to stop.
    pub(crate) brings_back_late: bool,
}

/// A target that a watcher has switched off.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Made {
    /// When the device showed it.
    pub(crate) at_boot_ms: u64,
    /// The device and place.
    pub(crate) place: Option<setup::Place>,
    /// The requests for it that the watcher had seen by then.
    pub(crate) settles: BTreeSet<RecordName>,
    /// An `on` was ordered since.
    pub(crate) on_since: bool,
}

/// The result of a watcher's step that the world must know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    Nothing,
    Claimed(RecordName),
    /// The claim of this record was valid: its client held it at this moment.
    Checked(RecordName),
    /// The execution of this record now has its own thread.
    Begun(RecordName),
    Answered(RecordName, Option<Box<Answer>>),
    /// The power-on of this request's target is ordered.
    PoweredOn(RequestId),
    /// The outcome of this request's power-on was recorded.
    Returned(RequestId),
}

impl WatcherProcess {
    pub(crate) fn start(config: &Config, setup: Setup, boot: u32, disk: &Disk) -> Self {
        let claimed = disk.list(Dir::Claimed);
        let recover = claimed.iter().filter_map(|name| RecordName::from_file_name(name));
        let mut todo: VecDeque<_> = recover.map(Todo::Recover).collect();
        todo.extend(disk.list(Dir::Returning).into_iter().map(Todo::Left));
        todo.push_back(Todo::Scan);
        WatcherProcess {
            core: Watcher::new(settings(boot), devices(config, setup)),
            setup,
            todo,
            executions: BTreeMap::new(),
            begun_under: BTreeMap::new(),
            returns: BTreeMap::new(),
            told: VecDeque::new(),
            asked: VecDeque::new(),
            seen: BTreeMap::new(),
            offs: BTreeMap::new(),
            places: BTreeSet::new(),
            joining: BTreeSet::new(),
            stopping: None,
            stopped_boot_ms: 0,
            brings_back_late: false,
        }
    }

    /// Takes over a new configuration.
    pub(crate) fn reload(&mut self, config: &Config, setup: Setup, boot: u32, now: Now) {
        let before = std::mem::replace(&mut self.setup, setup);
        if config.mutation == Some(Mutation::ReloadForgotten) {
            return;
        }
        let mut devices = devices(config, setup);
        if config.mutation == Some(Mutation::MovedPlugForgotten) {
            for (device, before) in devices.iter_mut().zip(before.devices(1)) {
                (device.plugs, device.addresses) = (before.plugs, before.addresses);
            }
        }
        self.feed(Event::Reconfigured(settings(boot), devices), now);
    }

    pub(crate) fn feed(&mut self, event: Event, now: Now) {
        let effects = self.handle(event, now);
        self.todo.extend(effects.into_iter().map(|effect| Todo::Effect(Box::new(effect))));
    }

    fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let effects = self.core.handle(event, now);
        self.brings_back_late |= self.stopping.is_some()
            && effects.iter().any(|effect| matches!(effect, Effect::PowerOn(_)));
        effects
    }

    /// Carries out the first pending step.
    pub(crate) fn step(&mut self, disk: &mut Disk, now: Now) -> Deed {
        let Some(todo) = self.todo.pop_front() else { return Deed::Nothing };
        match todo {
            Todo::Recover(name) => {
                let sight = claimed_sight(disk, &name);
                self.first(Event::Recovered(name, sight), now);
            }
            Todo::Left(file_name) => {
                let file = disk.file(Dir::Returning, &file_name);
                if let Some(Ok(request)) = file.map(|file| Request::parse(&file.bytes)) {
                    self.first(Event::LeftReturning(request), now);
                }
            }
            Todo::Scan => {
                for name in disk.list(Dir::Requests) {
                    if let Some(name) = RecordName::from_file_name(&name) {
                        self.todo.push_back(Todo::Look(name));
                    }
                }
            }
            Todo::Look(name) => {
                let sight = sight(disk, Dir::Requests, &name);
                self.note_sight(&name, &sight);
                self.first(Event::Seen(name, sight), now);
            }
            Todo::Effect(effect) => return self.carry_out(*effect, disk, now),
            Todo::Claimed(name, sync) => {
                if sync {
                    disk.sync(Dir::Claimed);
                    disk.sync(Dir::Requests);
                }
                let claim = rest_of_claim(disk, &name, now);
                let is_held = matches!(claim, Claim::Claimed { client_gone: false, .. });
                self.first(Event::Claim(name.clone(), claim), now);
                return if is_held { Deed::Checked(name) } else { Deed::Nothing };
            }
            Todo::Publish(name) => {
                let (temporary, file_name) = (name.temporary(), name.file_name());
                let is_new = disk.rename(Dir::Responses, &temporary, Dir::Responses, &file_name);
                disk.unlink(Dir::Responses, &temporary);
                disk.sync(Dir::Responses);
                self.first(Event::Answered(name.clone(), Ok(())), now);
                return if is_new { Deed::Answered(name, None) } else { Deed::Nothing };
            }
        }
        Deed::Nothing
    }

    /// Remembers what was seen, as long as it stays the same.
    fn note_sight(&mut self, name: &RecordName, sight: &Sight) {
        let parsed = match sight {
            Sight::Content(content) => content.parsed.as_ref().ok(),
            _ => None,
        };
        if self.seen.get(name) != parsed {
            self.seen.remove(name);
            self.offs.values_mut().for_each(|made| {
                made.settles.remove(name);
            });
        }
        if let Some(request) = parsed {
            self.seen.insert(name.clone(), request.clone());
        }
    }

    /// Passes an event to the core; its effects are carried out before anything else.
    fn first(&mut self, event: Event, now: Now) {
        let effects = self.handle(event, now);
        for effect in effects.into_iter().rev() {
            self.todo.push_front(Todo::Effect(Box::new(effect)));
        }
    }

    fn carry_out(&mut self, effect: Effect, disk: &mut Disk, now: Now) -> Deed {
        match effect {
            Effect::Claim { name, sync } => {
                let file_name = name.file_name();
                if !disk.has(Dir::Requests, &file_name) {
                    self.first(Event::Claim(name, Claim::Gone), now);
                } else if disk.is_full
                    || !disk.rename(Dir::Requests, &file_name, Dir::Claimed, &file_name)
                {
                    self.first(Event::Claim(name, Claim::Failed("full".to_owned())), now);
                } else {
                    self.todo.push_front(Todo::Claimed(name.clone(), sync));
                    return Deed::Claimed(name);
                }
            }
            Effect::Execute(name, job) => {
                let plan =
                    Plan::new(job.action, ABLE, Method::OnOff, 2, 40_000, job.deadline_boot_ms);
                self.begun_under.insert(job.request.request_id.clone(), self.setup);
                self.executions.insert(name.clone(), Execution::begin(job, self.setup, plan, now));
                return Deed::Begun(name);
            }
            Effect::Inquire(name, _) => {
                self.first(Event::Inquired(name, true, "on".to_owned()), now);
            }
            Effect::AskTargets(device) => self.asked.push_back(device),
            Effect::Answer(name, answer, _) => {
                let bytes = answer.to_json(DateTime::UNIX_EPOCH);
                let temporary = name.temporary();
                disk.unlink(Dir::Responses, &temporary);
                if disk.create(Dir::Responses, &temporary, bytes, now.wall_ms, None, true) {
                    self.todo.push_front(Todo::Publish(name.clone()));
                    return Deed::Answered(name, Some(Box::new(answer)));
                }
                self.first(Event::Answered(name, Err("full".to_owned())), now);
            }
            Effect::RemoveClaimed(name) => {
                disk.unlink(Dir::Claimed, &name.file_name());
            }
            Effect::KeepReturning(..)
            | Effect::PowerOn(_)
            | Effect::EndPowerOn(_)
            | Effect::Returned(..)
            | Effect::ForgetReturning(_) => return self.carry_out_return(effect, disk, now),
            Effect::RemovePending(name) | Effect::SetAside(name, _) => {
                disk.unlink(Dir::Requests, &name.file_name());
            }
            Effect::Look(name) => {
                let sight = sight(disk, Dir::Requests, &name);
                self.note_sight(&name, &sight);
                self.first(Event::Seen(name, sight), now);
            }
            Effect::Note(..) => {}
        }
        Deed::Nothing
    }

    /// Carries out an effect of the power-on after a reboot.
    fn carry_out_return(&mut self, effect: Effect, disk: &mut Disk, now: Now) -> Deed {
        match effect {
            Effect::KeepReturning(name, id) => {
                let kept = format!("{id}.json");
                disk.rename(Dir::Claimed, &name.file_name(), Dir::Returning, &kept);
            }
            Effect::PowerOn(job) => {
                let id = job.request.request_id.clone();
                let plan = Plan::power_on(ABLE, 40_000, job.deadline_at(now), now.boot_ms);
                let setup = self.begun_under.get(&id).copied().unwrap_or(self.setup);
                self.returns.insert(id.clone(), Execution::begin(job, setup, plan, now));
                return Deed::PoweredOn(id);
            }
            // An order on its way cannot be called back. The thread ends after it.
            Effect::EndPowerOn(id) => {
                let is_ordered = |on: &Execution| on.has_begun && !on.is_in_doubt;
                if self.returns.get(&id).is_some_and(is_ordered) {
                    self.returns.remove(&id);
                    let verdict = Verdict::failure(FenceResult::Interrupted, String::new());
                    self.told.push_back(Event::OnOver(id, verdict));
                }
            }
            Effect::Returned(request, _) => return Deed::Returned(request.request_id),
            Effect::ForgetReturning(id) => {
                disk.unlink(Dir::Returning, &format!("{id}.json"));
            }
            _ => unreachable!("the other effects concern no power-on after a reboot"),
        }
        Deed::Nothing
    }

    /// Targets with a running execution.
    pub(crate) fn busy(&self) -> BTreeSet<&NodeName> {
        self.executions.values().map(|execution| &execution.job.target).collect()
    }

    /// A waiting request for which nothing that it must wait for is under way.
    pub(crate) fn forgotten(&self) -> Option<&Job> {
        let may_begin = |job: &&Job| {
            let device = self.core.devices().iter().find(|device| device.name == job.lane.device);
            let running =
                || self.core.running().map(|(_, job, _)| job).chain(self.core.returning());
            running().count() < RUNNING_MAX
                && running().all(|other| other.machines.iter().all(|m| !job.machines.contains(m)))
                && running().filter(|other| other.lane == job.lane).count()
                    < device.map_or(0, |device| device.max_concurrent)
        };
        self.core.queued().find(may_begin)
    }
}

fn devices(config: &Config, setup: Setup) -> Vec<core::Device> {
    let mut devices = setup.devices(match config.mutation {
        Some(Mutation::DeviceLimitForgotten) => usize::MAX,
        _ => config.max_concurrent,
    });
    if config.mutation == Some(Mutation::OtherNamesForgotten) {
        for device in &mut devices {
            device.plugs = None;
        }
    }
    devices
}

fn settings(boot: u32) -> core::Settings {
    core::Settings {
        boot_id: format!("boot-{boot}"),
        default_deadline_ms: 60_000,
        max_running: RUNNING_MAX,
    }
}

/// The maximum number of concurrent executions of a watcher, over all devices.
const RUNNING_MAX: usize = 3;
