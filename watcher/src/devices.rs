//! The configured fence devices, each with its driver, for the daemon and for `fence-watcher
//! check`.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fence_clock::boot_ms;
use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_core::watcher::{Coverage, Device};
use fence_device::{
    CommandDevice, Ec2Device, ExecutorClient, FenceAgentDevice, FenceDevice, IpmiDevice, Limit,
    Reach, RedfishDevice, SimulatedDevice,
};
use fence_protocol::{FenceAction, NodeName};

use crate::config::{DeviceKind, DeviceSettings, Targets, WatcherConfig};

/// One device of the configuration, with its settings.
#[derive(Debug)]
pub struct ConfiguredDevice {
    settings: DeviceSettings,
    /// It may be used on this node.
    pub here: bool,
    /// Reports a target that was shown to be off to DLM; `None` if this is not configured.
    pub dlm: Option<ExecutorClient>,
    /// Its driver.
    pub driver: Box<dyn FenceDevice>,
    /// When it was last reached, in milliseconds of `CLOCK_BOOTTIME`; 0 for never.
    reached_boot_ms: AtomicU64,
}

/// All devices of a configuration, in its order. An execution keeps its device after a reload.
#[derive(Debug)]
pub struct Devices(Vec<Arc<ConfiguredDevice>>);

impl Devices {
    /// The devices of `settings`, whose programs `executor` runs.
    pub fn build(settings: &WatcherConfig, executor: &ExecutorClient) -> Self {
        let device = |device: &DeviceSettings| {
            Arc::new(ConfiguredDevice {
                settings: device.clone(),
                here: device.applies_to(&settings.node),
                dlm: device.acknowledge_dlm.then(|| executor.clone()),
                driver: driver(device.kind.clone(), executor.clone()),
                reached_boot_ms: AtomicU64::new(0),
            })
        };
        Devices(settings.devices.iter().map(device).collect())
    }

    /// Prepares each device of this node in a separate thread, so that no execution waits for it.
    pub fn prepare(&self) {
        for device in self.here().cloned() {
            let prepare = move || device.driver.prepare(Limit::in_ms(PREPARE_MS));
            // Without a thread, the first execution prepares its device.
            let _ = thread::Builder::new().name("prepare".into()).spawn(prepare);
        }
    }

    /// The devices that may be used on this node.
    pub fn here(&self) -> impl Iterator<Item = &Arc<ConfiguredDevice>> {
        self.0.iter().filter(|device| device.here)
    }

    /// The device of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<ConfiguredDevice>> {
        self.0.iter().find(|device| device.name == name)
    }

    /// Whether `device` is one of these devices, and not of another configuration.
    pub fn has(&self, device: &Arc<ConfiguredDevice>) -> bool {
        self.0.iter().any(|own| Arc::ptr_eq(own, device))
    }

    /// The core's facts about the devices.
    pub fn facts(&self) -> Vec<Device> {
        self.0.iter().map(|device| device.facts()).collect()
    }

    /// The devices of a question: the named device, else all devices of this node.
    pub fn choose(&self, named: Option<&str>) -> Result<Vec<Arc<ConfiguredDevice>>, String> {
        let Some(name) = named else { return Ok(self.here().cloned().collect()) };
        match self.get(name) {
            Some(device) if device.here => Ok(vec![Arc::clone(device)]),
            Some(_) => Err(format!("fence device '{name}' is not for use on this node")),
            None => Err(format!("there is no fence device '{name}' in the configuration")),
        }
    }
}

/// Its settings.
impl Deref for ConfiguredDevice {
    type Target = DeviceSettings;

    fn deref(&self) -> &DeviceSettings {
        &self.settings
    }
}

impl ConfiguredDevice {
    /// The method of a reboot, as far as the device's abilities are known.
    pub fn method(&self) -> Method {
        self.driver.abilities().method(self.settings.method)
    }

    /// Contacts the device, within its own limit and until `limit` at the latest.
    ///
    /// A slow device is not lost: if it does not answer in time, a contact a short time ago counts.
    /// An answer always counts at once.
    pub fn reach(&self, limit: Limit) -> Reach {
        let limit = limit.min(Limit::in_ms(self.monitor_timeout_ms));
        let reach = self.driver.reachable(limit);
        let now = boot_ms();
        let why = match reach {
            Reach::Reachable(_) => {
                self.reached_boot_ms.store(now, Ordering::Relaxed);
                return reach;
            }
            Reach::NotAsked(_) => return reach,
            Reach::Unreachable(why) => why,
        };
        let reached = self.reached_boot_ms.load(Ordering::Relaxed);
        match slow_but_reached(limit, reached, now) {
            Some(ago_ms) => Reach::Reachable(format!(
                "it was reached {} s ago and is slow to answer now: {why}",
                ago_ms / 1_000
            )),
            None => Reach::Unreachable(why),
        }
    }

