//! The two programs that are asked, side by side: `cibadmin` and `kubectl`.
//!
//! A program that hangs is killed when the time is over, with what it started, and is never waited for:
//! one that hangs in a file system does not even die of SIGKILL. It leaves what it was for blind.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fence_protocol::bounded;
use fence_spool::{FileError, PlaceError, TrustedFile, open_log_dir};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{Reading, Search, nnf};

/// How to reach Kubernetes: what the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// The program to ask, by name or absolute path. Without one it is `kubectl`, and asked only where
    /// there is a configuration for it.
    pub kubectl: Option<String>,
    /// Its configuration, as in `KUBECONFIG`.
    pub config: Option<String>,
    /// The home directory, where its configuration is looked for otherwise.
    pub home: Option<PathBuf>,
}

/// Both programs, started or not.
pub(crate) struct Asked {
    cib: Reading<Program>,
    nnf: Reading<Program>,
}

/// Starts both.
pub(crate) fn ask(search: &Search) -> Asked {
    if search.time_max.is_zero() {
        let why = || "no time is given for programs".to_owned();
        return Asked { cib: Reading::Absent(why()), nnf: Reading::Absent(why()) };
    }
    Asked { cib: start_cibadmin(search), nnf: kubectl(search).then(|command| start(command, None)) }
}

/// What `cibadmin` alone writes in `search.time_max`.
pub(crate) fn ask_cib(search: &Search) -> Reading<Vec<u8>> {
    let until = Instant::now() + search.time_max;
    let nnf = Reading::Absent("it is not asked".to_owned());
    Asked { cib: start_cibadmin(search), nnf }.answers(until).0
}

fn start_cibadmin(search: &Search) -> Reading<Program> {
    cibadmin(search).then(|[local, plain]| start(local, Some(plain)))
}

impl Asked {
    /// What they write until then.
    pub(crate) fn answers(self, until: Instant) -> (Reading<Vec<u8>>, Reading<Vec<u8>>) {
        let Asked { mut cib, mut nnf } = self;
        let mut running: Vec<&mut Program> = Vec::new();
        for reading in [&mut cib, &mut nnf] {
            if let Reading::Got(program) = reading {
                running.push(program);
            }
        }
        read_all(&mut running, until);
        (cib.then(|program| program.end(until)), nnf.then(|program| program.end(until)))
    }
}

/// `--local`: the answer of the node that coordinates the cluster would be awaited otherwise, and it
/// may be the one that has died. Pacemaker 3 deprecates the option, so the second command is without it.
fn cibadmin(search: &Search) -> Reading<[Command; 2]> {
    program(&search.root, "cibadmin").then(|path| {
        let [mut local, mut plain] = [prepared(&path), prepared(&path)];
        local.args(["--query", "--local"]);
        plain.arg("--query");
        Ok([local, plain])
    })
}

fn kubectl(search: &Search) -> Reading<Command> {
    let Kubernetes { kubectl, config, home } = &search.kubernetes;
    let home = home.clone().unwrap_or_else(|| "/root".into());
    if kubectl.is_none() {
        let files = match config {
            Some(list) => list.split(':').map(PathBuf::from).collect(),
            None => vec![home.join(".kube/config")],
        };
        let below_root = |file: &PathBuf| search.root.join(file.strip_prefix("/").unwrap_or(file));
        if !files.iter().any(|file| TrustedFile::find(&below_root(file)).is_ok()) {
            return Reading::Absent("kubectl has no configuration here".to_owned());
        }
    }
    program(&search.root, kubectl.as_deref().unwrap_or("kubectl")).then(|path| {
        let seconds = search.time_max.as_secs_f64().ceil();
        let (label, value) = nnf::LABEL;
        let mut command = prepared(&path);
        command.args(["get", nnf::KINDS, "--all-namespaces", "--output=json"]);
        command.arg(format!("--selector={label}={value}"));
        command.arg(format!("--request-timeout={seconds}s"));
        // It keeps a cache there.
        if !matches!(open_log_dir(&home), Err(PlaceError::Gfs2 { .. })) {
            command.env("HOME", &home);
        }
        command.envs(config.as_ref().map(|list| ("KUBECONFIG", list)));
        Ok(command)
    })
}

/// The path of the program `name` below `root`, which nobody but root can replace.
pub fn find_program(root: &Path, name: &str) -> Result<PathBuf, String> {
    match program(root, name) {
        Reading::Got(path) => Ok(path),
        Reading::Blind(why) | Reading::Absent(why) => Err(why),
    }
}

fn program(root: &Path, name: &str) -> Reading<PathBuf> {
    let mut refused = None;
    for directory in if name.starts_with('/') { &["/"] } else { PROGRAM_DIRS } {
        let relative = Path::new(directory).join(name);
        let path = root.join(relative.strip_prefix("/").unwrap_or(&relative));
        match TrustedFile::find(&path) {
            Ok(file) if file.is_executable() => return Reading::Got(path),
            Ok(_) | Err(FileError::Missing) => {}
            Err(why) => {
                refused.get_or_insert(format!("'{}' is not run: {why}", path.display()));
            }
        }
    }
    match refused {
        Some(why) => Reading::Blind(why),
        None => Reading::Absent(format!("there is no {name}")),
    }
}

