//! `[[device]]`: one fence device, its targets, and how it is driven.
//!
//! [`TYPES`] has a row for each type. The module of its name has its keys and their reader.
//! [`DEVICE`] has the keys of all types, which `read` reads. `own` and `twins` find two targets
//! that are one machine, `shared` does so over all devices.

mod command;
mod ec2;
mod fence_agent;
mod ipmi;
mod own;
mod read;
mod redfish;
mod shared;
mod simulated;
mod twins;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::{
    CommandSettings, Ec2Settings, FenceAgentSettings, IpmiSettings, RedfishSettings, SecretSource,
    SimulatedSettings,
};
use fence_protocol::NodeName;

pub(super) use read::read_all;
pub(super) use twins::reports;

use super::reader::Section;
use super::table::{Form, Key, Standing};
use super::{HOUR, SECOND, Targets};
use read::Common;
use shared::{Places, of_agent, of_bmc, of_instance, of_ipmi};

/// One `[[device]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Its name, unique in the file.
    pub name: String,
    /// Its type, as the file names it.
    pub type_name: &'static str,
    /// Its kind, with the settings of the kind.
    pub kind: DeviceKind,
    /// The nodes that it can fence.
    pub targets: Targets,
    /// The nodes on which it may be used; `None` for all.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// How long one order may take.
    pub timeout_ms: u64,
    /// How long the device may take to show that it can be reached.
    pub monitor_timeout_ms: u64,
    /// The most orders that may run at once.
    pub max_concurrent: usize,
    /// How a reboot is done; `None` lets the abilities of the device decide.
    pub method: Option<Method>,
    /// The number of attempts to give an order while the device cannot be reached.
    pub attempts: u32,
    /// Whether the watcher reports a target to DLM once the device has shown that it is off.
    pub acknowledge_dlm: bool,
}

/// The kind of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A program for each action.
    Command(CommandSettings),
    /// Instances of AWS EC2.
    Ec2(Ec2Settings),
    /// A program with the interface of fence agents.
    FenceAgent(FenceAgentSettings),
    /// The management controller of each target, over IPMI.
    Ipmi(IpmiSettings),
    /// BMCs with Redfish.
    Redfish(RedfishSettings),
    /// No real device: for demonstrations and tests.
    Simulated(SimulatedSettings),
}

impl DeviceKind {
    /// The addresses of the targets, for types with an address for each target. Each address has
    /// its own queue: its executions do not wait for those at other addresses.
    pub fn addresses(&self) -> Option<&PerTarget> {
        match self {
            DeviceKind::Ipmi(settings) => Some(&settings.address),
            DeviceKind::FenceAgent(settings) => settings.addresses(),
            DeviceKind::Redfish(settings) => Some(&settings.address),
            DeviceKind::Command(_) | DeviceKind::Ec2(_) | DeviceKind::Simulated(_) => None,
        }
    }

    /// The name of a secret that only another process, the service, can read.
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

    /// The device's names for its targets at their addresses, if they differ from the node names.
    pub fn plugs(&self) -> Option<&PerTarget> {
        match self {
            DeviceKind::Ec2(settings) => Some(&settings.instance),
            DeviceKind::FenceAgent(settings) => Some(&settings.plug),
            DeviceKind::Redfish(settings) => settings.system.as_ref(),
            DeviceKind::Command(_) | DeviceKind::Ipmi(_) | DeviceKind::Simulated(_) => None,
        }
    }

    /// The places where `node` is reached. Two nodes with one place would be one machine.
    fn places_of(&self, node: &NodeName) -> Places {
        match self {
            DeviceKind::Ec2(settings) => of_instance(settings, node),
            DeviceKind::FenceAgent(settings) => of_agent(settings, node),
            DeviceKind::Ipmi(settings) => of_ipmi(settings, node),
            DeviceKind::Redfish(settings) => of_bmc(settings, node),
            DeviceKind::Command(_) | DeviceKind::Simulated(_) => Places::default(),
        }
    }

