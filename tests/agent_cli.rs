//! The real agent binary, driven from outside: its options, its files, its words and its exit codes.
//!
//! The other half is played by the test itself, so that it can answer in ways that no watcher should.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/left_out.rs"]
mod left_out;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use fence_protocol::{PowerState, Query, QueryAnswer, QueryCode, QueryKind};
use fence_spool::{Places, QueryText, WatcherSpool};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use left_out::left_out;

const AGENT: &str = env!("CARGO_BIN_EXE_fence_gfs2_recorder");

/// Far longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// A spool of its own for one test.
struct Spool {
    root: PathBuf,
}

impl Spool {
    fn new() -> Self {
        let name = format!("agent-cli-{}", fence_protocol::RequestId::random());
        let spool = Spool { root: std::env::temp_dir().join(name) };
        for directory in ["", "requests", "responses", "queries", "log"] {
            let path = spool.path(directory);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        }
        spool
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The lines of standard input that lead the agent here.
    fn lines(&self) -> String {
        let root = self.root.display();
        format!("request_dir={root}/requests\nresponse_dir={root}/responses\nlog_dir={root}/log\n")
    }

    /// A started agent that reads `lines` beside those that lead it here.
    fn start(&self, lines: &str) -> Child {
        let mut command = Command::new(AGENT);
        command.env_clear().env("GFS2_DISCOVERY_ROOT", self.path("root"));
        start(&mut command, &(self.lines() + lines))
    }

    /// The same, run to its end.
    fn run(&self, lines: &str) -> Output {
        self.start(lines).wait_with_output().unwrap()
    }

    /// An agent whose request, once it is there, is answered with what `answer` makes of it.
    fn run_answered(&self, lines: &str, answer: impl FnOnce(&Responder<'_>)) -> Output {
        let arrivals = Arrivals::watch(&self.path("requests"));
        let child = self.start(lines);
        answer(&Responder::new(self, &arrivals.next()));
        child.wait_with_output().unwrap()
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The audit, once it has so many events: an agent that has little time left does not wait for it.
    fn audit_with(&self, count: usize) -> Vec<Value> {
        await_lines(self, "fence-events-detailed.jsonl", count);
        self.audit()
    }

    fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("log/fence-events-detailed.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn start(command: &mut Command, input: &str) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

fn arguments<S: AsRef<OsStr>>(words: &[S]) -> Output {
    Command::new(AGENT).env_clear().args(words).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Exit 0 with exactly this on standard output, and nothing on standard error.
#[track_caller]
fn assert_success(output: &Output, stdout: &str) {
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), stdout);
    assert_eq!(output.status.code(), Some(0));
}

/// Exit 1 with one line on standard error, which is given back, and nothing on standard output.
#[track_caller]
fn assert_failure(output: &Output) -> &str {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("fence_gfs2_recorder: ") && stderr.ends_with('\n'), "{stderr}");
    stderr
}

/// The names that appear in a directory, in their order, hidden ones left out.
struct Arrivals {
    inotify: Inotify,
    names: RefCell<VecDeque<String>>,
}

impl Arrivals {
    fn watch(directory: &Path) -> Self {
        let events =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        Arrivals::watch_for(directory, events)
    }

    /// The same for one that looks for these events alone.
    fn watch_for(directory: &Path, events: AddWatchFlags) -> Self {
        // The user's few instances may be in use elsewhere on this machine, and nothing tells when
        // one becomes free.
        let inotify = loop {
            match Inotify::init(InitFlags::IN_CLOEXEC) {
                Err(Errno::EMFILE) => thread::sleep(Duration::from_millis(10)),
                other => break other.unwrap(),
            }
        };
        inotify.add_watch(directory, events).unwrap();
        Arrivals { inotify, names: RefCell::default() }
    }

    fn next(&self) -> String {
        loop {
            if let Some(name) = self.names.borrow_mut().pop_front() {
                return name;
            }
            self.await_events();
            let events = self.inotify.read_events().unwrap();
            let names = events.into_iter().filter_map(|event| event.name?.into_string().ok());
            self.names.borrow_mut().extend(names.filter(|name| !name.starts_with('.')));
        }
    }

    /// A test that awaits what does not come fails, and holds up nothing else.
    fn await_events(&self) {
        let mut awaited = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        let is_there = poll(&mut awaited, PollTimeout::try_from(PATIENCE).unwrap()).unwrap();
        assert!(is_there > 0, "nothing happened in the directory within {} s", PATIENCE.as_secs());
    }
}

/// A responder that has seen one request.
struct Responder<'a> {
    spool: &'a Spool,
    file: String,
    request: Value,
}

impl<'a> Responder<'a> {
    fn new(spool: &'a Spool, file: &str) -> Self {
        let bytes = fs::read(spool.path("requests").join(file)).unwrap();
        Responder { spool, file: file.to_owned(), request: serde_json::from_slice(&bytes).unwrap() }
    }

    fn id(&self) -> &str {
        self.request["request_id"].as_str().unwrap()
    }

    fn pending(&self) -> PathBuf {
        self.spool.path("requests").join(&self.file)
    }

    fn response(&self, name: &str) -> PathBuf {
        self.spool.path("responses").join(name)
    }

    fn success(&self) -> Value {
        json!({
            "request_id": self.id(), "success": true, "action_performed": self.request["action"],
            "target_node": self.request["target_node"], "message": "done",
        })
    }

    /// Answers under `name` as a simple watcher does: in place, then the request is removed.
    fn answer_as(&self, name: &str, answer: &Value) {
        let file = self.response(name);
        fs::write(&file, answer.to_string()).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(self.pending()).unwrap();
    }

    fn answer(&self, answer: &Value) {
        self.answer_as(&self.file, answer);
    }

    /// Wakes the agent without taking its request, which may be gone already.
    fn nudge(&self) {
        let _ = fs::set_permissions(self.pending(), Permissions::from_mode(0o600));
    }
}

#[test]
fn each_refusal_is_one_line_and_leaves_all_directories_empty() {
    let long = format!("action=off\nplug={}\n", "x".repeat(254));
    for lines in [
        "",
        "plug=n3\n",
        "action=\nplug=n3\n",
        "action=off\n",
        "action=on\n",
        "action=reboot\n",
        "action=status\n",
        "action=off\nplug=\nnodename=n3\n",
        "action=off\nplug=n3\nport=n4\n",
        "action=off\nplug=n3,n4\n",
        "action=off\nplug=n3;n4\nplug_separator=;\n",
        "action=off\nplug=../n3\n",
        "action=off\nplug=-x\n",
        "action=off\nplug=.n3\n",
        "action=off\nplug=n\u{85}3\n",
        "action=off\nplug=n\t3\n",
        "action=off\nplug=n 3\n",
        &long,
        "action=off\nplug=n3\nfence_timeout=0\n",
        "action=off\nplug=n3\nfence_timeout=x\n",
        "action=off\nplug=n3\nfence_timeout=1.5\n",
        "action=off\nplug=n3\nfence_timeout=86401\n",
        "action=off\nplug=n3\ndelay=58\n",
        "action=off\nplug=n3\ndelay=-1\n",
        "action=off\nplug=n3\npoll_interval=x\n",
        "action=off\nplug=n3\nresponder=nobody\n",
        "action=off\nplug=n3\nrequest_dir=requests\n",
        "action=off\nplug=n3\nresponse_dir=../responses\n",
        "action=off\nplug=n3\nlog_dir=log\n",
        "action=validate-all\nplug=n3\nport=n4\n",
        "action=validate-all\nfence_timeout=x\n",
    ] {
        let spool = Spool::new();
        let output = spool.run(lines);
        let stderr = assert_failure(&output);
        assert!(!stderr.contains("timeout") && !stderr.contains("timed out"), "{lines}: {stderr}");
        for directory in ["requests", "responses", "queries", "log"] {
            assert_eq!(spool.files(directory), [""; 0], "{lines}");
        }
    }
}

#[test]
fn an_unknown_action_is_told_in_the_word_that_pacemaker_knows() {
    let output = arguments(&["-o", "explode", "-n", "n3"]);
    let words = "fence_gfs2_recorder: Failed: Unrecognised action 'explode'\n";
    assert_eq!(assert_failure(&output), words);
}

#[test]
fn an_unknown_option_is_an_error_on_the_command_line_and_ignored_on_standard_input() {
    let output = arguments(&["-o", "metadata", "--nonsense=1"]);
    assert!(assert_failure(&output).contains("Parse error: "));

    let spool = Spool::new();
    let output = spool.run_answered(
        "action=off\nplug=n3\nnonsense=1\npcmk_foo=2\nnodeid=3\n",
        |responder| {
            responder.answer(&responder.success());
        },
    );
    assert_success(&output, "Success: Powered OFF\n");
}

/// fence-agents warns of these values and goes on.
#[test]
fn a_flag_with_a_value_that_means_nothing_stops_no_fence() {
    for line in [
        "verbose=2",
        "verbose=",
        "quiet=",
        "quiet=yes please",
        "version=",
        "help=",
        "help=1",
        "gfs2_discovery_enabled=2",
        "gfs2_discovery_enabled=",
        "gfs2_discovery_timeout=2s",
        "gfs2_discovery_timeout=",
        "delay=",
        "poll_interval=",
    ] {
        let spool = Spool::new();
        let output = spool.run_answered(&format!("action=off\nplug=n3\n{line}\n"), |responder| {
            responder.answer(&responder.success());
        });
        assert_success(&output, "Success: Powered OFF\n");
    }
    // The steps, which go to the log as well, say so; `quiet` here is none of the values.
    let spool = Spool::new();
    let lines = "action=off\nplug=n3\nverbose=1\ngfs2_discovery_enabled=2\ndelay=\nquiet=2\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_eq!(output.status.code(), Some(0));
    for word in ["gfs2_discovery_enabled is '2'", "delay is ''", "quiet is '2'"] {
        assert!(
            text(&output.stderr).contains(&format!("the default holds: the option {word}")),
            "{output:?}"
        );
    }
}

#[test]
fn a_monitor_fails_where_each_fence_would_or_ignores_a_value_and_warns_of_a_flag() {
    let spool = Spool::new();
    let _watcher = Watcher::start(&spool);
    for lines in [
        "plug=../n3",
        "plug=n3,n4",
        "port=",
        "plug=a\nport=b",
        "delay=60",
        "poll_interval=abc",
        "log_dir=relative",
    ] {
        assert_failure(&spool.run(&format!("action=monitor\n{lines}\n")));
    }
    // A monitor that fails takes the device from this node, and with it fences that would have worked.
    let ignored = [
        ("verbose", "2"),
        ("quiet", ""),
        ("delay", ""),
        ("log_dir", ""),
        ("gfs2_discovery_enabled", "perhaps"),
        ("gfs2_discovery_timeout", "2s"),
    ];
    let lines = ignored.map(|(name, value)| format!("{name}={value}\n")).concat();
    let output = spool.run(&format!("action=monitor\n{lines}"));

    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""));
    for (name, value) in ignored {
        let name = name.replace("timeout", "time-out");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&name) && stderr.contains(&format!("is '{value}'")), "{stderr}");
    }
}

