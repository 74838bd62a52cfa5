//! `fence-watcher check`: whether the service can start, whether each device can be reached now,
//! and what may surprise.
//!
//! The configuration itself was checked when it was read. Devices get questions, and no orders. If
//! only the service has the secret of a device, the running watcher asks the device. `crate::findings`
//! has the questions, `notes` the texts about the answers, and `report` the forms of the output.

mod notes;
mod report;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fence_audit::{LogProcess, Task};
use fence_core::watcher::Coverage;
use fence_core::{execution, watcher as core};
use fence_device::{ExecutorClient, Limit, ask_some};
use fence_log::one_line;
use fence_protocol::{FenceAction, NodeName, QueryCode, QueryKind};
use serde::Deserialize;

use super::EXECUTOR_MODE;
use super::ask::ask;
use crate::config::{DeviceKind, DeviceSettings, SpoolSettings, WatcherConfig, local_node};
use crate::devices::{ConfiguredDevice, Devices};
use crate::findings::{self, Depth, Examined, Findings};
use notes::{Note, notes_of};
pub(super) use report::refused;

/// The options of `check`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The configuration alone is checked.
    pub(super) offline: bool,
    /// As JSON.
    pub(super) json: bool,
}

/// The text of `check`, and whether it found no problem.
pub(super) fn check(settings: &WatcherConfig, wanted: Wanted) -> anyhow::Result<(String, bool)> {
    // No watcher has to wait for the end of this executor, so its lock has no meaning.
    let lock = Path::new("/dev/null");
    let executor = ExecutorClient::start(Path::new("/proc/self/exe"), &[EXECUTOR_MODE], lock)
        .context("cannot start the helper process that runs commands")?;
    let devices = Devices::build(settings, &executor);
    let unasked = |settings| Checked::new(settings, &devices);
    let mut checked: Vec<Checked> = settings.devices.iter().filter_map(unasked).collect();
    let mut general = Vec::new();
    if !wanted.offline {
        ask_devices(&mut checked, &settings.spool);
        general = problems_of_places(settings);
    }
    let mut notes = notes(&checked, settings, wanted.offline);
    notes.extend(general);
    let is_well = !notes.iter().any(|note| note.is_problem);
    let WatcherConfig { node, devices, digest, .. } = settings;
    let digest = Some(digest.as_str());
    let report =
        report::Report { node, digest, devices, checked: &checked, notes: &notes, is_well };
    Ok((if wanted.json { report.json() } else { report.text() }, is_well))
}

/// The problems of a configuration that the running watcher has just read: those of the spool and
/// the logs, and those that the watcher finds when it contacts each device. `check` examines more.
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

/// Why the service cannot start on its spool, or agents cannot write their logs. The service
/// creates missing directories; this function creates nothing.
fn problems_of_places(settings: &WatcherConfig) -> Vec<Note> {
    let places = settings.spool.places();
    let spool = fence_spool::examine_places(&places);
    // The problems above include a directory that is refused as a whole.
    let answers = spool.is_empty().then(|| fence_spool::check_answers(&places).err()).flatten();
    let answers = answers.map(|problem| ("no answer could be written: ", problem.to_string()));
    // A process looks, because a disk that hangs holds it.
    let look = LogProcess::start(&Task::Look(settings.log.log_dir.clone()));
    let log = look.finish(LOG_PATIENCE).into_iter();
    let log = log.map(|problem| ("fences cannot be written into the logs: ", problem));
    let spool = spool.iter().map(|problem| ("", problem.to_string()));
    let all: Vec<_> = spool.chain(answers).chain(log).collect();
    let all = notes::once_for_each_cause(&all).into_iter();
    all.map(|problem| Note::general(problem).into_problem()).collect()
}

/// A device and the findings about it.
struct Checked<'a> {
    settings: &'a DeviceSettings,
    device: Arc<ConfiguredDevice>,
    asked_by: Option<&'static str>,
    findings: Findings,
}

impl<'a> Checked<'a> {
    fn new(settings: &'a DeviceSettings, devices: &Devices) -> Option<Self> {
        let device = Arc::clone(devices.get(&settings.name)?);
        Some(Checked { settings, device, asked_by: None, findings: Findings::default() })
    }

    /// The device for the core, with the targets that it listed.
    fn facts(&self) -> core::Device {
        let mut facts = self.device.facts();
        if let Some(nodes) = self.listed() {
            facts.coverage = Coverage::Discovered(Some(nodes));
        }
        facts
    }

