//! The steps of one fence on one device, and what its outcome proves.
//!
//! Three facts about real devices shape this code. "Accepted" is not "done": the power is asked until
//! it shows the state. "Failed" is not "not done": after an order whose outcome is unknown, the power
//! is asked as well. And a retried order is executed again: an order is repeated only when the device
//! was not reached at all, and only where that is configured.

use fence_protocol::{FenceAction, PowerState};

/// What a device can be told or asked, besides its reachability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abilities {
    /// It can cut a target off.
    pub off: bool,
    /// It can bring a target back.
    pub on: bool,
    /// It can reset a target by itself, in one order.
    pub cycle: bool,
    /// It can be asked for a target's power state.
    pub power: bool,
}

/// How a reboot is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Off, verified, then on.
    OnOff,
    /// The device's own reset. Nothing shows afterwards whether it happened.
    Cycle,
}

/// One order to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// Cut the target off.
    Off,
    /// Bring it back.
    On,
    /// Reset it.
    Cycle,
}

impl Order {
    /// The order as the fence action that a driver's program is told.
    pub fn as_action(self) -> FenceAction {
        match self {
            Order::Off => FenceAction::Off,
            Order::On => FenceAction::On,
            Order::Cycle => FenceAction::Reboot,
        }
    }
}

/// What came of an order. The texts are for people, and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OrderReport {
    /// The device said yes. It may not have done it yet.
    Acknowledged(String),
    /// The device could not be reached: the order was certainly not carried out.
    Unreachable(String),
    /// The device was reached and did not say yes, or the order was cut short. It may have been
    /// carried out.
    Unacknowledged(String),
    /// The driver or its configuration failed before anything was sent.
    Failed(String),
    /// The deadline had passed before the order could start; nothing was sent.
    TooLate,
}

/// What came of asking for the power.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PowerReport {
    /// The state shown.
    pub state: PowerState,
    /// The device's words, or why it could not be asked.
    pub detail: String,
}
