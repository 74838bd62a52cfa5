//! The real agent binary, driven from outside: its options, its files, its messages and its exit
//! codes.
//!
//! The test itself plays the watcher, so that it can answer as no watcher should.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod end;
#[path = "../common/executable.rs"]
mod executable;
mod fence;
mod input;
#[path = "../common/left_out.rs"]
mod left_out;
mod logs;
mod output;
mod places;
mod questions;
mod rig;
mod target;

use std::process::Command;

/// This program without any tool: a test that is left out is a failure in CI.
#[test]
fn a_test_without_its_tool_is_left_out_and_fails_in_ci() {
    let run = |ci: &str| {
        let name = "fence::without_a_watch_left_the_agent_looks_from_time_to_time_and_succeeds";
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", name, "--nocapture"]).env("PATH", "/nowhere").env("CI", ci);
        program.output().unwrap()
    };

    let [elsewhere, in_ci] = [run(""), run("true")];

    let said = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(elsewhere.status.success() && said.contains("no user namespace"), "{elsewhere:?}");
    let said = String::from_utf8_lossy(&in_ci.stderr);
    assert!(!in_ci.status.success() && said.contains("must not be left out"), "{in_ci:?}");
}
