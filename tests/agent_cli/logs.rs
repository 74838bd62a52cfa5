//! The logs, and what they must not delay.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::inotify::AddWatchFlags;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::rig::{Arrivals, Spool, Watcher, assert_failure, await_lines, signal_child, text};

/// Makes each process that writes this log wait, as on a frozen disk, until the value is dropped.
fn held_log(spool: &Spool, name: &str) -> File {
    let path = spool.path("log").join(name);
    let file = File::create(&path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn a_log_that_cannot_be_written_is_one_line_and_no_failure() {
    let spool = Spool::new();
    fs::remove_dir(spool.path("log")).unwrap();
    fs::write(spool.path("log"), "no directory").unwrap();
    let output = spool.run_answered("action=off\nplug=n3\n", |responder| {
        responder.answer(&responder.success());
    });
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "Success: Powered OFF\n");
    let stderr = text(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(&spool.path("log").display().to_string()), "{stderr}");
    assert!(stderr.starts_with("fence_gfs2_recorder: the audit was not written: "), "{stderr}");
}

#[test]
fn a_debug_file_without_its_whole_path_is_named_as_it_was_given() {
    for file in ["debug.log", "x/debug.log"] {
        let spool = Spool::new();
        let lines = format!("action=off\nplug=n3\ndebug_file={file}\n");
        let output = spool.run_answered(&lines, |responder| {
            responder.answer(&responder.success());
        });
        assert_eq!(output.status.code(), Some(0));
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&format!("no debug file: '{file}' is not absolute")), "{stderr}");
    }
}

#[test]
fn a_log_that_hangs_delays_neither_the_request_nor_the_end_and_is_written_when_it_can() {
    for log in ["fence-events.log", "fence-events-detailed.jsonl"] {
        let spool = Spool::new();
        let held = held_log(&spool, log);
        let output = spool.run_answered("action=off\nplug=n3\n", |responder| {
            responder.answer(&responder.success());
        });
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output.stdout), "Success: Powered OFF\n");
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(spool.path("log").to_str().unwrap()), "{stderr}");
        assert!(stderr.contains("did not respond"), "{stderr}");

        drop(held);
        await_lines(&spool, "fence-events-detailed.jsonl", 2);
        let audit = spool.audit();
        assert_eq!((&audit[0]["status"], &audit[0]["result"]), (&json!("requested"), &Value::Null));
        assert_eq!(
            (&audit[1]["status"], &audit[1]["result"]),
            (&json!("completed"), &json!("success"))
        );
        for name in ["fence-events.log", "fence-events-readable.log"] {
            assert_eq!(await_lines(&spool, name, 2).len(), 2);
        }
    }
}

#[test]
fn an_agent_whose_log_hangs_withdraws_in_time_on_a_signal_and_at_its_deadline() {
    let spool = Spool::new();
    let _held = held_log(&spool, "fence-events.log");
    let output = spool.run("action=off\nplug=n3\nfence_timeout=1\n");
    let stderr = assert_failure(&output);
    assert!(stderr.contains("withdrawn") && stderr.contains("did not respond"), "{stderr}");
    assert_eq!(spool.files("requests"), [""; 0]);

    let arrivals = Arrivals::watch(&spool.path("requests"));
    let child = spool.start("action=off\nplug=n3\n");
    arrivals.next();
    signal_child(&child, Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    assert!(assert_failure(&output).contains("SIGTERM"));
    assert_eq!(spool.files("requests"), [""; 0]);
}

#[test]
fn an_agent_that_is_killed_while_its_log_hangs_leaves_nothing_held_and_its_request_in_the_audit() {
    let spool = Spool::new();
    let held = held_log(&spool, "fence-events-detailed.jsonl");
    // The file itself is created before there is anything to write.
    let others = Arrivals::watch_for(&spool.path("log"), AddWatchFlags::IN_MODIFY);
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let mut child = spool.start("action=off\nplug=n3\n");
    let request = File::open(spool.path("requests").join(arrivals.next())).unwrap();
    // The log before the hanging one is written, so the log process waits now.
    while others.next() != "fence-events-readable.log" {}
    signal_child(&child, Signal::SIGKILL);

    assert_eq!(child.wait().unwrap().signal(), Some(9));
    request.try_lock_shared().expect("the lock ended with the agent");
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    drop(held);
    let lines = await_lines(&spool, "fence-events-detailed.jsonl", 1);
    assert!(lines.len() == 1 && lines[0].contains("\"requested\""), "{lines:?}");
}

#[test]
fn a_debug_file_that_hangs_delays_neither_a_fence_nor_a_question() {
    let spool = Spool::new();
    let _held = held_log(&spool, "debug");
    let debug = format!("debug_file={}\n", spool.path("log/debug").display());
    let lines = format!("action=off\nplug=n3\ndelay=0.01\n{debug}");
    let output = spool.run_answered(&lines, |responder| responder.answer(&responder.success()));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("no debug file: "), "{output:?}");
    assert_eq!(spool.audit().len(), 2, "the audit is another file");

    let _watcher = Watcher::start(&spool);
    let output = spool.run(&format!("action=status\nplug=on\nverbose=1\n{debug}"));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Status: ON\n"));
}
