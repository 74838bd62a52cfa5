//! The output of a check: tables for people, JSON for programs.

use std::collections::BTreeSet;

use fence_core::watcher::{self as core, Coverage, Unroutable, route};
use fence_protocol::{FenceAction, NodeName, fold_hostlist, natural_order};
use serde_json::json;

use super::notes::{self, Note};
use super::{Checked, method};
use crate::cli::table::Table;
use crate::config::DeviceSettings;

/// All findings of a check.
pub(super) struct Report<'a> {
    pub(super) node: &'a str,
    /// The digest of the configuration; `None` if it was refused.
    pub(super) digest: Option<&'a str>,
    pub(super) devices: &'a [DeviceSettings],
    pub(super) checked: &'a [Checked<'a>],
    pub(super) notes: &'a [Note],
    pub(super) is_well: bool,
}

/// Some targets, and the devices that fence them, first the one that is used. Without targets: the
/// devices for all targets that no device names.
type Fencers = (Option<String>, Vec<String>);

impl Report<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = devices(self.checked).text();
        let mut table = Table::new(["TARGETS", "FENCED BY", "OR, IF NAMED, BY"]);
        let fencers = self.fencers();
        // If the table names some targets, the rest are the others.
        let rest = if fencers.len() > 1 { "all others" } else { "all" };
        for (targets, by) in &fencers {
            if let Some((used, others)) = by.split_first() {
                table.row([targets.as_deref().unwrap_or(rest), used, &others.join(", ")]);
            }
        }
        if !table.is_empty() {
            text.push('\n');
            text.push_str(&table.text());
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for (word, is_problem) in [("problem", true), ("note", false)] {
            let notes = self.notes.iter().filter(|note| note.is_problem == is_problem);
            let lines = notes::lines(notes, self.devices).into_iter();
            text.extend(lines.map(|line| format!("{word}: {line}\n")));
        }
        let digest = self.digest.map(|digest| format!("configuration: sha256 {digest}\n"));
        text.extend(digest);
        text
    }

    pub(super) fn json(&self) -> String {
        let said = |device: Option<&str>, is_problem: bool| -> Vec<&str> {
            let is_it =
                |note: &&Note| note.device.as_deref() == device && note.is_problem == is_problem;
            let texts = self.notes.iter().filter(is_it).map(|note| note.text.as_str());
            texts.map(|text| text.trim_start_matches([':', ' '])).collect()
        };
        let device = |checked: &Checked| {
            let Checked { device, asked_by, findings, .. } = checked;
            json!({
                "name": device.name,
                "type": device.type_name,
                "on_this_node": device.here,
                "asked_by": asked_by,
                "reachable": findings.reachable,
                "targets": targets_in_full(checked),
                "method": method(device),
                "max_concurrent": device.max_concurrent,
                "per_address": device.kind.addresses().is_some(),
                "problems": said(Some(&device.name), true),
                "notes": said(Some(&device.name), false),
            })
        };
        let fencers = self.fencers().into_iter().filter_map(|(targets, by)| {
            let (used, others) = by.split_first()?;
            Some(json!({"targets": targets, "device": used, "others": others}))
        });
        let value = json!({
            "well": self.is_well,
            "node": self.node,
            "digest": self.digest,
            "devices": self.checked.iter().map(device).collect::<Vec<_>>(),
            "fenced_by": fencers.collect::<Vec<_>>(),
            "problems": said(None, true),
            "notes": said(None, false),
        });
        format!("{value:#}\n")
    }

    /// The devices of this node that fence each target.
    fn fencers(&self) -> Vec<Fencers> {
        let devices: Vec<core::Device> = self.checked.iter().map(Checked::facts).collect();
        let listed: BTreeSet<&NodeName> = devices
            .iter()
            .filter(|device| device.here)
            .filter_map(|device| match &device.coverage {
                Coverage::Nodes(nodes) | Coverage::Discovered(Some(nodes)) => Some(nodes),
                Coverage::Any | Coverage::Discovered(None) => None,
            })
            .flatten()
            .collect();
        let mut in_order: Vec<&NodeName> = listed.iter().copied().collect();
        in_order.sort_by(|one, other| natural_order(one.as_str(), other.as_str()));
        let by_devices = in_order.into_iter().map(|target| (serving(&devices, target), target));
        let groups = notes::grouped(by_devices).into_iter();
        let fencers = |(by, targets): (_, Vec<_>)| (Some(fold_hostlist(targets)), by);
        let mut all: Vec<Fencers> = groups.map(fencers).collect();
        let mut other = (0..).filter_map(|n| format!("any-other-{n}").parse::<NodeName>().ok());
        if let Some(other) = other.find(|name| !listed.contains(name)) {
            all.push((None, serving(&devices, &other)));
        }
        all
    }
}

/// The report about a refused configuration, with all problems and their places.
pub(in crate::cli) fn refused(node: &str, problems: &[String]) -> String {
    let problems: Vec<Note> =
        problems.iter().map(|problem| Note::general(problem).into_problem()).collect();
    Report { node, digest: None, devices: &[], checked: &[], notes: &problems, is_well: false }
        .json()
}

fn devices(checked: &[Checked]) -> Table<7> {
    let mut table = Table::new([
        "DEVICE",
        "TYPE",
        "REACHABLE",
        "TARGETS",
        "METHOD",
        "CONCURRENT",
        "ON THIS NODE",
    ]);
    for checked @ Checked { device, findings, .. } in checked {
        table.row([
            &device.name,
            device.type_name,
            match findings.reachable {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "not asked",
            },
            &targets_in_short(checked),
            method(device),
            &match device.kind.addresses() {
                Some(_) => format!("{} per address", device.max_concurrent),
                None => device.max_concurrent.to_string(),
            },
            if device.here { "yes" } else { "no" },
        ]);
    }
    table
}

/// The devices of this node that can fence `target`, first the one that is used.
fn serving(devices: &[core::Device], target: &NodeName) -> Vec<String> {
    let by = |named: Option<&str>| match route(devices, named, target, FenceAction::Off) {
        Ok(device) => Some(device.name.clone()),
        Err(Unroutable::Unable(name, _)) => Some(name),
        Err(_) => None,
    };
    let used = by(None);
    let others = devices.iter().filter_map(|device| by(Some(&device.name)));
    let others = others.filter(|name| Some(name) != used.as_ref());
    used.iter().cloned().chain(others).collect()
}

/// The targets of the configuration, or those that the device listed.
fn targets_in_full(checked: &Checked) -> String {
    targets(checked, |nodes| fold_hostlist(nodes))
}

/// The same, or their number if the list is long and the other table names them.
fn targets_in_short(checked: &Checked) -> String {
    let text = targets_in_full(checked);
    if text.len() <= TARGETS_WIDTH_MAX || !checked.device.here {
        return text;
    }
    targets(checked, |nodes| format!("{} nodes", nodes.len()))
}

fn targets(checked: &Checked, shown: impl Fn(&BTreeSet<NodeName>) -> String) -> String {
    match (checked.device.fixed_targets(), checked.listed()) {
        (Some(nodes), _) => shown(nodes),
        (None, Some(nodes)) => format!("discover: {}", shown(&nodes)),
        (None, None) => checked.device.targets.to_string(),
    }
}

/// The widest list of targets that is shown in full beside a device.
const TARGETS_WIDTH_MAX: usize = 40;
