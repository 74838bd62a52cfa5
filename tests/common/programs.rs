//! The programs: running, ended, and built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ended, wait_for};

/// A running service.
pub struct Watcher {
    pub(super) child: Child,
    pub(super) log: PathBuf,
}

impl Watcher {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub fn await_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the watcher's end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    /// Asks it to stop, and checks that it ends with success.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.log());
    }

    /// Kills it without a warning.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running agent.
pub struct Agent {
    pub(super) child: Option<Child>,
}

/// How an agent ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Checks that it succeeded, with an empty standard error.
    pub fn assert_success(&self) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
    }

    /// Checks that it failed, with one line on standard error that contains all of these.
    pub fn assert_failure(&self, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("fence_gfs2_recorder: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?}: {self:?}");
        }
    }
}

impl Agent {
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let output = ended(self.child.take().unwrap());
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The agent's program.
pub fn agent_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("fence-agent", "fence_gfs2_recorder"))
}

/// A program of another package. Cargo gives a test only the programs of its own package. So this
/// builds the program beside the watcher's, and it cannot be outdated. `tests/run` builds all
/// programs before the first test, and reports this in the environment.
pub fn built(package: &str, program: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_fence-watcher")).parent().unwrap();
    if std::env::var_os("FENCE_PROGRAMS_ARE_BUILT").is_some() {
        let built = directory.join(program);
        assert!(built.exists(), "'{}' was not built", built.display());
        return built;
    }
    let profile = match directory.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--profile", profile])
        .arg("--target-dir")
        .arg(directory.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "{package} could not be built");
    directory.join(program)
}
