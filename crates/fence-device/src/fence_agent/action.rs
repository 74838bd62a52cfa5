//! The actions of devices that programs operate, and which actions change something.

use fence_core::execution::Order;

use crate::executor::Purpose;

/// An action of a fence agent that a device can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentAction {
    /// Cut the target off.
    Off,
    /// Bring it back.
    On,
    /// Reset it.
    Reboot,
    /// Show its power state.
    Status,
    /// Write the plugs.
    List,
    /// Contact the device.
    Monitor,
}

impl AgentAction {
    /// All of them.
    pub const ALL: [AgentAction; 6] = [
        AgentAction::Off,
        AgentAction::On,
        AgentAction::Reboot,
        AgentAction::Status,
        AgentAction::List,
        AgentAction::Monitor,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentAction::Off => "off",
            AgentAction::On => "on",
            AgentAction::Reboot => "reboot",
            AgentAction::Status => "status",
            AgentAction::List => "list",
            AgentAction::Monitor => "monitor",
        }
    }

    /// What a program is run for.
    pub(crate) fn purpose(self) -> Purpose {
        match self {
            AgentAction::Off | AgentAction::On | AgentAction::Reboot => Purpose::Order,
            AgentAction::Status | AgentAction::List | AgentAction::Monitor => Purpose::Question,
        }
    }
}

impl From<Order> for AgentAction {
    fn from(order: Order) -> Self {
        match order {
            Order::Off => AgentAction::Off,
            Order::On => AgentAction::On,
            Order::Cycle => AgentAction::Reboot,
        }
    }
}
