//! `fence-watcher check`: whether the service would start, every device, whether it can be reached
//! now, and what may surprise.
//!
//! The configuration itself was checked when it was read. Devices are asked, never told anything. A
//! device whose secret is given to the service alone is asked by the watcher that runs. What is
//! asked is `crate::probe`'s, what is said of it the module `notes`'s, and how it is shown
//! `report`'s.

mod notes;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use fence_audit::{LogProcess, Task};
use fence_core::watcher::Coverage;
use fence_core::{execution, watcher as core};
use fence_device::{ExecutorClient, Limit, ask_some};
use fence_log::one_line;
use fence_protocol::{FenceAction, NodeName, QueryCode, QueryKind};
use fence_spool::Places;
use serde::Deserialize;

use super::EXECUTOR_MODE;
use super::ask::ask_about;
use crate::config::{DeviceKind, SpoolSettings, WatcherConfig, local_node};
use crate::devices::{ConfiguredDevice, Devices};
use crate::probe::{self, Depth, Examined, Findings};
use notes::{Note, notes_of};
pub(super) use report::refused;

/// How `check` is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Nothing is asked and nothing looked at but the configuration.
    pub(super) offline: bool,
    /// As JSON.
    pub(super) json: bool,
}

/// The text of `check`, and whether all is well.
pub(super) fn check(settings: &WatcherConfig, wanted: Wanted) -> anyhow::Result<(String, bool)> {
    // No watcher has to wait for this executor's end, so it locks what nobody looks at.
    let lock = Path::new("/dev/null");
    let executor = ExecutorClient::start(Path::new("/proc/self/exe"), &[EXECUTOR_MODE], lock)
        .context("cannot start the helper process that runs commands")?;
    let devices = Devices::build(settings, &executor);
    let mut checked: Vec<Checked> = settings
        .devices
        .iter()
        .filter_map(|settings| {
            let device = Arc::clone(devices.get(&settings.name)?);
            Some(Checked {
                device,
                is_simulated: matches!(settings.kind, DeviceKind::Simulated(_)),
                services_secret: settings.kind.secret_out_of_reach(),
                asked_by: None,
                findings: Findings::default(),
            })
        })
        .collect();
    let mut general = Vec::new();
    if !wanted.offline {
        ask(&mut checked, &settings.spool);
        general = problems_of_places(settings);
    }
    let mut notes = notes(&checked, settings, wanted.offline);
    notes.extend(general);
    let is_well = !notes.iter().any(|note| note.is_problem);
    let report = report::Report { settings, checked: &checked, notes: &notes, is_well };
    Ok((if wanted.json { report.json() } else { report.text() }, is_well))
}

/// The problems of a configuration that was just taken over: those of the spool, the logs and the
/// settings, and the contact to each device, as the running watcher sees it. `check` examines more.
pub(super) fn warnings(settings: &WatcherConfig) -> Vec<String> {
    let mut notes = problems_of_places(settings);
    match ask_watcher(&settings.spool, None, RELOADED_MS_MAX) {
        Ok(devices) => {
            let all = devices.iter().flat_map(|one| notes_of(&one.name, &one.findings, false));
            notes.extend(all.filter(|note| note.is_problem));
        }
        Err(error) => {
            let text = format!("the devices were not checked: {error:#}");
            notes.push(Note::general(text).into_problem());
        }
    }
    notes::lines(&notes, &settings.devices)
}

/// Why the service would not start on its spool, or agents could not write their logs. The service
/// makes what is missing; nothing is made here.
fn problems_of_places(settings: &WatcherConfig) -> Vec<Note> {
    let SpoolSettings { request_dir, response_dir, .. } = &settings.spool;
    let places = Places::new(request_dir, response_dir);
    let spool = fence_spool::examine_places(&places);
    // A directory that is refused as a whole was named above.
    let answers = spool.is_empty().then(|| fence_spool::check_answers(&places).err()).flatten();
    let answers = answers.map(|problem| ("no answer could be written: ", problem.to_string()));
    // A disk that stands still holds whoever looks at it.
    let look = LogProcess::start(&Task::Look(settings.log.log_dir.clone()));
    let log = look.finish(LOG_PATIENCE).into_iter();
    let log = log.map(|problem| ("fences cannot be written into the logs: ", problem));
    let spool = spool.iter().map(|problem| ("", problem.to_string()));
    let all: Vec<_> = spool.chain(answers).chain(log).collect();
    let all = notes::once_for_each_cause(&all).into_iter();
    all.map(|problem| Note::general(problem).into_problem()).collect()
}

/// What is known of a device.
struct Checked {
    device: Arc<ConfiguredDevice>,
    is_simulated: bool,
    /// A secret that it needs and that only the service can read, as people call it.
    services_secret: Option<String>,
    asked_by: Option<&'static str>,
    findings: Findings,
}

impl Checked {
    /// What the core has to know of it.
    fn facts(&self) -> core::Device {
        let mut facts = self.device.facts();
        if let Some(nodes) = self.listed() {
            facts.coverage = Coverage::Discovered(Some(nodes.into_iter().collect()));
        }
        facts
    }

