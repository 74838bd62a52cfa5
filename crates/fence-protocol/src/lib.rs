//! The words that a fence agent and a watcher exchange through files.
//!
//! Texts come in, checked types go out, and back. After this crate a name is safe as one component
//! of a path, an identifier is a UUID, and an action is one of three.
//!
//! Nothing here reads a file or the clock, and nothing decides: files are `fence-spool`'s, decisions
//! `fence-core`'s.

mod action;
mod answer;
mod fold;
mod hostlist;
mod json;
mod names;
mod nearest;
mod query;
mod request;

pub use action::{FenceAction, Requested};
pub use answer::{Answer, AnswerError, FenceResult, ReceivedAnswer};
pub use fold::{fold_hostlist, natural_order};
pub use hostlist::{HostlistError, NODES_MAX, expand_hostlist};
pub use json::json_problem;
pub use names::{NameError, NodeName, RecordName, RequestId};
pub use nearest::nearest;
pub use query::{PowerState, Query, QueryAnswer, QueryCode, QueryKind};
pub use request::{Rejection, Request, RequestError};

/// The largest request, answer or query that is read, in bytes. A larger one is refused unread.
pub const RECORD_BYTES_MAX: u64 = 1024 * 1024;

/// The longest free text (a message, a file system's name) that is passed on, in bytes.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;

/// `text` cut to at most `bytes_max` bytes at a character's boundary, with "…" where it was cut.
pub fn bounded(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8()))])
}
