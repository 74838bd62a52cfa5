//! The service that answers fence requests, as a library for its program and its tests.
//!
//! - `asking`: the runner of questions to devices.
//! - [`cli`]: the commands, from arguments to exit codes.
//! - [`config`]: the file `fence-watcher.toml`, read into checked [`config::WatcherConfig`].
//! - [`daemon`]: the service itself.
//! - [`devices`]: from settings to the drivers of fence devices.
//! - [`findings`]: the answers of a device to all questions, for `check`.
//! - `state`: what the service says of itself, for its `status`.

mod asking;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod devices;
pub mod findings;
mod state;
