//! A fence from its request to its answer.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::inotify::AddWatchFlags;
use serde_json::{Value, json};

use crate::left_out::left_out;
use crate::rig::{AGENT, Arrivals, Responder, Spool, assert_failure, assert_success, start};

#[test]
fn each_action_succeeds_with_its_own_words_and_a_complete_audit() {
    for (action, words) in [
        ("off", "Success: Powered OFF\n"),
        ("on", "Success: Powered ON\n"),
        ("reboot", "Success: Rebooted\n"),
    ] {
        let spool = Spool::new();
        let output = spool.run_answered(
            &format!("action={action}\nport=n3\nnodename=rack1-n3\n"),
            |responder| {
                responder.answer(&responder.success());
            },
        );

        assert_success(&output, words);
        let audit = spool.audit();
        assert_eq!(audit.len(), 2);
        assert_eq!((&audit[0]["status"], &audit[0]["result"]), (&json!("requested"), &Value::Null));
        assert_eq!(audit[1]["status"], "completed");
        assert_eq!(audit[1]["result"], "success");
        for event in &audit {
            assert_eq!(event["action"], action);
            assert_eq!(event["pacemaker_action"], action);
            assert_eq!(event["target_node"], "n3");
            assert_eq!(event["request_id"], audit[0]["request_id"]);
        }
        assert!(audit[0]["details"].as_str().unwrap().contains("rack1-n3"));
        assert_eq!(spool.files("responses").len(), 1, "an answer is never removed");
    }
}

#[test]
fn the_command_line_and_the_environment_give_the_same_fence_as_standard_input() {
    let spool = Spool::new();
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let child = Command::new(AGENT)
        .env_clear()
        .env("GFS2_DISCOVERY_ROOT", spool.path("root"))
        .env("REQUEST_DIR", spool.path("requests"))
        .env("RESPONSE_DIR", "/nonexistent")
        .env("LOG_DIR", spool.path("log"))
        .arg(format!("--response_dir={}", spool.path("responses").display()))
        .args(["-o", "off", "-n", "n3", "--fence-timeout", "20", "--device=pdu"])
        .current_dir(&spool.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let responder = Responder::new(&spool, &arrivals.next());
    let cwd = fs::read_link(format!("/proc/{}/cwd", child.id())).unwrap();
    assert_eq!(cwd, Path::new("/"), "a working directory on GFS2 could hang the agent");
    assert_eq!(responder.request["device"], "pdu");
    responder.answer(&responder.success());
    assert_success(&child.wait_with_output().unwrap(), "Success: Powered OFF\n");
}

#[test]
fn a_request_is_complete_private_and_held() {
    let spool = Spool::new();
    let output = spool.run_answered("action=reboot\nplug=n3\n", |responder| {
        let request = &responder.request;
        assert_eq!(responder.file, format!("{}.json", responder.id()));
        assert_eq!((&request["action"], &request["target_node"]), (&json!("reboot"), &json!("n3")));
        assert_eq!((&request["held"], &request["gfs2_filesystems"]), (&json!(true), &json!([])));
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(request["boot_id"], boot_id.trim());
        let deadline = request["deadline_boottime_ms"].as_u64().unwrap();
        let left = deadline.checked_sub(fence_agent::clock::boot_ms()).unwrap();
        assert!(left <= 58_000, "{left} ms of 60 s, 2 of them kept in reserve");
        let file = File::open(responder.pending()).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.try_lock_shared().is_err(), "the agent holds its request");
        responder.answer(&responder.success());
    });
    assert_success(&output, "Success: Rebooted\n");
}

#[test]
fn the_answer_is_found_under_each_of_its_names() {
    for name in ["ID.json", "n3-ID.json"] {
        for responder in ["fence-watcher", "script", "nnf"] {
            let spool = Spool::new();
            let lines = format!("action=off\nplug=n3\nresponder={responder}\npoll_interval=0.05\n");
            let output = spool.run_answered(&lines, |responder| {
                let name = name.replace("ID", responder.id());
                responder.answer_as(&name, &responder.success());
            });
            assert_success(&output, "Success: Powered OFF\n");
        }
    }
}

#[test]
fn an_answer_that_proves_nothing_fails_at_once_and_takes_the_request_back() {
    let other_id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let wrong = [
        ("another request", "request_id", json!(other_id)),
        ("no request_id", "request_id", Value::Null),
        ("another target", "target_node", json!("n4")),
        ("no boolean", "success", json!("true")),
        ("no boolean", "success", json!(1)),
        ("\"on\"", "action_performed", json!("on")),
        ("\"expired\"", "result", json!("expired")),
    ];
    for (words, member, value) in wrong {
        let spool = Spool::new();
        let output = spool.run_answered("action=off\nplug=n3\n", |responder| {
            let mut answer = responder.success();
            answer[member] = value;
            fs::write(responder.response(&responder.file), answer.to_string()).unwrap();
            responder.nudge();
        });
        let stderr = assert_failure(&output);
        assert!(stderr.contains(words), "{words}: {stderr}");
        assert_eq!(spool.files("requests"), [""; 0], "{words}");
        let end = &spool.audit()[1];
        assert_eq!((&end["status"], &end["result"]), (&json!("failed"), &json!("unknown")));
    }
}

