//! `fence-watcher status` and `reload`, with watchers that answer and others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::executable::write_executable;
use super::left_out::left_out;
use super::{Scratch, Service, ran, simulated};

#[test]
fn the_status_of_a_running_watcher_is_shown_and_a_dead_one_reported_at_once() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let mut service = Service::start(&scratch);

    let ran = scratch.run(&["status", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let state: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&state["node"], &state["pid"]), (&"n1".into(), &service.0.id().into()));
    assert_eq!(state["devices"][0]["name"], "demo");

    let ran = scratch.run(&["status"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("\ndemo    simulated  "), "{ran:?}");
    assert!(ran.stdout.contains("\nnothing is running\n\nnothing is queued\n"), "{ran:?}");
    let left = fs::read_dir(scratch.path("queries")).unwrap().count();
    assert_eq!(left, 0, "queries or answers were left");

    service.signal(Signal::SIGTERM);
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
    let ran = scratch.run(&["status", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    let state: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&state["running"], &state["pid"]), (&false.into(), &Value::Null));
    assert_eq!(state["last_pid"], service.0.id());
    assert!(state["message"].as_str().unwrap().starts_with("no fence-watcher is running"));
    let ran = scratch.run(&["status"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.starts_with("fence-watcher: no fence-watcher is running"), "{ran:?}");
    assert!(ran.stderr.contains(&service.0.id().to_string()), "{ran:?}");
}

#[test]
fn a_spool_that_was_never_served_has_a_status_in_json_too() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));

    let ran = scratch.run(&["status", "--json"]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    let state: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(state["running"], false, "{state}");
    assert!(!state["message"].as_str().unwrap().is_empty());
}

#[test]
fn a_configuration_that_cannot_be_read_has_an_object_in_json_too() {
    let scratch = Scratch::new();
    let (file, logs) = (scratch.path("w.toml"), scratch.path("no/logs"));
    let unreadable = format!("[log]\nlog_dir = '{}'\n{}", logs.display(), simulated(&scratch));
    for (text, mode, code, words) in [
        ("[spool]\nrequest_dir = 'relative'\n", 0o600, 2, ":2: 'request_dir': "),
        ("[spool", 0o600, 2, "w.toml:1: "),
        ("", 0o666, 2, "chmod go-w"),
        // The file can be read, but not the directory that it names.
        (unreadable.as_str(), 0o600, 1, "is not a directory"),
    ] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        fs::write(scratch.path("no"), "").unwrap();
        for command in ["status", "history"] {
            if (command, code) == ("status", 1) {
                continue;
            }
            let ran = scratch.run(&[command, "--json"]);

            assert_eq!(ran.code, Some(code), "{ran:?}");
            let said: Value = serde_json::from_str(&ran.stdout).unwrap();
            let message = said["message"].as_str().unwrap();
            assert!(message.contains(words) && ran.stderr.contains(words), "{ran:?}");
            if command == "status" {
                assert_eq!((&said["running"], &said["pid"]), (&Value::Null, &Value::Null));
            }
            let ran = scratch.run(&[command]);
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        }
    }
}

#[test]
fn a_user_without_rights_is_advised_once_to_be_root() {
    if !nix::unistd::geteuid().is_root() {
        left_out("a user who may do nothing", "it needs root");
        return;
    }
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(scratch.path("w.toml"), PermissionsExt::from_mode(0o644)).unwrap();
    drop(Service::start(&scratch));
    // The program itself may be in a directory that this user cannot enter.
    let program = scratch.path("fence-watcher");
    write_executable(&program, fs::read(env!("CARGO_BIN_EXE_fence-watcher")).unwrap());
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--config").arg(scratch.path("w.toml")).args(arguments).env_clear();
        ran(command.current_dir("/").uid(65_534).gid(65_534))
    };

    let checked = nobody(&["check"]);

    assert_eq!(checked.code, Some(1), "{checked:?}");
    let lines: Vec<&str> = checked.stdout.lines().filter(|line| line.contains("denied")).collect();
    let [line] = lines[..] else { panic!("{checked:?}") };
    assert!(line.starts_with("problem: cannot use '") && line.contains("run as root"), "{line}");
    for name in ["requests", "responses", "queries", "log"] {
        let path = format!("'{}'", scratch.path(name).display());
        assert!(line.contains(&path), "{path}: {line}");
    }
    let asked = nobody(&["status"]);
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.stderr.contains("run as root"), "{asked:?}");
}

#[test]
fn a_reload_by_a_wrong_configuration_does_not_advise_to_start_a_watcher() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let _service = Service::start(&scratch);
    for (text, words) in [
        ("[spool]\nrequest_dir = 7\n", ":2: "),
        ("[spool", ":1: "),
        ("[spool]\nrequest_dir = '/nowhere/requests'\n[log]\nlevel = 'all'\n", ":4: "),
    ] {
        fs::write(scratch.path("w.toml"), text).unwrap();

        let ran = scratch.run(&["reload"]);

        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(words), "{ran:?}");
        assert!(ran.stderr.contains("correct the configuration"), "{ran:?}");
        for advice in ["start it", "start fence-watcher", "systemctl start"] {
            assert!(!ran.stderr.contains(advice), "{advice}: {ran:?}");
        }
    }
}

#[test]
fn a_watcher_that_lives_but_does_not_answer_is_not_called_dead() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let service = Service::start(&scratch);
    service.signal(Signal::SIGSTOP);

    let ran = scratch.run(&["status"]);

    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("is running but gave no answer"), "{ran:?}");
    assert!(ran.stderr.contains("journalctl -u fence-watcher"), "{ran:?}");
    let ran = scratch.run(&["status", "--json"]);
    let state: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &state["running"]), (Some(1), &Value::Null), "{state}");
    assert_eq!(state["pid"], service.0.id());
}

#[test]
fn a_watcher_that_is_killed_while_a_question_waits_is_reported_as_gone() {
    for question in [&["status"][..], &["status", "--json"], &["reload"]] {
        let scratch = Scratch::new();
        scratch.configure(&simulated(&scratch));
        let mut service = Service::start(&scratch);
        // The watcher lives and answers nothing.
        service.signal(Signal::SIGSTOP);
        let mut command = scratch.command(question);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let asking = command.spawn().unwrap();
        while !has_file(&scratch.path("queries"), ".json") {
            // Until the question exists.
            std::thread::sleep(Duration::from_millis(3));
        }

        service.signal(Signal::SIGKILL);
        service.0.wait().unwrap();

        let output = asking.wait_with_output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let gone = format!("no fence-watcher is running on this node (process {}", service.0.id());
        assert!(said.contains(&gone), "{question:?}: {said}");
        assert!(!has_file(&scratch.path("queries"), ""), "the question was left");
    }
}

/// Whether `directory` contains a file whose name has this ending and is not hidden.
fn has_file(directory: &Path, end: &str) -> bool {
    let names =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.file_name());
    names.map(|name| name.into_string().unwrap()).any(|n| !n.starts_with('.') && n.ends_with(end))
}
