//! Which fence device serves a request. Only one device is chosen, and no other after it fails: the
//! next attempt is the cluster manager's decision.

use std::collections::BTreeSet;
use std::fmt;

use fence_protocol::{FenceAction, NodeName};

use super::{Lane, Machine};
use crate::PerTarget;

/// Which targets a device can fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// Any target.
    Any,
    /// These targets.
    Nodes(BTreeSet<NodeName>),
    /// The targets that it lists when asked; `None` until it has been asked.
    Discovered(Option<BTreeSet<NodeName>>),
}

/// What is known about a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its name in the configuration.
    pub name: String,
    /// It may be used on this node.
    pub here: bool,
    /// The targets that it can fence.
    pub coverage: Coverage,
    /// The address of each target, if each has its own.
    pub addresses: Option<PerTarget>,
    /// The device's names for its targets, if they differ from the targets' names.
    pub plugs: Option<PerTarget>,
    /// The maximum number of concurrent executions: at each address, or on the whole device.
    pub max_concurrent: usize,
    /// What it can do.
    pub actions: BTreeSet<FenceAction>,
}

/// Why no device serves a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unroutable {
    /// The client named a device that does not exist.
    NoSuchDevice(String),
    /// The device is not configured for this node.
    NotHere(String),
    /// The device cannot fence this target.
    NotCovered(String),
    /// No device of this node can fence the target.
    Nobody,
    /// The device has no way to do the action.
    Unable(String, FenceAction),
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unroutable::NoSuchDevice(name) => {
                write!(f, "there is no fence device {name:?} in the watcher's configuration")
            }
            Unroutable::NotHere(name) => {
                write!(f, "fence device {name:?} is not configured for use on this node")
            }
            Unroutable::NotCovered(name) => {
                write!(f, "fence device {name:?} is not configured for this target")
            }
            Unroutable::Nobody => f.write_str("no fence device of this node covers this target"),
            Unroutable::Unable(name, action) => {
                write!(f, "fence device {name:?} has no way to do {action}")
            }
        }
    }
}

/// How certain it is that a device can fence a target.
#[derive(PartialEq)]
enum Covers {
    Yes,
    /// The device has not been asked yet; it will refuse a target that it does not know.
    Perhaps,
    No,
}

/// The device for `action` on `target`: the one that the client names, else the first that covers
/// the target on this node.
pub fn route<'a>(
    devices: &'a [Device],
    named: Option<&str>,
    target: &NodeName,
    action: FenceAction,
) -> Result<&'a Device, Unroutable> {
    let device = match named {
        Some(name) => by_name(devices, name, target)?,
        None => first_covering(devices, target).ok_or(Unroutable::Nobody)?,
    };
    if device.actions.contains(&action) {
        Ok(device)
    } else {
        Err(Unroutable::Unable(device.name.clone(), action))
    }
}

/// The devices whose lists decide the route of a fence of `target` and that have not been asked:
/// none if the client names a device, or if a device surely covers the target.
pub fn unlisted<'a>(devices: &'a [Device], named: Option<&str>, target: &NodeName) -> Vec<&'a str> {
    let here = || devices.iter().filter(|device| device.here);
    if named.is_some() || here().any(|device| device.covers(target) == Covers::Yes) {
        return Vec::new();
    }
    let perhaps = here().filter(|device| device.covers(target) == Covers::Perhaps);
    perhaps.map(|device| device.name.as_str()).collect()
}

/// The devices whose lists lack `target`, if no list contains it: a device may have received the
/// target since it returned its list. If the client names a device, only that device counts.
pub fn outdated<'a>(devices: &'a [Device], named: Option<&str>, target: &NodeName) -> Vec<&'a str> {
    let meant =
        devices.iter().filter(|device| device.here && named.is_none_or(|name| device.name == name));
    if meant.clone().any(|device| device.covers(target) == Covers::Yes) {
        return Vec::new();
    }
    let has_list = |device: &&Device| matches!(device.coverage, Coverage::Discovered(Some(_)));
    meant.filter(has_list).map(|device| device.name.as_str()).collect()
}

fn by_name<'a>(
    devices: &'a [Device],
    name: &str,
    target: &NodeName,
) -> Result<&'a Device, Unroutable> {
    let device = devices
        .iter()
        .find(|device| device.name == name)
        .ok_or_else(|| Unroutable::NoSuchDevice(fence_protocol::bounded(name, 64)))?;
    if !device.here {
        return Err(Unroutable::NotHere(device.name.clone()));
    }
    if device.covers(target) == Covers::No {
        return Err(Unroutable::NotCovered(device.name.clone()));
    }
    Ok(device)
}

fn first_covering<'a>(devices: &'a [Device], target: &NodeName) -> Option<&'a Device> {
    let here = || devices.iter().filter(|device| device.here);
    here()
        .find(|device| device.covers(target) == Covers::Yes)
        .or_else(|| here().find(|device| device.covers(target) == Covers::Perhaps))
}

impl Device {
    /// The lane in which an execution for `target` counts.
    pub fn lane(&self, target: &NodeName) -> Lane {
        let address = self.addresses.as_ref().and_then(|addresses| addresses.of(target));
        Lane { device: self.name.clone(), address }
    }

    /// The machine of `target`, by all its names here.
    pub fn machines(&self, target: &NodeName) -> Vec<Machine> {
        let called = [&self.addresses, &self.plugs].map(|of| of.as_ref()?.of(target));
        let called: Vec<String> = called.into_iter().flatten().collect();
        let by_plug = (!called.is_empty()).then(|| Machine::Called {
            device: self.name.clone(),
            plug: called.join(" ").to_lowercase(),
        });
        [Some(Machine::Named(target.machine())), by_plug].into_iter().flatten().collect()
    }

    fn covers(&self, target: &NodeName) -> Covers {
        match &self.coverage {
            Coverage::Any => Covers::Yes,
            Coverage::Nodes(nodes) | Coverage::Discovered(Some(nodes)) => {
                if nodes.contains(target) { Covers::Yes } else { Covers::No }
            }
            Coverage::Discovered(None) => Covers::Perhaps,
        }
    }
}
