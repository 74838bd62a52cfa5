//! The request or query for which a thread works, named in each log line about a program or an HTTP
//! call.
//!
//! A driver does not know the subject of a question. The calling thread knows it, and passes it on
//! to its helper threads.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// A request or a query; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Subject(Option<Arc<str>>);

impl Subject {
    /// The `kind` of thing (`request`, `query`) with this identity.
    pub fn new(kind: &str, id: impl fmt::Display) -> Self {
        Subject(Some(format!("{kind}={id} ").into()))
    }

    /// The subject of this thread.
    pub fn of_this_thread() -> Self {
        SUBJECT.with_borrow(Clone::clone)
    }

    /// Does `work` for this subject.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = SUBJECT.replace(self.clone());
        let done = work();
        SUBJECT.set(before);
        done
    }
}

/// `request=… ` with the blank, or an empty text.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}

thread_local! {
    static SUBJECT: RefCell<Subject> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask_all;

    #[test]
    fn a_subject_holds_for_its_work_and_for_all_who_help_with_it() {
        let shown = || Subject::of_this_thread().to_string();
        let all_are_here = std::sync::Barrier::new(8);
        let subjects = Subject::new("request", "a").within(|| {
            Subject::new("query", "b").within(|| assert_eq!(shown(), "query=b "));
            ask_all(&[(); 8], |()| {
                all_are_here.wait();
                shown()
            })
        });

        assert_eq!(subjects, ["request=a "; 8]);
        assert_eq!(shown(), "");
    }
}
