//! A world in which agents, watchers, disks and devices fail at every step.
//!
//! The agent's and the watcher's decisions are those of `fence-core`, the code that ships. Around them
//! stands a pretended spool that forgets what was not synced, clocks that jump, devices that hang and
//! lie, and clients and responders of other makes. One [`World`] knows which [`Action`]s can happen
//! next; each changes it and checks S1 to S6. A seeded run picks at random ([`run_seed`]); a
//! model checker picks everything.
//!
//! - `device`: the fence devices. `setup`: which of them a watcher is configured with.
//! - `disk`: the spool, and what a crash of the host leaves of it.
//! - `actors`: agents and watchers, step by step: their shells, written once more for this world.
//!   `sights`: what they see on the disk.
//! - `action`: how a world is made, what can happen in it, which bugs can be put in.
//! - `possible`: what can happen next.
//! - `world`: what happens. `foreign`: clients and responders of other makes. `invariants`: what must
//!   never have happened.
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

/// Prints what a run is read for. Past the test harness, which keeps for itself what a test that passes
/// prints; `tests/run` repeats these lines at its end.
pub fn print_figures(figures: impl Display) {
    let _ = writeln!(stdout(), "figures: {figures}");
}
