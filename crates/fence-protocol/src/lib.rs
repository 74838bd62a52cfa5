//! The words that a fence agent and a watcher exchange through files.
//!
//! Texts come in, checked types go out, and back. After this crate a name is safe as one component
//! of a path, an identifier is a UUID, and an action is one of three.
//!
//! Nothing here reads a file or the clock, and nothing decides: `fence-spool` has the files,
//! `fence-core` the decisions.

mod action;
mod answer;
mod fold;
mod hostlist;
mod json;
mod names;
mod nearest;
mod query;
mod request;
mod result;

pub use action::{FenceAction, Requested};
pub use answer::{Answer, AnswerError, ReceivedAnswer};
pub use fold::{fold_hostlist, natural_order};
pub use hostlist::{HostlistError, NODES_MAX, expand_hostlist};
pub use json::json_problem;
pub use names::{NameError, NodeName, RecordName, RequestId};
pub use nearest::nearest;
pub use query::{PowerOn, PowerState, Query, QueryAnswer, QueryCode, QueryKind};
pub use request::{Rejection, Request, RequestError, rfc3339};
pub use result::{AuditResult, FenceResult};

/// The largest request, answer or query that is read, in bytes. A larger file is refused unread.
pub const RECORD_BYTES_MAX: u64 = 1024 * 1024;

/// The longest free text (a message, a file system's name) that is passed on, in bytes.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;

/// `text` cut to at most `bytes_max` bytes at a character's boundary; "…" marks the cut.
pub fn bounded(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8()))])
}

/// `text`, a list with "; " between its items, cut to at most `bytes_max` bytes after a whole item,
/// with the number of the missing items. The result has at least the beginning of the first item.
pub fn shortened(text: &str, bytes_max: usize) -> String {
    let parts: Vec<&str> = text.split("; ").collect();
    let [first, others @ ..] = &parts[..] else { return bounded(text, bytes_max) };
    if text.len() <= bytes_max || others.is_empty() {
        return bounded(text, bytes_max);
    }
    let room = bytes_max.saturating_sub("; and 1000000 more".len());
    let mut line = bounded(first, room);
    let mut others = others.iter().peekable();
    while let Some(part) = others.next_if(|part| line.len() + "; ".len() + part.len() <= room) {
        line.push_str("; ");
        line.push_str(part);
    }
    let left_out: usize = others.map(|part| left_out_before(part).unwrap_or(1)).sum();
    format!("{line}; and {left_out} more")
}

/// The number of items that an earlier call left out, if `part` gives it.
fn left_out_before(part: &str) -> Option<usize> {
    part.strip_prefix("and ")?.strip_suffix(" more")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_ends_with_the_number_of_what_is_left_out() {
        let list = |count: usize| {
            (1..=count).map(|n| format!("n{n}: no answer")).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(shortened(&list(3), 100), list(3));
        assert_eq!(shortened(&list(5), 60), "n1: no answer; n2: no answer; and 3 more");
        for (count, bytes_max) in [(100, 900), (1_000, 8_192), (30, 64), (2, 20)] {
            let text = shortened(&list(count), bytes_max);
            assert!(text.len() <= bytes_max, "{} of {bytes_max}: {text}", text.len());
            let (shown, left_out) = text.rsplit_once("; and ").unwrap();
            let left_out: usize = left_out.strip_suffix(" more").unwrap().parse().unwrap();
            assert_eq!(shown.split("; ").count() + left_out, count, "{text}");
        }
        // What was left out before is counted again.
        let twice = shortened(&shortened(&list(1_000), 8_192), 900);
        let shown = twice.matches(": no answer").count();
        assert!(twice.ends_with(&format!("; and {} more", 1_000 - shown)), "{twice}");
    }

    #[test]
    fn one_long_thing_is_cut_as_any_text() {
        let long = "x".repeat(100);
        assert_eq!(shortened(&long, 50), bounded(&long, 50));
        let text = shortened(&format!("{long}; y"), 50);
        assert!(text.ends_with("x…; and 1 more") && text.len() <= 50, "{text}");
        assert_eq!(shortened("", 50), "");
    }
}