#[test]
fn an_answer_behind_a_link_is_refused() {
    let spool = Spool::new();
    let output = spool.run_answered("action=off\nplug=n3\n", |responder| {
        let elsewhere = spool.path("elsewhere");
        fs::write(&elsewhere, responder.success().to_string()).unwrap();
        symlink(&elsewhere, responder.response(&responder.file)).unwrap();
        responder.nudge();
    });
    assert_failure(&output);
}

#[test]
fn the_responders_failure_is_reported_with_its_message() {
    let spool = Spool::new();
    let output = spool.run_answered("action=off\nplug=n3\n", |responder| {
        let mut answer = responder.success();
        answer["success"] = json!(false);
        answer["result"] = json!("unreachable");
        answer["message"] = json!("connection timed out");
        answer["device"] = json!("pdu");
        responder.answer(&answer);
    });
    let stderr = assert_failure(&output);
    assert!(stderr.contains("'n3'") && stderr.contains("unreachable") && stderr.contains("'pdu'"));
    assert!(!stderr.contains("timed out"), "Pacemaker would read an expired time: {stderr}");
    assert_eq!(spool.audit()[1]["result"], "unreachable");
}

#[test]
fn the_agent_waits_until_a_half_written_answer_is_complete() {
    let spool = Spool::new();
    let output = spool.run_answered("action=off\nplug=n3\npoll_interval=0.01\n", |responder| {
        let answer = responder.success().to_string();
        let mut file = File::create(responder.response(&responder.file)).unwrap();
        file.write_all(&answer.as_bytes()[..20]).unwrap();
        responder.nudge();
        file.write_all(&answer.as_bytes()[20..]).unwrap();
        fs::remove_file(responder.pending()).unwrap();
    });
    assert_success(&output, "Success: Powered OFF\n");
}

#[test]
fn an_answer_that_stays_half_written_is_reported_as_a_failure() {
    let spool = Spool::new();
    let output = spool.run_answered("action=off\nplug=n3\nfence_timeout=1\n", |responder| {
        fs::write(responder.response(&responder.file), "{\"success\": tr").unwrap();
        responder.nudge();
    });
    assert!(assert_failure(&output).contains("cannot be read"));
}

#[test]
fn without_a_watch_left_the_agent_looks_from_time_to_time_and_succeeds() {
    let spool = Spool::new();
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances";
    let unshare = ["--user", "--map-root-user", "sh", "-c"];
    let possible = Command::new("unshare").args(unshare).arg(limit).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        left_out("the agent without a watch", "no user namespace can be made here");
        return;
    }
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let script = format!("{limit} && exec {AGENT}");
    let debug = spool.path("log/debug");
    let lines = format!("action=off\nplug=n3\npoll_interval=0.05\ndebug={}\n", debug.display());
    let child = start(Command::new("unshare").args(unshare).arg(script), &(spool.lines() + &lines));

    let responder = Responder::new(&spool, &arrivals.next());
    responder.answer(&responder.success());

    assert_success(&child.wait_with_output().unwrap(), "Success: Powered OFF\n");
    assert!(fs::read_to_string(debug).unwrap().contains("no watch is left"));
}

/// The simplest watchers wait for one kind of event only and never see a rename.
#[test]
fn a_script_that_looks_for_created_or_for_closed_files_alone_sees_the_request_whole() {
    for event in [AddWatchFlags::IN_CREATE, AddWatchFlags::IN_CLOSE_WRITE] {
        let spool = Spool::new();
        let arrivals = Arrivals::watch_for(&spool.path("requests"), event);
        let child = spool.start("action=off\nplug=n3\nresponder=script\n");
        let responder = Responder::new(&spool, &arrivals.next());
        responder.answer(&responder.success());
        assert_success(&child.wait_with_output().unwrap(), "Success: Powered OFF\n");
        assert_eq!(spool.files("requests"), [""; 0]);
    }
}

#[test]
fn nnf_gets_its_file_name_and_never_an_on() {
    let spool = Spool::new();
    let output = spool.run_answered("action=reboot\nplug=n3\nresponder=nnf\n", |responder| {
        assert_eq!(responder.file, format!("n3-{}.json", responder.id()));
        let mut answer = responder.success();
        answer["action_performed"] = json!("off");
        responder.answer(&answer);
    });
    assert_success(&output, "Success: Powered OFF\n");

    let spool = Spool::new();
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let output = spool.run("action=on\nplug=n3\nresponder=nnf\n");
    assert_success(&output, "Success: Nothing to do, nnf-sos does not switch nodes on\n");
    fs::write(spool.path("requests/last"), "x").unwrap();
    assert_eq!(arrivals.next(), "last", "nothing was written before");
    let audit = spool.audit();
    assert_eq!((audit.len(), &audit[0]["status"]), (1, &json!("completed")));
}
