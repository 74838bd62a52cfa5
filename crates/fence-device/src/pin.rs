//! The machine that one execution is about.
//!
//! A name may lead to another machine at any moment: it has several addresses, a tag moves to
//! another instance, two systems swap their names. An order that went to one machine and a question
//! that went to another would show a success that never happened. So the first order of an
//! execution pins the machine, and everything that follows in the execution concerns that machine
//! alone.

use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::fence_agent::AgentHost;
use crate::redfish::ResourcePath;

/// What binds the orders and questions of one execution to one machine. Whoever drives an execution
/// makes one and passes it along; a question outside of an execution gets a new one.
#[derive(Debug, Default)]
pub struct Pin {
    machine: OnceLock<Machine>,
    listing: OnceLock<Listing>,
}

/// A machine, as its driver finds it again without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// The BMC at this host, an IP address.
    Ipmi { host: String },
    /// The system at this path of the BMC at this address.
    Redfish { address: SocketAddr, system: ResourcePath },
    /// The device of a fence agent that is found by name.
    Agent { host: AgentHost },
    /// The instance of this id; `None` if nobody knows which instance the order reached.
    Ec2 { instance: Option<String> },
}

/// What a device's list says of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// It is there.
    Listed,
    /// It is not there.
    Unlisted,
    /// The device has no list.
    NoList,
    /// The device has no list, because it acts on one and the same machine in any case.
    OneMachine,
}

impl Pin {
    /// The machine that an order went to, if one was sent.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.get()
    }

    /// Binds the execution to `machine`. The first machine counts.
    pub(crate) fn set(&self, machine: Machine) {
        let _ = self.machine.set(machine);
    }

    /// What the device's list says of the machine, if it was read in this execution.
    pub(crate) fn listing(&self) -> Option<Listing> {
        self.listing.get().copied()
    }

    /// Remembers what the device's list says of the machine.
    pub(crate) fn set_listing(&self, listing: Listing) {
        let _ = self.listing.set(listing);
    }
}
