//! The commands of the real `fence-watcher`: what they print, and the exit codes 0, 1 and 2.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "common/executable.rs"]
mod executable;
#[path = "common/left_out.rs"]
mod left_out;

#[path = "watcher_cli/check.rs"]
mod check;
#[path = "watcher_cli/history.rs"]
mod history;
#[path = "watcher_cli/status.rs"]
mod status;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use executable::write_executable;

/// A private directory of one test with a spool and a configuration; it is removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // In memory if possible: each sync takes seconds on a busy disk.
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
            "[spool]\nrequest_dir = '{directory}/requests'\n\
             response_dir = '{directory}/responses'\n\
             [log]\nlog_dir = '{directory}/log'\ntarget = 'stderr'\n{devices}"
        );
        fs::write(self.path("w.toml"), text).unwrap();
        fs::set_permissions(self.path("w.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn program(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        write_executable(&path, format!("#!/bin/sh\n{script}\n"));
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

/// A running watcher; it is killed with the value.
struct Service(Child);

impl Service {
    /// Starts it and waits until it reports that it is ready.
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
                // A suspend of the machine interrupts a wait that has a limit.
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
fn all_errors_of_a_configuration_are_reported_with_their_lines_before_anything_starts() {
    let scratch = Scratch::new();
    scratch.configure(
        "[[device]]\nname = 'a'\ntype = 'command'\ntargets = 'n['\ntiemout = '1s'\n\
         off = ['/nowhere/x']\n",
    );
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
fn a_reader_that_goes_away_is_not_an_error() {
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
