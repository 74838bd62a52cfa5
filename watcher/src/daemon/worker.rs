//! Drives one execution: carries out the steps of its plan on its device, in a separate thread.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use fence_clock::boot_ms;
use fence_core::execution::{OrderReport, Plan, PowerReport, Report, Step, Verdict};
use fence_core::watcher::Job;
use fence_device::{self as device, Client, Limit, Pin, Subject};
use fence_protocol::{FenceResult, PowerState, RecordName};
use fence_spool::WatcherSpool;
use log::debug;

use super::{Wake, dlm};
use crate::devices::ConfiguredDevice;

/// Executes `job` on `device`, and sends [`Wake::Finished`] in each case.
pub(super) fn execute(
    device: Option<Arc<ConfiguredDevice>>,
    spool: &Arc<WatcherSpool>,
    name: RecordName,
    job: Job,
    wake: &Sender<Wake>,
) {
    let (spool, sender, record) = (Arc::clone(spool), wake.clone(), name.clone());
    let spawned = thread::Builder::new()
        .name(format!("fence {}", job.target))
        .stack_size(device::HELPER_STACK_BYTES)
        .spawn(move || {
            let client = Client::new(spool.claimed_path(&record), job.request.held);
            Subject::new("request", &job.request.request_id).within(|| {
                let missing =
                    || failure(format!("not started: there is no device '{}'", job.lane.device));
                let drive = |device: &Arc<_>| drive(device, &job, &client);
                let verdict = device.as_ref().map_or_else(missing, drive);
                let shows_off = verdict.shows_off();
                // The receiver is gone only when the daemon is.
                let _ = sender.send(Wake::Finished(record, verdict));
                let dlm = device.as_ref().and_then(|device| device.dlm.as_ref());
                if let Some(executor) = dlm.filter(|_| shows_off) {
                    dlm::acknowledge(executor, &job);
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

fn drive(device: &ConfiguredDevice, job: &Job, client: &Client) -> Verdict {
    // The device's abilities may be known only after this.
    device.driver.prepare(Limit { not_after_boot_ms: job.deadline_boot_ms });
    let mut plan = Plan::new(
        job.action,
        device.driver.abilities(),
        device.method(),
        device.attempts,
        device.timeout_ms,
        job.deadline_boot_ms,
    );
    let (pin, request_json) = (Pin::default(), job.request.to_json());
    let order_job = |client| device::OrderContext {
        target: &job.target,
        action: job.action,
        request_id: &job.request.request_id,
        pin: &pin,
        gfs2_filesystems: &job.request.gfs2_filesystems,
        request_json: &request_json,
        client,
    };
    let mut report = Report::Begin;
    loop {
        let step = plan.next(report, boot_ms());
        log_step(job, &step_words(&step));
        report = match step {
            Step::Order(order, not_after_boot_ms) => {
                let limit = Limit { not_after_boot_ms };
                let job = order_job(plan.is_for_client().then_some(client));
                Report::Order(device.driver.order(order, &job, limit))
            }
            Step::AskPower(not_after_boot_ms) => {
                Report::Power(device.driver.power(&job.target, &pin, Limit { not_after_boot_ms }))
            }
            Step::Pause(ms) => {
                thread::sleep(Duration::from_millis(ms));
                Report::Paused
            }
            Step::LookForClient => {
                Report::Client(client.is_waiting(Limit { not_after_boot_ms: job.deadline_boot_ms }))
            }
            Step::Done(verdict) => return verdict,
        };
        log_step(job, &report_words(&report));
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
