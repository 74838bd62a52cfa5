//! The programs under measurement, each with a private spool that is removed with it.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::Pid;

use crate::measure::parent;

/// The limit for the start of a program.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A private directory, in memory if possible: the disk's time is not measured.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let is_memory = statfs(memory).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC);
        let parent = if is_memory { memory.to_owned() } else { env::temp_dir() };
        let path = parent.join(format!("fence-bench-{}", process::id()));
        make_private(&path)?;
        Ok(Scratch(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, the rest remains in a directory of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Creates a directory and its parents, accessible only to its owner.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The real agent.
pub(crate) struct Agent(PathBuf);

impl Agent {
    /// The agent that `FENCE_AGENT` names, or one that is built beside the watcher.
    pub(crate) fn build() -> Result<Self> {
        if let Some(path) = env::var_os("FENCE_AGENT") {
            return Ok(Agent(path.into()));
        }
        let beside = Path::new(env!("CARGO_BIN_EXE_fence-watcher"))
            .parent()
            .context("the watcher lies in no directory")?;
        let target = beside.parent().context("the watcher lies in no target directory")?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--package", "fence-agent", "--target-dir"])
            .arg(target)
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .status()?;
        if !status.success() {
            bail!("cannot build the agent: {status}");
        }
        Ok(Agent(beside.join("fence_gfs2_recorder")))
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        // The response time of a cluster's own tools is not measured.
        command.env("GFS2_DISCOVERY_ROOT", "/nonexistent");
        command
    }
}

/// The real watcher, which serves a private spool until it is dropped.
pub(crate) struct Watcher {
    place: PathBuf,
    child: Child,
}

impl Watcher {
    /// Starts it in `place` with this configuration and waits until it is ready.
    pub(crate) fn start(place: &Path, configuration: &str) -> Result<Self> {
        make_private(&place.join("log"))?;
        let file = place.join("fence-watcher.toml");
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(configuration.as_bytes())?;
        let (socket, log) = (place.join("notify"), place.join("fence-watcher.log"));
        let ready = UnixDatagram::bind(&socket)?;
        ready.set_read_timeout(Some(START_TIME_MAX))?;
        let child = Command::new(env!("CARGO_BIN_EXE_fence-watcher"))
            .arg("--config")
            .arg(file)
            .env("REQUEST_DIR", place.join("requests"))
            .env("RESPONSE_DIR", place.join("responses"))
            .env("LOG_DIR", place.join("log"))
            .env("NOTIFY_SOCKET", &socket)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let watcher = Watcher { place: place.to_owned(), child };
        let mut message = [0; 256];
        match ready.recv(&mut message) {
            Ok(length) if message[..length].starts_with(b"READY=1") => Ok(watcher),
            _ => bail!("the watcher does not get ready: {}", fs::read_to_string(log)?),
        }
    }

    /// The agent's standard input.
    pub(crate) fn options(&self, target: &str) -> String {
        let place = self.place.display();
        format!(
            "action=off\nplug={target}\nrequest_dir={place}/requests\n\
             response_dir={place}/responses\nlog_dir={place}/log\n"
        )
    }

    /// The watcher, and the process that runs commands for it.
    pub(crate) fn pids(&self) -> Result<[u32; 2]> {
        let own = self.child.id();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid
                && parent(pid) == Some(own)
            {
                return Ok([own, pid]);
            }
        }
        bail!("the watcher has no executor")
    }

    /// Stops it as a service manager does, and returns its exit status.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        Ok(())
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the watcher ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A caller that needs the exit status calls `stop`.
        let _ = self.terminate();
    }
}

/// The pair of minimal C programs, compiled.
pub(crate) struct Floor(PathBuf);

impl Floor {
    /// `None` if no compiler is installed.
    pub(crate) fn build() -> Result<Option<Self>> {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("floor");
        let status = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/bench/floor.c"))
            .status();
        match status {
            Ok(status) if status.success() => Ok(Some(Floor(program))),
            Ok(status) => bail!("cannot compile floor.c: {status}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A program that prints this many bytes.
    pub(crate) fn print(&self, length: usize) -> Command {
        let mut command = Command::new(&self.0);
        command.arg("print").arg(length.to_string());
        command
    }
}

/// The floor's server, until it is dropped.
pub(crate) struct FloorServer<'a> {
    floor: &'a Floor,
    place: PathBuf,
    child: Child,
}

impl<'a> FloorServer<'a> {
    /// Starts it in `place`; it runs the program `device` for each request.
    pub(crate) fn start(floor: &'a Floor, place: &Path, device: &[&str]) -> Result<Self> {
        for directory in ["requests", "claimed", "responses"] {
            make_private(&place.join(directory))?;
        }
        let mut child = Command::new(&floor.0)
            .arg("server")
            .arg(place)
            .args(device)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        child.stdout.take().context("it has no output")?.read_exact(&mut ready)?;
        Ok(FloorServer { floor, place: place.to_owned(), child })
    }

    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new(&self.floor.0);
        command.arg("client").arg(&self.place);
        command
    }

    /// The same amount of input as the agent's and its request's.
    pub(crate) fn options(&self) -> String {
        let place = self.place.display();
        format!(
            "action=off\nplug=n1\nrequest_dir={place}/requests\nresponse_dir={place}/responses\n\
             log_dir={place}/log\n"
        )
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FloorServer<'_> {
    fn drop(&mut self) {
        // It has nothing to finish.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
