//! Log lines to syslog, the journal or a terminal.
//!
//! A log is the least important thing these programs do: nothing here ever waits for the one who
//! reads the lines. The agent sends single lines ([`Syslog`]); the watcher installs a logger
//! ([`init`]) whose lines go through a bounded queue to a thread of its own.
//!
//! The audit of fences is not here but in `fence-audit`.

mod line;
mod logger;
mod stdout;
mod syslog_socket;

pub use line::{is_plain, one_line, shown_line};
pub use logger::{LogSink, init};
pub use stdout::stdout_was_closed;
pub use syslog_socket::Syslog;
