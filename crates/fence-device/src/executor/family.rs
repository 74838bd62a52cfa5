//! Processes as the kernel lists them: the descendants of this process, and the bearers of a mark.
//!
//! A program's own process group is not enough: `timeout 5 ipmitool …` in a script makes a new
//! group, and a daemon makes a session. The kernel lists the children of a process in
//! `/proc/N/task/*/children`, and the other facts in `/proc/N/stat` and `/proc/N/limits`. These
//! files can be read even if the process hangs in a file system (`cmdline` and `environ` cannot).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mark::Mark;
use crate::boot_ms_now;

/// How long `end_marked` lets killed processes die before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Kills all descendants of this process, except the children that `is_spared` names and their
/// descendants. Returns false if there is no process to kill.
///
/// One call may miss a process that starts or gets another parent meanwhile. If this process is a
/// child subreaper, a later call finds each such process: the caller repeats the call until it
/// returns false. The caller must not wait for children while this function runs.
pub(super) fn kill_descendants(is_spared: impl Fn(Pid) -> bool) -> bool {
    let tree = Tree::now();
    let mut found = tree.children(Pid::this());
    found.retain(|child| !is_spared(*child));
    let is_anybody = !found.is_empty();
    while let Some(pid) = found.pop() {
        // Parents first: a shell must not see its program die and start the next. A parent with the
        // signal waits for no child any more, so the numbers of its children stay in use.
        send_kill(pid);
        found.extend(tree.children(pid));
    }
    is_anybody
}

/// Kills the processes with `mark`, and waits until none is left, for at most `time_ms_max`.
pub(super) fn end_marked(mark: &Mark, time_ms_max: u64) {
    let until = boot_ms_now().saturating_add(time_ms_max);
    while kill_marked(mark) && boot_ms_now() < until {
        // There is no event for the end of a process that is no child of this one.
        thread::sleep(LOOK_AGAIN);
    }
}

fn kill_marked(mark: &Mark) -> bool {
    let mut marked = processes();
    marked.retain(|process| !process.is_dead && process.pid != Pid::this());
    marked.retain(|process| mark.is_borne_by(process));
    // Parents first here too: no process is older than its parent.
    marked.sort_by_key(|process| (process.began_ticks, process.pid));
    for process in &marked {
        send_kill(process.pid);
    }
    !marked.is_empty()
}

/// When this process was started, in clock ticks since the boot.
pub(super) fn own_began_ticks() -> Option<u64> {
    Some(parse(&fs::read("/proc/self/stat").ok()?)?.began_ticks)
}

fn send_kill(pid: Pid) {
    // A process that is gone needs no signal. A process that cannot be killed is given up later.
    let _ = kill(pid, Signal::SIGKILL);
}

/// The source of the children of a process.
enum Tree {
    /// The process's own directory.
    Live,
    /// The parents of all processes, for kernels without `children` files (`CONFIG_PROC_CHILDREN`).
    Scanned(BTreeMap<Pid, Vec<Pid>>),
}

impl Tree {
    fn now() -> Self {
        let pid = Pid::this();
        if Path::new(&format!("/proc/{pid}/task/{pid}/children")).exists() {
            Tree::Live
        } else {
            Tree::scanned()
        }
    }

    fn scanned() -> Self {
        let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        for process in processes() {
            children.entry(process.parent).or_default().push(process.pid);
        }
        Tree::Scanned(children)
    }

    fn children(&self, parent: Pid) -> Vec<Pid> {
        match self {
            Tree::Live => children_in(&format!("/proc/{parent}/task")),
            Tree::Scanned(children) => children.get(&parent).cloned().unwrap_or_default(),
        }
    }
}

/// The children of all threads of a process.
fn children_in(threads: &str) -> Vec<Pid> {
    // No such directory: the process has ended, and its children have another parent.
    let threads = fs::read_dir(threads).into_iter().flatten().flatten();
    let texts =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>()
        })
        .map(Pid::from_raw)
        .collect()
}

/// A process in `/proc/N/stat`.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    parent: Pid,
    is_dead: bool,
    /// In clock ticks since the boot.
    pub(super) began_ticks: u64,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_process(name))
        .filter_map(|name| parse(&fs::read(format!("/proc/{name}/stat")).ok()?))
        .collect()
}

/// Reads `pid (name) state parent …`, where the name may contain anything; the start is field 22.
fn parse(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (pid, rest) = stat.split_once(" (")?;
    let (_, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Process {
        pid: Pid::from_raw(pid.parse().ok()?),
        parent: Pid::from_raw(fields.get(1)?.parse().ok()?),
        is_dead: matches!(*fields.first()?, "Z" | "X"),
        began_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let rest = "7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 12288";
        let process = parse(format!("12 (a) Z 1 (b) \u{fffd}) S {rest}").as_bytes()).unwrap();

        assert_eq!([process.pid, process.parent].map(Pid::as_raw), [12, 7]);
        assert_eq!((process.is_dead, process.began_ticks), (false, 4711));
        assert!(parse(format!("12 (a) Z {rest}").as_bytes()).unwrap().is_dead);
        assert!(parse(b"12 (a) S 7 8 9").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn both_ways_find_the_same_children() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());

        let live = Tree::Live.children(Pid::this());
        let scanned = Tree::scanned().children(Pid::this());

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(live.contains(&pid), "{live:?}");
        assert!(scanned.contains(&pid), "{scanned:?}");
    }
}
