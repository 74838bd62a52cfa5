//! What a test does if the machine lacks what the test needs.

#![allow(unreachable_pub, reason = "each test program uses this module in its own place")]

use std::io::{Write, stderr};

/// Reports that a test, or a part of it, is left out, and why. If `CI` is set, this is a failure: a
/// test that did not run must not look like a test that passed.
///
/// No test leaves anything out in another way: `documents` checks this.
#[track_caller]
pub fn left_out(what: &str, why: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "{what} must not be left out where CI is set: {why}");
    let _ = writeln!(stderr(), "{what}: left out, {why}");
}