/// `path`, to be run without anything of this process but an environment that it needs.
fn prepared(path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", PROGRAM_DIRS.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts `command`, and later `otherwise` if `command` does not know one of its options.
fn start(mut command: Command, otherwise: Option<Command>) -> Result<Program, String> {
    let path = Path::new(command.get_program());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut child =
        command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
    let stdout = Output::of(child.stdout.take().map(OwnedFd::from));
    let stderr = Output::of(child.stderr.take().map(OwnedFd::from));
    Ok(Program { name, child, stdout, stderr, otherwise })
}

/// A program that runs, or has just ended.
struct Program {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    /// What is started if the program ends with `EX_USAGE`; `None` once that is decided.
    otherwise: Option<Command>,
}

/// What comes out of a pipe.
struct Output {
    /// `None` at its end.
    pipe: Option<File>,
    bytes: Vec<u8>,
}

impl Output {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Output { pipe: pipe.map(File::from), bytes: Vec::new() }
    }

    /// Takes what is there; does not block after the pipe was found readable.
    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut chunk = [0; CHUNK_BYTES];
        match pipe.read(&mut chunk) {
            Ok(0) => self.pipe = None,
            Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.pipe = None,
        }
        if self.bytes.len() > OUTPUT_BYTES_MAX {
            self.pipe = None;
        }
    }
}

/// Reads all outputs to their ends, or until then.
fn read_all(programs: &mut [&mut Program], until: Instant) {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        for program in programs.iter_mut() {
            program.start_otherwise();
        }
        let is_ending = programs.iter().any(|program| program.is_ending());
        let mut open: Vec<&mut Output> = programs
            .iter_mut()
            .flat_map(|program| [&mut program.stdout, &mut program.stderr])
            .filter(|output| output.pipe.is_some())
            .collect();
        if (open.is_empty() && !is_ending) || left.is_zero() {
            return;
        }
        // The end of a process makes nothing readable.
        let time_max = if is_ending { left.min(Duration::from_millis(1)) } else { left };
        match readable(&open, time_max) {
            Ok(readable) => {
                let outputs = open.iter_mut().zip(readable).filter(|(_, is_readable)| *is_readable);
                outputs.for_each(|(output, _)| output.read());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The kernel is short of memory.
            Err(_) => thread::sleep(left.min(Duration::from_millis(10))),
        }
    }
}

fn readable(outputs: &[&mut Output], time_max: Duration) -> io::Result<Vec<bool>> {
    let pipes = outputs.iter().filter_map(|output| output.pipe.as_ref());
    let mut polled: Vec<PollFd<'_>> =
        pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    // A part of a millisecond would be no time, and this would go round and round.
    let time_max = time_max + Duration::from_millis(1);
    poll(&mut polled, PollTimeout::try_from(time_max).unwrap_or(PollTimeout::MAX))?;
    Ok(polled.iter().map(|pipe| pipe.any().unwrap_or(true)).collect())
}

impl Program {
    /// Whether it has closed its outputs, and its exit code is awaited to decide about a second try.
    fn is_ending(&self) -> bool {
        self.otherwise.is_some() && !self.has_open_output()
    }

    /// Turns into the second try, if it has ended and that is due. Does not wait.
    fn start_otherwise(&mut self) {
        if !self.is_ending() {
            return;
        }
        let ended = self.child.try_wait();
        if matches!(ended, Ok(None)) {
            return;
        }
        let otherwise = self.otherwise.take();
        if let (Ok(Some(status)), Some(command)) = (ended, otherwise)
            && status.code() == Some(EX_USAGE)
            && let Ok(second) = start(command, None)
        {
            *self = second;
        }
    }

    fn has_open_output(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// What it wrote, if it ended by itself and well.
    fn end(mut self, until: Instant) -> Result<Vec<u8>, String> {
        let status = self.status(until);
        let name = &self.name;
        let Some(status) = status else {
            // It has not been waited for, so its number is nobody else's.
            if let Ok(pid) = i32::try_from(self.child.id()) {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // It is left to whoever comes after us if it does not die at once.
            let _ = self.child.try_wait();
            return Err(format!("{name} was killed: it gave no answer in time"));
        };
        if self.stdout.bytes.len() > OUTPUT_BYTES_MAX {
            return Err(format!("{name} wrote more than {OUTPUT_BYTES_MAX} bytes"));
        }
        if status.success() {
            return Ok(self.stdout.bytes);
        }
        let complaint = String::from_utf8_lossy(&self.stderr.bytes);
        let complaint: Vec<&str> = complaint.split_whitespace().collect();
        Err(bounded(
            &format!("{name} failed ({status}): {}", complaint.join(" ")),
            COMPLAINT_BYTES_MAX,
        ))
    }

    /// How it ended; `None` if it has not, or if something that it started still holds its outputs.
    fn status(&mut self, until: Instant) -> Option<ExitStatus> {
        if self.has_open_output() {
            return None;
        }
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                ended => return ended.ok().flatten(),
            }
        }
    }
}

const PROGRAM_DIRS: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The exit code of Pacemaker's programs, and of others, for an option that they do not know.
const EX_USAGE: i32 = 64;
/// The longest output of a program: the CIB of a large cluster has some megabytes.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
/// The longest complaint of a program that is passed on.
const COMPLAINT_BYTES_MAX: usize = 300;
