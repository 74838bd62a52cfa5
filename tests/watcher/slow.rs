//! An executor or a keeper that is slow but not dead: a question ends alone, a fence continues.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Site, child_of, is_alive, new_id, request, wait_for};

/// A device whose `off` waits until it is released, and that can be contacted.
fn device(site: &Site) -> String {
    let monitor = site.program("monitor.sh", "exit 0");
    format!("{}monitor = ['{monitor}']\n", site.recorder("power", "*", &site.held()))
}

fn signal(pid: &str, signal: Signal) {
    kill(Pid::from_raw(pid.parse().unwrap()), signal).unwrap();
}

#[test]
fn a_monitor_that_meets_a_stopped_executor_fails_alone_and_the_fence_succeeds() {
    let site = Site::new();
    site.configure(&device(&site));
    let watcher = site.start();
    let executor = child_of(&watcher.pid().to_string());
    let fence = site.agent("action=off\nplug=n1");
    wait_for("the execution", || site.executed().len() == 1);

    signal(&executor, Signal::SIGSTOP);
    site.agent("action=monitor").wait().assert_failure(&["no result of", "came in time"]);
    site.release();
    signal(&executor, Signal::SIGCONT);

    fence.wait().assert_success();
    site.agent("action=monitor").wait().assert_success();
    assert_eq!(child_of(&watcher.pid().to_string()), executor, "{}", watcher.log());
    assert!(!watcher.log().contains("the executor (pid"), "{}", watcher.log());
}

#[test]
fn a_keeper_that_is_stopped_for_a_while_fails_no_order() {
    let site = Site::new();
    site.configure(&device(&site));
    let watcher = site.start();
    let keeper = child_of(&child_of(&watcher.pid().to_string()));
    let fence = site.agent("action=off\nplug=n1");
    wait_for("the execution", || site.executed().len() == 1);

    signal(&keeper, Signal::SIGSTOP);
    site.release();
    site.agent("action=monitor").wait().assert_success();
    signal(&keeper, Signal::SIGCONT);

    fence.wait().assert_success();
}

#[test]
fn a_lost_executor_is_logged_with_its_programs_and_the_order_is_unacknowledged() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.endless("setsid")));
    let watcher = site.start();
    let executor = child_of(&watcher.pid().to_string());
    let id = new_id();
    site.spool.submit(&id, &request(&id, "off", "n1"));
    wait_for("the programs", || site.lines("pids").len() == 3);

    signal(&executor, Signal::SIGKILL);

    site.spool.await_result(&id, "unacknowledged");
    assert!(!site.lines("pids").iter().any(|pid| is_alive(pid)));
    watcher.await_log(&format!("the executor (pid {executor}) has ended"));
    watcher.await_log("with it an order");
    site.agent("action=monitor").wait().assert_success();
    let again = new_id();
    site.spool.submit(&again, &request(&again, "off", "n2"));
    watcher.await_log("a new executor was started");
}