    /// The targets that it listed.
    fn listed(&self) -> Option<BTreeSet<NodeName>> {
        let names = self.findings.targets.as_ref()?;
        Some(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// Asks the devices of this node, many at once.
fn ask_devices(checked: &mut [Checked], spool: &SpoolSettings) {
    let here = checked.iter_mut().filter(|checked| checked.device.here);
    let (mut services, mut own): (Vec<_>, Vec<_>) =
        here.partition(|checked| checked.settings.kind.secret_out_of_reach().is_some());
    let devices: Vec<_> = own.iter().map(|checked| Arc::clone(&checked.device)).collect();
    let limit = Limit::in_ms(findings::time_max_ms(&devices));
    for (checked, findings) in own.iter_mut().zip(findings::examine(&devices, Depth::Whole, limit))
    {
        checked.findings = findings;
        checked.asked_by = Some("check");
    }
    let answers = ask_some(&services, ASKED_AT_ONCE, |checked| {
        let device = &checked.device;
        let patience_ms = findings::time_max_ms([device]) + WATCHER_MS_MAX;
        let examined = ask_watcher(spool, Some(&device.name), patience_ms)?;
        let is_it =
            |one: &Examined| one.name == device.name && one.settings == device.fingerprint();
        examined.into_iter().find(is_it).map(|examined| examined.findings).context(
            "its configuration has other settings for this device: run `fence-watcher reload`, \
             then check again",
        )
    });
    for (checked, answer) in services.iter_mut().zip(answers) {
        let secret = checked.settings.kind.secret_out_of_reach().unwrap_or_default();
        match answer {
            Ok(findings) => {
                checked.findings = findings;
                checked.asked_by = Some("fence-watcher");
            }
            Err(error) => {
                checked.findings.problems = vec![format!(
                    "only the running fence-watcher can ask it, because only the service has \
                     {secret}: {error:#}"
                )];
            }
        }
    }
}

/// The findings of the running watcher about `device`, or about all its devices.
fn ask_watcher(
    spool: &SpoolSettings,
    device: Option<&str>,
    patience_ms: u64,
) -> anyhow::Result<Vec<Examined>> {
    let answer = ask(spool, QueryKind::Check, device, patience_ms)?;
    if answer.code != QueryCode::Yes {
        bail!("{}", one_line(&answer.message));
    }
    let state = answer.state.context("the watcher's answer has no findings")?;
    Vec::deserialize(state).context("the watcher's answer cannot be understood")
}

fn notes(checked: &[Checked], settings: &WatcherConfig, offline: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    for Checked { settings: of_device, device, findings, .. } in checked {
        let name = &device.name;
        if !device.here {
            let text = format!(" is not used on this node, '{}'", settings.node);
            notes.push(Note::of(name, text));
            continue;
        }
        notes.extend(notes_of(name, findings, device.kind.addresses().is_some()));
        if matches!(of_device.kind, DeviceKind::Simulated(_)) {
            let text = " is simulated: it only pretends to fence, nothing is really cut off";
            notes.push(Note::of(name, text));
        }
        notes.extend(unable(device));
    }
    let node = &settings.node;
    if !checked.iter().any(|checked| checked.device.here) {
        let text = format!("no device is for this node, '{node}': nothing can be fenced");
        notes.push(Note::general(text));
    }
    notes.extend(settings.reports().into_iter().map(Note::general));
    let machine = local_node();
    if !offline && *node != machine {
        let text =
            format!("asked from this machine, '{machine}': '{node}' may reach other devices");
        notes.push(Note::general(text));
    }
    notes
}

/// The abilities that the device lacks: `check` shows them before a fence needs them.
fn unable(device: &ConfiguredDevice) -> Vec<Note> {
    let (name, abilities) = (&device.name, device.driver.abilities());
    let actions = [FenceAction::Off, FenceAction::On, FenceAction::Reboot].into_iter();
    let lacking = actions.filter(|action| !abilities.serve(*action, device.method()));
    let text = |action| format!(" has no way to do '{action}': it refuses such requests");
    let mut notes: Vec<Note> = lacking.map(|action| Note::of(name, text(action))).collect();
    if !abilities.power {
        notes.push(Note::of(name, " has no 'status': its fences cannot be verified"));
    }
    notes
}

/// The word for how a reboot is done.
fn method(device: &ConfiguredDevice) -> &'static str {
    match device.method() {
        execution::Method::OnOff => "onoff",
        execution::Method::Cycle => "cycle",
    }
}

/// How long the watcher may take in addition to the examination.
const WATCHER_MS_MAX: u64 = 3_000;

/// How long a watcher with a new configuration may take to ask its devices. With the 30 s for
/// reading the file, this is less than the 90 s that systemd allows for a reload.
const RELOADED_MS_MAX: u64 = 45_000;

/// The most questions to the watcher at the same time.
const ASKED_AT_ONCE: usize = 16;

/// How long the disk of the logs may take to respond.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
