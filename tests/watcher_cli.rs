//! The commands of the real `fence-watcher`: what they print, and the exit codes 0, 1 and 2.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A directory of one test's own with a spool and a configuration; it goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // In memory where that is to be had: a busy disk makes each sync take seconds.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = parent.join(format!("fence-watcher-cli-{unique}"));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A configuration with a spool in this directory and `devices`.
    fn configure(&self, devices: &str) {
        let directory = self.0.display();
        let text = format!(
            "[spool]\nrequest_dir = '{directory}/requests'\nresponse_dir = '{directory}/responses'\n\
             [log]\nlog_dir = '{directory}/log'\ntarget = 'stderr'\n{devices}"
        );
        fs::write(self.path("w.toml"), text).unwrap();
        fs::set_permissions(self.path("w.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn program(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fence-watcher"));
        command.arg("--config").arg(self.path("w.toml")).args(arguments).env_clear();
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ran(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A watcher that serves; it is killed with the value.
struct Service(Child);

impl Service {
    /// Starts it and waits until it says that it is ready.
    fn start(scratch: &Scratch) -> Self {
        let socket = scratch.path("notify");
        let ready = UnixDatagram::bind(&socket).unwrap();
        ready.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut command = scratch.command(&["run", "--node", "n1"]);
        let service =
            Service(command.env("NOTIFY_SOCKET", socket).stdin(Stdio::null()).spawn().unwrap());
        let mut message = [0; 256];
        loop {
            let length = match ready.recv(&mut message) {
                // A machine that was suspended interrupts a wait that has a limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                length => length.expect("the watcher did not become ready"),
            };
            if message[..length].starts_with(b"READY=1") {
                return service;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SIMULATED: &str = "[[device]]\nname = 'demo'\ntype = 'simulated'\ntargets = 'n[1-3]'\n";

fn simulated(scratch: &Scratch) -> String {
    format!("{SIMULATED}state_file = '{}'\n", scratch.path("state").display())
}

#[test]
fn without_a_configuration_nothing_starts_and_a_paragraph_says_what_to_write() {
    let scratch = Scratch::new();

    for arguments in [&[][..], &["run"], &["check"]] {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("there is no configuration file"), "{ran:?}");
        assert!(ran.stderr.contains("[[device]]"), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0, "something was made");
}

#[test]
fn all_that_is_wrong_with_a_configuration_is_said_with_its_line_before_anything_starts() {
    let scratch = Scratch::new();
    scratch.configure("[[device]]\nname = 'a'\ntype = 'command'\ntargets = 'n['\ntiemout = '1s'\noff = ['/nowhere/x']\n");
    let file = scratch.path("w.toml").display().to_string();

    for command in ["run", "check", "status"] {
        let ran = scratch.run(&[command]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let mut expected = vec![
            format!(
                "fence-watcher: {file}:10: 'targets': bad hostlist \"n[\": its brackets do not match"
            ),
            format!("fence-watcher: {file}:11: unknown key 'tiemout' (did you mean 'timeout'?)"),
            format!("fence-watcher: {file}:12: 'off': there is no program '/nowhere/x'"),
        ];
        if command == "status" {
            expected.pop();
        }
        assert_eq!(ran.stderr.lines().collect::<Vec<_>>(), expected);
    }
    assert!(!scratch.path("requests").exists(), "something was started");
}

#[test]
fn a_check_asks_each_device_of_this_node_and_tells_what_may_surprise() {
    let scratch = Scratch::new();
    let (good, bad) =
        (scratch.program("good", "exit 0"), scratch.program("bad", "echo lost; exit 1"));
    let device = |name: &str, program: &str, more: &str| {
        format!(
            "[[device]]\nname = '{name}'\ntype = 'command'\ntargets = 'n[1-3]'\n\
             off = ['{program}']\non = ['{program}']\nstatus = ['{program}']\n\
             monitor = ['{program}']\n{more}"
        )
    };
    let well = device("one", &good, "") + &device("other", &bad, "nodes = 'n2'\n");
    scratch.configure(&(well.clone() + &simulated(&scratch)));

    let ran = scratch.run(&["check", "--node", "n1.example.com"]);

    assert_eq!(ran.stderr, "");
    let host = fence_watcher::config::local_node();
    assert_eq!(
        ran.stdout.replace(&format!("'{host}'"), "'HOST'"),
        "\
DEVICE  TYPE       REACHABLE  TARGETS  METHOD  CONCURRENT  ON THIS NODE
one     command    yes        n[1-3]   onoff   1           yes
other   command    not asked  n[1-3]   onoff   1           no
demo    simulated  yes        n[1-3]   onoff   1           yes

TARGETS  FENCED BY  OR, IF NAMED, BY
n[1-3]   one        demo

note: 'other' is not used on this node, 'n1.example.com'
note: 'demo' is simulated: it only pretends to fence, nothing is really cut off
note: asked from this machine, 'HOST': 'n1.example.com' may reach other devices
"
    );
    assert_eq!(ran.code, Some(0));

    let ran = scratch.run(&["check", "--node", "n2"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("\nother   command    NO "), "{ran:?}");
    assert!(ran.stdout.contains("\nproblem: 'other' cannot be reached: "), "{ran:?}");
    assert!(ran.stdout.contains("\nnote: 'demo' is simulated: "), "{ran:?}");
    assert!(ran.stdout.contains("lost"), "{ran:?}");
}

#[test]
fn a_check_shows_who_fences_what_as_the_devices_list_it() {
    let scratch = Scratch::new();
    let program = |name: &str, script: &str| scratch.program(name, script);
    let off = program("off", "exit 0");
    let device = |name: &str, targets: &str, list: &str| {
        format!(
            "[[device]]\nname = '{name}'\ntype = 'command'\ntargets = '{targets}'\n\
             off = ['{off}']\non = ['{off}']\nmonitor = ['{off}']\n{list}"
        )
    };
    let list = |program: &str| format!("list = ['{program}']\n");
    let asked = device("asked", "discover", &list(&program("list", "echo n2; echo n3,alias")));
    scratch.configure(&(device("one", "n[1-2]", "") + &asked + &device("any", "*", "")));

    let ran = scratch.run(&["check"]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let table = "
TARGETS     FENCED BY  OR, IF NAMED, BY
n1          one        any
n2          one        asked, any
n3          asked      any
all others  any        -
";
    assert!(ran.stdout.contains(table), "{}", ran.stdout);
    assert!(ran.stdout.contains(" discover: n[2-3] "), "{}", ran.stdout);

    let silent = device("asked", "discover", &list(&program("list", "echo lost >&2; exit 1")));
    scratch.configure(&silent);
    let ran = scratch.run(&["check"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("problem: 'asked' gives no list of its targets: "), "{ran:?}");
    assert!(ran.stdout.contains("\nall      asked      -\n"), "{ran:?}");
}

#[test]
fn a_check_names_the_targets_that_a_fence_agent_does_not_list() {
    let scratch = Scratch::new();
    let metadata = "<resource-agent><parameters><parameter name=\"plug\"/></parameters><actions>\
                    <action name=\"off\"/><action name=\"on\"/><action name=\"status\"/>\
                    <action name=\"list\"/><action name=\"monitor\"/></actions></resource-agent>";
    let agent = scratch.program(
        "fence_x",
        &format!(
            "input=$(cat); case $(echo \"$input\" | sed -n 's/^action=//p') in\n\
             metadata) echo '{metadata}';;\n\
             status) case $input in *no-such*) exit 1;; esac;;\n\
             list) echo 1,n1; echo 2,n2;; esac"
        ),
    );
    let device = |plugs: &str, more: &str| {
        format!(
            "[[device]]\nname = 'pdu'\ntype = 'fence-agent'\nagent = '{agent}'\n\
             targets = {{ {plugs} }}\n{more}"
        )
    };
    scratch.configure(&device("n1 = '1', n2 = 'n2', n3 = '7'", ""));

    let ran = scratch.run(&["check"]);

    let note = "problem: 'pdu': no fence of 'n3' can be confirmed: its plug '7' is not in the agent's list\n";
    assert!(ran.stdout.contains(note), "{ran:?}");
    assert_eq!(ran.stdout.matches("can be confirmed").count(), 1, "{ran:?}");
    assert_eq!(ran.code, Some(1), "{ran:?}");

    for sound in [
        device("n1 = '1', n2 = 'n2'", ""),
        device("n3 = '7'", "actions = ['off', 'on', 'status', 'monitor']\n"),
    ] {
        scratch.configure(&sound);
        assert_eq!(scratch.run(&["check"]).code, Some(0));
    }
}

#[test]
fn a_check_is_no_greener_than_a_fence_and_says_what_is_missing_for_which_target() {
    let scratch = Scratch::new();
    let program = scratch.program("power", "[ $2 = n2 ] && { echo lost >&2; exit 1; }; exit 0");
    let device = |targets: &str| {
        format!(
            "[[device]]\nname = 'pdu'\ntype = 'command'\ntargets = '{targets}'\n\
             off = ['{program}', 'off']\non = ['{program}', 'on']\n\
             status = ['{program}', 'status', '{{target}}']\nmonitor = ['{program}', 'monitor', '-']\n"
        )
    };
    scratch.configure(&device("n[1-3]"));

    let ran = scratch.run(&["check"]);

    assert_eq!(ran.code, Some(1), "{ran:?}");
    let note = "problem: 'pdu': a fence of 'n2' is not certain to work: ";
    assert!(ran.stdout.contains(note) && ran.stdout.contains("lost"), "{ran:?}");
    assert_eq!(ran.stdout.matches("not certain").count(), 1, "{ran:?}");

    scratch.configure(&device("n1,n3"));
    let ran = scratch.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn an_offline_check_runs_no_program_and_needs_none() {
    let scratch = Scratch::new();
    let witness = scratch.path("witness");
    let program = scratch.program("p", &format!("touch {}", witness.display()));
    scratch.configure(&format!(
        "[[device]]\nname = 'a'\ntype = 'command'\ntargets = '*'\noff = ['/nowhere/x']\n\
         monitor = ['{program}']\n"
    ));

    let ran = scratch.run(&["check", "--offline"]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("not asked"), "{ran:?}");
    assert!(ran.stdout.contains("'a' has no way to do 'on'"), "{ran:?}");
    assert!(ran.stdout.contains("'a' has no 'status'"), "{ran:?}");
    assert!(!witness.exists());
}

#[test]
fn the_status_of_a_running_watcher_is_shown_and_a_dead_one_is_told_at_once() {
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
        // This one can be read; the directory that it names cannot.
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
fn a_user_who_may_do_nothing_is_told_once_to_be_root() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(scratch.path("w.toml"), PermissionsExt::from_mode(0o644)).unwrap();
    drop(Service::start(&scratch));
    let nobody = |arguments: &[&str]| {
        let mut command = scratch.command(arguments);
        ran(command.uid(65_534).gid(65_534))
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
fn the_history_has_one_row_for_each_fence() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let log = scratch.path("log");
    fs::DirBuilder::new().mode(0o750).create(&log).unwrap();
    let event = |time: &str, id: &str, target: &str, end: &str| {
        format!(
            "{{\"timestamp\":\"{time}\",\"action\":\"off\",\"target_node\":\"{target}\",\
             \"pacemaker_action\":\"off\",\"request_id\":\"{id}\",{end}}}\n"
        )
    };
    let requested = r#""status":"requested""#;
    let lines = [
        event("2026-01-31T12:00:00Z", "a", "n1", requested),
        "half a li\n".to_owned(),
        event("2026-01-31T12:00:01Z", "b", "n2", requested),
        event(
            "2026-01-31T12:00:02Z",
            "a",
            "n1",
            r#""status":"completed","result":"success","duration_ms":2100,"details":"n1 is off""#,
        ),
    ];
    fs::write(log.join("fence-events-detailed.jsonl"), lines.concat()).unwrap();

    let all = scratch.run(&["history"]);
    assert_eq!(
        all.stdout,
        "\
TIME                  TARGET  ACTION  RESULT           DURATION  DETAILS
2026-01-31T12:00:00Z  n1      off     success          2.1s      n1 is off
2026-01-31T12:00:01Z  n2      off     no end recorded  -         -
"
    );
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));

    for (arguments, targets) in [
        (&["--node", "n2"][..], &["n2"][..]),
        (&["--result", "success"], &["n1"]),
        (&["--since", "2026-01-31T12:00:01Z"], &["n2"]),
        (&["--result", "no-end"], &["n2"]),
        (&["--result", "no end recorded"], &["n2"]),
        (&["--result", "running"], &[]),
        (&["--since", "2026-01-31"], &["n1", "n2"]),
        (&["--since", "2026-01-31 14:00:01"], &["n2"]),
        (&["--since", "2026-01-31T13:00:01+01:00"], &["n2"]),
        (&["--since", "2026-02-01"], &[]),
        (&["--action", "on"], &[]),
        (&["--since", "1m"], &[]),
    ] {
        let mut command = scratch.command(&[&["history", "--json"], arguments].concat());
        let ran = ran(command.env("TZ", "HERE-2"));
        let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
        let found: Vec<&Value> =
            rows.as_array().unwrap().iter().map(|row| &row["target_node"]).collect();
        assert_eq!(found, targets, "{arguments:?}");
    }
}

#[test]
fn an_unknown_result_or_action_is_refused_with_the_known_ones() {
    let scratch = Scratch::new();
    let log = scratch.0.to_str().unwrap();
    for (arguments, known) in [
        (["--result", "sucess"], &["success", "timed-out", "no-end", "did you mean"][..]),
        (["--result", "SUCCESS"], &["unreachable"]),
        (["--result", ""], &["interrupted", "waiting", "running"]),
        (["--action", "of"], &["off", "on", "reboot"]),
        (["--action", "status"], &["off", "on", "reboot"]),
    ] {
        let ran = scratch.run(&[&["history", "--log-dir", log], &arguments[..]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        let said = ran.stderr.replace("similar value exists", "did you mean");
        assert!(known.iter().all(|word| said.contains(word)), "{ran:?}");
    }
}

#[test]
fn the_history_wraps_free_text_under_itself_at_the_width_of_the_terminal_or_at_80() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let log = scratch.path("log");
    fs::DirBuilder::new().mode(0o750).create(&log).unwrap();
    let event = r#"{"timestamp":"2026-01-31T12:00:00Z","action":"off","target_node":"node-with-a-name","request_id":"a","status":"failed","result":"unreachable","duration_ms":2100,"details":"unreachable: no way to the device; check the way to the device: fence-watcher check"}"#;
    fs::write(log.join("fence-events-detailed.jsonl"), format!("{event}\n")).unwrap();

    let written = scratch.run(&["history"]);

    assert_eq!(
        written.stdout,
        "\
TIME                  TARGET            ACTION  RESULT       DURATION
    DETAILS
2026-01-31T12:00:00Z  node-with-a-name  off     unreachable  2.1s
    no way to the device; check the way to the device: fence-watcher check
"
    );

    let (program, file) = (env!("CARGO_BIN_EXE_fence-watcher"), scratch.path("w.toml"));
    let line = format!("stty rows 24 cols 110; '{program}' --config '{}' history", file.display());
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-c", &line, "/dev/null"]);
    let shown = ran(&mut terminal).stdout.replace('\r', "");
    assert!(
        shown.contains("2.1s      no way to the device; check the way to\n")
            && shown.contains("DURATION  DETAILS\n"),
        "{shown}"
    );
}

#[test]
fn the_history_of_nodes_with_long_names_is_as_wide_as_the_usual_terminal() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let log = scratch.path("log");
    fs::DirBuilder::new().mode(0o750).create(&log).unwrap();
    let name = "gfs2-compute-node-of-rack-07-number-0042";
    let event = format!(
        r#"{{"timestamp":"2026-01-31T12:00:00Z","action":"reboot","target_node":"{name}","request_id":"a","status":"failed","result":"unacknowledged","duration_ms":2100,"details":"unacknowledged: '{name}' shows on: check the target"}}"#
    );
    fs::write(log.join("fence-events-detailed.jsonl"), format!("{event}\n")).unwrap();

    let ran = scratch.run(&["history"]);

    assert_eq!(
        ran.stdout,
        format!(
            "\
TIME                  TARGET                                    ACTION
    RESULT          DURATION  DETAILS
2026-01-31T12:00:00Z  {name}  reboot
    unacknowledged  2.1s      '{name}' shows
                              on: check the target
"
        )
    );
}

#[test]
fn the_history_goes_back_into_the_logs_that_were_put_aside() {
    let scratch = Scratch::new();
    let event = |second: u32, id: &str, status: &str| {
        format!(
            "{{\"timestamp\":\"2026-01-31T12:00:0{second}Z\",\"action\":\"off\",\"target_node\":\"{id}\",\
             \"pacemaker_action\":\"off\",\"request_id\":\"{id}\",\"status\":\"{status}\"}}\n"
        )
    };
    let logs = [
        (".2", event(0, "n1", "requested")),
        (".1", event(1, "n1", "completed") + &event(2, "n2", "requested")),
        ("", event(3, "n2", "failed") + &event(4, "n3", "completed")),
        (".3.gz", "no text".to_owned()),
    ];
    for ((suffix, text), age) in logs.iter().zip([2, 1, 0, 3]) {
        let path = scratch.path(&format!("fence-events-detailed.jsonl{suffix}"));
        fs::write(&path, text).unwrap();
        let written = SystemTime::now() - Duration::from_secs(3600 * age);
        fs::File::options().append(true).open(path).unwrap().set_modified(written).unwrap();
    }

    let log_dir = scratch.0.to_str().unwrap();
    let ran = scratch.run(&["history", "--json", "--log-dir", log_dir]);

    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    let found: Vec<(&str, &str)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["target_node"].as_str().unwrap(), row["result"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [("n1", "completed"), ("n2", "failed"), ("n3", "completed")]);
}

#[test]
fn the_history_of_a_named_directory_needs_no_configuration() {
    let scratch = Scratch::new();
    let log = scratch.0.to_str().unwrap();

    let ran = scratch.run(&["history", "--log-dir", log]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.starts_with("no fence is recorded in "), "{ran:?}");
}

#[test]
fn a_wrong_command_line_is_refused_and_help_is_not_an_error() {
    let scratch = Scratch::new();

    assert_eq!(scratch.run(&["--frob"]).code, Some(2));
    assert_eq!(scratch.run(&["history", "--since", "yesterday"]).code, Some(2));
    assert_eq!(scratch.run(&["check", "--node", "../x"]).code, Some(2));
    let help = scratch.run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(!help.stdout.contains("executor"), "the hidden mode is shown");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let output = scratch.command(&["check", "--offline"]).stdout(writer).output().unwrap();

    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn the_hidden_mode_is_of_no_use_on_a_terminal() {
    let ran = ran(Command::new(env!("CARGO_BIN_EXE_fence-watcher"))
        .arg("--executor")
        .arg(Path::new("/dev/null")));

    assert_eq!(ran.code, Some(1), "{ran:?}");
}

#[test]
fn a_text_that_cannot_be_written_to_standard_output_is_a_failure() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let _service = Service::start(&scratch);
    let commands: [&[&str]; 7] = [
        &["--help"],
        &["--version"],
        &["run", "--help"],
        &["help", "check"],
        &["status"],
        &["status", "--json"],
        &["check", "--offline"],
    ];
    for arguments in commands {
        for (way, script) in [("full", "exec \"$@\" >/dev/full"), ("closed", "exec \"$@\" >&-")] {
            let program = scratch.command(arguments);
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());

            let output = command.output().unwrap();

            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{way} {arguments:?}: {stderr}");
            assert!(stderr.contains("cannot write to standard output"), "{way}: {stderr}");
        }
        let ran = scratch.command(arguments).stdout(Stdio::piped()).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{arguments:?}: {ran:?}");
    }
}
