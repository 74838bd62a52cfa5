//! The device: what it does about an order or a question, and what an execution makes of that.

use fence_core::execution::{Order, OrderReport, PowerReport, Report, Step, Verdict};
use fence_protocol::{FenceAction, FenceResult, PowerState, RecordName, RequestId};

use crate::action::{Mutation, Reaction};
use crate::world::World;

impl World {
    pub(crate) fn device(&mut self, index: usize, name: &str, reaction: Reaction) {
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
            self.check_start(&name, &job);
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
