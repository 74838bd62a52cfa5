//! `[[device]]`: one fence device, its targets, and how it is driven.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fence_core::execution::Method;
use fence_device::{CommandSettings, SimulatedFailure, SimulatedSettings};
use fence_protocol::NodeName;
use toml::Spanned;
use toml::de::DeValue;

use super::problems::Problems;
use super::reader::{Parsed, Section};
use super::values::{argv, duration, name, nodes, number, one_of, path};
use super::{HOUR, SECOND, Targets, file};

/// One `[[device]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Its name, unique in the file.
    pub name: String,
    /// What it is, with the settings of that kind.
    pub kind: DeviceKind,
    /// Which nodes it can fence.
    pub targets: Targets,
    /// On which nodes it may be used; `None` on all.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// How long one order may take.
    pub timeout_ms: u64,
    /// How many orders may be under way at once.
    pub max_concurrent: usize,
    /// How a reboot is done; `None` leaves it to what the device is able to do.
    pub method: Option<Method>,
    /// How often an order is tried while the device cannot be reached.
    pub attempts: u32,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A program for each action.
    Command(CommandSettings),
    /// Nothing real: for demonstrations and tests.
    Simulated(SimulatedSettings),
}

impl DeviceSettings {
    /// Whether the device may be used on the machine that calls itself `host`.
    ///
    /// Cluster nodes are named by the host's full name or by the part before the first dot. A listed
    /// full name also fits a machine that knows only its short one; two full names must be equal.
    pub fn applies_to(&self, host: &str) -> bool {
        let Some(nodes) = &self.nodes else { return true };
        let short = short_name(host);
        nodes.iter().map(NodeName::as_str).any(|node| {
            node == host || node == short || (host == short && short_name(node) == short)
        })
    }
}

/// Takes all `[[device]]` tables out of the file.
pub(super) fn read_all(
    root: &mut Section,
    problems: &Problems,
    programs_must_exist: bool,
) -> Vec<DeviceSettings> {
    if !root.has("device") {
        root.absent("no [[device]]: without one nothing can be fenced");
    }
    let sections = root.sections("device");
    let mut first_lines = BTreeMap::new();
    let mut devices = Vec::new();
    for mut section in sections {
        let offset = section.offset_of("name");
        let name = section.require("name", name);
        if let Some(name) = &name {
            let first = *first_lines.entry(name.clone()).or_insert(offset);
            if first != offset {
                let first = problems.line(first);
                problems.at(offset, format!("a second device '{name}'; the first: line {first}"));
            }
        }
        devices.extend(read(name.unwrap_or_default(), section, problems, programs_must_exist));
    }
    devices
}

/// One device; `None` where something that has no default is missing or wrong, which is then noted.
fn read(
    name: String,
    mut section: Section,
    problems: &Problems,
    programs_must_exist: bool,
) -> Option<DeviceSettings> {
    let timeout = section.get("timeout", duration(SECOND..=HOUR));
    let timeout_ms = timeout.unwrap_or(45 * SECOND);
    let types = [("command", Type::Command), ("simulated", Type::Simulated)];
    let kind = match section.require("type", one_of(&types)) {
        Some(Type::Command) => {
            check_abilities(&section, problems);
            let commands = commands(&mut section, problems, programs_must_exist);
            Some(DeviceKind::Command(CommandSettings {
                name: name.clone(),
                timeout_ms,
                ..commands
            }))
        }
        Some(Type::Simulated) => simulation(&mut section).map(DeviceKind::Simulated),
        None => {
            section.ignore(&COMMANDS);
            section.ignore(&SIMULATION);
            None
        }
    };
    let targets = section.require("targets", targets);
    let nodes = section.get("nodes", nodes);
    let max_concurrent = section.get("max_concurrent", number(1..=10_000));
    let method = section.get("method", one_of(&METHODS));
    let attempts = section.get("attempts", number(1..=10));
    section.finish();
    Some(DeviceSettings {
        name,
        kind: kind?,
        targets: targets?,
        nodes,
        timeout_ms,
        max_concurrent: max_concurrent.unwrap_or(1),
        method,
        attempts: attempts.unwrap_or(1),
    })
}

