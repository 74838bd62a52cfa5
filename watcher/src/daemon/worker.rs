//! Drives one execution: carries out the steps of its plan on its device, in a separate thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use fence_clock::boot_ms;
use fence_core::execution::{OrderReport, Plan, PowerReport, Report, Step, Verdict};
use fence_core::watcher::Job;
use fence_device::{Client, HELPER_STACK_BYTES, Limit, OrderContext, Pin, Subject};
use fence_protocol::{FenceResult, PowerState, RecordName};
use fence_spool::WatcherSpool;
use log::debug;

use super::{Wake, dlm};
use crate::devices::ConfiguredDevice;

/// Executes `job` on `device`, and sends [`Wake::Finished`] in each case.
///
/// If the power-on of a reboot follows the answer, the same thread orders it after a message on
/// `power_on`, and sends [`Wake::OnOrdered`] and [`Wake::OnOver`]. The thread ends when the sender of
/// `power_on` is dropped.
pub(super) fn execute(
    device: Option<Arc<ConfiguredDevice>>,
    spool: &Arc<WatcherSpool>,
    name: RecordName,
    job: Job,
    power_on: Receiver<()>,
    wake: &Sender<Wake>,
) {
    let (spool, sender, record) = (Arc::clone(spool), wake.clone(), name.clone());
    let spawned = thread::Builder::new()
        .name(format!("fence {}", job.target))
        .stack_size(HELPER_STACK_BYTES)
        .spawn(move || {
            // The receiver is gone only when the daemon is.
            let tell = |event| drop(sender.send(event));
            let client = Client::new(spool.claimed_path(&record), job.request.held);
            Subject::new("request", &job.request.request_id).within(|| {
                let Some(device) = device else {
                    let why = format!("not started: there is no device '{}'", job.lane.device);
                    return tell(Wake::Finished(record, failure(why)));
                };
                let request_json = job.request.to_json();
                let pin = Pin::default();
                let execution = Execution { device: &device, job: &job, request_json, client, pin };
                let verdict = execution.fence();
                let (shows_off, on_follows) = (verdict.shows_off(), verdict.on_follows);
                tell(Wake::Finished(record, verdict));
                // Before the target can come back.
                if let Some(executor) = device.dlm.as_ref().filter(|_| shows_off) {
                    dlm::acknowledge(executor, &job);
                }
                if on_follows && power_on.recv().is_ok() {
                    let id = &job.request.request_id;
                    let verdict =
                        execution.power_on(&power_on, || tell(Wake::OnOrdered(id.clone())));
                    tell(Wake::OnOver(id.clone(), verdict));
                }
            });
        });
    if let Err(problem) = spawned {
        // The answer follows at once, without another try until the deadline: certainly nothing was
        // started, and one request is one attempt. The cluster manager may have another device or
        // another node, and can turn to it now.
        let verdict = failure(format!("not started: cannot start a thread: {problem}"));
        let _ = wake.send(Wake::Finished(name, verdict));
    }
}

/// One request on its device.
struct Execution<'a> {
    device: &'a ConfiguredDevice,
    job: &'a Job,
    request_json: Vec<u8>,
    client: Client,
    pin: Pin,
}

