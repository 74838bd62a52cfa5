//! What can happen next.

use fence_core::execution::Step;
use fence_protocol::{FenceAction, RecordName};

use crate::action::{Action, Mutation, Reaction};
use crate::actors::{Agent, Execution, Place};
use crate::disk::Dir;
use crate::setup::Setup;
use crate::world::World;

impl World {
    /// All actions that can happen next, without faults if `calm`.
    pub fn actions(&self, calm: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.violation().is_some() {
            return actions;
        }
        for (index, agent) in self.agents.iter().enumerate().filter(|(_, a)| a.is_alive()) {
            // Between two looks only the clock changes anything; another look does not.
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
            let is_locked = self.config.lock
                && self.config.mutation != Some(Mutation::WatcherLockIgnored)
                && self.watchers.iter().any(Option::is_some);
            if !is_locked && (!calm || index == 0) {
                actions.push(Action::StartWatcher(index));
            }
            return;
        };
        for (name, execution) in &watcher.executions {
            let act = |reaction| Action::Device(index, name.as_str().to_owned(), reaction);
            self.device_actions(execution, act, calm, actions);
        }
        for (id, execution) in &watcher.returns {
            let act = |reaction| Action::PowerOn(index, id.as_str().to_owned(), reaction);
            self.device_actions(execution, act, calm, actions);
        }
        if !watcher.todo.is_empty() {
            actions.push(Action::WatcherStep(index));
            return;
        }
        if !watcher.asked.is_empty() {
            actions.extend([true, false].map(|succeeds| Action::List(index, succeeds)));
        }
        if !watcher.told.is_empty() {
            actions.push(Action::Told(index));
        }
        if self.budget.reloads > 0 && !calm {
            let small = if watcher.setup == Setup::OnePlug { Setup::Shared } else { Setup::Half };
            let is_offered = |setup: &Setup| {
                *setup != watcher.setup && (!self.config.is_small || *setup == small)
            };
            let others = Setup::ALL.into_iter().filter(is_offered);
            actions.extend(others.map(|setup| Action::Reload(index, setup)));
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
        execution: &Execution,
        act: impl Fn(Reaction) -> Action,
        calm: bool,
        actions: &mut Vec<Action>,
    ) {
        let mut push = |reaction| actions.push(act(reaction));
        let step = &execution.step;
        match step {
            Step::Pause(_) | Step::Done(_) => {
                if self.config.is_small || self.now.boot_ms >= execution.until_boot_ms {
                    push(Reaction::Honest);
                }
            }
            Step::LookForClient => push(Reaction::Honest),
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
                if !self.config.is_small || self.config.has_reboots {
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
        if budget.foreign_answers > 0 {
            let visible = |name: &String| RecordName::from_file_name(name).is_some();
            let pending = self.disk.list(Dir::Requests).into_iter().filter(visible);
            actions.extend(pending.map(Action::ForeignTakes));
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

    /// How long until a clock triggers an event; `None` if nothing waits for a clock.
    fn next_instant(&self) -> Option<u64> {
        if self.config.is_small && self.now.boot_ms > SMALL_WORLD_ENDS_MS {
            return None;
        }
        let agents = self.agents.iter().filter(|a| a.is_alive()).map(|a| a.stop_boot_ms);
        let watchers = self.watchers.iter().flatten().flat_map(|watcher| {
            let executions = watcher.executions.values().chain(watcher.returns.values());
            let pausing = executions.filter(|_| !self.config.is_small);
            let pauses = pausing.map(|execution| execution.until_boot_ms);
            watcher.core.next_tick_boot_ms().into_iter().chain(pauses).collect::<Vec<_>>()
        });
        let next = agents.chain(watchers).filter(|at| *at > self.now.boot_ms).min()?;
        Some(next - self.now.boot_ms)
    }
}

/// The end of a small world: all deadlines have passed by then.
const SMALL_WORLD_ENDS_MS: u64 = 33_000;
