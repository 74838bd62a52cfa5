//! What the tests of the real programs share: a private place with a spool, a configuration and
//! device programs; the two programs; requests in the form of each kind of client; and waits.
//!
//! Each program that a test starts is killed when its value is dropped, and the place is removed. A
//! wait is always for a condition, with a limit that only a failing test reaches.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test program uses its part of this module"
)]

mod audit;
mod executable;
mod left_out;
mod programs;
mod reports;

pub(crate) use executable::write_executable;
pub use left_out::left_out;
pub use programs::{Agent, Ended, Watcher, agent_program, built};
pub use reports::{next_message, next_told};

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

/// The limit of a wait for a condition: far longer than needed, even if all tests run at once.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` holds.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "in vain: {what}");
}

/// Whether `condition` holds before `limit` has passed.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= until {
            return false;
        }
        // The condition can be anything: nothing announces it.
        thread::sleep(Duration::from_millis(3));
    }
    true
}

/// Whether the tests run as root, which a few of them need.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether the test `name`, which needs root, can run; reports it if not. In CI it must run.
#[track_caller]
pub fn can_be_run_as_root(name: &str) -> bool {
    if !is_root() {
        left_out(name, "it needs root");
    }
    is_root()
}

/// Whether the test `name` can let strace change the results of system calls; reports it if not. In
/// CI it must be able to.
#[track_caller]
pub fn can_trace(name: &str) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "true"]).stderr(Stdio::null());
    let works = strace.status().is_ok_and(|status| status.success());
    if !works {
        left_out(name, "strace is missing or may not trace");
    }
    works
}

/// `command`, with this injection into the system calls of its main thread.
pub fn with_injected(injection: &str, command: &Command) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-q", "-o", "/dev/null", "-e", &format!("inject={injection}"), "--"]);
    traced.arg(command.get_program()).args(command.get_args());
    traced.env_clear();
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced
}

/// Runs a program that ends by itself; a program that does not end is killed, and fails the test.
pub fn output_of(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(child.spawn().unwrap())
}

