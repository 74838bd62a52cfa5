//! The end of an agent that gives up, is stopped or is killed.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::rig::{Arrivals, Spool, assert_failure, signal_child};

#[test]
fn silence_ends_in_time_with_the_request_withdrawn() {
    let spool = Spool::new();
    let output = spool.run("action=off\nplug=n3\nrecorder_timeout=1\n");

    let stderr = assert_failure(&output);
    assert!(stderr.contains("timed out") && stderr.contains("withdrawn"), "{stderr}");
    assert_eq!(spool.files("requests"), [""; 0]);
    let audit = spool.audit_with(2);
    assert_eq!((&audit[1]["status"], &audit[1]["result"]), (&json!("failed"), &json!("timed-out")));
    assert!(
        audit[1]["duration_ms"].as_u64().unwrap() < 1000,
        "it is gone before its second is over"
    );
}

#[test]
fn a_request_that_was_taken_and_not_answered_has_an_unknown_outcome() {
    let spool = Spool::new();
    let output = spool.run_answered("action=off\nplug=n3\nfence_timeout=1\n", |responder| {
        fs::rename(responder.pending(), spool.path("requests/.claimed.json")).unwrap();
    });
    assert!(assert_failure(&output).contains("unknown"));
    assert_eq!(spool.audit_with(2)[1]["result"], "unknown");
}

#[test]
fn each_signal_withdraws_the_request() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let spool = Spool::new();
        let arrivals = Arrivals::watch(&spool.path("requests"));
        let child = spool.start("action=off\nplug=n3\n");
        arrivals.next();
        signal_child(&child, signal);

        let output = child.wait_with_output().unwrap();
        let stderr = assert_failure(&output);
        assert!(stderr.contains(signal.as_str()), "{stderr}");
        assert_eq!(spool.files("requests"), [""; 0]);
        assert_eq!(spool.audit()[1]["result"], "withdrawn");
    }
}

#[test]
fn a_signal_during_the_delay_ends_it_before_anything_is_requested() {
    let spool = Spool::new();
    let steps = Arrivals::watch(&spool.path("log"));
    let debug = spool.path("log/debug");
    let child = spool.start(&format!("action=off\nplug=n3\ndelay=50\ndebug={}\n", debug.display()));
    while steps.next() != "debug" {}
    signal_child(&child, Signal::SIGTERM);

    let output = child.wait_with_output().unwrap();
    assert!(assert_failure(&output).contains("nothing was requested"));
    assert_eq!(spool.files("requests"), [""; 0]);
    assert_eq!(spool.audit()[0]["result"], "withdrawn");
}

#[test]
fn a_killed_agent_leaves_an_unlocked_request() {
    let spool = Spool::new();
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let mut child = spool.start("action=off\nplug=n3\n");
    let file = spool.path("requests").join(arrivals.next());
    let request = File::open(&file).unwrap();
    assert!(request.try_lock_shared().is_err());
    signal_child(&child, Signal::SIGKILL);

    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(file.exists());
    request.try_lock_shared().expect("the lock ended with the agent");
}
