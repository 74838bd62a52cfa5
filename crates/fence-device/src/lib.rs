//! Fence devices: their contract with the watcher, the drivers, and the process that runs programs.
//!
//! A driver makes one attempt on one device and reports the outcome honestly. It keeps no queue,
//! repeats no order that the device may have carried out, and never switches to another device.
//! `fence-core` decides which order comes when and how often, and what an outcome proves.
//!
//! - [`FenceDevice`]: the contract of a driver. [`Client`]: the client that waits for an order.
//! - [`CommandDevice`]: a device that programs of the administrator control. [`placeholders`]: the
//!   placeholders in their arguments.
//! - [`Ec2Device`]: instances of AWS EC2, and the protocol with its program.
//! - [`FenceAgentDevice`]: a device that a fence agent controls.
//! - [`IpmiDevice`]: management controllers that ipmitool controls.
//! - [`SimulatedDevice`]: a device that is a file, for demonstrations and tests.
//! - [`RedfishDevice`]: BMCs that speak Redfish.
//! - [`Pin`]: the machine of one execution. [`ask_all`]: questions to many machines in parallel.
//!   [`Places`]: the bound on the threads for this.
//! - [`grouped`]: one text for all targets with the same problem.
//! - [`SecretSource`]: the source of a password.
//! - [`ExecutorClient`], [`executor_main`]: run a program for a driver, kill it at its limit, and
//!   do not let it outlive the watcher.

mod client;
mod command;
mod contacts;
mod ec2;
mod executor;
mod fence_agent;
mod grouped;
mod ipmi;
mod pin;
mod pool;
mod program;
#[doc(hidden)]
pub mod redfish;
mod resolve;
mod secret;
mod shown;
mod simulated;
mod subject;

use std::fmt::Debug;

use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{FenceAction, NodeName, PowerState, RequestId};
use serde::{Deserialize, Serialize};

pub use client::Client;
pub use command::{CommandDevice, CommandSettings, known_placeholders, placeholders};
// For the fuzz targets alone.
#[doc(hidden)]
pub use command::listed_nodes;
pub use ec2::{Ec2Answer, Ec2Ask, Ec2Call, Ec2Device, Ec2Outcome, Ec2Settings, is_instance_id};
pub use executor::{Command, ExecutorClient, OUTPUT_BYTES_MAX, RunOutcome, executor_main};
pub use fence_agent::{AgentAction, FenceAgentDevice, FenceAgentSettings};
#[doc(hidden)]
pub use fence_agent::{Given, Listed, Metadata, listed_plugs};
pub use fence_clock::boot_ms as boot_ms_now;
pub use grouped::{Called, TARGET, grouped, without_names};
#[doc(hidden)]
pub use ipmi::output as ipmitool_output;
pub use ipmi::{BmcAddress, IpmiDevice, IpmiPrivilege, IpmiSettings};
pub use pin::Pin;
pub use pool::{HELPER_STACK_BYTES, Places, ask_all, ask_some};
#[doc(hidden)]
pub use program::message;
pub use redfish::{RedfishDevice, RedfishLogin, RedfishSettings, RedfishTrust};
pub use secret::{Secret, SecretSource, Secrets, quoted};
#[doc(hidden)]
pub use shown::power_shown;
pub use simulated::{SimulatedDevice, SimulatedFailure, SimulatedSettings};
pub use subject::Subject;

/// The time limit of a device: an instant, never a span, so that the time in queues, frozen or
/// suspended counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// Milliseconds of `CLOCK_BOOTTIME`.
    pub not_after_boot_ms: u64,
}

impl Limit {
    /// The limit `milliseconds` from now.
    pub fn in_ms(milliseconds: u64) -> Self {
        Limit { not_after_boot_ms: boot_ms_now().saturating_add(milliseconds) }
    }

    /// The milliseconds that are left; 0 if the limit has passed.
    pub fn left_ms(self) -> u64 {
        self.not_after_boot_ms.saturating_sub(boot_ms_now())
    }

    /// Whether the instant has come.
    pub fn has_passed(self) -> bool {
        self.left_ms() == 0
    }
}

