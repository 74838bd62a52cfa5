//! The real `fence-watcher` on its own. The tests write requests by hand, in the style of each kind
//! of client, and count what a device was really told to do.
//!
//! - `bad_input`: whatever lies in the directory of requests, nothing but a request is executed:
//!   files that may not be believed (`untrusted`), requests that must not be executed
//!   (`not_begun`).
//! - `check`: whether `check` and `reload` find what would keep the service or a fence from
//!   success.
//! - `execution`: what is begun, when; how much at once (`lanes`), and what a device's program is
//!   given and proves (`programs`).
//! - `clocks`: time namespaces, and boots that are not one.
//! - `crashes`: signals, crashes, and what the next watcher makes of them.
//! - `frozen`: a disk of logs that stands still.
//! - `locks`: the locks' files are removed while it runs.
//! - `logged`: what its log holds at each level.
//! - `places`: the directories and lost events; full disks (`disks`).
//! - `queries`: questions that cannot be understood, or that are still being written.
//! - `reload`: a new configuration while it runs.
//! - `returning`: the power-on that follows the answer to a reboot.
//! - `service`: the configuration, and what the service tells of itself.
//! - `shortage`: what a passing lack of descriptors delays, and for how long.

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