/// Notes what a device of type `command` is told to do and has no program for.
fn check_abilities(section: &Section, problems: &Problems) {
    let has = |key| section.has(key);
    if !has("off") && !has("reboot") {
        section.absent("neither 'off' nor 'reboot' is given: the device could not fence");
    }
    let needs = |key: &'static str, text: String| problems.at(section.offset_of(key), text);
    match section.text_of("method") {
        Some("cycle") if !has("reboot") => {
            needs("method", "'method': \"cycle\" needs a program for 'reboot'".into());
        }
        Some("onoff") if !has("off") || !has("on") => {
            needs("method", "'method': \"onoff\" needs programs for 'off' and 'on'".into());
        }
        _ => {}
    }
    if section.text_of("targets") == Some("discover") && !has("list") {
        needs("targets", "'targets': \"discover\" needs a program for 'list'".into());
    }
}

/// The command lines; the device's name and time limit are its own.
fn commands(
    section: &mut Section,
    problems: &Problems,
    programs_must_exist: bool,
) -> CommandSettings {
    let mut command = |key| {
        let offset = section.offset_of(key);
        let argv = section.get(key, |value| argv(value, placeholders(key)))?;
        if programs_must_exist && let Err(problem) = file::check_program(Path::new(&argv[0])) {
            problems.at(offset, format!("'{key}': {problem}"));
        }
        Some(argv)
    };
    CommandSettings {
        off: command("off"),
        on: command("on"),
        reboot: command("reboot"),
        status: command("status"),
        list: command("list"),
        monitor: command("monitor"),
        ..CommandSettings::default()
    }
}

/// What is put in for the arguments of a command: a list concerns no target, a question no request.
fn placeholders(command: &str) -> &'static [&'static str] {
    match command {
        "list" | "monitor" => &["{action}"],
        "status" => &["{target}", "{action}"],
        _ => &["{target}", "{action}", "{gfs2_filesystems}", "{request_id}"],
    }
}

fn simulation(section: &mut Section) -> Option<SimulatedSettings> {
    let fail_modes = [
        ("none", SimulatedFailure::None),
        ("unreachable", SimulatedFailure::Unreachable),
        ("unacknowledged", SimulatedFailure::Unacknowledged),
        ("device-failure", SimulatedFailure::DeviceFailure),
        ("lie", SimulatedFailure::Lie),
        ("hang", SimulatedFailure::Hang),
    ];
    let state_file = section.require("state_file", path);
    let delay = section.get("delay", duration(0..=HOUR));
    let fail = section.get("fail", one_of(&fail_modes));
    Some(SimulatedSettings {
        state_file: state_file?,
        delay_ms: delay.unwrap_or(0),
        fail: fail.unwrap_or(SimulatedFailure::None),
    })
}

fn targets(value: &Spanned<DeValue>) -> Parsed<Targets> {
    match value.get_ref().as_str() {
        Some("*") => Ok(Targets::Any),
        Some("discover") => Ok(Targets::Discover),
        _ => nodes(value).map(Targets::Nodes),
    }
}

fn short_name(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

#[derive(Clone, Copy)]
enum Type {
    Command,
    Simulated,
}

const METHODS: [(&str, Method); 2] = [("onoff", Method::OnOff), ("cycle", Method::Cycle)];
const COMMANDS: [&str; 6] = ["off", "on", "reboot", "status", "list", "monitor"];
const SIMULATION: [&str; 3] = ["state_file", "delay", "fail"];

#[cfg(test)]
mod tests {
    use super::*;
    use fence_protocol::expand_hostlist;

    #[test]
    fn a_device_is_used_on_the_nodes_that_are_listed_by_short_or_full_name() {
        let mut device = DeviceSettings {
            name: "d".into(),
            kind: DeviceKind::Command(CommandSettings::default()),
            targets: Targets::Any,
            nodes: None,
            timeout_ms: 1,
            max_concurrent: 1,
            method: None,
            attempts: 1,
        };
        assert!(device.applies_to("anything"));

        device.nodes = Some(expand_hostlist("n1,n2.a.org").unwrap().into_iter().collect());
        for (host, applies) in [
            ("n1", true),
            ("n1.a.org", true),
            ("n2", true),
            ("n2.a.org", true),
            ("n2.b.org", false),
            ("n3", false),
            ("", false),
        ] {
            assert_eq!(device.applies_to(host), applies, "{host}");
        }
    }
}
