//! The directories of the spool: created, missing, full, or open to others.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::executable::write_executable;
use crate::left_out::left_out;
use crate::rig::{AGENT, Spool, Watcher, assert_failure, assert_success, await_lines, start};

#[test]
fn a_user_without_access_to_the_spool_is_advised_to_be_root() {
    if !nix::unistd::geteuid().is_root() {
        left_out("someone who may not use the spool", "it needs root");
        return;
    }
    let spool = Spool::new();
    let agent = spool.path("agent");
    write_executable(&agent, fs::read(AGENT).unwrap());
    for path in [&spool.root, &agent] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    for responder in ["fence-watcher", "script", "nnf"] {
        for action in ["status", "off", "monitor", "list"] {
            if responder != "fence-watcher" && matches!(action, "status" | "list") {
                continue;
            }
            let lines = format!("action={action}\nplug=n3\nresponder={responder}\n");
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&agent);
            let output = start(&mut command, &(spool.lines() + &lines)).wait_with_output().unwrap();
            let stderr = assert_failure(&output);
            assert!(stderr.contains("for user 65534: run as root"), "{lines}: {stderr}");
        }
    }
}

/// As the earlier versions did: a simple watcher may create none of them.
#[test]
fn missing_directories_are_made_for_other_responders() {
    for responder in ["script", "nnf", "fence-watcher"] {
        let ours = responder == "fence-watcher";
        for action in ["monitor", "off"] {
            let spool = Spool::new();
            fs::remove_dir(spool.path("log")).unwrap();
            for directory in ["requests", "responses"] {
                fs::remove_dir(spool.path(directory)).unwrap();
            }
            let lines =
                format!("action={action}\nplug=n3\nresponder={responder}\nfence_timeout=1\n");
            let output = spool.run(&lines);

            let is_failure = ours || action == "off";
            assert_eq!(output.status.code(), Some(i32::from(is_failure)), "{lines}: {output:?}");
            for directory in ["requests", "responses"] {
                let made = fs::metadata(spool.path(directory));
                assert_eq!(made.is_err(), ours, "{lines}");
                assert!(made.is_err() || made.unwrap().permissions().mode() & 0o7777 == 0o700);
            }
            if action == "off" {
                await_lines(&spool, "fence-events.log", 2);
                let mode = fs::metadata(spool.path("log")).unwrap().permissions().mode();
                assert_eq!(mode & 0o7777, 0o700);
            }
        }
    }
}

/// A full file system, simulated by a limit of the size of files.
#[test]
fn a_monitor_fails_where_no_request_could_be_written() {
    for responder in ["script", "nnf", "fence-watcher"] {
        let spool = Spool::new();
        let _watcher = (responder == "fence-watcher").then(|| Watcher::start(&spool));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\"", AGENT]);
        let lines = format!("action=monitor\nresponder={responder}\n");
        let output = start(&mut command, &(spool.lines() + &lines)).wait_with_output().unwrap();
        let stderr = assert_failure(&output);
        assert!(stderr.contains("no request could be written: cannot write '"), "{stderr}");
        assert!(spool.files("requests").iter().all(|name| !name.contains("monitor")));
        assert_success(&spool.run(&lines), "");
    }
}

#[test]
fn an_answer_in_a_directory_that_was_made_again_is_found() {
    for responder in ["script", "fence-watcher"] {
        let spool = Spool::new();
        let lines = format!("action=off\nplug=n3\nresponder={responder}\n");
        let output = spool.run_answered(&lines, |responder| {
            fs::remove_dir(spool.path("responses")).unwrap();
            fs::create_dir(spool.path("responses")).unwrap();
            let private = Permissions::from_mode(0o700);
            fs::set_permissions(spool.path("responses"), private).unwrap();
            responder.answer(&responder.success());
        });
        assert_success(&output, "Success: Powered OFF\n");
    }
}

#[test]
fn a_spool_that_is_missing_or_open_to_others_is_reported_with_the_repair() {
    let spool = Spool::new();
    fs::set_permissions(spool.path("requests"), Permissions::from_mode(0o777)).unwrap();
    let output = spool.run("action=off\nplug=n3\n");
    assert!(assert_failure(&output).contains("chmod"));
    assert_eq!(spool.files("requests"), [""; 0]);

    fs::remove_dir(spool.path("requests")).unwrap();
    let output = spool.run("action=off\nplug=n3\n");
    assert!(assert_failure(&output).contains("start fence-watcher, which makes"));
    assert_eq!(spool.audit().len(), 4, "a request that could not be written is in the audit");
}
