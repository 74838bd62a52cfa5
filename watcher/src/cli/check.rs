//! `fence-watcher check`: every device, whether it can be reached now, and what may surprise.
//!
//! The configuration itself was checked when it was read. Devices are asked, never told anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use anyhow::Context;
use fence_core::execution::Method;
use fence_device::{ExecutorClient, Limit, Reach};
use fence_protocol::{FenceAction, NodeName};

use super::EXECUTOR_MODE;
use super::table::Table;
use crate::config::{DeviceKind, Settings, Targets, fold_hostlist};
use crate::devices::{ConfiguredDevice, Devices};

/// The text of `check`, and whether all devices of this node can be reached.
pub(super) fn check(settings: &Settings, offline: bool) -> anyhow::Result<(String, bool)> {
    // No watcher has to wait for this executor's end, so it locks what nobody looks at.
    let lock = Path::new("/dev/null");
    let executor = ExecutorClient::start(Path::new("/proc/self/exe"), &[EXECUTOR_MODE], lock)
        .context("cannot start the helper process that runs commands")?;
    let devices = Devices::build(settings, &executor);
    let checked: Vec<Checked> = thread::scope(|scope| {
        let limit = Limit::in_ms(REACH_MS_MAX);
        let asked: Vec<_> = settings
            .devices
            .iter()
            .filter_map(|settings| Some((&settings.kind, devices.get(&settings.name)?)))
            .map(|(kind, device)| {
                let ask = device.here && !offline;
                let answer = ask.then(|| scope.spawn(move || device.driver.reachable(limit)));
                (kind, device, answer)
            })
            .collect();
        let broken = |_| Reach::Unreachable("its driver broke down".to_owned());
        asked
            .into_iter()
            .map(|(kind, device, answer)| Checked {
                is_simulated: matches!(kind, DeviceKind::Simulated(_)),
                device,
                problems: if offline { Vec::new() } else { device.driver.check() },
                reach: answer.map(|answer| answer.join().unwrap_or_else(broken)),
            })
            .collect()
    });
    Ok((report(&checked, settings), checked.iter().all(Checked::is_well)))
}

/// What is known of a device.
struct Checked<'a> {
    device: &'a ConfiguredDevice,
    is_simulated: bool,
    /// What the driver finds wrong with its settings.
    problems: Vec<String>,
    /// What it answered, if it was asked.
    reach: Option<Reach>,
}

impl Checked<'_> {
    fn is_well(&self) -> bool {
        let is_lost = matches!(self.reach, Some(Reach::Unreachable(_)));
        !is_lost && (self.problems.is_empty() || !self.device.here)
    }
}

fn report(checked: &[Checked], settings: &Settings) -> String {
    let mut text = table(checked);
    let notes = notes(checked, settings);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str("note: ");
        text.push_str(&fence_log::one_line(&note));
        text.push('\n');
    }
    text
}

fn table(checked: &[Checked]) -> String {
    let mut table = Table::new([
        "DEVICE",
        "TYPE",
        "REACHABLE",
        "TARGETS",
        "METHOD",
        "CONCURRENT",
        "ON THIS NODE",
    ]);
    for Checked { device, reach, .. } in checked {
        table.row([
            &device.name,
            device.type_name,
            match reach {
                Some(Reach::Reachable(_)) => "yes",
                Some(Reach::Unreachable(_)) => "NO",
                None => "not asked",
            },
            &targets(device),
            match device.method {
                Method::OnOff => "onoff",
                Method::Cycle => "cycle",
            },
            &match device.addresses {
                Some(_) => format!("{} an address", device.max_concurrent),
                None => device.max_concurrent.to_string(),
            },
            if device.here { "yes" } else { "no" },
        ]);
    }
    table.text()
}

/// The targets, or their number where the list would fill the screen.
fn targets(device: &ConfiguredDevice) -> String {
    match device.fixed_targets() {
        Some(nodes) if device.targets_text.len() > TARGETS_WIDTH_MAX => {
            format!("{} nodes", nodes.len())
        }
        _ => device.targets_text.clone(),
    }
}

fn notes(checked: &[Checked], settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    for checked in checked {
        let name = &checked.device.name;
        if !checked.device.here {
            notes.push(format!("'{name}' is not used on this node, '{}'", settings.node));
            continue;
        }
        if let Some(Reach::Unreachable(why)) = &checked.reach {
            notes.push(format!("'{name}' cannot be reached: {why}"));
        }
        notes.extend(checked.problems.iter().map(|problem| format!("'{name}': {problem}")));
        if checked.is_simulated {
            notes.push(format!(
                "'{name}' is simulated: it only pretends to fence, nothing is really cut off"
            ));
        }
        notes.extend(unable(checked.device));
    }
    if !checked.iter().any(|checked| checked.device.here) {
        notes.push(format!(
            "no device is for this node, '{}': nothing can be fenced",
            settings.node
        ));
    }
    notes.extend(covered_twice(checked));
    notes.extend(beside_any(settings));
    notes
}

/// What the device cannot do, so that nobody learns it from a fence.
fn unable(device: &ConfiguredDevice) -> Vec<String> {
    let (name, abilities) = (&device.name, device.driver.abilities());
    let mut notes: Vec<String> = [FenceAction::Off, FenceAction::On, FenceAction::Reboot]
        .into_iter()
        .filter(|action| !abilities.serve(*action, device.method))
        .map(|action| format!("'{name}' has no way to do '{action}': it refuses such requests"))
        .collect();
    if !abilities.power {
        notes.push(format!("'{name}' has no 'status': that it did a fence has to be believed"));
    }
    notes
}

/// Targets that several devices of this node list, and which one is used.
fn covered_twice(checked: &[Checked]) -> Vec<String> {
    let mut devices_of: BTreeMap<&NodeName, Vec<&str>> = BTreeMap::new();
    for device in checked.iter().map(|checked| checked.device).filter(|device| device.here) {
        for node in device.fixed_targets().into_iter().flatten() {
            devices_of.entry(node).or_default().push(&device.name);
        }
    }
    let mut targets_of: BTreeMap<Vec<&str>, Vec<&NodeName>> = BTreeMap::new();
    for (target, devices) in devices_of.into_iter().filter(|(_, devices)| devices.len() > 1) {
        targets_of.entry(devices).or_default().push(target);
    }
    targets_of
        .into_iter()
        .map(|(devices, targets)| {
            let (targets, all) = (fold_hostlist(targets), devices.join("', '"));
            format!("{targets}: covered by '{all}'; the first one, '{}', is used", devices[0])
        })
        .collect()
}

/// A device for any target takes those of all devices that come after it.
fn beside_any(settings: &Settings) -> Option<String> {
    let mut here = settings.devices.iter().filter(|device| device.applies_to(&settings.node));
    let any = here.find(|device| device.targets == Targets::Any)?;
    let after: Vec<&str> = here.map(|device| device.name.as_str()).collect();
    let (any, after) = (&any.name, (!after.is_empty()).then(|| after.join("', '"))?);
    Some(format!("'{any}' covers every target, so '{after}' is used only when it is named"))
}

/// How long a device may take to show that it can be reached.
const REACH_MS_MAX: u64 = 2_000;

/// The widest list of targets that is shown in full.
const TARGETS_WIDTH_MAX: usize = 40;
