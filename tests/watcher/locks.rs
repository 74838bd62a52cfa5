//! The files of the locks are removed or replaced under a running watcher.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{
    SERVICE, Site, Watcher, child_of, is_alive, names, new_id, output_of, request, wait_for,
};

const LOCKS: [&str; 2] = [".watcher.lock", ".running.lock"];

fn start(site: &Site) -> Watcher {
    site.configure(&format!(
        "[service]\nrescan = '1h'\n{}",
        site.recorder("power", "*", &site.held())
    ));
    site.start()
}

/// Starts a second watcher, which must refuse; returns its message.
fn second(site: &Site) -> String {
    let output = output_of(&mut site.watcher_command(SERVICE));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("ready"), "{said}");
    said
}

#[test]
fn a_second_watcher_is_refused_whatever_was_removed_while_the_first_one_runs() {
    let removals: [fn(&Path); 5] = [
        |requests| {
            for lock in LOCKS {
                fs::remove_file(requests.join(lock)).unwrap();
            }
        },
        |requests| {
            for lock in LOCKS {
                // In one step: the first watcher may restore missing files.
                fs::write(requests.join("new"), "").unwrap();
                fs::rename(requests.join("new"), requests.join(lock)).unwrap();
            }
        },
        |requests| {
            for name in names(requests).iter().filter(|name| name.starts_with('.')) {
                let path = requests.join(name);
                fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
            }
        },
        |requests| fs::remove_dir_all(requests).unwrap(),
        |requests| fs::rename(requests, requests.with_extension("old")).unwrap(),
    ];
    for removal in removals {
        let site = Site::new();
        let watcher = start(&site);
        let id = new_id();
        site.spool.submit(&id, &request(&id, "off", "n3"));
        site.await_execution(&id);

        removal(&site.spool.requests);
        let said = second(&site);

        assert!(said.contains("another fence-watcher serves this spool"), "{said}");
        assert_eq!(site.executed().len(), 1);
        drop(watcher);
    }
}

#[test]
fn locks_that_are_removed_come_back_and_the_service_goes_on() {
    let site = Site::new();
    let watcher = start(&site);
    let id = new_id();
    site.spool.submit(&id, &request(&id, "off", "n3"));
    site.await_execution(&id);

    for lock in LOCKS {
        fs::remove_file(site.spool.requests.join(lock)).unwrap();
    }

    let pid = || fs::read_to_string(site.spool.requests.join(LOCKS[0])).unwrap_or_default();
    wait_for("the lock's file", || pid().lines().next() == Some(&*watcher.pid().to_string()));
    wait_for("the other lock's file", || site.spool.requests.join(LOCKS[1]).exists());
    let said = second(&site);
    assert!(said.contains(&format!("process {}", watcher.pid())), "{said}");
    site.release();
    site.spool.await_result(&id, "success");
    site.agent("action=monitor").wait().assert_success();
    site.agent("action=off\nplug=n4").wait().assert_success();
    watcher.stop();
}

#[test]
fn an_agent_that_waits_does_not_give_up_because_a_lock_is_gone() {
    let site = Site::new();
    let watcher = start(&site);
    let mut agent = site.agent("action=off\nplug=n3");
    wait_for("the execution", || !site.executed().is_empty());

    // A directory in its place: the watcher cannot restore the file.
    let lock = site.spool.requests.join(LOCKS[0]);
    fs::remove_file(&lock).unwrap();
    fs::create_dir_all(lock.join("x")).unwrap();
    watcher.await_log("lock");
    site.agent("action=monitor").wait().assert_success();
    assert!(!agent.has_ended());
    site.release();
    agent.wait().assert_success();

    // And the client learns at once when the watcher has died.
    watcher.crash();
    site.agent("action=monitor").wait().assert_failure(&["no fence-watcher is running"]);
}

#[test]
fn the_next_watcher_ends_running_programs_though_the_locks_were_removed() {
    let site = Site::new();
    site.configure(&site.recorder(
        "power",
        "*",
        &format!("echo $$ >'{}'\n{}", site.path("pid").display(), site.held()),
    ));
    let watcher = site.start();
    let id = new_id();
    site.spool.submit(&id, &request(&id, "off", "n3"));
    site.await_execution(&id);
    wait_for("its number", || site.read("pid").ends_with('\n'));
    let number = |pid: &str| Pid::from_raw(pid.parse().unwrap());
    let executor = child_of(&watcher.pid().to_string());
    let helpers = [number(&executor), number(&child_of(&executor))];
    // All are killed at once, so that none of them can end the program.
    watcher.signal(Signal::SIGSTOP);
    for helper in helpers {
        kill(helper, Signal::SIGSTOP).unwrap();
    }
    for lock in LOCKS {
        fs::remove_file(site.spool.requests.join(lock)).unwrap();
    }
    for helper in helpers {
        kill(helper, Signal::SIGKILL).unwrap();
    }
    watcher.crash();
    assert!(is_alive(&site.read("pid")));

    let _next = site.start();

    assert!(!is_alive(&site.read("pid")), "it runs beside the next watcher's");
}

#[test]
fn the_service_ends_after_its_work_beside_a_watcher_that_locks_only_the_file() {
    let site = Site::new();
    let mut watcher = start(&site);
    let (running, later) = (new_id(), new_id());
    site.spool.submit(&running, &request(&running, "off", "n3"));
    site.await_execution(&running);

    // As an earlier version would hold it, in one step.
    let other = site.path("other");
    let file = File::create(&other).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    let whole = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    fs::rename(&other, site.spool.requests.join(LOCKS[0])).unwrap();
    watcher.await_log("no new request is begun here");
    site.spool.submit(&later, &request(&later, "off", "n4"));
    site.release();

    site.spool.await_result(&running, "success");
    assert_eq!(watcher.wait().code(), Some(1), "{}", watcher.log());
    assert!(site.spool.request(&later).exists(), "that is for the other one");
    assert_eq!(site.executed().len(), 1);
}

#[test]
fn a_watcher_waits_for_the_children_of_the_previous_one_and_reports_it() {
    let site = Site::new();
    start(&site).stop();
    let children = File::open(site.spool.requests.join(".running.lock")).unwrap();
    children.lock_shared().unwrap();
    let log = site.path("watcher-1.log");
    let ending = std::thread::spawn(move || {
        wait_for("the word of the one that waits", || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            log.contains("waiting until the children of the previous watcher have ended")
        });
        drop(children);
    });

    let watcher = site.start();

    ending.join().unwrap();
    watcher.stop();
}
