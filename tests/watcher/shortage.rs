//! A temporary lack of descriptors delays work by about a second, not until the next periodic look.
//!
//! The period is an hour here: nothing can wait for the periodic look.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{
    SERVICE, Site, Watcher, can_be_run_as_root, left_out, names, new_id, output_of, process_status,
    request, wait_for,
};

/// A service that looks at the whole spool once an hour, with this device.
fn start(site: &Site, device: &str) -> Watcher {
    site.configure(&format!("[service]\nrescan = '1h'\n{device}"));
    site.start()
}

/// Sets how many files a process may have open: only the soft limit, which can be raised again.
fn set_file_limit(pid: Pid, limit: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")]);
    assert!(output_of(&mut command).status.success());
}

/// Leaves `watcher` no room for another open file while `deed` runs and until the watcher has
/// failed for that reason.
fn without_room(watcher: &Watcher, hit: &str, deed: impl FnOnce()) {
    let pid = Pid::from_raw(watcher.pid().cast_signed());
    set_file_limit(pid, "3");
    deed();
    wait_for(&format!("{hit:?} and its cause in the log"), || {
        watcher.log().lines().any(|line| line.contains(hit) && line.contains("Too many open files"))
    });
    set_file_limit(pid, "1024");
}

#[test]
fn a_request_that_cannot_be_opened_for_a_moment_is_looked_at_again_soon() {
    let site = Site::new();
    let watcher = start(&site, &site.recorder("power", "*", ""));
    let id = new_id();

    without_room(&watcher, &id, || site.spool.submit(&id, &request(&id, "off", "n3")));

    site.spool.await_result(&id, "success");
    assert_eq!(site.executions_of(&id), 1);
}

#[test]
fn a_half_written_request_that_cannot_be_opened_for_a_moment_is_looked_at_again_soon() {
    let site = Site::new();
    let watcher = start(&site, &site.recorder("power", "*", ""));
    let id = new_id();
    let whole = request(&id, "off", "n3").to_string();
    site.spool.submit_bytes(&id, &whole.as_bytes()[..whole.len() - 1]);
    wait_for("the first look", || watcher.log().contains("ready"));

    // The file does not grow: the watcher refuses it when its time is over, and only a look finds
    // that.
    without_room(&watcher, &id, || {});

    site.spool.await_result(&id, "rejected");
}

#[test]
fn a_question_that_cannot_be_opened_for_a_moment_is_looked_at_again_soon() {
    let site = Site::new();
    let watcher = start(&site, &site.recorder("power", "*", ""));
    let mut agent = None;

    without_room(&watcher, "quer", || agent = Some(site.agent("action=monitor")));

    agent.unwrap().wait().assert_success();
}

#[test]
fn a_request_that_a_crash_left_is_answered_soon_though_it_cannot_be_opened_at_first() {
    let site = Site::new();
    let watcher = start(&site, &site.recorder("power", "*", ""));
    let id = new_id();

    // A look is due soon after the first failure, and also finds the claimed requests.
    without_room(&watcher, "claimed requests", || {
        let pending = new_id();
        std::fs::write(site.spool.claimed(&id), request(&id, "off", "n3").to_string()).unwrap();
        site.spool.submit(&pending, &request(&pending, "off", "n4"));
    });

    site.spool.await_result(&id, "interrupted");
}

#[test]
fn the_service_raises_its_own_limit_of_open_files() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let watcher = site.watcher_command(SERVICE);
    let mut command = Command::new("prlimit");
    command.args(["--nofile=64:4096"]).arg(watcher.get_program()).args(watcher.get_args());
    let (watcher, _told) = site.start_as(command);

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", watcher.pid())).unwrap();

    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("4096"), "{line}");
}