/// A pipe whose reader reads nothing takes no more than it holds.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (reader, mut writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn a_reader_that_reads_nothing_holds_up_no_fence() {
    let (reader, writer) = full_pipe();
    for (verbose, is_answered) in [(1, true), (1, false), (0, true), (0, false)] {
        let spool = Spool::new();
        let arrivals = Arrivals::watch(&spool.path("requests"));
        let mut child = Command::new(AGENT)
            .env_clear()
            .env("GFS2_DISCOVERY_ROOT", spool.path("root"))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer.try_clone().unwrap())
            .spawn()
            .unwrap();
        let lines = format!("action=off\nplug=n3\nverbose={verbose}\nfence_timeout=20\n");
        child.stdin.take().unwrap().write_all((spool.lines() + &lines).as_bytes()).unwrap();
        let responder = Responder::new(&spool, &arrivals.next());
        let mut answer = responder.success();
        answer["success"] = json!(is_answered);
        responder.answer(&answer);

        let status = ended_by_itself(&mut child);
        assert_eq!(status.and_then(|status| status.code()), Some(i32::from(!is_answered)));
    }
    drop(reader);
}

/// How it ended; `None` if it had to be killed, long after its time.
fn ended_by_itself(child: &mut Child) -> Option<std::process::ExitStatus> {
    let until = std::time::Instant::now() + Duration::from_mins(1);
    while std::time::Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        // Nothing but a wait without a limit announces the end of a child.
        thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// What was asked for did not reach anybody: a caller must not take the silence for an empty list.
#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_a_fence_that_is_done_none() {
    let spool = Spool::new();
    let watcher = Watcher::start(&spool);
    let ways = [("full", "exec \"$@\" >/dev/full"), ("closed", "exec \"$@\" >&-")];
    let run = |way: &str, words: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", way, "sh", AGENT]).args(words);
        command.env_clear().env("GFS2_DISCOVERY_ROOT", spool.path("root"));
        command
    };
    for (name, way) in ways {
        for words in [&["-o", "metadata"][..], &["-o", "manpage"], &["-h"], &["-V"]] {
            let output = run(way, words).output().unwrap();
            assert!(assert_failure(&output).contains("standard output"), "{name} {words:?}");
        }
        for lines in [
            "action=list\n",
            "action=list-status\n",
            "action=status\nplug=on\n",
            "action=status\nplug=off\n",
        ] {
            let output = start(&mut run(way, &[]), &(spool.lines() + lines)).wait_with_output();
            assert!(assert_failure(&output.unwrap()).contains("standard output"), "{name} {lines}");
        }
        let output = start(&mut run(way, &[]), &(spool.lines() + "action=monitor\n"));
        assert_success(&output.wait_with_output().unwrap(), "");

        let arrivals = Arrivals::watch(&spool.path("requests"));
        let lines = spool.lines() + "action=off\nplug=n3\nresponder=nnf\n";
        let child = start(&mut run(way, &[]), &lines);
        let responder = Responder::new(&spool, &arrivals.next());
        responder.answer(&responder.success());
        assert_success(&child.wait_with_output().unwrap(), "");
    }
    drop(watcher);
}

