//! The machine of one execution.
//!
//! A name may lead to another machine at any moment: it has several addresses, a tag moves to
//! another instance, two systems swap their names. An order to one machine and a question to
//! another would show a success that never happened. So the first order of an execution pins the
//! machine, and the rest of the execution uses only that machine.

use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::redfish::ResourcePath;

/// Binds the orders and questions of one execution to one machine. The driver of an execution makes
/// one pin and passes it along; a question outside of an execution gets a new pin.
#[derive(Debug, Default)]
pub struct Pin {
    machine: OnceLock<Machine>,
    listing: OnceLock<Listing>,
}

/// The data by which a driver finds a machine again without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// The BMC at this host, an IP address.
    Ipmi { host: String },
    /// The system at this path of the BMC at this address.
    Redfish { address: SocketAddr, system: ResourcePath },
    /// The device of a fence agent that has a host name, at this IP address; `None` if the name
    /// could not be looked up.
    Agent { host: Option<String> },
    /// The instance with this id; `None` if the instance of the order is unknown.
    Ec2 { instance: Option<String> },
}

/// The entry of a machine in a device's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// The list contains the machine.
    Listed,
    /// The list does not contain the machine.
    Unlisted,
    /// The device has no list.
    NoList,
    /// The device has no list, because it controls only one machine.
    OneMachine,
}

impl Pin {
    /// The machine to which an order was sent, if there was one.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.get()
    }

    /// Binds the execution to `machine`. The first machine counts.
    pub(crate) fn set(&self, machine: Machine) {
        let _ = self.machine.set(machine);
    }

    /// The machine's entry in the device's list, if this execution has read the list.
    pub(crate) fn listing(&self) -> Option<Listing> {
        self.listing.get().copied()
    }

    /// Stores the machine's entry in the device's list.
    pub(crate) fn set_listing(&self, listing: Listing) {
        let _ = self.listing.set(listing);
    }
}
