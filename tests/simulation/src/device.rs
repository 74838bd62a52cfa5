//! The device: how it reacts to an order or a question, and what an execution concludes from that.

use fence_core::execution::{Order, OrderReport, PowerReport, Report, Step, Verdict};
use fence_core::watcher::{Event, Job, is_awaited};
use fence_protocol::{FenceAction, FenceResult, PowerState, RecordName, RequestId};

use crate::action::{Mutation, Reaction};
use crate::actors::Execution;
use crate::disk::Dir;
use crate::world::World;

impl World {
    pub(crate) fn device(&mut self, index: usize, name: &str, reaction: Reaction) {
        let Ok(name) = name.parse::<RecordName>() else { return };
        let Some(watcher) = &mut self.watchers[index] else { return };
        let Some(execution) = watcher.executions.get_mut(&name) else { return };
        let (job, had_begun) = (execution.job.clone(), execution.has_begun);
        let (report, now) = match execution.step.clone() {
            Step::Done(verdict) => {
                let has_proof = execution.has_proof;
                watcher.executions.remove(&name);
                return self.over(index, name, &job.request.request_id, has_proof, verdict);
            }
            Step::Pause(_) => (Report::Paused, self.now.boot_ms),
            Step::LookForClient => (Report::Client(self.is_awaited(&name, &job)), self.now.boot_ms),
            Step::Order(order, limit) => self.order(index, &name, order, limit, reaction),
            Step::AskPower(limit) => self.ask(index, &name, limit, reaction),
        };
        let mutation = self.config.mutation;
        let Some(watcher) = &mut self.watchers[index] else { return };
        let Some(execution) = watcher.executions.get_mut(&name) else { return };
        execution.step = match (&report, mutation) {
            (
                Report::Order(OrderReport::Acknowledged(_)),
                Some(Mutation::AnswerBeforeConfirmation),
            ) => Step::Done(Verdict {
                result: FenceResult::Success,
                verified: true,
                performed: job.action.as_str(),
                message: String::new(),
                off: None,
                on_follows: false,
            }),
            _ => execution.plan.next(report, now),
        };
        execution.until_boot_ms = match execution.step {
            Step::Pause(span_ms) => now + span_ms,
            _ => now,
        };
        if execution.has_begun && !had_begun {
            self.check_start(&name, &job);
        }
    }

    /// The device reacts to the power-on of the request `id`.
    pub(crate) fn power_on(&mut self, index: usize, id: &str, reaction: Reaction) {
        let Ok(id) = id.parse::<RequestId>() else { return };
        let power = self.power.clone();
        let now = self.now.boot_ms;
        let Some(watcher) = &mut self.watchers[index] else { return };
        let Some(execution) = watcher.returns.get_mut(&id) else { return };
        let target = execution.job.target.clone();
        let until = |limit: u64| if reaction == Reaction::Hangs { limit.max(now) } else { now };
        let (report, then) = match execution.step.clone() {
            Step::Done(verdict) => {
                watcher.returns.remove(&id);
                return watcher.told.push_back(Event::OnOver(id, verdict));
            }
            Step::Pause(_) => (Report::Paused, now),
            Step::LookForClient => (Report::Client(true), now),
            Step::Order(_, limit) => {
                let (is_done, report) = ordered(reaction);
                if is_done {
                    self.power.insert(target.clone(), PowerState::On);
                }
                (Report::Order(report), until(limit))
            }
            Step::AskPower(limit) => {
                let state = match reaction {
                    Reaction::Honest => power.get(&target).copied().unwrap_or(PowerState::On),
                    _ => PowerState::Unknown,
                };
                let report = PowerReport { state, detail: String::new() };
                (Report::Power(report), until(limit))
            }
        };
        let is_order = matches!(report, Report::Order(_));
        // The device may still carry out an order that was not acknowledged.
        let is_certain = !matches!(report, Report::Order(OrderReport::Unacknowledged(_)));
        execution.step = execution.plan.next(report, then);
        execution.until_boot_ms = match execution.step {
            Step::Pause(span_ms) => then + span_ms,
            _ => then,
        };
        execution.has_begun |= is_order;
        execution.is_in_doubt |= is_order && !is_certain;
        if is_order && is_certain {
            watcher.told.push_back(Event::OnOrdered(id));
        }
        if is_order {
            self.note_on(index, &target);
        }
    }

