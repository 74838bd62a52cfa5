//! The audit of fences: what was asked, what came of it, when, and why.
//!
//! One [`AuditEvent`] becomes one line in each of three logs ([`AuditLog`]): for operators, for
//! scripts that look for `KEY=value`, and as JSON. [`history`] reads the JSON again.
//!
//! The audit never decides about a fence: a log that cannot be written is reported, not an error. A
//! log whose disk hangs must not even delay one, so what fences writes through a [`LogProcess`].

mod discovery;
mod event;
pub mod history;
mod process;
mod writer;

pub use discovery::{DiscoveryOutcome, DiscoveryRecord, SourceRecord, SourceState};
pub use event::{AuditEvent, Status};
pub use process::{LogProcess, Task, write_logs};
pub use writer::{AuditLog, DETAILED_LOG, EVENTS_LOG, READABLE_LOG};
