//! Log lines to syslog, the journal or a terminal.
//!
//! No function here ever waits for the reader of the lines: a log must not delay a fence. The agent
//! sends single lines ([`Syslog`]). The watcher installs a logger ([`init`]), whose lines go
//! through a bounded queue to a thread.
//!
//! The audit of fences is in `fence-audit`.

mod journal;
mod line;
mod logger;
mod output;
mod syslog_socket;

pub use line::{is_plain, one_line, shown_line};
pub use logger::{LogTarget, init};
pub use output::stdout_was_closed;
pub use syslog_socket::Syslog;
