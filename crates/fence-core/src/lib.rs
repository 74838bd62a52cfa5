//! What the fence agent and the watcher decide, and nothing else.
//!
//! Each part is a value that is fed with events and says what to do next. There is no I/O, no clock
//! and no thread here: `now` is an argument, files are events. The programs run this code, and so do
//! the simulation and the model checker.
//!
//! - [`agent`]: what the agent makes of an answer, and how long it waits for one.
//! - [`budget`]: how the agent divides its time.
//! - [`clock`]: whether two processes count deadlines by one clock.
//! - [`execution`]: the steps of one fence on one device, and what its outcome proves.
//! - [`PerTarget`]: what a device calls its targets.
//! - [`watcher`]: which request is begun, when, and what each is answered.

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
    /// Milliseconds of `CLOCK_BOOTTIME`: it runs while the machine sleeps and no one can set it.
    pub boot_ms: u64,
    /// Milliseconds since 1970 by the wall clock, which may jump either way.
    pub wall_ms: i64,
}