impl Execution<'_> {
    fn fence(&self) -> Verdict {
        let (device, deadline_boot_ms) = (self.device, self.job.deadline_boot_ms);
        // The device's abilities may be known only after this.
        device.driver.prepare(Limit { not_after_boot_ms: deadline_boot_ms });
        let mut plan = Plan::new(
            self.job.action,
            device.driver.abilities(),
            device.method(),
            device.attempts,
            device.timeout_ms,
            deadline_boot_ms,
        );
        let mut report = Report::Begin;
        loop {
            report = match self.next(&mut plan, report) {
                Ok(report) => report,
                Err(verdict) => return verdict,
            };
        }
    }

    /// Powers the target on, and calls `ordered` when the order is no longer on its way. After the
    /// sender of `wanted` is dropped, this gives no order and asks no more. Only after an order that
    /// was not acknowledged does it go on asking: the device may still carry the order out.
    fn power_on(&self, wanted: &Receiver<()>, ordered: impl Fn()) -> Verdict {
        let (abilities, timeout_ms) = (self.device.driver.abilities(), self.device.timeout_ms);
        let is_wanted = || wanted.try_recv() != Err(TryRecvError::Disconnected);
        if !is_wanted() {
            return Verdict::failure(FenceResult::Withdrawn, "it was called back".to_owned());
        }
        let mut plan = Plan::power_on(abilities, timeout_ms, self.job.deadline_boot_ms, boot_ms());
        let (mut report, mut is_in_doubt) = (Report::Begin, false);
        loop {
            report = match self.next(&mut plan, report) {
                Ok(report) => report,
                Err(verdict) => return verdict,
            };
            match report {
                Report::Order(OrderReport::Unacknowledged(_)) => is_in_doubt = true,
                Report::Order(_) => ordered(),
                _ if !is_in_doubt && !is_wanted() => {
                    let why = "not asked any more".to_owned();
                    return Verdict::failure(FenceResult::Interrupted, why);
                }
                _ => {}
            }
        }
    }

    /// Carries out the next step of `plan`. Returns its report, or the verdict at the plan's end.
    fn next(&self, plan: &mut Plan, report: Report) -> Result<Report, Verdict> {
        let (driver, target) = (&self.device.driver, &self.job.target);
        let step = plan.next(report, boot_ms());
        log_step(self.job, &step_words(&step));
        let report = match step {
            Step::Order(order, not_after_boot_ms) => {
                let context = OrderContext {
                    target,
                    action: self.job.action,
                    request_id: &self.job.request.request_id,
                    pin: &self.pin,
                    gfs2_filesystems: &self.job.request.gfs2_filesystems,
                    request_json: &self.request_json,
                    client: plan.is_for_client().then_some(&self.client),
                };
                Report::Order(driver.order(order, &context, Limit { not_after_boot_ms }))
            }
            Step::AskPower(not_after_boot_ms) => {
                Report::Power(driver.power(target, &self.pin, Limit { not_after_boot_ms }))
            }
            Step::Pause(ms) => {
                thread::sleep(Duration::from_millis(ms));
                Report::Paused
            }
            Step::LookForClient => {
                let limit = Limit { not_after_boot_ms: self.job.deadline_boot_ms };
                Report::Client(self.client.is_waiting(limit))
            }
            Step::Done(verdict) => return Err(verdict),
        };
        log_step(self.job, &report_words(&report));
        Ok(report)
    }
}

fn log_step(job: &Job, words: &str) {
    let (id, target, device) = (&job.request.request_id, &job.target, &job.lane.device);
    debug!("step: request={id} target={target} device={device} {words}");
}

fn step_words(step: &Step) -> String {
    let in_ms = |instant: u64| instant.saturating_sub(boot_ms());
    match step {
        Step::Order(order, limit) => {
            format!("order {} within {} ms", order.as_action(), in_ms(*limit))
        }
        Step::AskPower(limit) => format!("ask for the power within {} ms", in_ms(*limit)),
        Step::Pause(ms) => format!("pause for {ms} ms"),
        Step::LookForClient => "look whether the client still waits".to_owned(),
        Step::Done(verdict) => format!("end with {}: {}", verdict.result, verdict.message),
    }
}

fn report_words(report: &Report) -> String {
    let (words, detail) = match report {
        Report::Begin => ("began", ""),
        Report::Order(OrderReport::Acknowledged(words)) => ("the order was acknowledged", &**words),
        Report::Order(OrderReport::Unreachable(why)) => {
            ("nothing was carried out, the device was not reached", &**why)
        }
        Report::Order(OrderReport::Unacknowledged(why)) => {
            ("the order was not acknowledged", &**why)
        }
        Report::Order(OrderReport::Failed(why)) => ("the order failed, nothing was done", &**why),
        Report::Order(OrderReport::TooLate) => ("the order was not sent: it was too late", ""),
        Report::Order(OrderReport::Withdrawn) => ("the order was not sent: nobody waits", ""),
        Report::Power(PowerReport { state, detail }) => match state {
            PowerState::On => ("the device shows on", &**detail),
            PowerState::Off => ("the device shows off", &**detail),
            PowerState::Unknown => ("the device does not show the state", &**detail),
        },
        Report::Paused => ("the pause is over", ""),
        Report::Client(true) => ("the client still waits", ""),
        Report::Client(false) => ("the client is gone", ""),
    };
    if detail.is_empty() { words.to_owned() } else { format!("{words}: {detail}") }
}

fn failure(message: String) -> Verdict {
    Verdict::failure(FenceResult::DeviceFailure, message)
}
