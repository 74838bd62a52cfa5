//! A private spool for each test, the agent in it, and the responders.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fence_protocol::{PowerState, Query, QueryAnswer, QueryCode, QueryKind};
use fence_spool::{Places, QueryText, WatcherSpool};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_fence_gfs2_recorder");

/// Far more time than anything needs that does not hang.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A private spool for one test.
pub(crate) struct Spool {
    pub(crate) root: PathBuf,
}

impl Spool {
    pub(crate) fn new() -> Self {
        let name = format!("agent-cli-{}", fence_protocol::RequestId::random());
        let spool = Spool { root: std::env::temp_dir().join(name) };
        for directory in ["", "requests", "responses", "queries", "log"] {
            let path = spool.path(directory);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        }
        spool
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The lines of standard input that direct the agent to this spool.
    pub(crate) fn lines(&self) -> String {
        let root = self.root.display();
        format!("request_dir={root}/requests\nresponse_dir={root}/responses\nlog_dir={root}/log\n")
    }

    /// A started agent that reads `lines` and the lines that direct it to this spool.
    pub(crate) fn start(&self, lines: &str) -> Child {
        let mut command = Command::new(AGENT);
        command.env_clear().env("GFS2_DISCOVERY_ROOT", self.path("root"));
        start(&mut command, &(self.lines() + lines))
    }

    /// The same, run to its end.
    pub(crate) fn run(&self, lines: &str) -> Output {
        self.start(lines).wait_with_output().unwrap()
    }

    /// An agent whose request is answered with the result of `answer` as soon as it exists.
    pub(crate) fn run_answered(&self, lines: &str, answer: impl FnOnce(&Responder<'_>)) -> Output {
        let arrivals = Arrivals::watch(&self.path("requests"));
        let child = self.start(lines);
        answer(&Responder::new(self, &arrivals.next()));
        child.wait_with_output().unwrap()
    }

    pub(crate) fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The audit, once it has this many events: an agent with little time left does not wait for
    /// the log.
    pub(crate) fn audit_with(&self, count: usize) -> Vec<Value> {
        await_lines(self, "fence-events-detailed.jsonl", count);
        self.audit()
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("log/fence-events-detailed.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub(crate) fn start(command: &mut Command, input: &str) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

pub(crate) fn arguments<S: AsRef<OsStr>>(words: &[S]) -> Output {
    Command::new(AGENT).env_clear().args(words).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Checks for exit code 0 with exactly this on standard output, and an empty standard error.
#[track_caller]
pub(crate) fn assert_success(output: &Output, stdout: &str) {
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), stdout);
    assert_eq!(output.status.code(), Some(0));
}

/// Checks for exit code 1 with one line on standard error, which it returns, and an empty standard
/// output.
#[track_caller]
pub(crate) fn assert_failure(output: &Output) -> &str {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("fence_gfs2_recorder: ") && stderr.ends_with('\n'), "{stderr}");
    stderr
}

/// The names that appear in a directory, in order, without hidden ones.
pub(crate) struct Arrivals {
    inotify: Inotify,
    names: RefCell<VecDeque<String>>,
}

impl Arrivals {
    pub(crate) fn watch(directory: &Path) -> Self {
        let events =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        Arrivals::watch_for(directory, events)
    }

    /// The same for a reader that waits only for these events.
    pub(crate) fn watch_for(directory: &Path, events: AddWatchFlags) -> Self {
        // Other programs on this machine may use the user's few instances, and no event announces a
        // free one.
        let inotify = loop {
            match Inotify::init(InitFlags::IN_CLOEXEC) {
                Err(Errno::EMFILE) => thread::sleep(Duration::from_millis(10)),
                other => break other.unwrap(),
            }
        };
        inotify.add_watch(directory, events).unwrap();
        Arrivals { inotify, names: RefCell::default() }
    }

    pub(crate) fn next(&self) -> String {
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

    /// A test that waits in vain fails, and delays nothing else.
    pub(crate) fn await_events(&self) {
        let mut awaited = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        let is_there = poll(&mut awaited, PollTimeout::try_from(PATIENCE).unwrap()).unwrap();
        assert!(is_there > 0, "nothing happened in the directory within {} s", PATIENCE.as_secs());
    }
}

/// A responder that has seen one request.
pub(crate) struct Responder<'a> {
    spool: &'a Spool,
    pub(crate) file: String,
    pub(crate) request: Value,
}

impl<'a> Responder<'a> {
    pub(crate) fn new(spool: &'a Spool, file: &str) -> Self {
        let bytes = fs::read(spool.path("requests").join(file)).unwrap();
        Responder { spool, file: file.to_owned(), request: serde_json::from_slice(&bytes).unwrap() }
    }

    pub(crate) fn id(&self) -> &str {
        self.request["request_id"].as_str().unwrap()
    }

    pub(crate) fn pending(&self) -> PathBuf {
        self.spool.path("requests").join(&self.file)
    }

    pub(crate) fn response(&self, name: &str) -> PathBuf {
        self.spool.path("responses").join(name)
    }

    pub(crate) fn success(&self) -> Value {
        json!({
            "request_id": self.id(), "success": true, "action_performed": self.request["action"],
            "target_node": self.request["target_node"], "message": "done",
        })
    }

    /// Answers under `name` as a simple watcher does: writes in place, then removes the request.
    pub(crate) fn answer_as(&self, name: &str, answer: &Value) {
        let file = self.response(name);
        fs::write(&file, answer.to_string()).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(self.pending()).unwrap();
    }

    pub(crate) fn answer(&self, answer: &Value) {
        self.answer_as(&self.file, answer);
    }

    /// Wakes the agent without claiming its request, which may be gone already.
    pub(crate) fn nudge(&self) {
        let _ = fs::set_permissions(self.pending(), Permissions::from_mode(0o600));
    }
}

/// Waits until a log has this many lines.
pub(crate) fn await_lines(spool: &Spool, name: &str, count: usize) -> Vec<String> {
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

/// A watcher that runs and answers queries until it is dropped.
pub(crate) struct Watcher {
    thread: Option<thread::JoinHandle<()>>,
    queries: PathBuf,
}

impl Watcher {
    pub(crate) fn start(spool: &Spool) -> Self {
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
                // Its own answers also appear in this directory.
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

pub(crate) fn answer_to(query: &Query) -> QueryAnswer {
    if query.device.as_deref() == Some("dead") {
        return QueryAnswer::new(&query.query_id, QueryCode::NotReached, "no route to the device");
    }
    if query.device.as_deref() == Some("many") {
        let each = (1..=MANY).map(|number| format!("n{number}: no answer"));
        let each = each.collect::<Vec<_>>().join("; ");
        return QueryAnswer::new(&query.query_id, QueryCode::NotReached, each);
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

/// How many targets of the device `many` do not respond.
pub(crate) const MANY: usize = 200;

pub(crate) fn places(spool: &Spool) -> Places {
    Places::new(spool.path("requests"), spool.path("responses"))
}

pub(crate) fn signal_child(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// How it ended; `None` if it had to be killed, long after its time.
pub(crate) fn ended_by_itself(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + Duration::from_mins(1);
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        // No event announces the end of a child, except a wait without a limit.
        thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}
