//! Fence devices: what the watcher may ask of one, the drivers, and the process that runs programs.
//!
//! A driver makes one attempt on one device and says honestly what came of it. It keeps no queue,
//! repeats no order that may have been carried out, and never turns to another device: which order
//! comes when, how often, and what an outcome proves is `fence-core`'s business.
//!
//! - [`FenceDevice`]: the contract of a driver. [`Client`]: who waits for what it is ordered.
//! - [`CommandDevice`]: a device that programs of the administrator operate. [`placeholders`]: the
//!   names in their arguments that stand for something else.
//! - [`Ec2Device`]: instances of AWS EC2, and how its program is talked to.
//! - [`FenceAgentDevice`]: a device that a fence agent operates.
//! - [`IpmiDevice`]: management controllers that ipmitool speaks to.
//! - [`SimulatedDevice`]: a device that is a file, for demonstrations and tests.
//! - [`RedfishDevice`]: BMCs that speak Redfish.
//! - [`Pin`]: the machine that one execution is about. [`ask_all`]: asking many at once.
//! - [`grouped`]: what is wrong with many targets, said once.
//! - [`SecretSource`]: where a password comes from.
//! - [`ExecutorClient`], [`executor_main`]: how a driver runs a program, so that it is killed at
//!   its limit and does not outlive the watcher.

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
pub use pool::{HELPER_STACK_BYTES, ask_all, ask_some};
#[doc(hidden)]
pub use program::message;
pub use redfish::{RedfishDevice, RedfishLogin, RedfishSettings, RedfishTrust};
pub use secret::{Secret, SecretSource, Secrets, quoted};
#[doc(hidden)]
pub use shown::power_shown;
pub use simulated::{SimulatedDevice, SimulatedFailure, SimulatedSettings};
pub use subject::Subject;

/// How long a device may take: until an instant, never for a span, so that time spent in queues,
/// frozen or suspended counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// Milliseconds of `CLOCK_BOOTTIME`.
    pub not_after_boot_ms: u64,
}

impl Limit {
    /// The limit that is `milliseconds` from now.
    pub fn in_ms(milliseconds: u64) -> Self {
        Limit { not_after_boot_ms: boot_ms_now().saturating_add(milliseconds) }
    }

    /// Milliseconds that are left; 0 when the limit has passed.
    pub fn left_ms(self) -> u64 {
        self.not_after_boot_ms.saturating_sub(boot_ms_now())
    }

    /// Whether the instant has come.
    pub fn has_passed(self) -> bool {
        self.left_ms() == 0
    }
}

/// What an order is carried out for.
#[derive(Clone, Copy, Debug)]
pub struct OrderContext<'a> {
    /// The node to act on.
    pub target: &'a NodeName,
    /// What the request asks for, of which the order is one step.
    pub action: FenceAction,
    /// The request's identity.
    pub request_id: &'a RequestId,
    /// The execution that the order belongs to. A driver that finds its machines by name pins the
    /// machine right before it sends an order, and sends every later order of the execution there.
    pub pin: &'a Pin,
    /// The file systems that the target holds, as the client named them. Information only, and not
    /// checked: any text may stand here.
    pub gfs2_filesystems: &'a [String],
    /// The request as the watcher writes it: the members that it knows, on one line.
    pub request_json: &'a [u8],
    /// Who must still wait when the order is given; `None` where it is given in any case.
    pub client: Option<&'a Client>,
}

impl OrderContext<'_> {
    /// What forbids to act at this moment: asked right before the one call that acts, after
    /// whatever comes before it.
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
    /// It answered just now.
    Reachable(String),
    /// It did not, for this reason.
    Unreachable(String),
    /// Nothing was contacted: the device has no question for that, or each target has a place of
    /// its own and none is known. What could be looked at without contact is in order.
    NotAsked(String),
}

/// What a device says it can fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetList {
    /// These nodes.
    Nodes(Vec<NodeName>),
    /// The device could not be asked, for this reason.
    Unreachable(String),
    /// The device has no list, or gave one that cannot be read.
    NoList(String),
}

/// A way to fence nodes: a power switch, a storage array, a program.
///
/// Called from many threads; the caller keeps orders for one target apart. Every method comes back
/// by its limit (a few seconds later at worst, when the machine itself is stuck). The texts it
/// returns end up in answers and logs: one line, and never a password.
pub trait FenceDevice: Debug + Send + Sync {
    /// What the device can be told and asked, as far as it is known. Free of I/O.
    fn abilities(&self) -> Abilities;

    /// Makes a real, light contact with the device at this moment, changing nothing.
    ///
    /// Never waits for an order that is running. `Reachable` is said only of a contact that was
    /// made.
    fn reachable(&self, limit: Limit) -> Reach;

    /// Asks the device which nodes it can fence.
    fn targets(&self, limit: Limit) -> TargetList;

    /// Asks the device for the power state of `target`, changing nothing.
    ///
    /// `On` and `Off` are said only when the device showed them; anything doubtful is `Unknown`.
    /// Where an order has pinned a machine, that very machine is asked, and `Unknown` is said if it
    /// cannot be asked.
    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport;

    /// Gives the device exactly one order: one attempt, no other device, and no repetition but of
    /// what the device itself said that it did not take.
    ///
    /// - `Acknowledged`: the device said yes.
    /// - `Unreachable`: certainly not carried out, because the device was not reached.
    /// - `Unacknowledged`: everything else after the first contact. When in doubt, this one.
    /// - `Failed`: the driver failed before it could send anything.
    /// - `TooLate`: the limit had passed before anything was sent.
    /// - `Withdrawn`: nobody waited any more ([`OrderContext::client`]); nothing was sent.
    ///
    /// Right before each call that acts, after all questions and logins, the driver asks
    /// [`OrderContext::forbids`], or has the process that acts ask the same.
    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport;

    /// Learns what an execution should not have to wait for, changing nothing: called ahead, and
    /// right before each execution, by its limit at most. The abilities may be known better
    /// afterwards.
    fn prepare(&self, _limit: Limit) {}

    /// What is unusual with the device, though nothing is wrong; each as one sentence.
    fn remarks(&self, _limit: Limit) -> Vec<String> {
        Vec::new()
    }

    /// Why an order for `target` would not be given or not be confirmed, as far as that can be seen
    /// without giving one; `None` when nothing is missing.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        if !self.abilities().power {
            return None;
        }
        let report = self.power(target, &Pin::default(), limit);
        (report.state == PowerState::Unknown).then_some(report.detail)
    }

    /// Asks the device which of its configured targets it does not know, where it can be asked;
    /// each as one sentence, empty when all is well.
    fn unknown_targets(&self, _limit: Limit) -> Vec<String> {
        Vec::new()
    }

    /// What is wrong with the device's configuration, each as one sentence; empty when all is well.
    ///
    /// Looks at files (never on GFS2), but does not contact the device.
    fn check(&self) -> Vec<String>;
}
