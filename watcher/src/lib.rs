//! The service that answers fence requests, as a library for its program and its tests.
//!
//! - [`config`]: the file `fence-watcher.toml`, read into checked [`config::Settings`].

pub mod config;
