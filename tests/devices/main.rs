//! Real devices, as far as they can be had without hardware: simulators that others wrote, driven
//! by the watcher and the agent that ship.
//!
//! The tests are ignored where nobody asks for them, as they need the simulators: `tests/devices/run`
//! installs those, and runs them.
//!
//! - `redfish`: BMCs that speak Redfish.
//! - `sim`: starting a simulator, and ending it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../common/mod.rs"]
mod common;
mod ec2;
mod fence_agent;
mod ipmi;
mod redfish;
#[allow(dead_code, reason = "each device's tests use their part")]
mod sim;
mod speed;
