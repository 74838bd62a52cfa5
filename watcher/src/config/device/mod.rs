//! `[[device]]`: one fence device, its targets, and how it is driven.
//!
//! What all types have in common is here, the keys of each type in the module of its name, and in
//! `twins` what would make two targets of one machine.

mod command;
mod ec2;
mod fence_agent;
mod ipmi;
mod redfish;
mod shared;
mod simulated;
mod twins;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::{
    CommandSettings, Ec2Settings, FenceAgentSettings, IpmiSettings, RedfishSettings, SecretSource,
    SimulatedSettings,
};
use fence_protocol::NodeName;
use toml::Spanned;
use toml::de::DeValue;

pub(super) use twins::reports;

use super::problems::Problems;
use super::reader::{Parsed, Section};
use super::values::{boolean, duration, name, names_of_targets, nodes, number, one_of, secret};
use super::{HOUR, SECOND, Targets};

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
    /// How long the device may take to show that it can be reached.
    pub monitor_timeout_ms: u64,
    /// How many orders may be under way at once.
    pub max_concurrent: usize,
    /// How a reboot is done; `None` leaves it to what the device is able to do.
    pub method: Option<Method>,
    /// How often an order is tried while the device cannot be reached.
    pub attempts: u32,
    /// Whether DLM is told once the device has shown that a target is off.
    pub acknowledge_dlm: bool,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A program for each action.
    Command(CommandSettings),
    /// Instances of AWS EC2.
    Ec2(Ec2Settings),
    /// A program that speaks as fence agents do.
    FenceAgent(FenceAgentSettings),
    /// The management controller of each target, over IPMI.
    Ipmi(IpmiSettings),
    /// BMCs that speak Redfish.
    Redfish(RedfishSettings),
    /// Nothing real: for demonstrations and tests.
    Simulated(SimulatedSettings),
}

impl DeviceKind {
    /// Where targets are reached, for types that have an address for each: executions at one address
    /// are kept apart there, and do not wait for those at others.
    pub fn addresses(&self) -> Option<&PerTarget> {
        match self {
            DeviceKind::Ipmi(settings) => Some(&settings.address),
            DeviceKind::FenceAgent(settings) => settings.addresses(),
            DeviceKind::Redfish(settings) => Some(&settings.address),
            DeviceKind::Command(_) | DeviceKind::Ec2(_) | DeviceKind::Simulated(_) => None,
        }
    }

    /// A secret of the device that is given to another process, the service, and that this one cannot
    /// read; as people call it.
    pub fn secret_out_of_reach(&self) -> Option<String> {
        let secrets: Vec<&SecretSource> = match self {
            DeviceKind::Ec2(settings) => {
                settings.access_key.iter().map(|(_, secret)| secret).collect()
            }
            DeviceKind::FenceAgent(settings) => settings.secrets.values().collect(),
            DeviceKind::Ipmi(settings) => vec![&settings.password],
            DeviceKind::Redfish(settings) => vec![&settings.password],
            DeviceKind::Command(_) | DeviceKind::Simulated(_) => Vec::new(),
        };
        secrets.into_iter().find(|secret| secret.is_for_another()).map(ToString::to_string)
    }

    /// What the device calls its targets at their address, if not by their names.
    pub fn plugs(&self) -> Option<&PerTarget> {
        match self {
            DeviceKind::Ec2(settings) => Some(&settings.instance),
            DeviceKind::FenceAgent(settings) => Some(&settings.plug),
            DeviceKind::Redfish(settings) => settings.system.as_ref(),
            DeviceKind::Command(_) | DeviceKind::Ipmi(_) | DeviceKind::Simulated(_) => None,
        }
    }
}

impl DeviceSettings {
    /// A short text that is equal for equal settings, in one version of this program.
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

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
    let (mut devices, mut targets_at) = (Vec::new(), Vec::new());
    for mut section in sections {
        let offset = section.offset_of("name");
        let at = section.offset_of("targets");
        let name = section.require("name", name);
        if let Some(name) = &name {
            let first = *first_lines.entry(name.clone()).or_insert(offset);
            if first != offset {
                let first = problems.line(first);
                problems.at(offset, format!("a second device '{name}'; the first: line {first}"));
            }
        }
        let device = read(name.unwrap_or_default(), section, problems, programs_must_exist);
        targets_at.extend(device.is_some().then_some(at));
        devices.extend(device);
    }
    for (at, problem) in targets_at.into_iter().zip(shared::problems(&devices)) {
        if let Some(text) = problem {
            problems.at(at, text);
        }
    }
    devices
}

/// What the types have to know of a device when they read their own keys.
struct Common<'p> {
    name: String,
    timeout_ms: u64,
    targets: Option<Targets>,
    /// What the device calls its targets, where that is written with them.
    names: Option<BTreeMap<NodeName, String>>,
    /// Where the targets are written.
    targets_at: usize,
    /// How a reboot is done, where that is configured.
    method: Option<Method>,
    /// Where that is written.
    method_at: usize,
    programs_must_exist: bool,
    problems: &'p Problems,
}

