//! The configured fence devices, each with its driver: what the daemon executes on, and what
//! `fence-watcher check` asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_core::watcher::{Coverage, Device};
use fence_device::{
    CommandDevice, Ec2Device, ExecutorClient, FenceAgentDevice, FenceDevice, IpmiDevice,
    RedfishDevice, SimulatedDevice,
};
use fence_protocol::{FenceAction, NodeName};

use crate::config::{DeviceKind, DeviceSettings, Settings, Targets};

/// One device of the configuration.
#[derive(Debug)]
pub struct ConfiguredDevice {
    /// Its name.
    pub name: String,
    /// Its type, as the configuration names it.
    pub type_name: &'static str,
    /// It may be used on this node.
    pub here: bool,
    /// The targets, written short.
    pub targets_text: String,
    /// How a reboot is done.
    pub method: Method,
    /// How often an order is tried while the device cannot be reached.
    pub attempts: u32,
    /// The longest that one order with its confirmation may take, in milliseconds.
    pub timeout_ms: u64,
    /// Where it reaches its targets, if each is in a place of its own.
    pub addresses: Option<PerTarget>,
    /// What it calls its targets there, if not by their names.
    pub plugs: Option<PerTarget>,
    /// The most executions at the same time: at each address, or on the whole device.
    pub max_concurrent: usize,
    /// What tells DLM of a target that was shown to be off; none where nobody wants that.
    pub dlm: Option<ExecutorClient>,
    /// What drives it.
    pub driver: Box<dyn FenceDevice>,
    targets: Targets,
}

/// All devices of a configuration, in its order. Whoever works with one keeps it, whatever the next
/// configuration says.
#[derive(Debug)]
pub struct Devices(Vec<Arc<ConfiguredDevice>>);

impl Devices {
    /// The devices of `settings`, whose programs `executor` runs.
    pub fn build(settings: &Settings, executor: &ExecutorClient) -> Self {
        let device = |device: &DeviceSettings| {
            let driver = driver(device, executor);
            Arc::new(ConfiguredDevice {
                name: device.name.clone(),
                type_name: type_name(&device.kind),
                here: device.applies_to(&settings.node),
                targets_text: device.targets.to_string(),
                method: driver.abilities().method(device.method),
                attempts: device.attempts,
                timeout_ms: device.timeout_ms,
                addresses: device.kind.addresses().cloned(),
                plugs: device.kind.plugs().cloned(),
                max_concurrent: device.max_concurrent,
                dlm: device.acknowledge_dlm.then(|| executor.clone()),
                driver,
                targets: device.targets.clone(),
            })
        };
        Devices(settings.devices.iter().map(device).collect())
    }

    /// The devices that may be used on this node.
    pub fn here(&self) -> impl Iterator<Item = &Arc<ConfiguredDevice>> {
        self.0.iter().filter(|device| device.here)
    }

    /// The device of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<ConfiguredDevice>> {
        self.0.iter().find(|device| device.name == name)
    }

    /// Whether `device` is one of these, and not of another configuration.
    pub fn has(&self, device: &Arc<ConfiguredDevice>) -> bool {
        self.0.iter().any(|own| Arc::ptr_eq(own, device))
    }

    /// What the core has to know of them.
    pub fn facts(&self) -> Vec<Device> {
        self.0.iter().map(|device| device.facts()).collect()
    }

    /// The devices that a question means: the named one, else all of this node.
    pub fn choose(&self, named: Option<&str>) -> Result<Vec<&Arc<ConfiguredDevice>>, String> {
        let Some(name) = named else { return Ok(self.here().collect()) };
        match self.get(name) {
            Some(device) if device.here => Ok(vec![device]),
            Some(_) => Err(format!("fence device '{name}' is not for use on this node")),
            None => Err(format!("there is no fence device '{name}' in the configuration")),
        }
    }
}

impl ConfiguredDevice {
    /// The targets, where the configuration lists them.
    pub fn fixed_targets(&self) -> Option<&BTreeSet<NodeName>> {
        match &self.targets {
            Targets::Nodes(nodes) => Some(nodes),
            Targets::Any | Targets::Discover => None,
        }
    }

    /// Whether the device itself has to be asked for its targets.
    pub fn is_to_be_discovered(&self) -> bool {
        self.targets == Targets::Discover
    }

    /// What the core has to know of it.
    pub fn facts(&self) -> Device {
        let abilities = self.driver.abilities();
        let all = [FenceAction::Off, FenceAction::On, FenceAction::Reboot];
        Device {
            name: self.name.clone(),
            here: self.here,
            coverage: match &self.targets {
                Targets::Any => Coverage::Any,
                Targets::Nodes(nodes) => Coverage::Nodes(nodes.clone()),
                Targets::Discover => Coverage::Discovered(None),
            },
            addresses: self.addresses.clone(),
            plugs: self.plugs.clone(),
            max_concurrent: self.max_concurrent,
            actions: all.into_iter().filter(|a| abilities.serve(*a, self.method)).collect(),
        }
    }
}

fn type_name(kind: &DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Command(_) => "command",
        DeviceKind::Ec2(_) => "ec2",
        DeviceKind::FenceAgent(_) => "fence-agent",
        DeviceKind::Ipmi(_) => "ipmi",
        DeviceKind::Redfish(_) => "redfish",
        DeviceKind::Simulated(_) => "simulated",
    }
}

fn driver(device: &DeviceSettings, executor: &ExecutorClient) -> Box<dyn FenceDevice> {
    match &device.kind {
        DeviceKind::Command(settings) => {
            Box::new(CommandDevice::new(settings.clone(), executor.clone()))
        }
        DeviceKind::Ec2(settings) => Box::new(Ec2Device::new(settings.clone(), executor.clone())),
        DeviceKind::FenceAgent(settings) => {
            Box::new(FenceAgentDevice::new(settings.clone(), executor.clone()))
        }
        DeviceKind::Ipmi(settings) => Box::new(IpmiDevice::new(settings.clone(), executor.clone())),
        DeviceKind::Redfish(settings) => Box::new(RedfishDevice::new(settings.clone())),
        DeviceKind::Simulated(settings) => Box::new(SimulatedDevice::new(settings.clone())),
    }
}
