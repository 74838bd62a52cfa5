//! The programs, which run side by side: `cibadmin`, and `kubectl` once for each list.
//!
//! At the time limit, a program that hangs is killed with all its children. Nothing waits for its
//! end: a program that hangs in a file system does not even die from SIGKILL. Its source is then
//! blind.

use std::collections::BTreeSet;
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

use crate::list::{ListReader, PART_BYTES_MAX};
use crate::nnf::{self, NodeStorages, Objects};
use crate::{Cib, Reading, Search, Target};

/// How to reach Kubernetes, by the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// The program, by name or absolute path. `None` means `kubectl`, if it has a configuration.
    pub kubectl: Option<String>,
    /// Its configuration, as in `KUBECONFIG`.
    pub config: Option<String>,
    /// The home directory, which has the default configuration.
    pub home: Option<PathBuf>,
}

/// Runs the programs that know file systems, and at the same time `meanwhile`.
pub(crate) fn ask<T>(
    target: Target<'_>,
    search: &Search,
    meanwhile: impl FnOnce() -> T,
) -> (Reading<Cib>, Reading<NodeStorages>, T) {
    if search.time_max.is_zero() {
        let why = || "no time is given for programs".to_owned();
        return (Reading::Absent(why()), Reading::Absent(why()), meanwhile());
    }
    let until = Instant::now() + search.time_max;
    let (label, value) = nnf::LABEL;
    let selector = format!("--selector={label}={value}");
    let namespace = format!("--namespace={}", target.plug);
    let mut storages = start_kubectl(search, &[nnf::STORAGE_KINDS, "--all-namespaces", &selector]);
    let mut cib = start_cibadmin(search);
    let mut mounts = start_kubectl(search, &[nnf::MOUNT_KIND, &namespace]);
    let value = meanwhile();
    read_all(&mut [&mut cib, &mut storages, &mut mounts], until);
    let cib = cib.then(|program| program.cib(until));
    let storages = storages.then(|program| program.list(until));
    let mounts = mounts.then(|program| program.list(until));
    (cib, storages.then(|objects| Ok(NodeStorages::new(objects, mounts))), value)
}

/// The output of `cibadmin` alone, within `search.time_max`.
pub(crate) fn ask_cib(search: &Search) -> Reading<Cib> {
    let until = Instant::now() + search.time_max;
    let mut cib = start_cibadmin(search);
    read_all(&mut [&mut cib], until);
    cib.then(|program| program.cib(until))
}

/// The nodes of Kubernetes: compute nodes and rabbits of Near Node Flash. Takes at most
/// `search.time_max`. Tries again once after a failure within that time: the API server may refuse
/// for a moment.
///
/// nnf-sos reports success for an unknown node, because such a node has nothing to lose. So a fence
/// of a name that Kubernetes does not know would do nothing and succeed.
pub fn kubernetes_nodes(search: &Search) -> Reading<BTreeSet<String>> {
    let until = Instant::now() + search.time_max;
    let ask = || {
        let mut nodes = start_kubectl(search, &[nnf::NODE_KIND, "--all-namespaces"]);
        read_all(&mut [&mut nodes], until);
        nodes.then(|program| Ok(program.list(until)?.into_nodes()))
    };
    match ask() {
        Reading::Blind(_) if Instant::now() < until => ask(),
        answer => answer,
    }
}

/// Without `--local`, `cibadmin` waits for the node that coordinates the cluster, which may be the
/// dead node. Pacemaker 3 deprecates the option, so the second command does not use it.
fn start_cibadmin(search: &Search) -> Reading<Program> {
    program(&search.root, "cibadmin").then(|path| {
        let [mut local, mut plain] = [prepared(&path), prepared(&path)];
        local.args(["--query", "--local"]);
        plain.arg("--query");
        Ok(Program { otherwise: Some(plain), ..start(local, false)? })
    })
}

/// Starts `kubectl get` with the arguments `what`.
fn start_kubectl(search: &Search, what: &[&str]) -> Reading<Program> {
    let Kubernetes { kubectl, config, home } = &search.kubernetes;
    let home = home.clone().unwrap_or_else(|| "/root".into());
    match kubeconfig(&search.root, config.as_deref(), &home) {
        Reading::Blind(why) => return Reading::Blind(why),
        Reading::Absent(why) if kubectl.is_none() => return Reading::Absent(why),
        Reading::Got(()) | Reading::Absent(_) => {}
    }
    let path = match program(&search.root, kubectl.as_deref().unwrap_or("kubectl")) {
        // It is configured, so the administrator expects an answer.
        Reading::Absent(why) => Reading::Blind(why),
        path => path,
    };
    path.then(|path| {
        let seconds = search.time_max.as_secs_f64().ceil();
        let mut command = prepared(&path);
        command.arg("get").args(what).arg("--output=json");
        command.arg(format!("--request-timeout={seconds}s"));
        // kubectl has a cache in the home directory.
        if !matches!(open_log_dir(&home), Err(PlaceError::Gfs2 { .. })) {
            command.env("HOME", &home);
        }
        command.envs(config.as_ref().map(|list| ("KUBECONFIG", list)));
        start(command, true)
    })
}

/// Whether kubectl finds a configuration. A configuration names programs that kubectl runs, so
/// kubectl must not read a file that others could have written, even beside a trusted one.
fn kubeconfig(root: &Path, config: Option<&str>, home: &Path) -> Reading<()> {
    let files = match config {
        Some(list) => list.split(':').filter(|file| !file.is_empty()).map(PathBuf::from).collect(),
        None => vec![home.join(".kube/config")],
    };
    let mut found = Reading::Absent("kubectl has no configuration here".to_owned());
    for file in files {
        match TrustedFile::find(&root.join(file.strip_prefix("/").unwrap_or(&file))) {
            Ok(_) => found = Reading::Got(()),
            Err(FileError::Missing) => {}
            Err(why) => {
                let file = file.display();
                return Reading::Blind(format!(
                    "kubectl is not run: its configuration '{file}' is not to be read: {why}"
                ));
            }
        }
    }
    found
}