impl Common<'_> {
    fn discovers(&self) -> bool {
        self.targets == Some(Targets::Discover)
    }

    /// The targets that are known to have a BMC at one of `addresses`; none where any may come.
    fn known_targets(&self, addresses: &PerTarget) -> BTreeSet<NodeName> {
        match (&self.targets, addresses) {
            (Some(Targets::Nodes(nodes)), _) => nodes.clone(),
            (_, PerTarget::Map(addresses)) => addresses.keys().cloned().collect(),
            (_, PerTarget::Pattern(_)) => BTreeSet::new(),
        }
    }

    /// Refuses names of targets, for a type that has none.
    fn refuse_names(&self) {
        if self.names.is_some() {
            let text = "'targets': this type has no names of its own: write a list of nodes";
            self.problems.at(self.targets_at, text);
        }
    }
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
    let targets_at = section.offset_of("targets");
    let (targets, names) = section.require("targets", targets).unzip();
    let names = names.flatten();
    let method_at = section.offset_of("method");
    let method = section.get("method", one_of(&METHODS));
    let common = Common {
        name,
        timeout_ms,
        targets,
        names,
        targets_at,
        method,
        method_at,
        programs_must_exist,
        problems,
    };
    let kind = match section.require("type", one_of(TYPES)) {
        Some(Type::Command) => Some(DeviceKind::Command(command::read(&mut section, &common))),
        Some(Type::Ec2) => ec2::read(&mut section, &common).map(DeviceKind::Ec2),
        Some(Type::FenceAgent) => {
            fence_agent::read(&mut section, &common).map(DeviceKind::FenceAgent)
        }
        Some(Type::Ipmi) => ipmi::read(&mut section, &common).map(DeviceKind::Ipmi),
        Some(Type::Redfish) => redfish::read(&mut section, &common).map(DeviceKind::Redfish),
        Some(Type::Simulated) => simulated::read(&mut section, &common).map(DeviceKind::Simulated),
        None => {
            for (_, of_type) in TYPES {
                section.ignore(of_type.keys());
            }
            None
        }
    };
    let nodes = section.get("nodes", nodes);
    let max_concurrent = section.get("max_concurrent", number(1..=10_000));
    let attempts = section.get("attempts", number(1..=10));
    let monitor_timeout = section.get("monitor_timeout", duration(SECOND..=HOUR));
    let acknowledge_dlm = section.get("acknowledge_dlm", boolean);
    section.finish();
    Some(DeviceSettings {
        name: common.name,
        kind: kind?,
        targets: common.targets?,
        nodes,
        timeout_ms,
        monitor_timeout_ms: monitor_timeout.unwrap_or(MONITOR_TIMEOUT_MS),
        max_concurrent: max_concurrent.unwrap_or(1),
        method: common.method,
        attempts: attempts.unwrap_or(1),
        acknowledge_dlm: acknowledge_dlm.unwrap_or(false),
    })
}

/// The password of a device that has one login.
fn password(section: &mut Section, common: &Common) -> Option<SecretSource> {
    let keys = ["password_file", "password_env", "password_credential"];
    if !keys.iter().any(|key| section.has(key)) {
        section
            .absent("no password: give 'password_file', 'password_env' or 'password_credential'");
    }
    secret(section, keys, common.problems)
}

/// Who can be fenced, and what the device calls them where that is written with it.
fn targets(value: &Spanned<DeValue>) -> Parsed<(Targets, Option<BTreeMap<NodeName, String>>)> {
    match value.get_ref() {
        DeValue::Table(_) => {
            let names = names_of_targets(value)?;
            Ok((Targets::Nodes(names.keys().cloned().collect()), Some(names)))
        }
        DeValue::String(text) if text == "*" => Ok((Targets::Any, None)),
        DeValue::String(text) if text == "discover" => Ok((Targets::Discover, None)),
        _ => nodes(value).map(|nodes| (Targets::Nodes(nodes), None)),
    }
}

fn short_name(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

#[derive(Clone, Copy)]
enum Type {
    Command,
    Ec2,
    FenceAgent,
    Ipmi,
    Redfish,
    Simulated,
}

impl Type {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Type::Command => command::KEYS,
            Type::Ec2 => ec2::KEYS,
            Type::FenceAgent => fence_agent::KEYS,
            Type::Ipmi => ipmi::KEYS,
            Type::Redfish => redfish::KEYS,
            Type::Simulated => simulated::KEYS,
        }
    }
}

const TYPES: &[(&str, Type)] = &[
    ("command", Type::Command),
    ("ec2", Type::Ec2),
    ("fence-agent", Type::FenceAgent),
    ("ipmi", Type::Ipmi),
    ("redfish", Type::Redfish),
    ("simulated", Type::Simulated),
];
/// How long a device may take to show that it can be reached, unless something else is written.
const MONITOR_TIMEOUT_MS: u64 = 10 * SECOND;

const METHODS: [(&str, Method); 2] = [("onoff", Method::OnOff), ("cycle", Method::Cycle)];

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
            monitor_timeout_ms: 1,
            max_concurrent: 1,
            method: None,
            attempts: 1,
            acknowledge_dlm: false,
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
