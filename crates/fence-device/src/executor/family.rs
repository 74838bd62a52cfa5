//! Killing programs together with their descendants.
//!
//! A program's own process group is not enough: `timeout 5 ipmitool …` in a script makes a group of
//! its own. The kernel tells who descends from whom in `/proc/N/stat`, the one file there that can
//! be read of a process that hangs in a file system (`cmdline` and `environ` cannot).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp};

use crate::boot_ms_now;

/// How often `kill_session` looks for processes that were born while it killed the others.
const ROUNDS_MAX: usize = 8;

/// Kills the process groups of `leaders` and of all their descendants.
///
/// The leaders must not have been waited for, or their numbers could mean somebody else.
pub(super) fn kill_programs(leaders: &[Pid]) {
    let table = processes();
    let mut children: BTreeMap<Pid, Vec<&Process>> = BTreeMap::new();
    for process in &table {
        children.entry(process.parent).or_default().push(process);
    }
    let mut groups = BTreeSet::new();
    let mut found = leaders.to_vec();
    while let Some(pid) = found.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            groups.insert(child.group);
            found.push(child.pid);
        }
    }
    // The leaders first: a shell must not see its program die and go on with the next.
    for leader in leaders {
        kill_group(*leader);
        groups.remove(leader);
    }
    groups.into_iter().for_each(kill_group);
}

/// Kills our children of these names: processes that are to become programs and have not yet.
pub(super) fn kill_unborn(names: &[String]) {
    let is_unborn = |process: &&Process| {
        process.parent == Pid::this() && !process.is_dead && names.contains(&process.name)
    };
    for process in processes().iter().filter(is_unborn) {
        // One that is gone is what was wanted.
        let _ = kill(process.pid, Signal::SIGKILL);
    }
}

/// Kills all processes of `session` but those of our own group.
pub(super) fn kill_session(session: Pid) {
    for _ in 0..ROUNDS_MAX {
        let groups: BTreeSet<Pid> = processes()
            .iter()
            .filter(|process| process.session == session && !process.is_dead)
            .map(|process| process.group)
            .filter(|group| *group != getpgrp())
            .collect();
        if groups.is_empty() {
            return;
        }
        groups.into_iter().for_each(kill_group);
    }
}

/// Kills what is left of a session that has lost its leader, and waits for its end, at most so long.
///
/// A session whose leader lives is not the one that is meant: the number is somebody else's by now.
pub(super) fn end_orphans(session: Pid, time_ms_max: u64) {
    let until = boot_ms_now() + time_ms_max;
    while boot_ms_now() < until {
        let mut left = processes();
        left.retain(|process| process.session == session && !process.is_dead);
        if left.is_empty() || left.iter().any(|process| process.pid == session) {
            return;
        }
        for process in left {
            kill_group(process.group);
        }
        // There is no event for the end of a process that is nobody's child here.
        thread::sleep(Duration::from_millis(5));
    }
}

fn kill_group(group: Pid) {
    // 0 would be our own group and 1 everybody. A group that is gone is what was wanted.
    if group.as_raw() > 1 && group != getpgrp() {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

struct Process {
    pid: Pid,
    parent: Pid,
    group: Pid,
    session: Pid,
    name: String,
    is_dead: bool,
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

/// Reads `pid (name) state parent group session …`, where the name may hold anything.
fn parse(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (pid, rest) = stat.split_once(" (")?;
    let (name, fields) = rest.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let mut number = || Some(Pid::from_raw(fields.next()?.parse().ok()?));
    let (parent, group, session) = (number()?, number()?, number()?);
    let (pid, name) = (Pid::from_raw(pid.parse().ok()?), name.to_owned());
    Some(Process { pid, parent, group, session, name, is_dead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let process = parse(b"12 (a) Z 1 (b) \xff) S 7 8 9 0 -1 4194560 1").unwrap();

        let numbers = [process.pid, process.parent, process.group, process.session];
        assert_eq!(numbers.map(Pid::as_raw), [12, 7, 8, 9]);
        assert_eq!((process.name.as_str(), process.is_dead), ("a) Z 1 (b) \u{fffd}", false));
        assert!(parse(b"12 (a) Z 7 8 9").unwrap().is_dead);
        assert!(parse(b"").is_none());
    }

    #[test]
    fn we_find_ourselves() {
        let pid = Pid::this();
        let process = processes().into_iter().find(|process| process.pid == pid).unwrap();

        assert_eq!((process.parent, process.group), (Pid::parent(), getpgrp()));
    }
}