    /// The thing that no two targets may share.
    fn own(&self) -> &'static str {
        match self {
            DeviceKind::Ec2(_) => "its own instance",
            DeviceKind::FenceAgent(_) => "its own plug",
            DeviceKind::Redfish(_) => "its own BMC or 'system'",
            DeviceKind::Ipmi(_) | DeviceKind::Command(_) | DeviceKind::Simulated(_) => {
                "its own address"
            }
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

    /// Whether the device may be used on the machine with the name `host`.
    ///
    /// The name of a cluster node is the host's full name or its part before the first dot. A
    /// listed full name also matches a machine that knows only its short name. Two full names must
    /// be equal.
    pub fn applies_to(&self, host: &str) -> bool {
        let Some(nodes) = &self.nodes else { return true };
        let short = short_name(host);
        nodes.iter().map(NodeName::as_str).any(|node| {
            node == host || node == short || (host == short && short_name(node) == short)
        })
    }
}

fn short_name(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// A type of device.
#[derive(Debug)]
pub struct Type {
    /// Its name in the file.
    pub name: &'static str,
    /// Its description, at the head of its example.
    pub about: &'static str,
    /// Its keys besides [`DEVICE`].
    pub keys: &'static [Key],
    /// The keys that its example sets besides the required ones, with values as TOML.
    pub written: &'static [(&'static str, &'static str)],
    /// Other devices of the type, at the end of its example.
    pub further: &'static str,
    read: fn(&mut Section, &Common) -> Option<DeviceKind>,
}

/// All types.
pub const TYPES: &[Type] = &[
    Type {
        name: "command",
        about: "fence-watcher with your own programs.",
        keys: command::KEYS,
        written: command::WRITTEN,
        further: "",
        read: |section, common| Some(DeviceKind::Command(command::read(section, common))),
    },
    Type {
        name: "ec2",
        about: ec2::ABOUT,
        keys: ec2::KEYS,
        written: ec2::WRITTEN,
        further: "",
        read: |section, common| ec2::read(section, common).map(DeviceKind::Ec2),
    },
    Type {
        name: "fence-agent",
        about: fence_agent::ABOUT,
        keys: fence_agent::KEYS,
        written: fence_agent::WRITTEN,
        further: fence_agent::FURTHER,
        read: |section, common| fence_agent::read(section, common).map(DeviceKind::FenceAgent),
    },
    Type {
        name: "ipmi",
        about: "fence-watcher that switches servers through their management controllers (BMCs: \
                iLO, iDRAC, XCC, …), over IPMI 2.0 with ipmitool.",
        keys: ipmi::KEYS,
        written: ipmi::WRITTEN,
        further: "",
        read: |section, common| ipmi::read(section, common).map(DeviceKind::Ipmi),
    },
    Type {
        name: "redfish",
        about: "fence-watcher that switches servers through their management controllers (BMCs) \
                with Redfish.",
        keys: redfish::KEYS,
        written: redfish::WRITTEN,
        further: redfish::FURTHER,
        read: |section, common| redfish::read(section, common).map(DeviceKind::Redfish),
    },
    Type {
        name: "simulated",
        about: simulated::ABOUT,
        keys: simulated::KEYS,
        written: simulated::WRITTEN,
        further: "",
        read: |section, common| simulated::read(section, common).map(DeviceKind::Simulated),
    },
];

/// The keys of all types.
pub const DEVICE: &[Key] = &[
    Key::new("name", Form::Name, Standing::Required("\"power\""))
        .help("The device's name, unique in the file."),
    Key::new("type", Form::Type, Standing::Required("\"command\"")).help("The type of the device."),
    Key::new("targets", Form::Targets, Standing::Required("\"compute-node-[1-16]\"")).help(
        "The nodes that the device can fence: a list, `\"*\"` for any node, or `\"discover\"`. \
         With `\"discover\"` the watcher asks the device for its list: for Pacemaker's `list`, \
         for the first request, and again (at most every 5 seconds) for a target that the list \
         lacks. Types with other names for targets also accept a table, `{ node1 = \"name\" }`. \
         Two targets with one plug, address or instance are refused, in one table or in several \
         of one type, in any spelling: they would be one machine under two names. Names that \
         differ by letter case or domain alone (`n3`, `N3`, `n3.example.com`) count as one node \
         and are reported. `fence-watcher check` shows which device fences which node.",
    ),
    Key::new("nodes", Form::Nodes, Standing::Optional("[\"head-node-1\", \"head-node-2\"]")).help(
        "The nodes on which the device may be used, so that one file serves all nodes. Without \
         this key the device may be used on every node.",
    ),
    Key::new("timeout", Form::Duration(SECOND, HOUR), Standing::Default("\"45s\"")).help(
        "The time limit of one order with its confirmation. After an order that failed, the \
         watcher asks for the state for up to 15 seconds more. The `on` of a reboot follows the \
         answer, and has the same limit.",
    ),
    Key::new("max_concurrent", Form::Number(1, 10_000), Standing::Default("1")).help(
        "The most fences that may run on the device at once. If the type has an address for \
         each target, the limit applies to each address.",
    ),
    Key::new("method", Form::Words(&["onoff", "cycle"]), Standing::Optional("\"onoff\"")).help(
        "How a reboot is done: `\"onoff\"` (off, confirmed, on) or `\"cycle\"` (the device's \
         own reset, which nothing confirms). The default is `\"onoff\"`, or `\"cycle\"` for a \
         device that has a reset and cannot be asked for the state.",
    ),
    Key::new("monitor_timeout", Form::Duration(SECOND, HOUR), Standing::Default("\"10s\"")).help(
        "The time limit for the device to show that it can be reached. A device that does not \
         answer in time counts as reachable if it was reached in the last 150 seconds. The \
         agent waits 15 seconds for a monitor: only `fence-watcher check` uses a longer limit.",
    ),
    Key::new("attempts", Form::Number(1, 10), Standing::Default("1")).help(
        "The number of attempts to give an order while the device cannot be reached. An order \
         is never repeated for another reason, because the device would execute it again, and \
         never for a client that is gone. The type `command` cannot show that a device was not \
         reached, so the key has no effect. For `fence-agent` it applies only to the list that \
         is read before an order.",
    ),
    Key::new("acknowledge_dlm", Form::Boolean, Standing::Default("false")).help(
        "`true`: report each target that the device has *shown* to be off to DLM (`dlm_tool \
         fence_ack`). DLM trusts this report without a check.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use fence_protocol::expand_hostlist;

    #[test]
    fn a_device_is_used_on_the_nodes_that_are_listed_by_short_or_full_name() {
        let mut device = DeviceSettings {
            name: "d".into(),
            type_name: "command",
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
