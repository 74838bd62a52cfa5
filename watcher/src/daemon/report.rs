//! The state of the watcher, for `fence-watcher status`, through a `state` query.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use fence_core::Now;
use fence_core::execution::Verdict;
use fence_core::watcher::{Coverage, Job, OnResult, Watcher};
use fence_protocol::{FenceResult, RequestId, fold_hostlist};

use crate::devices::{ConfiguredDevice, Devices};
use crate::state::{self, Last, State};

pub(super) struct Reporter {
    node: String,
    started: DateTime<Utc>,
    devices: BTreeMap<String, DeviceStory>,
    counts: BTreeMap<String, u64>,
}

#[derive(Default)]
struct DeviceStory {
    /// Whether the last contact succeeded, and since when.
    reached: Option<(bool, DateTime<Utc>)>,
    last: Option<Last>,
}

impl Reporter {
    pub(super) fn new(node: &str) -> Self {
        let (devices, counts) = (BTreeMap::new(), BTreeMap::new());
        Reporter { node: node.to_owned(), started: Utc::now(), devices, counts }
    }

    pub(super) fn reached(&mut self, device: &str, reached: bool) {
        let story = self.devices.entry(device.to_owned()).or_default();
        if story.reached.is_none_or(|(before, _)| before != reached) {
            story.reached = Some((reached, Utc::now()));
        }
    }

    /// Forgets the devices that changed: those without `is_same`.
    pub(super) fn retain(&mut self, is_same: impl Fn(&str) -> bool) {
        self.devices.retain(|name, _| is_same(name));
    }

    pub(super) fn answered(&mut self, result: FenceResult) {
        *self.counts.entry(result.to_string()).or_default() += 1;
    }

    pub(super) fn finished(&mut self, job: &Job, verdict: &Verdict) {
        match verdict.result {
            FenceResult::Success | FenceResult::Unacknowledged => {
                self.reached(&job.lane.device, true);
            }
            FenceResult::Unreachable => self.reached(&job.lane.device, false),
            _ => {}
        }
        let story = self.devices.entry(job.lane.device.clone()).or_default();
        story.last = Some(Last {
            time: rfc3339(Utc::now()),
            request_id: job.request.request_id.to_string(),
            target: job.target.to_string(),
            action: job.action.to_string(),
            result: verdict.result.to_string(),
            message: verdict.message.clone(),
            on_result: None,
        });
    }

    /// Notes the outcome of the power-on that followed the answer to the reboot `id`.
    pub(super) fn returned(&mut self, id: &RequestId, result: &OnResult) {
        let lasts = self.devices.values_mut().filter_map(|story| story.last.as_mut());
        for last in lasts.filter(|last| last.request_id == id.as_str()) {
            last.on_result = Some(result.to_string());
        }
    }

    pub(super) fn state(&self, core: &Watcher, devices: &Devices, now: Now) -> State {
        let mut running = BTreeMap::<&str, u64>::new();
        let mut queued = BTreeMap::<&str, u64>::new();
        core.running().for_each(|(_, job, _)| *running.entry(&job.lane.device).or_default() += 1);
        core.queued().for_each(|job| *queued.entry(&job.lane.device).or_default() += 1);
        let device = |device: &Arc<ConfiguredDevice>| {
            let story = self.devices.get(&device.name);
            let reached = story.and_then(|story| story.reached);
            let count = |of: &BTreeMap<&str, u64>| of.get(&*device.name).copied().unwrap_or(0);
            state::Device {
                name: device.name.clone(),
                r#type: device.type_name.to_owned(),
                reachable: reached.map(|(reached, _)| reached),
                reachable_since: reached.map(|(_, since)| rfc3339(since)),
                running: count(&running),
                queued: count(&queued),
                max_concurrent: device.max_concurrent,
                per_address: device.kind.addresses().is_some(),
                targets: targets(core, device),
                last: story.and_then(|story| story.last.clone()),
            }
        };
        let running_jobs = core.running().map(|(_, job, since)| state::Job {
            since_ms: Some(now.boot_ms.saturating_sub(since)),
            ..shown(job)
        });
        let queued_jobs = core.queued().take(QUEUED_SHOWN_MAX).map(|job| state::Job {
            deadline_in_ms: Some(job.deadline_boot_ms.saturating_sub(now.boot_ms)),
            ..shown(job)
        });
        State {
            pid: std::process::id(),
            node: self.node.clone(),
            started: rfc3339(self.started),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: devices.here().map(device).collect(),
            running: running_jobs.collect(),
            returning: core.returning().map(shown).collect(),
            queued: queued_jobs.collect(),
            counts: self.counts.clone(),
            answers_waiting_for_disk: core.unanswered(),
        }
    }
}

fn shown(job: &Job) -> state::Job {
    state::Job {
        request_id: job.request.request_id.to_string(),
        target: job.target.to_string(),
        action: job.action.to_string(),
        device: job.lane.device.clone(),
        address: job.lane.address.clone(),
        since_ms: None,
        deadline_in_ms: None,
    }
}

/// The targets of the configuration, and those of the device's list.
fn targets(core: &Watcher, device: &ConfiguredDevice) -> String {
    let known = core.devices().iter().find(|known| known.name == device.name);
    match known.map(|known| &known.coverage) {
        Some(Coverage::Discovered(Some(nodes))) => {
            format!("{}: {}", device.targets, fold_hostlist(nodes))
        }
        _ => device.targets.to_string(),
    }
}

/// The most waiting requests that are listed one by one. Each device's number includes the others.
const QUEUED_SHOWN_MAX: usize = 100;

fn rfc3339(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}