    /// The targets that it listed.
    fn listed(&self) -> Option<Vec<NodeName>> {
        let names = self.findings.targets.as_ref()?;
        Some(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// Asks the devices of this node, many at once.
fn ask(checked: &mut [Checked], spool: &SpoolSettings) {
    let here = checked.iter_mut().filter(|checked| checked.device.here);
    let (mut services, mut own): (Vec<_>, Vec<_>) =
        here.partition(|checked| checked.services_secret.is_some());
    let devices: Vec<_> = own.iter().map(|checked| Arc::clone(&checked.device)).collect();
    let limit = Limit::in_ms(probe::time_max_ms(&devices));
    for (checked, findings) in own.iter_mut().zip(probe::examine(&devices, Depth::Whole, limit)) {
        checked.findings = findings;
        checked.asked_by = Some("check");
    }
    let answers = ask_some(&services, ASKED_AT_ONCE, |checked| {
        let device = &checked.device;
        let patience_ms = probe::time_max_ms([device]) + WATCHER_MS_MAX;
        let examined = ask_watcher(spool, Some(&device.name), patience_ms)?;
        let examined = examined.into_iter().find(|one| one.name == device.name);
        match examined {
            Some(examined) if examined.settings == device.fingerprint => Ok(examined.findings),
            _ => Err(anyhow!(
                "the configuration that it runs with has other settings for this device: run \
                 `fence-watcher reload`, then check again"
            )),
        }
    });
    for (checked, answer) in services.iter_mut().zip(answers) {
        let secret = checked.services_secret.as_deref().unwrap_or_default();
        match answer {
            Ok(findings) => {
                checked.findings = findings;
                checked.asked_by = Some("fence-watcher");
            }
            Err(error) => {
                checked.findings.problems = vec![format!(
                    "only the running fence-watcher can ask it, because {secret} is given to the \
                     service alone: {error:#}"
                )];
            }
        }
    }
}

/// What the watcher that runs finds when it asks `device`, or all its devices.
fn ask_watcher(
    spool: &SpoolSettings,
    device: Option<&str>,
    patience_ms: u64,
) -> anyhow::Result<Vec<Examined>> {
    let answer = ask_about(spool, QueryKind::Check, device, patience_ms)?;
    if answer.code != QueryCode::Yes {
        bail!("{}", one_line(&answer.message));
    }
    let state = answer.state.context("the watcher's answer has no findings")?;
    Vec::deserialize(state).context("the watcher's answer is not understood")
}

fn notes(checked: &[Checked], settings: &WatcherConfig, offline: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    for Checked { device, is_simulated, findings, .. } in checked {
        let name = &device.name;
        if !device.here {
            let text = format!(" is not used on this node, '{}'", settings.node);
            notes.push(Note::of(name, text));
            continue;
        }
        notes.extend(notes_of(name, findings, device.addresses.is_some()));
        if *is_simulated {
            let text = " is simulated: it only pretends to fence, nothing is really cut off";
            notes.push(Note::of(name, text));
        }
        notes.extend(unable(device));
    }
    if !checked.iter().any(|checked| checked.device.here) {
        let text =
            format!("no device is for this node, '{}': nothing can be fenced", settings.node);
        notes.push(Note::general(text));
    }
    notes.extend(settings.reports().into_iter().map(Note::general));
    if !offline && settings.node != local_node() {
        notes.push(Note::general(format!(
            "asked from this machine, '{}': '{}' may reach other devices",
            local_node(),
            settings.node
        )));
    }
    notes
}

/// What the device cannot do, so that nobody learns it from a fence.
fn unable(device: &ConfiguredDevice) -> Vec<Note> {
    let (name, abilities) = (&device.name, device.driver.abilities());
    let mut notes: Vec<Note> = [FenceAction::Off, FenceAction::On, FenceAction::Reboot]
        .into_iter()
        .filter(|action| !abilities.serve(*action, device.method()))
        .map(|action| format!(" has no way to do '{action}': it refuses such requests"))
        .map(|text| Note::of(name, text))
        .collect();
    if !abilities.power {
        notes.push(Note::of(name, " has no 'status': that it did a fence has to be believed"));
    }
    notes
}

/// How a reboot is done, as it is shown.
fn method(device: &ConfiguredDevice) -> &'static str {
    match device.method() {
        execution::Method::OnOff => "onoff",
        execution::Method::Cycle => "cycle",
    }
}

/// How long the watcher may take beside the examination itself.
const WATCHER_MS_MAX: u64 = 3_000;

/// How long a watcher that has a new configuration may take to ask its devices: less than the 90 s
/// that systemd gives a reload, with the 30 s of the reading.
const RELOADED_MS_MAX: u64 = 45_000;

/// How many devices the watcher is asked about at the same time.
const ASKED_AT_ONCE: usize = 16;

/// How long the disk of the logs may take to respond.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