    /// The targets, if the configuration lists them.
    pub fn fixed_targets(&self) -> Option<&BTreeSet<NodeName>> {
        match &self.targets {
            Targets::Nodes(nodes) => Some(nodes),
            Targets::Any | Targets::Discover => None,
        }
    }

    /// All targets that the configuration names: as targets, with addresses, or with plugs.
    pub fn known_targets(&self) -> BTreeSet<NodeName> {
        let in_table = |names: Option<&PerTarget>| match names {
            Some(PerTarget::Map(names)) => names.keys().cloned().collect(),
            Some(PerTarget::Pattern(_)) | None => BTreeSet::new(),
        };
        let fixed = self.fixed_targets().cloned();
        fixed.unwrap_or_else(|| &in_table(self.kind.addresses()) | &in_table(self.kind.plugs()))
    }

    /// Whether the device itself must be asked for its targets.
    pub fn is_to_be_discovered(&self) -> bool {
        self.targets == Targets::Discover
    }

    /// The core's facts about the device.
    pub fn facts(&self) -> Device {
        let (abilities, method) = (self.driver.abilities(), self.method());
        let all = [FenceAction::Off, FenceAction::On, FenceAction::Reboot];
        Device {
            name: self.name.clone(),
            here: self.here,
            coverage: match &self.targets {
                Targets::Any => Coverage::Any,
                Targets::Nodes(nodes) => Coverage::Nodes(nodes.clone()),
                Targets::Discover => Coverage::Discovered(None),
            },
            addresses: self.kind.addresses().cloned(),
            plugs: self.kind.plugs().cloned(),
            max_concurrent: self.max_concurrent,
            actions: all.into_iter().filter(|a| abilities.serve(*a, method)).collect(),
        }
    }
}

/// How long ago a device that did not answer by `limit` was reached, if that was a short time ago.
fn slow_but_reached(limit: Limit, reached_boot_ms: u64, now_boot_ms: u64) -> Option<u64> {
    // Programs end a little before their limit, to report the cause.
    let is_slow = now_boot_ms.saturating_add(LIMIT_RESERVE_MS) >= limit.not_after_boot_ms;
    let ago_ms = now_boot_ms.checked_sub(reached_boot_ms)?;
    (is_slow && reached_boot_ms > 0 && ago_ms <= LATELY_MS).then_some(ago_ms)
}

/// How long the preparation of a device may take.
const PREPARE_MS: u64 = 20_000;

/// How long a contact counts for a slow device. Pacemaker's monitor comes once a minute.
const LATELY_MS: u64 = 150_000;

/// How long before its limit a contact can end because of the limit.
const LIMIT_RESERVE_MS: u64 = 500;

fn driver(kind: DeviceKind, executor: ExecutorClient) -> Box<dyn FenceDevice> {
    match kind {
        DeviceKind::Command(settings) => Box::new(CommandDevice::new(settings, executor)),
        DeviceKind::Ec2(settings) => Box::new(Ec2Device::new(settings, executor)),
        DeviceKind::FenceAgent(settings) => Box::new(FenceAgentDevice::new(settings, executor)),
        DeviceKind::Ipmi(settings) => Box::new(IpmiDevice::new(settings, executor)),
        DeviceKind::Redfish(settings) => Box::new(RedfishDevice::new(settings)),
        DeviceKind::Simulated(settings) => Box::new(SimulatedDevice::new(settings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_did_not_answer_in_time_counts_as_it_was_lately() {
        let limit = Limit { not_after_boot_ms: 1_010_000 };
        for (reached, now, expected) in [
            (1_000_000, 1_010_000, Some(10_000)),
            // Its program ended in time to say what happened.
            (1_000_000, 1_009_600, Some(9_600)),
            // It answered, and what it said was no.
            (1_000_000, 1_002_000, None),
            (1_000_000 - LATELY_MS, 1_010_000, None),
            (0, 1_010_000, None),
        ] {
            assert_eq!(slow_but_reached(limit, reached, now), expected, "{reached}, {now}");
        }
        let early = Limit { not_after_boot_ms: 10_000 };
        assert_eq!(slow_but_reached(early, 0, 10_000), None);
    }

    #[test]
    fn each_type_is_called_as_the_configuration_calls_it() {
        use crate::config::{Origin, TYPES, parse};
        for of_type in TYPES.iter().filter(|of| cfg!(feature = "ec2") || of.name != "ec2") {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
            let path = format!("{root}/fence-watcher-{}.toml", of_type.name);
            let text = std::fs::read_to_string(&path).unwrap();
            let (file, node) = (path.as_ref(), "n1".to_owned());
            let origin = Origin { file, node, environment: &[], programs_must_exist: false };
            for device in parse(&text, &origin).unwrap().devices {
                assert_eq!(device.type_name, of_type.name);
            }
        }
    }
}
