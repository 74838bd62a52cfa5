//! Which fence device serves a request. One device, and never another one after it failed: going on
//! is the cluster manager's part.

use std::collections::BTreeSet;
use std::fmt;

use fence_protocol::{FenceAction, NodeName};

use super::{Lane, Machine};
use crate::PerTarget;

/// Which targets a device can fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// Any.
    Any,
    /// These.
    Nodes(BTreeSet<NodeName>),
    /// Those that it lists when it is asked; `None` until it was.
    Discovered(Option<BTreeSet<NodeName>>),
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its name in the configuration.
    pub name: String,
    /// It may be used on this node.
    pub here: bool,
    /// The targets that it can fence.
    pub coverage: Coverage,
    /// Where it reaches its targets, if each is in a place of its own.
    pub addresses: Option<PerTarget>,
    /// What it calls its targets there, if not by their names.
    pub plugs: Option<PerTarget>,
    /// The most executions at the same time: at each address, or on the whole device.
    pub max_concurrent: usize,
    /// What it can do.
    pub actions: BTreeSet<FenceAction>,
}

/// Why no device serves a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unroutable {
    /// There is no device of the name that the client gave.
    NoSuchDevice(String),
    /// The device is not to be used on this node.
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

/// How sure it is that a device can fence a target.
#[derive(PartialEq)]
enum Covers {
    Yes,
    /// It has not been asked yet; it will refuse a target that it does not know.
    Perhaps,
    No,
}

/// The device for `action` on `target`: the one that is named, else the first that covers it here.
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

/// The devices whose lists decide where a fence of `target` goes and have not been asked for: none
/// where the client names a device, or one surely covers the target.
pub fn unlisted<'a>(devices: &'a [Device], named: Option<&str>, target: &NodeName) -> Vec<&'a str> {
    let here = || devices.iter().filter(|device| device.here);
    if named.is_some() || here().any(|device| device.covers(target) == Covers::Yes) {
        return Vec::new();
    }
    let perhaps = here().filter(|device| device.covers(target) == Covers::Perhaps);
    perhaps.map(|device| device.name.as_str()).collect()
}

/// The devices whose lists lack `target`, where no list has it: a device may have got the target since
/// it gave its list. Where the client names a device, only that one counts.
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
    /// Where an execution for `target` counts.
    pub fn lane(&self, target: &NodeName) -> Lane {
        let address = self.addresses.as_ref().and_then(|addresses| addresses.of(target));
        Lane { device: self.name.clone(), address }
    }

    /// The machine that `target` is, by all its names here.
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