/// Somebody who pipes into `head` is no failure, and neither is a shell's `>/dev/null`.
#[test]
fn a_reader_that_wants_no_more_and_one_that_wants_nothing_are_no_failure() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let metadata = || {
        let mut command = Command::new(AGENT);
        command.args(["-o", "metadata"]).stdin(Stdio::null());
        command
    };
    assert_eq!(metadata().stdout(writer).status().unwrap().code(), Some(0));
    assert_eq!(metadata().stdout(Stdio::null()).status().unwrap().code(), Some(0));
}

#[test]
fn someone_who_may_not_use_the_spool_is_told_to_be_root() {
    if !nix::unistd::geteuid().is_root() {
        left_out("someone who may not use the spool", "it needs root");
        return;
    }
    let spool = Spool::new();
    let agent = spool.path("agent");
    fs::copy(AGENT, &agent).unwrap();
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

#[test]
fn a_long_option_may_be_cut_short_where_one_name_begins_so() {
    let full = arguments(&["-o", "metadata"]);
    for words in [&["--act", "metadata"][..], &["--act=metadata", "--plug", "n3", "--verb=2"]] {
        let is_unique = !words.contains(&"--verb=2");
        let output = arguments(words);
        if is_unique {
            assert_success(&output, text(&full.stdout));
        } else {
            assert!(assert_failure(&output).contains("'--verb' could be '--verbose'"));
        }
    }
}

#[test]
fn texts_about_the_agent_need_no_directory_no_environment_and_no_input() {
    let metadata = arguments(&["-o", "metadata"]);
    assert_eq!((metadata.status.code(), text(&metadata.stderr)), (Some(0), ""));
    assert!(text(&metadata.stdout).starts_with("<?xml version=\"1.0\" ?>\n<resource-agent "));
    for word in ["meta-data", "METADATA"] {
        assert_success(&arguments(&["--action", word]), text(&metadata.stdout));
        let spool = Spool::new();
        assert_success(&spool.run(&format!("action={word}\n")), text(&metadata.stdout));
        assert_eq!(spool.files("log"), [""; 0]);
    }
    for option in ["-h", "--help"] {
        let output = arguments(&[option]);
        assert!(
            text(&output.stdout).starts_with("Usage:\n\tfence_gfs2_recorder [options]\nOptions:\n")
        );
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    }
    let version = format!("fence_gfs2_recorder {}\n", env!("CARGO_PKG_VERSION"));
    assert_success(&arguments(&["-V"]), &version);
}

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
fn the_command_line_and_the_environment_lead_to_the_same_fence_as_standard_input() {
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
fn an_answer_behind_a_link_is_not_believed() {
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
fn the_responders_failure_is_told_with_its_message() {
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
fn a_half_written_answer_is_waited_for_until_it_is_whole() {
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
fn an_answer_that_stays_half_written_is_a_failure_that_says_so() {
    let spool = Spool::new();
    let output = spool.run_answered("action=off\nplug=n3\nfence_timeout=1\n", |responder| {
        fs::write(responder.response(&responder.file), "{\"success\": tr").unwrap();
        responder.nudge();
    });
    assert!(assert_failure(&output).contains("cannot be read"));
}

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
fn a_killed_agent_leaves_a_request_that_nobody_holds() {
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

/// This program itself, without any tool: what it leaves out is a failure in CI.
#[test]
fn a_test_without_its_tool_is_left_out_and_fails_in_ci() {
    let run = |ci: &str| {
        let name = "without_a_watch_left_the_agent_looks_from_time_to_time_and_succeeds";
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

#[test]
fn a_message_cannot_forge_a_line_of_a_log() {
    let spool = Spool::new();
    let forged = "x\n[2026-01-01T00:00:00Z] ACTION=off TARGET=n4 GFS2=[] STATUS=completed DETAILS=\
                  \u{85}y\u{2028}z\r{\"status\":\"completed\"}";
    let output =
        spool.run_answered("action=off\nplug=n3\nnodename=a\u{2028}b\u{85}c\n", |responder| {
            let mut answer = responder.success();
            answer["message"] = json!(forged);
            responder.answer(&answer);
        });
    assert_success(&output, "Success: Powered OFF\n");
    for log in ["fence-events.log", "fence-events-readable.log", "fence-events-detailed.jsonl"] {
        let text = fs::read_to_string(spool.path("log").join(log)).unwrap();
        assert_eq!(text.split(is_line_end).count(), 3, "{log}: {text:?}");
        assert!(text.ends_with('\n'));
    }
    assert!(spool.audit()[1]["details"].as_str().unwrap().contains(forged));
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

/// As the versions before did: a simple watcher may make none of them.
#[test]
fn missing_directories_are_made_where_the_responder_is_none_of_ours() {
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

/// A file system without room, as a limit of files' sizes plays it.
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

/// The simplest watchers look for one event alone and never see a rename.
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

/// Makes whoever writes this log wait, as a disk does that stands still, until the value is dropped.
fn held_log(spool: &Spool, name: &str) -> File {
    let path = spool.path("log").join(name);
    let file = File::create(&path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    file.lock().unwrap();
    file
}

/// Waits until a log has so many lines.
fn await_lines(spool: &Spool, name: &str, count: usize) -> Vec<String> {
    let changes = Arrivals::watch(&spool.path("log"));
    loop {
        let text = fs::read_to_string(spool.path("log").join(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count && text.ends_with('\n') {
            return lines;
        }
        changes.next();
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
    // The file itself is made before there is anything to write.
    let others = Arrivals::watch_for(&spool.path("log"), AddWatchFlags::IN_MODIFY);
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let mut child = spool.start("action=off\nplug=n3\n");
    let request = File::open(spool.path("requests").join(arrivals.next())).unwrap();
    // The log before the one that hangs is written: the process that writes them waits now.
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

#[test]
fn quiet_keeps_standard_error_empty_and_verbose_tells_the_steps() {
    let spool = Spool::new();
    let output = spool.run("action=off\nplug=n3\nfence_timeout=1\nquiet=yes\n");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""));

    let debug = spool.path("log/debug");
    let lines = format!("action=off\nplug=n3\nverbose=1\ndebug_file={}\n", debug.display());
    let output = spool.run_answered(&lines, |responder| responder.answer(&responder.success()));
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("completed: target=n3 action=off"));
    assert!(fs::read_to_string(debug).unwrap().contains("completed: target=n3 action=off"));
}

#[test]
fn a_spool_that_is_missing_or_open_to_others_is_named_with_its_mend() {
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

#[test]
fn nnf_gets_its_file_name_and_is_never_told_to_switch_on() {
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

#[test]
fn a_responder_that_cannot_be_asked_is_not_asked() {
    for responder in ["script", "nnf"] {
        let spool = Spool::new();
        let run = |lines: &str| spool.run(&format!("{lines}\nresponder={responder}\n"));

        assert_success(&run("action=monitor"), "");
        let output = run("action=monitor\nverbose=1");
        assert!(text(&output.stderr).contains("cannot be asked"));
        assert_failure(&run("action=status\nplug=n3"));
        assert!(assert_failure(&run("action=list")).contains("pcmk_host_list"));
        assert!(assert_failure(&run("action=list-status")).contains("pcmk_host_list"));
        for directory in ["requests", "responses", "queries", "log"] {
            assert_eq!(spool.files(directory), [""; 0]);
        }
        fs::set_permissions(spool.path("requests"), Permissions::from_mode(0o777)).unwrap();
        assert!(assert_failure(&run("action=monitor")).contains("chmod go-w"));
        fs::remove_dir(spool.path("requests")).unwrap();
        fs::write(spool.path("requests"), "no directory").unwrap();
        assert!(assert_failure(&run("action=monitor")).contains("not a directory"));
    }
}

#[test]
fn questions_to_a_watcher_that_does_not_run_fail_at_once() {
    let spool = Spool::new();
    for never in [true, false] {
        if !never {
            let watcher = WatcherSpool::open(&places(&spool), false).unwrap();
            drop(watcher.lock().unwrap());
        }
        for lines in ["action=monitor\n", "action=status\nplug=n3\n", "action=list\n"] {
            let output = spool.run(lines);
            let stderr = assert_failure(&output);
            assert!(stderr.contains("no fence-watcher is running on this node"), "{stderr}");
            assert!(stderr.contains("systemctl start fence-watcher"), "{stderr}");
        }
    }
    assert_eq!(spool.files("queries"), [""; 0]);
}

#[test]
fn a_watcher_that_ends_while_a_question_waits_is_reported_as_gone() {
    for lines in ["action=monitor\n", "action=status\nplug=n3\n", "action=list\n"] {
        let spool = Spool::new();
        let lock = WatcherSpool::open(&places(&spool), false).unwrap().lock().unwrap();
        let arrivals = Arrivals::watch(&spool.path("queries"));
        let mut child = spool.start(&format!("{lines}fence_timeout=600\n"));
        arrivals.next();

        drop(lock);

        let status = ended_by_itself(&mut child);
        assert_eq!(status.and_then(|status| status.code()), Some(1), "it waited for the dead");
        let output = child.wait_with_output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains("no fence-watcher is running on this node (process "), "{stderr}");
        assert_eq!(spool.files("queries"), [""; 0]);
    }
}

#[test]
fn questions_to_a_living_watcher_give_its_answers_and_nothing_else() {
    let spool = Spool::new();
    let _watcher = Watcher::start(&spool);

    assert_success(&spool.run("action=monitor\n"), "");
    assert!(assert_failure(&spool.run("action=monitor\ndevice=dead\n")).contains("no route"));
    assert_success(&spool.run("action=status\nplug=on\n"), "Status: ON\n");
    let off = spool.run("action=status\nplug=off\n");
    assert_eq!(
        (off.status.code(), text(&off.stdout), text(&off.stderr)),
        (Some(2), "Status: OFF\n", "")
    );
    assert!(assert_failure(&spool.run("action=status\nplug=n9\n")).contains("unknown"));
    assert_success(&spool.run("action=list\n"), "on\noff\nn9\n");
    assert_success(&spool.run("action=list-status\n"), "on,,ON\noff,,OFF\nn9,,UNKNOWN\n");
    assert_success(
        &spool.run("action=list-status\nseparator=: \n"),
        "on::ON\noff::OFF\nn9::UNKNOWN\n",
    );
    assert_failure(&spool.run("action=list\ndevice=dead\n"));
    for fixed in ["plug=off", "port=off", "plug=off\nport=n9\nnodename=n9"] {
        assert_success(&spool.run(&format!("action=list\n{fixed}\n")), "off\n");
        assert_success(&spool.run(&format!("action=list-status\n{fixed}\n")), "off,,OFF\n");
    }
    assert_success(&spool.run("action=list\nplug=n10\n"), "");
    assert_success(&spool.run("action=list\nnodename=n9\n"), "on\noff\nn9\n");
    assert_eq!(spool.files("queries"), [""; 0], "questions leave nothing behind");
    assert_eq!(spool.files("responses"), [".started"], "and are no fences");
}

#[test]
fn a_watcher_that_lives_but_does_not_answer_is_an_expired_time() {
    let spool = Spool::new();
    let watcher = WatcherSpool::open(&places(&spool), false).unwrap();
    let _lock = watcher.lock().unwrap();

    let output = spool.run("action=monitor\nfence_timeout=1\n");

    assert!(assert_failure(&output).contains("timed out"));
    assert_eq!(spool.files("queries"), [""; 0]);
}

/// A cluster of node1 and node2, as corosync knows it, and of remote1, as only the CIB does.
fn put_cluster(spool: &Spool) {
    let corosync = spool.path("root/etc/corosync");
    let programs = spool.path("root/usr/sbin");
    fs::create_dir_all(&corosync).unwrap();
    fs::create_dir_all(&programs).unwrap();
    let node = |name, id| format!("node {{\n name: {name}\n nodeid: {id}\n}}\n");
    let text = format!("nodelist {{\n{}{}}}\n", node("node1", 1), node("node2.example.com", 2));
    fs::write(corosync.join("corosync.conf"), text).unwrap();
    let cib =
        r#"<cib><configuration/><status><node_state id="remote1" uname="remote1"/></status></cib>"#;
    let cibadmin = programs.join("cibadmin");
    fs::write(&cibadmin, format!("#!/bin/sh\necho '{cib}'\n")).unwrap();
    fs::set_permissions(&cibadmin, Permissions::from_mode(0o755)).unwrap();
}

/// The cluster would take node1 for fenced, while node2 is off.
#[test]
fn a_plug_that_is_another_nodes_name_is_refused_before_anything_is_requested() {
    let spool = Spool::new();
    put_cluster(&spool);
    for (plug, nodename) in [
        ("plug=node2", "node1"),
        ("port=node2", "node1"),
        ("plug=NODE2.Example.com\nport=node1", "node1"),
        ("port=node2\nplug=node1", "node1"),
        ("plug=remote1", "node1"),
        ("plug=node1", "remote1"),
        ("plug=node1", "node3"),
    ] {
        for action in ["off", "reboot", "on", "status"] {
            for more in
                ["", "no_gfs2_discovery=1\n", "gfs2_discovery_timeout=0\n", "responder=nnf\n"]
            {
                let lines = format!("action={action}\n{plug}\nnodename={nodename}\n{more}");
                let output = spool.run(&lines);
                let stderr = assert_failure(&output);
                assert!(stderr.contains(&format!("node '{nodename}'")), "{lines}: {stderr}");
                assert!(stderr.contains("is its node 'node") || stderr.contains("'remote1'"));
            }
        }
        let lines = format!("action=validate-all\n{plug}\nnodename={nodename}\n");
        assert_success(&spool.run(&lines), "");
    }
    assert_eq!(spool.files("requests"), [""; 0]);
    assert_eq!(spool.files("queries"), [""; 0]);
}

#[test]
fn a_plug_that_is_no_other_nodes_name_is_fenced() {
    for lines in [
        "plug=node2\nnodename=node2.example.com\n",
        "plug=NODE1\nnodename=node1\n",
        "plug=outlet-7\nnodename=node1\n",
        "plug=rabbit-1\nport=node1\nnodename=node1\n",
        "port=rabbit-1\nplug=node1\nnodename=node1\nno_gfs2_discovery=1\n",
        "plug=node2\n",
        "node=1\nport=node2\n",
        "node=2\nfail_time=1790000000\nport=node2\n",
        "node=1\nfail_time=1790000000\nport=outlet-7\n",
        "node=7\nfail_time=1790000000\nport=node2\n",
        "node=n1\nfail_time=1790000000\nport=node2\n",
    ] {
        let spool = Spool::new();
        put_cluster(&spool);
        let output = spool.run_answered(&format!("action=off\n{lines}"), |responder| {
            responder.answer(&responder.success());
        });
        assert_success(&output, "Success: Powered OFF\n");
    }
}

/// DLM would take node 1 for fenced, while node2 is off.
#[test]
fn a_plug_that_is_another_node_than_the_one_that_dlm_means_is_refused() {
    for lines in [
        "port=node2",
        "plug=node2\naction=off",
        "port=NODE2\naction=reboot\nno_gfs2_discovery=1",
        "port=remote1\ngfs2_discovery_timeout=0",
        "nodename=node2",
        "port=node2\nnodename=node2",
        "port=node1\nnode=2",
    ] {
        let spool = Spool::new();
        put_cluster(&spool);
        let output = spool.run(&format!("node=1\nfail_time=1790000000\n{lines}\n"));
        let stderr = assert_failure(&output);
        assert!(stderr.contains("DLM means its node") && stderr.contains("dlm.conf"), "{stderr}");
        assert_eq!(spool.files("requests"), [""; 0]);
    }
}

/// The cluster of `put_cluster` with addresses alone in corosync.conf, and a `cibadmin` that does this.
fn put_unnamed_cluster(spool: &Spool, cibadmin: &str) {
    put_cluster(spool);
    let node = |id| format!("node {{\n ring0_addr: 10.9.0.{id}\n nodeid: {id}\n}}\n");
    let text = format!("nodelist {{\n{}{}}}\n", node(1), node(2));
    fs::write(spool.path("root/etc/corosync/corosync.conf"), text).unwrap();
    let cib = r#"<cib><configuration><nodes><node id="1" uname="node1"/><node id="2" uname="node2"/>
        </nodes></configuration></cib>"#;
    let cib_file = spool.path("root/cib");
    fs::write(&cib_file, cib).unwrap();
    let script = cibadmin.replace("CIB", &cib_file.display().to_string());
    fs::write(spool.path("root/usr/sbin/cibadmin"), format!("#!/bin/sh\n{script}\n")).unwrap();
}

/// The first `cibadmin`, which discovery starts, hangs; a later one does not.
#[test]
fn a_cib_that_discovery_did_not_wait_for_is_asked_once_more_for_the_names() {
    let spool = Spool::new();
    let first = spool.path("first");
    let hangs = format!("if mkdir '{}' 2>&-; then exec sleep 1000; fi", first.display());
    put_unnamed_cluster(&spool, &format!("{hangs}\ncat 'CIB'"));

    let output = spool.run(
        "action=off\nplug=node2\nnodename=node1\ngfs2_discovery_timeout=0.1\nfence_timeout=120\n",
    );
    assert!(assert_failure(&output).contains("is its node 'node2'"));

    fs::remove_dir(&first).unwrap();
    let lines = "action=off\nplug=outlet-7\nnodename=node1\ngfs2_discovery_timeout=0.1\nfence_timeout=120\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_success(&output, "Success: Powered OFF\n");
}

/// What makes a cluster in the spool's root.
type Put<'a> = &'a dyn Fn(&Spool);

#[test]
fn where_the_clusters_names_cannot_be_read_another_name_is_refused() {
    let unnamed =
        |cibadmin: &'static str| move |spool: &Spool| put_unnamed_cluster(spool, cibadmin);
    let open_to = |mode, group: Option<u32>| {
        move |spool: &Spool| {
            put_cluster(spool);
            let path = spool.path("root/etc/corosync/corosync.conf");
            std::os::unix::fs::chown(&path, None, group).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            fs::remove_file(spool.path("root/usr/sbin/cibadmin")).unwrap();
        }
    };
    let is_root = nix::unistd::geteuid().is_root();
    let group = open_to(0o664, Some(65_534));
    let (fails, hangs) =
        (unnamed("echo 'no connection' >&2; exit 102"), unnamed("exec sleep 1000"));
    let others = open_to(0o666, None);
    let mut sites: Vec<(Put<'_>, &str)> =
        vec![(&fails, "no connection"), (&hangs, "cibadmin was killed"), (&others, "chmod go-w")];
    if is_root {
        sites.push((&group, "chmod go-w"));
    }
    for (put, why) in sites {
        let spool = Spool::new();
        put(&spool);
        for action in ["off", "reboot", "on", "status", "monitor"] {
            for plug in ["node2", "outlet-7"] {
                let lines =
                    format!("action={action}\nplug={plug}\nnodename=node1\nfence_timeout=4\n");
                let output = spool.run(&lines);
                let stderr = assert_failure(&output);
                let parts = ["'node1'", &format!("'{plug}'"), why, "cannot be checked"];
                assert!(parts.iter().all(|part| stderr.contains(part)), "{lines}: {stderr}");
            }
        }
        assert_eq!(spool.files("requests"), [""; 0]);
        // Nobody doubts that these are one.
        for lines in ["plug=node1\nnodename=node1", "plug=NODE1\nnodename=node1", "plug=node2"] {
            let lines = format!("action=off\n{lines}\nno_gfs2_discovery=1\n");
            let output =
                spool.run_answered(&lines, |responder| responder.answer(&responder.success()));
            assert_success(&output, "Success: Powered OFF\n");
        }
    }
}

/// A umask of 002 makes such a file, and nobody but root is in root's group.
#[test]
fn a_corosync_conf_that_roots_group_can_write_is_read() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let spool = Spool::new();
    put_cluster(&spool);
    let path = spool.path("root/etc/corosync/corosync.conf");
    fs::set_permissions(path, Permissions::from_mode(0o664)).unwrap();
    fs::remove_file(spool.path("root/usr/sbin/cibadmin")).unwrap();

    let output = spool.run("action=off\nplug=node2\nnodename=node1\n");
    assert!(assert_failure(&output).contains("is its node 'node2.example.com'"));
    let lines = "action=off\nplug=outlet-7\nnodename=node1\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_success(&output, "Success: Powered OFF\n");
}

#[test]
fn a_cluster_that_names_no_nodes_here_keeps_no_fence_from_being_done() {
    let spool = Spool::new();
    let lines = "action=off\nplug=outlet-7\nnodename=node1\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_success(&output, "Success: Powered OFF\n");
}

#[test]
fn a_terminal_sees_the_waiting_and_afterwards_only_the_result() {
    let spool = Spool::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut child = Command::new(AGENT)
        .env_clear()
        .env("GFS2_DISCOVERY_ROOT", spool.path("root"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .unwrap();
    let lines = spool.lines() + "action=off\nplug=n3\nfence_timeout=1\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // The terminal ends with an error when its last program is gone.
    let _ = File::from(pty.master).read_to_end(&mut shown);

    assert_eq!(child.wait().unwrap().code(), Some(1));
    let shown = text(&shown);
    assert!(shown.contains("waiting for fence-watcher: off of 'n3' (0 s of "), "{shown:?}");
    let (_, last) = shown.rsplit_once("\r\x1b[K").unwrap();
    assert!(last.starts_with("fence_gfs2_recorder: off of 'n3' timed out"), "{shown:?}");
}

/// A watcher that lives and answers questions, until it is dropped.
struct Watcher {
    thread: Option<thread::JoinHandle<()>>,
    queries: PathBuf,
}

impl Watcher {
    fn start(spool: &Spool) -> Self {
        let watcher = WatcherSpool::open(&places(spool), false).unwrap();
        let lock = watcher.lock().unwrap();
        let queries = spool.path("queries");
        let arrivals = Arrivals::watch(&queries);
        let thread = thread::spawn(move || {
            let _lock = lock;
            loop {
                let name = arrivals.next();
                if name == "stop" {
                    return;
                }
                // Its own answers appear here as well.
                let Some(QueryText::Whole { bytes, .. }) = watcher.read_query(&name).unwrap()
                else {
                    continue;
                };
                if let Ok(query) = Query::parse(&bytes) {
                    let answer = answer_to(&query).to_json();
                    watcher.answer_query(&query.query_id, &answer).unwrap();
                    watcher.remove_query(&name).unwrap();
                }
            }
        });
        Watcher { thread: Some(thread), queries }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        fs::write(self.queries.join("stop"), "x").unwrap();
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer_to(query: &Query) -> QueryAnswer {
    if query.device.as_deref() == Some("dead") {
        return QueryAnswer::new(&query.query_id, QueryCode::NotReached, "no route to the device");
    }
    let mut answer = QueryAnswer::new(&query.query_id, QueryCode::Yes, "asked");
    match query.query {
        QueryKind::Targets => {
            answer.targets = ["on", "off", "n9", "a,b", "List option"].map(str::to_owned).to_vec();
        }
        QueryKind::Power => {
            answer.power = Some(match query.target.as_deref() {
                Some("on") => PowerState::On,
                Some("off") => PowerState::Off,
                _ => PowerState::Unknown,
            });
        }
        QueryKind::Reachable | QueryKind::State | QueryKind::Check | QueryKind::Reload => {}
    }
    answer
}

fn places(spool: &Spool) -> Places {
    Places::new(spool.path("requests"), spool.path("responses"))
}

fn signal_child(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}
