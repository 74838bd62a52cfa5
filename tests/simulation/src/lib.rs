//! A world in which agents, watchers, disks and devices fail at every step.
//!
//! `fence-core`, the code that ships, makes the decisions of the agents and watchers. The world
//! around it is simulated: a spool that forgets unsynced changes, clocks that jump, devices that
//! hang and lie, and other implementations of clients and responders. A [`World`] knows which
//! [`Action`]s can happen next; each action changes the world and checks S1 to S6. A seeded run
//! picks actions at random ([`run_seed`]); a model checker tries all of them.
//!
//!
//! - `device`: the fence devices. `setup`: the devices in a watcher's configuration.
//!
//! - `disk`: the spool, and what remains of it after a crash of the host.
//!
//! - `actors`: agents and watchers, step by step: their shells, written a second time for this
//!   world. `sights`: what they see on the disk.
//!
//! - `action`: how a world is created, what can happen in it, and which bugs can be injected.
//! - `possible`: what can happen next.
//!
//! - `world`: the events. `foreign`: other implementations of clients and responders. `invariants`:
//!   what must never happen.
//! - `run`: seeded histories.

mod action;
mod actors;
mod device;
mod disk;
mod foreign;
mod invariants;
mod possible;
mod run;
mod setup;
mod sights;
mod world;

use std::fmt::Display;
use std::io::{Write, stdout};

pub use action::{Action, Budget, Config, Mutation, Reaction};
pub use run::{History, run_seed};
pub use setup::Setup;
pub use world::World;

/// Prints the summary of a run. It bypasses the test harness, which hides the output of a test that
/// passes; `tests/run` repeats these lines at its end.
pub fn print_figures(figures: impl Display) {
    let _ = writeln!(stdout(), "figures: {figures}");
}