/// The path of the program `name` below `root`, which only root can replace.
pub fn find_program(root: &Path, name: &str) -> Result<PathBuf, String> {
    program(root, name).result().cloned()
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

/// A command that inherits nothing from this process, and has the necessary environment.
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

/// Starts `command`; `is_list` says whether it writes a list of Kubernetes' objects.
fn start(mut command: Command, is_list: bool) -> Result<Program, String> {
    let path = Path::new(command.get_program());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|why| format!("{name} cannot be started: {why}"))?;
    let mut stdout = Output::of(child.stdout.take().map(OwnedFd::from));
    stdout.list = is_list.then(ListReader::default);
    let stderr = Output::of(child.stderr.take().map(OwnedFd::from));
    Ok(Program { name, child, stdout, stderr, otherwise: None })
}

/// A program that runs, or has just ended.
struct Program {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    /// The second command, if the program ends with `EX_USAGE`; `None` once that is decided.
    otherwise: Option<Command>,
}

/// The output of a program through a pipe.
struct Output {
    /// `None` at its end.
    pipe: Option<File>,
    bytes: Vec<u8>,
    /// The reader of a list.
    list: Option<ListReader>,
}

impl Output {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Output { pipe: pipe.map(File::from), bytes: Vec::new(), list: None }
    }

    /// Takes the available bytes; does not block if the pipe is readable.
    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut chunk = [0; CHUNK_BYTES];
        match pipe.read(&mut chunk) {
            Ok(0) => self.pipe = None,
            Ok(count) => match &mut self.list {
                Some(list) => list.feed(&chunk[..count]),
                None => self.bytes.extend_from_slice(&chunk[..count]),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.pipe = None,
        }
        if self.is_too_long() {
            self.pipe = None;
        }
    }

    fn is_too_long(&self) -> bool {
        self.bytes.len() > PART_BYTES_MAX || self.list.as_ref().is_some_and(ListReader::is_too_long)
    }
}

/// Reads all outputs to their ends, at most until `until`.
fn read_all(programs: &mut [&mut Reading<Program>], until: Instant) {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        started(programs).for_each(Program::start_otherwise);
        let is_ending = started(programs).any(|program| program.is_ending());
        let mut open: Vec<&mut Output> = started(programs)
            .flat_map(|program| [&mut program.stdout, &mut program.stderr])
            .filter(|output| output.pipe.is_some())
            .collect();
        if (open.is_empty() && !is_ending) || left.is_zero() {
            return;
        }
        // The end of a process makes no pipe readable.
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

fn started<'a>(programs: &'a mut [&mut Reading<Program>]) -> impl Iterator<Item = &'a mut Program> {
    programs.iter_mut().filter_map(|program| match program {
        Reading::Got(program) => Some(program),
        Reading::Blind(_) | Reading::Absent(_) => None,
    })
}

fn readable(outputs: &[&mut Output], time_max: Duration) -> io::Result<Vec<bool>> {
    let pipes = outputs.iter().filter_map(|output| output.pipe.as_ref());
    let mut polled: Vec<PollFd<'_>> =
        pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up, so that the last part of a millisecond is no busy loop.
    let time_max = time_max + Duration::from_millis(1);
    poll(&mut polled, PollTimeout::try_from(time_max).unwrap_or(PollTimeout::MAX))?;
    Ok(polled.iter().map(|pipe| pipe.any().unwrap_or(true)).collect())
}

impl Program {
    /// The CIB that it wrote, if it succeeded in time.
    fn cib(self, until: Instant) -> Result<Cib, String> {
        Cib::parse(&String::from_utf8_lossy(&self.end(until)?.bytes))
    }

    /// The objects that it listed, if it succeeded in time.
    fn list(self, until: Instant) -> Result<Objects, String> {
        self.end(until)?.list.unwrap_or_default().finish()
    }

    /// Whether it has closed its outputs, and its exit code decides about a second try.
    fn is_ending(&self) -> bool {
        self.otherwise.is_some() && !self.has_open_output()
    }

    /// Starts the second try if the program has ended and requires it. Does not wait.
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
            && let Ok(second) = start(command, self.stdout.list.is_some())
        {
            *self = second;
        }
    }

    fn has_open_output(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// Its output, if it succeeded in time.
    fn end(mut self, until: Instant) -> Result<Output, String> {
        let status = self.status(until);
        let name = &self.name;
        let Some(status) = status else {
            // Nobody has waited for it, so no other process has its number.
            if let Ok(pid) = i32::try_from(self.child.id()) {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // If it does not die at once, the next parent waits for it.
            let _ = self.child.try_wait();
            return Err(format!("{name} was killed: it gave no answer in time"));
        };
        if self.stdout.is_too_long() {
            return Err(format!("{name} wrote more than {PART_BYTES_MAX} bytes"));
        }
        if status.success() {
            return Ok(self.stdout);
        }
        let complaint = String::from_utf8_lossy(&self.stderr.bytes);
        let complaint: Vec<&str> = complaint.split_whitespace().collect();
        Err(bounded(
            &format!("{name} failed ({status}): {}", complaint.join(" ")),
            COMPLAINT_BYTES_MAX,
        ))
    }

    /// Its exit status; `None` if it has not ended, or if one of its children still has its outputs
    /// open.
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
const CHUNK_BYTES: usize = 16 * 1024;
/// The longest complaint of a program that is passed on.
const COMPLAINT_BYTES_MAX: usize = 300;