/// The request that an order belongs to.
#[derive(Clone, Copy, Debug)]
pub struct OrderContext<'a> {
    /// The node to act on.
    pub target: &'a NodeName,
    /// The action of the request; the order is one step of it.
    pub action: FenceAction,
    /// The request's identity.
    pub request_id: &'a RequestId,
    /// The pin of the execution. A driver that finds its machines by name pins the machine right
    /// before it sends an order, and sends every later order of the execution to that machine.
    pub pin: &'a Pin,
    /// The target's file systems, as the client named them. Information only, and not checked: this
    /// may be any text.
    pub gfs2_filesystems: &'a [String],
    /// The request in the watcher's form: its known members, on one line.
    pub request_json: &'a [u8],
    /// The client that must still wait when the order is given; `None` if no client must wait.
    pub client: Option<&'a Client>,
}

impl OrderContext<'_> {
    /// The report if the driver may not act any more. The driver calls this right before the one
    /// call that acts, after all other steps.
    pub fn forbids(&self, limit: Limit) -> Option<OrderReport> {
        if self.client.is_some_and(|client| !client.is_waiting(limit)) {
            return Some(OrderReport::Withdrawn);
        }
        limit.has_passed().then_some(OrderReport::TooLate)
    }
}

/// Whether a device can be reached. The texts are for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// The device answered just now.
    Reachable(String),
    /// The device did not answer, for this reason.
    Unreachable(String),
    /// The driver made no contact: the device has no question for that, or each target has its own
    /// address and no target is known. All that can be checked without contact is correct.
    NotAsked(String),
}

/// The nodes that a device can fence, by its own list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetList {
    /// These nodes.
    Nodes(Vec<NodeName>),
    /// The device could not be asked, for this reason.
    Unreachable(String),
    /// The device has no list, or its list cannot be read.
    NoList(String),
}

/// A way to fence nodes: a power switch, a storage array, a program.
///
/// Many threads call a device; the caller serialises the orders for one target. Every method
/// returns by its limit (a few seconds later at worst, if the machine itself is stuck). Its texts
/// go into answers and logs: one line, and never a password.
pub trait FenceDevice: Debug + Send + Sync {
    /// The orders and questions that the device supports, as far as known. Does no I/O.
    fn abilities(&self) -> Abilities;

    /// Makes a real, light contact with the device at this moment, changing nothing.
    ///
    /// Never waits for a running order. Returns `Reachable` only after a contact that was made.
    fn reachable(&self, limit: Limit) -> Reach;

    /// Asks the device which nodes it can fence.
    fn targets(&self, limit: Limit) -> TargetList;

    /// Asks the device for the power state of `target`, changing nothing.
    ///
    /// Returns `On` and `Off` only if the device showed them; every doubt is `Unknown`. If an order
    /// has pinned a machine, this asks exactly that machine, and returns `Unknown` if it cannot.
    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport;

    /// Gives the device exactly one order: one attempt, no other device. The driver repeats an
    /// order only if the device itself reported that it did not take the order.
    ///
    /// - `Acknowledged`: the device took the order.
    /// - `Unreachable`: certainly not carried out, because the device was not reached.
    /// - `Unacknowledged`: everything else after the first contact, and every doubt.
    /// - `Failed`: the driver failed before it could send anything.
    /// - `TooLate`: the limit had passed before anything was sent.
    /// - `Withdrawn`: the client did not wait any more ([`OrderContext::client`]); nothing was
    ///   sent.
    ///
    /// Right before each call that acts, after all questions and logins, the driver calls
    /// [`OrderContext::forbids`], or the process that acts makes the same check.
    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport;

    /// Prepares for an execution, so that it need not wait, changing nothing. The watcher calls
    /// this ahead, and right before each execution, until its limit at most. Afterwards the
    /// abilities may be known better.
    fn prepare(&self, _limit: Limit) {}

    /// The unusual properties of the device that are no faults; each as one sentence.
    fn remarks(&self, _limit: Limit) -> Vec<String> {
        Vec::new()
    }

    /// Why an order for `target` would fail or could not be confirmed, as far as the driver can see
    /// without giving one; `None` if nothing is missing.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        if !self.abilities().power {
            return None;
        }
        let report = self.power(target, &Pin::default(), limit);
        (report.state == PowerState::Unknown).then_some(report.detail)
    }

    /// The configured targets that the device does not know, if the device can be asked; each as
    /// one sentence, empty if there are none.
    fn unknown_targets(&self, _limit: Limit) -> Vec<String> {
        Vec::new()
    }

    /// The errors in the device's configuration, each as one sentence; empty if there are none.
    ///
    /// Looks at files (never on GFS2), but does not contact the device.
    fn check(&self) -> Vec<String>;
}
