//! The fence devices in a watcher's configuration.

use std::collections::BTreeSet;

use fence_core::PerTarget;
use fence_core::watcher::{Coverage, Device, Job, Lane, Machine};
use fence_protocol::FenceAction;

/// A configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    /// One device that all targets share.
    Shared,
    /// One device that reaches each target at its own address.
    Addresses,
    /// One device with addresses, two targets of which share an address.
    OneAddress,
    /// A device with another name for the first target, and the shared device.
    Two,
    /// The shared device, for the first target alone and for one execution at a time.
    Half,
    /// The shared device and another one, which both list their targets when asked.
    Listing,
    /// A device with one name for all targets: they are one machine.
    OnePlug,
}

impl Setup {
    /// All configurations.
    pub const ALL: [Setup; 7] = [
        Setup::Shared,
        Setup::Addresses,
        Setup::OneAddress,
        Setup::Two,
        Setup::Half,
        Setup::Listing,
        Setup::OnePlug,
    ];

    /// The devices, most with room for `max_concurrent` executions in a lane.
    pub(crate) fn devices(self, max_concurrent: usize) -> Vec<Device> {
        let device = |name: &str, coverage, address: Option<&str>| Device {
            name: name.to_owned(),
            here: true,
            coverage,
            addresses: address.map(|pattern| PerTarget::Pattern(pattern.to_owned())),
            plugs: (self == Setup::OnePlug).then(|| PerTarget::Pattern("7".to_owned())),
            max_concurrent: if self == Setup::Half { 1 } else { max_concurrent },
            actions: [FenceAction::Off, FenceAction::On, FenceAction::Reboot].into(),
        };
        let first = || Coverage::Nodes(BTreeSet::from([crate::World::target(0)]));
        match self {
            Setup::Shared | Setup::OnePlug => vec![device(SHARED, Coverage::Any, None)],
            Setup::Addresses => vec![device("bmc", Coverage::Any, Some("{target}-bmc"))],
            Setup::OneAddress => vec![device("bmc", Coverage::Any, Some("chassis"))],
            Setup::Two => {
                vec![device("other", first(), None), device(SHARED, Coverage::Any, None)]
            }
            Setup::Listing => ["other", SHARED]
                .map(|name| device(name, Coverage::Discovered(None), None))
                .to_vec(),
            Setup::Half => vec![device(SHARED, first(), None)],
        }
    }
}

/// Where a device of a configuration acts on a target, by all the device's names for it.
pub(crate) type Place = (Lane, Vec<Machine>);

impl Setup {
    /// Where this configuration executes `job`, on the device that was chosen for it.
    pub(crate) fn place(self, job: &Job) -> Option<Place> {
        let devices = self.devices(1);
        let device = devices.iter().find(|device| device.name == job.lane.device)?;
        Some((device.lane(&job.target), device.machines(&job.target)))
    }
}

/// The device that agents name, if they name one.
pub(crate) const SHARED: &str = "pdu";