#[test]
fn a_question_without_a_thread_is_answered_at_once_with_the_cause() {
    if !can_be_run_as_root("a_question_without_a_thread_is_answered_at_once") {
        return;
    }
    let site = Site::new();
    let watcher = start(&site, &site.recorder("power", "*", ""));
    let pid = watcher.pid().to_string();
    let refusing = Command::new("strace")
        .args(["-qq", "-p", &pid, "-e", "trace=clone3", "-e", "inject=clone3:error=EAGAIN"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("strace", || process_status(&pid, "TracerPid").is_some_and(|tracer| tracer != "0"));

    let why = "not asked: fence-watcher cannot start a thread: Resource temporarily unavailable";
    for action in ["monitor", "list", "status\nplug=n3"] {
        site.agent(&format!("action={action}")).wait().assert_failure(&[why]);
    }
    // An older client asks.
    let id = new_id();
    site.spool.submit(&id, &request(&id, "monitor", "n3"));
    let answer = site.spool.await_answer(&id);
    assert_eq!(answer["success"], false);
    assert_eq!(answer["message"], why.to_owned() + " (os error 11)");

    kill(Pid::from_raw(refusing.id().cast_signed()), Signal::SIGTERM).unwrap();
    refusing.wait_with_output().unwrap();
    site.agent("action=monitor").wait().assert_success();
    assert_eq!(site.executed(), [""; 0]);
}

/// A control group with room for this many threads.
struct Threads(std::path::PathBuf);

impl Threads {
    /// `None` if no such group exists, which is reported; in CI it must exist.
    fn new() -> Option<Self> {
        let first_version = Path::new("/sys/fs/cgroup/pids");
        let is_first = first_version.is_dir();
        let parent = if is_first { first_version } else { Path::new("/sys/fs/cgroup") };
        if !is_first {
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), "+pids");
        }
        let group = parent.join(format!("fence-watcher-{}", std::process::id()));
        if std::fs::create_dir(&group).is_err() || !group.join("pids.max").exists() {
            let _ = std::fs::remove_dir(&group);
            left_out("shortage", "no control group can be made for threads");
            return None;
        }
        Some(Threads(group))
    }

    /// Moves the threads of `watcher` in, without those of its executor, and leaves room for
    /// `more`.
    fn take(&self, watcher: &Watcher, more: usize) {
        let pid = watcher.pid().to_string();
        std::fs::write(self.0.join("cgroup.procs"), &pid).unwrap();
        let count = names(Path::new(&format!("/proc/{pid}/task"))).len();
        std::fs::write(self.0.join("pids.max"), (count + more).to_string()).unwrap();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        wait_for("the group to be empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn all_devices_and_targets_are_asked_even_with_a_single_thread() {
    let Some(threads) = Threads::new() else { return };
    let site = Site::new();
    let agent = site.program(
        "fence_test",
        "grep -q action=metadata && exec cat \"$(dirname \"$0\")/metadata\"; exit 0",
    );
    std::fs::write(site.path("metadata"), METADATA).unwrap();
    let chassis: Vec<String> = (1..=2)
        .map(|number| {
            format!(
                "[[device]]\nname = 'chassis-{number}'\ntype = 'fence-agent'\nagent = '{agent}'\n\
                 plug_option = 'ip'\n[device.targets]\nc{number}1 = 'a{number}'\n\
                 c{number}2 = 'b{number}'\nc{number}3 = 'd{number}'\n"
            )
        })
        .collect();
    let monitor = site.program("monitor.sh", "exit 0");
    let devices: Vec<String> = (1..=40)
        .map(|number| {
            let device = site.recorder(&format!("d{number}"), &format!("n{number}"), "");
            format!("{device}monitor = ['{monitor}']\n")
        })
        .collect();
    site.configure(&[devices.concat(), chassis.concat()].concat());
    let watcher = site.start();
    site.agent("action=monitor").wait().assert_success();
    wait_for("the end of the threads", || {
        let tasks = format!("/proc/{}/task", watcher.pid());
        let asks = |task: &String| {
            let name = std::fs::read_to_string(format!("{tasks}/{task}/comm")).unwrap_or_default();
            matches!(name.trim_end(), "query" | "ask")
        };
        !names(Path::new(&tasks)).iter().any(asks)
    });
    threads.take(&watcher, 1);

    site.agent("action=monitor").wait().assert_success();

    drop(watcher);
}

const METADATA: &str = "<?xml version=\"1.0\"?><resource-agent name=\"fence_test\"><parameters>\
    <parameter name=\"ip\"><content type=\"string\"/></parameter></parameters><actions>\
    <action name=\"on\"/><action name=\"off\"/><action name=\"monitor\"/>\
    <action name=\"status\"/><action name=\"metadata\"/></actions></resource-agent>\n";
