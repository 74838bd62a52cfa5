//! The power-on of the targets of reboots, after the answer.
//!
//! The thread that switched a target off waits for a message before it powers the target on (see
//! `worker`). The thread ends when the sender of the message is dropped.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};

use fence_core::execution::Verdict;
use fence_core::watcher::{Effect, Event, Job, OnResult};
use fence_protocol::{FenceAction, FenceResult, RecordName, Request, RequestId};
use log::{info, warn};

use super::Daemon;

/// The reboots under way.
#[derive(Default)]
pub(super) struct Returns {
    /// Sends the message to the thread of each reboot.
    threads: BTreeMap<RequestId, Sender<()>>,
    /// The records of the previous watcher that are still to be read; `None` before they are listed.
    left: Option<Vec<RecordName>>,
}

impl Returns {
    /// The receiver of the message for which the thread of `job` waits after a reboot.
    pub(super) fn begin(&mut self, job: &Job) -> Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        if job.action == FenceAction::Reboot {
            self.threads.insert(job.request.request_id.clone(), sender);
        }
        receiver
    }

    /// The execution of `job` has ended with `verdict`.
    pub(super) fn finished(&mut self, job: &Job, verdict: &Verdict) {
        if !verdict.on_follows {
            self.threads.remove(&job.request.request_id);
        }
    }
}

impl Daemon {
    /// Carries out an effect that concerns the power-on of a target.
    pub(super) fn carry_out_return(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::PowerOn(job) => {
                let id = job.request.request_id;
                info!("power-on: request={id} target={} device={}", job.target, job.lane.device);
                let thread = self.returns.threads.get(&id);
                let is_sent = thread.is_some_and(|thread| thread.send(()).is_ok());
                let lost = "the thread that drove the device is gone";
                let verdict = || Verdict::failure(FenceResult::DeviceFailure, lost.to_owned());
                return (!is_sent).then(|| Event::OnOver(id, verdict()));
            }
            Effect::EndPowerOn(id) => drop(self.returns.threads.remove(&id)),
            Effect::Returned(request, result) => {
                self.returns.threads.remove(&request.request_id);
                log_return(&request, &result);
                self.reporter.returned(&request.request_id, &result);
                let log_dir = &self.settings.log.log_dir;
                self.audit.record_return(log_dir, &self.spooler.spool, request, &result);
            }
            // The audit removes the record after it has written the outcome.
            Effect::ForgetReturning(_) => {}
            _ => unreachable!("the other effects concern no power-on"),
        }
        None
    }

    /// Reports the power-ons that the previous watcher left to the core.
    pub(super) fn recover_returns(&mut self) {
        let listed = self.returns.left.take().or_else(|| self.spooler.returning());
        let Some(mut left) = listed else { return };
        left.retain(|name| {
            let Ok(request) = self.spooler.left_returning(name) else { return true };
            if let Some(request) = request
                && !self.core.brings_back(&request.request_id)
            {
                self.feed(Event::LeftReturning(request));
            }
            false
        });
        self.returns.left = Some(left);
    }

    /// Gives up the power-ons under way: the time to stop is over.
    pub(super) fn give_up_returns(&mut self) {
        let jobs = self.core.returning();
        let ids: Vec<RequestId> = jobs.map(|job| job.request.request_id.clone()).collect();
        for id in ids {
            let message = "the watcher was stopped while it brought the target back";
            let verdict = Verdict::failure(FenceResult::Interrupted, message.to_owned());
            self.feed(Event::OnOver(id, verdict));
        }
    }
}

/// Logs the outcome of the power-on after the answer to a reboot.
fn log_return(request: &Request, result: &OnResult) {
    let target = request.target_node.as_ref().map_or("", |target| target.as_str());
    let line = format!("returned: request={} target={target} {result}", request.request_id);
    match result {
        OnResult::On(_) => info!("{line}"),
        _ => warn!("{line}"),
    }
}
