//! The real `fence-watcher` on its own. The tests write requests by hand, in the form of each kind
//! of client, and count the orders that a device really received.
//!
//!
//! - `bad_input`: of all files in the directory of requests, only requests are executed: untrusted
//!   files (`untrusted`), requests that must not be executed (`not_begun`).
//!
//! - `check`: whether `check` and `reload` find every cause that would make the service or a fence
//!   fail.
//!
//! - `execution`: which request starts, and when; how many run at once (`lanes`), and what a
//!   device's program receives and proves (`programs`).
//!
//! - `clocks`: time namespaces, and different boots.
//!
//! - `crashes`: signals, crashes, and what the next watcher does with the files.
//!
//! - `frozen`: a disk of logs that is frozen.
//! - `locks`: the locks' files are removed while it runs.
//!
//! - `logged`: what the log contains at each level.
//! - `places`: the directories and lost events; full disks (`disks`).
//!
//! - `queries`: queries that cannot be understood, or that are still being written.
//!
//! - `reload`: a new configuration for a running watcher.
//! - `returning`: the power-on that follows the answer to a reboot.
//!
//! - `service`: the configuration, and what the service reports about itself.
//!
//! - `shortage`: what a temporary lack of descriptors delays, and for how long.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

#[path = "watcher/bad_input.rs"]
mod bad_input;
#[path = "watcher/check.rs"]
mod check;
#[path = "watcher/clocks.rs"]
mod clocks;
#[path = "watcher/crashes.rs"]
mod crashes;
#[path = "watcher/execution.rs"]
mod execution;
#[path = "watcher/frozen.rs"]
mod frozen;
#[path = "watcher/locks.rs"]
mod locks;
#[path = "watcher/logged.rs"]
mod logged;
#[path = "watcher/places.rs"]
mod places;
#[path = "watcher/queries.rs"]
mod queries;
#[path = "watcher/reload.rs"]
mod reload;
#[path = "watcher/returning.rs"]
mod returning;
#[path = "watcher/service.rs"]
mod service;
#[path = "watcher/shortage.rs"]
mod shortage;
#[path = "watcher/slow.rs"]
mod slow;
