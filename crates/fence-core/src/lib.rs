//! What the fence agent and the watcher decide, and nothing else.
//!
//! Each part is a value that receives events and returns what to do next. This crate has no I/O, no
//! clock and no threads: `now` is an argument, files are events. The programs, the simulation and
//! the model checker run this code.
//!
//!
//! - [`agent`]: what an answer means to the agent, and how long the agent waits for it.
//! - [`budget`]: how the agent divides its time.
//!
//! - [`clock`]: whether two processes count deadlines by the same clock.
//! - [`execution`]: the steps of one fence on one device, and what its outcome proves.
//! - [`PerTarget`]: what a device calls its targets.
//!
//! - [`watcher`]: which request starts, when, and the answer to each.

pub mod agent;
pub mod budget;
pub mod clock;
pub mod execution;
mod per_target;
pub mod watcher;

pub use per_target::PerTarget;

/// An instant, as both clocks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// Milliseconds of `CLOCK_BOOTTIME`: it runs while the machine sleeps, and nobody can set it.
    pub boot_ms: u64,
    /// Milliseconds since 1970 on the wall clock, which may jump in both directions.
    pub wall_ms: i64,
}
