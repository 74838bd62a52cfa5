//! The audit of fences: each request, its result, when, and why.
//!
//! One [`AuditEvent`] becomes one line in each of three logs ([`AuditLog`]): for operators, for
//! scripts that look for `KEY=value`, and as JSON. [`history`] reads the JSON again.
//!
//! The audit never decides about a fence: a log that cannot be written is reported, and is not an
//! error. A log on a disk that hangs must not delay a fence, so the programs write through a
//! [`LogProcess`].

mod discovery;
mod event;
pub mod history;
mod process;
mod writer;

pub use discovery::{DiscoveryOutcome, DiscoveryRecord, SourceRecord, SourceState};
pub use event::{AuditEvent, Status};
pub use process::{LogProcess, Task, write_logs};
pub use writer::{AuditLog, DETAILED_LOG, EVENTS_LOG, READABLE_LOG};
