//! Real devices, as far as possible without hardware: simulators by other authors, driven by the
//! watcher and the agent that ship.
//!
//! The tests are ignored by default, because they need the simulators: `tests/devices/run` installs
//! the simulators and runs the tests.
//!
//! - `redfish`: BMCs that speak Redfish.
//!
//! - `sim`: starts and ends a simulator.

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