fn ended(mut child: Child) -> Output {
    let in_time = holds_within(PATIENCE, || child.try_wait().unwrap().is_some());
    if !in_time {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(in_time, "it did not end: {output:?}");
    output
}

/// Whether a process with this number runs, and is not a zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// The only child of a process.
pub fn child_of(parent: &str) -> String {
    let is_child = |pid: &String| process_status(pid, "PPid").is_some_and(|found| found == parent);
    let processes = names(Path::new("/proc")).into_iter();
    processes.filter(|name| name.bytes().all(|b| b.is_ascii_digit())).find(is_child).unwrap()
}

/// The first word of this field in the process's kernel status; `None` if the process has ended.
pub fn process_status(pid: &str, member: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(&format!("{member}:")))?;
    Some(line.split_whitespace().nth(1)?.to_owned())
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A directory for one test.
pub struct Site {
    path: PathBuf,
    /// The spool in the directory.
    pub spool: Spool,
    started: Cell<u32>,
}

impl Site {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(format!("fence-test-{unique}"));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Site { spool: Spool::at(&path), path, started: Cell::new(0) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The content of one of its files; empty if the file does not exist.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// Creates a shell script in the directory; returns its path.
    pub fn program(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        write_executable(path.as_ref(), format!("#!/bin/sh\n{script}\n"));
        path.display().to_string()
    }

    /// A configuration with this site's spool and the additions in `text`: tables, or keys of
    /// `[log]`.
    pub fn configure(&self, text: &str) {
        self.configure_for(&self.path, text);
    }

    /// The same with a spool in `spool`.
    pub fn configure_for(&self, spool: &Path, text: &str) {
        let (spool, path) = (spool.display(), self.path.display());
        let text = format!(
            "[spool]\nrequest_dir = '{spool}/requests'\nresponse_dir = '{spool}/responses'\n\
             default_deadline = '300s'\n[log]\nlog_dir = '{path}/log'\ntarget = 'stderr'\n{text}"
        );
        fs::write(self.path("w.toml"), text).unwrap();
        fs::set_permissions(self.path("w.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// A command device whose program records each execution in the file `executed` and then runs
    /// `script`. The device cannot be asked for the power state.
    pub fn recorder(&self, name: &str, targets: &str, script: &str) -> String {
        let executed = self.path("executed");
        let program = self.program(
            &format!("{name}.sh"),
            &format!(
                "echo \"$FENCE_ACTION $FENCE_TARGET $FENCE_REQUEST_ID\" >>'{}'\n{script}",
                executed.display()
            ),
        );
        format!(
            "[[device]]\nname = '{name}'\ntype = 'command'\ntargets = '{targets}'\n\
             off = ['{program}']\non = ['{program}']\nreboot = ['{program}']\n"
        )
    }

    /// One line for each execution: `action target request_id`.
    pub fn executed(&self) -> Vec<String> {
        self.lines("executed")
    }

    /// The number of executions of the request.
    pub fn executions_of(&self, id: &str) -> usize {
        self.executed().iter().filter(|line| line.ends_with(id)).count()
    }

    /// Waits until the request is being executed.
    pub fn await_execution(&self, id: &str) {
        wait_for("the execution", || self.executions_of(id) > 0);
    }

    /// A script that never ends by itself, with a child in its own process group and another child
    /// that `starter` puts into a different one. The file `pids` holds the numbers of the three.
    pub fn endless(&self, starter: &str) -> String {
        let pids = self.path("pids");
        let pids = pids.display();
        format!(
            "trap '' TERM INT HUP\nsleep 1000 &\necho $! >>'{pids}'\n{starter} sleep 1000 &\n\
             echo $! >>'{pids}'\necho $$ >>'{pids}'\nwait\nsleep 1000"
        )
    }

    /// A part of a script: it waits until [`Site::release`].
    pub fn held(&self) -> String {
        format!("until [ -e '{}' ]; do sleep 0.01; done", self.path("release").display())
    }

    /// Releases the scripts that wait in [`Site::held`].
    pub fn release(&self) {
        fs::write(self.path("release"), "").unwrap();
    }

    /// A simulated device, with its state in the file `state`.
    pub fn simulated(&self, name: &str, more: &str) -> String {
        format!(
            "[[device]]\nname = '{name}'\ntype = 'simulated'\ntargets = '*'\nstate_file = '{}'\n{more}\n",
            self.path("state").display()
        )
    }

    /// `fence-watcher` with this site's configuration.
    pub fn watcher_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fence-watcher"));
        command.arg("--config").arg(self.path("w.toml")).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.env("GFS2_DISCOVERY_ROOT", self.path("root"));
        command
    }

    /// Starts the service and waits until it reports that it is ready.
    pub fn start(&self) -> Watcher {
        self.start_as(self.watcher_command(SERVICE)).0
    }

    /// The same for another command; also returns the socket to which the service reports its
    /// state.
    pub fn start_as(&self, mut command: Command) -> (Watcher, UnixDatagram) {
        let number = self.started.replace(self.started.get() + 1);
        let socket = self.path(&format!("notify-{number}"));
        let told = UnixDatagram::bind(&socket).unwrap();
        told.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = self.path(&format!("watcher-{number}.log"));
        let child = command
            .env("NOTIFY_SOCKET", socket)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let watcher = Watcher { child, log };
        assert_eq!(next_told(&told), "READY=1", "{}", watcher.log());
        (watcher, told)
    }

    /// The states that the service has reported.
    pub fn state(&self) -> Value {
        let output = output_of(&mut self.watcher_command(&["status", "--json"]));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The agent on this site's spool, with these options on its standard input.
    pub fn agent(&self, options: &str) -> Agent {
        self.agent_as(Command::new(agent_program()), options)
    }

    /// The same, started by another command.
    pub fn agent_as(&self, mut command: Command, options: &str) -> Agent {
        // As the service's unit and tmpfiles.d do.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path("log"));
        made.unwrap();
        let path = self.path.display();
        let common = format!(
            "request_dir={path}/requests\nresponse_dir={path}/responses\nlog_dir={path}/log\n"
        );
        let mut child = command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            // Do not use this machine's cluster; a test that needs cluster data names its own
            // paths.
            .env("GFS2_DISCOVERY_ROOT", self.path("root"))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        match stdin.write_all((common + options + "\n").as_bytes()) {
            // An agent that will be killed may be dead before it reads.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        Agent { child: Some(child) }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The arguments of a service.
pub const SERVICE: &[&str] = &["run", "--node", "n1"];

/// The directories of requests and answers, in the form that the other programs get.
#[derive(Clone)]
pub struct Spool {
    pub requests: PathBuf,
    pub responses: PathBuf,
}

impl Spool {
    pub fn at(path: &Path) -> Self {
        Spool { requests: path.join("requests"), responses: path.join("responses") }
    }

    /// The path of the request `name` while it is pending.
    pub fn request(&self, name: &str) -> PathBuf {
        self.requests.join(format!("{name}.json"))
    }

    /// The path of the request while it is executed.
    pub fn claimed(&self, name: &str) -> PathBuf {
        self.requests.join(format!(".claimed/{name}.json"))
    }

    /// Writes a request as a careful client does: under another name, then renames it.
    pub fn submit(&self, name: &str, request: &Value) {
        self.submit_bytes(name, request.to_string().as_bytes());
    }

    pub fn submit_bytes(&self, name: &str, bytes: &[u8]) {
        drop(self.place(name, bytes, false));
    }

    /// Writes a request as our agent does. Its client lives as long as the file is open.
    pub fn submit_held(&self, name: &str, request: &Value) -> File {
        self.place(name, request.to_string().as_bytes(), true)
    }

    fn place(&self, name: &str, bytes: &[u8], held: bool) -> File {
        let temporary = self.requests.join(format!(".{name}.json.tmp"));
        let mut file = File::create(&temporary).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        if held {
            file.lock().unwrap();
        }
        file.write_all(bytes).unwrap();
        fs::rename(temporary, self.request(name)).unwrap();
        file
    }

    /// The answer with this name, once it exists.
    pub fn answer(&self, name: &str) -> Option<Value> {
        let bytes = fs::read(self.responses.join(format!("{name}.json"))).ok()?;
        Some(serde_json::from_slice(&bytes).expect("an answer is never half-written"))
    }

    pub fn await_answer(&self, name: &str) -> Value {
        let mut answer = None;
        wait_for(&format!("an answer to {name}"), || {
            answer = self.answer(name);
            answer.is_some()
        });
        answer.unwrap()
    }

    /// Waits for the answer and checks that its result is `result` and that no other member
    /// contradicts it.
    pub fn await_result(&self, name: &str, result: &str) -> Value {
        let answer = self.await_answer(name);
        let success = result == "success";
        assert_eq!(answer["result"], result, "{name}: {answer}");
        assert_eq!(answer["success"], success, "{name}: {answer}");
        assert_eq!(answer["result_code"] == 0, success, "{name}: {answer}");
        assert_eq!(answer["status"] == "success", success, "{name}: {answer}");
        if !success {
            assert_eq!(answer["action_performed"], "none", "{name}: {answer}");
        }
        answer
    }

    /// Waits until no request is pending or claimed.
    pub fn await_quiet(&self) {
        wait_for("an empty spool", || {
            names(&self.requests).iter().all(|name| name.starts_with('.'))
                && self.all_claimed().is_empty()
        });
    }

    /// The claimed requests, without the lock of the running children in the same directory.
    pub fn all_claimed(&self) -> Vec<String> {
        let mut claimed = names(&self.requests.join(".claimed"));
        claimed.retain(|name| !name.starts_with('.'));
        claimed
    }

    /// The files that were set aside.
    pub fn rejected(&self) -> Vec<String> {
        names(&self.requests.join(".rejected"))
    }
}

/// A new request's identity.
pub fn new_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

/// The instant that is `seconds` ahead, or in the past.
pub fn instant(seconds: i64) -> String {
    let then = Utc::now() + chrono::TimeDelta::seconds(seconds);
    then.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The current instant of `CLOCK_BOOTTIME`, in milliseconds.
pub fn boot_ms() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let hundredths = text.split(' ').next().unwrap().replace('.', "");
    hundredths.parse::<u64>().unwrap() * 10
}

pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// A request with the seven members of the first version.
pub fn request(id: &str, action: &str, target: &str) -> Value {
    json!({
        "request_id": id, "timestamp": instant(0), "action": action, "target_node": target,
        "gfs2_filesystems": [], "recorder_node": "n1",
    })
}

/// `value` with these members added or replaced.
pub fn with(mut value: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("no members: {members}") };
    value.as_object_mut().unwrap().extend(members);
    value
}

/// A request as our agent writes it, with a deadline within a minute.
pub fn our_request(id: &str, action: &str, target: &str) -> Value {
    let members = json!({
        "deadline": instant(60), "boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 60_000,
        "held": true,
    });
    with(request(id, action, target), members)
}