    /// An execution and the instant at which the device has reacted, later than now if it hangs.
    fn reacting(
        &mut self,
        index: usize,
        name: &RecordName,
        limit: u64,
        reaction: Reaction,
    ) -> (&mut Execution, u64) {
        let now = self.now.boot_ms;
        let execution = self.watchers[index].as_mut().and_then(|w| w.executions.get_mut(name));
        let then = if reaction == Reaction::Hangs { limit.max(now) } else { now };
        (execution.expect("only an execution reacts"), then)
    }

    fn order(
        &mut self,
        index: usize,
        name: &RecordName,
        order: Order,
        limit: u64,
        reaction: Reaction,
    ) -> (Report, u64) {
        let (now, is_blind) =
            (self.now.boot_ms, self.config.mutation == Some(Mutation::NoDeadlineCheck));
        let (execution, then) = self.reacting(index, name, limit, reaction);
        if now >= execution.job.deadline_boot_ms && !is_blind {
            return (Report::Order(OrderReport::TooLate), now);
        }
        let (job, is_for_client) = (execution.job.clone(), execution.plan.is_for_client());
        let is_first = !std::mem::replace(&mut execution.has_begun, true);
        // The driver's own check, after its logins and questions.
        if is_for_client && !self.is_awaited(name, &job) {
            self.reacting(index, name, limit, reaction).0.has_begun = !is_first;
            return (Report::Order(OrderReport::Withdrawn), now);
        }
        let agent = self.agents.iter().find(|agent| agent.name == *name);
        if is_for_client && agent.is_some_and(|agent| !agent.is_alive()) {
            self.broken(format!("S4: {name} is ordered, but no client waits for it"));
        }
        if is_first {
            self.check_second_fence(index, name, &job);
        }
        let (is_done, report) = ordered(reaction);
        if order != Order::Off && !matches!(report, OrderReport::Unreachable(_)) {
            self.note_on(index, &job.target);
        }
        if is_done {
            let off = order == Order::Off;
            self.power.insert(job.target, if off { PowerState::Off } else { PowerState::On });
        }
        (Report::Order(report), then)
    }

    fn ask(
        &mut self,
        index: usize,
        name: &RecordName,
        limit: u64,
        reaction: Reaction,
    ) -> (Report, u64) {
        let power = self.power.clone();
        let takes_remarks = self.config.mutation == Some(Mutation::RemarkCountsAsOff);
        let (execution, then) = self.reacting(index, name, limit, reaction);
        let job = execution.job.clone();
        let shown = match reaction {
            Reaction::Honest => power.get(&job.target).copied().unwrap_or(PowerState::On),
            _ => PowerState::Unknown,
        };
        execution.has_proof |= match job.action {
            FenceAction::On => shown == PowerState::On,
            FenceAction::Off | FenceAction::Reboot => shown == PowerState::Off,
        };
        let is_fence = job.action != FenceAction::On && execution.plan.is_for_client();
        let setup = execution.setup;
        if is_fence && shown == PowerState::Off {
            self.note_off(index, &job, setup);
        }
        let is_remark = takes_remarks && shown == PowerState::Unknown;
        let state = if is_remark { PowerState::Off } else { shown };
        (Report::Power(PowerReport { state, detail: String::new() }), then)
    }

    /// What the claimed file shows about its client at this moment.
    fn is_awaited(&self, name: &RecordName, job: &Job) -> bool {
        let held =
            self.disk.file(Dir::Claimed, &name.file_name()).map(|file| file.held_by.is_some());
        // Without a claim, no file shows the client.
        let blind = [Mutation::OrderForNobody, Mutation::ClaimAfterStart].map(Some);
        blind.contains(&self.config.mutation) || is_awaited(job.request.held, held)
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
                    .broken(format!("S3: {id} counts as done, but the device showed nothing"));
            }
        }
        if let Some(watcher) = &mut self.watchers[index] {
            watcher.told.push_back(Event::Finished(name, verdict));
        }
    }
}

/// Whether the device obeys, and what it reports.
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
