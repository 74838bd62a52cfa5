//! The mark of the processes of one executor, and the note that passes the mark on.
//!
//! The mark is a limit of the process (the hard limit `RLIMIT_RTTIME`). Its value is random, so
//! that no other process has it, and so large that it limits nothing. Every descendant inherits a
//! limit, in any group or session, under any parent, as any program. `/proc/N/limits` shows it,
//! even of a process that hangs. A variable of the environment would be lost at `env -i`, and
//! reading it can hang.
//!
//! The mark is for catastrophes alone: for a watcher that lost its executor, and for the next
//! executor if all processes were killed at once. The next executor reads the mark from the note in
//! the lock's file. It kills a process by its mark only in the same boot and the same pid
//! namespace, and only if the process is not older than the executor. Otherwise the note may be
//! from an earlier run of a container, and its numbers may be those of other processes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::linux::fs::MetadataExt;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::LAST_WAIT_MS;
use super::family::{Process, end_marked, own_began_ticks};

/// The smallest mark, in microseconds: 146,000 years. The kernel's value for "unlimited" is larger
/// than each mark.
const SMALLEST: u64 = 1 << 62;

/// No note is longer.
const NOTE_BYTES_MAX: u64 = 256;

/// A value that the processes of one executor have in common, and no other process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    limit_us: u64,
    /// When the executor was started, in clock ticks since the boot.
    since_ticks: u64,
}

impl Mark {
    /// Marks this process and all that it starts. `None` if an administrator has set this limit.
    pub(super) fn set() -> Option<Self> {
        let mark = Mark { limit_us: random_limit()?, since_ticks: own_began_ticks()? };
        let (soft, hard) = getrlimit(Resource::RLIMIT_RTTIME).ok()?;
        if hard < SMALLEST {
            return None;
        }
        setrlimit(Resource::RLIMIT_RTTIME, soft.min(mark.limit_us), mark.limit_us).ok()?;
        Some(mark)
    }

    /// Whether `process` certainly descends from the executor of this mark.
    pub(super) fn is_borne_by(&self, process: &Process) -> bool {
        process.began_ticks >= self.since_ticks && limit_of(process.pid) == Some(self.limit_us)
    }
}

fn random_limit() -> Option<u64> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").ok()?;
    let digits: String = uuid.trim().split('-').collect();
    let random = u128::from_str_radix(&digits, 16).ok()?;
    // Both halves, because each half has bits that are the same in all identities.
    let random = u64::try_from((random >> 64) ^ (random & u128::from(u64::MAX))).ok()?;
    let limit = random % SMALLEST + SMALLEST;
    (limit < RLIM_INFINITY).then_some(limit)
}

fn limit_of(pid: Pid) -> Option<u64> {
    parse_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// Reads the hard limit from the line `Max realtime timeout  SOFT  HARD  us`.
fn parse_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Ends the processes of an executor that was killed together with its watcher and its keepers, and
/// no other processes: a note of another boot or pid namespace is ignored.
pub(super) fn take_over(lock: &File) -> io::Result<()> {
    if !can_note(lock) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    lock.take(NOTE_BYTES_MAX).read_to_end(&mut bytes)?;
    if let Some(mark) = noted(&String::from_utf8_lossy(&bytes)) {
        end_marked(&mark, LAST_WAIT_MS);
    }
    Ok(())
}

/// Notes the mark, for the case that this executor is killed in the same way.
pub(super) fn leave_note(mut lock: &File, mark: Option<&Mark>) -> io::Result<()> {
    if !can_note(lock) {
        return Ok(());
    }
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(mark.and_then(note).unwrap_or_default().as_bytes())
}

/// Whether the lock is a file that can contain a note. It is `/dev/null` if nothing waits for the
/// executor's end.
fn can_note(lock: &File) -> bool {
    lock.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn note(mark: &Mark) -> Option<String> {
    Some(format!("{} {} {}", place()?, mark.since_ticks, mark.limit_us))
}

/// The mark in a note of this boot and this pid namespace. Any other note, and a note in another
/// format, is ignored.
fn noted(note: &str) -> Option<Mark> {
    let (since_ticks, limit_us) =
        note.strip_prefix(&place()?)?.strip_prefix(' ')?.split_once(' ')?;
    let mark = Mark { limit_us: limit_us.parse().ok()?, since_ticks: since_ticks.parse().ok()? };
    (SMALLEST..RLIM_INFINITY).contains(&mark.limit_us).then_some(mark)
}

/// The boot and the pid namespace. Outside of these, a number means another process.
fn place() -> Option<String> {
    let boot = fence_clock::boot_id().ok()?;
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?.st_ino();
    Some(format!("{boot} {namespace}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            4611686018427387999  us        
";

    #[test]
    fn the_hard_limit_is_read() {
        assert_eq!(parse_limit(LIMITS), Some(4_611_686_018_427_387_999));
        assert_eq!(parse_limit("Max realtime timeout  5  unlimited  us"), None);
        assert_eq!(parse_limit(""), None);
    }

    #[test]
    fn a_note_is_believed_in_its_own_boot_and_namespace_and_format_alone() {
        let mark = Mark { limit_us: SMALLEST + 5, since_ticks: 7 };
        let text = note(&mark).unwrap();

        assert_eq!(noted(&text), Some(mark));
        let [boot, namespace, since, limit] = text.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        for other in [
            format!("00000000-0000-4000-8000-000000000000 {namespace} {since} {limit}"),
            format!("{boot} 1{namespace} {since} {limit}"),
            format!("{boot} {namespace}1 {since} {limit}"),
            format!("{boot} {namespace} {since} {}", SMALLEST - 1),
            format!("{boot} {namespace} {since} {RLIM_INFINITY}"),
            format!("{boot} {namespace} {since}"),
            format!("{boot} {namespace} {since} {limit} 1"),
            format!("12 {boot}\n"),
            String::new(),
        ] {
            assert_eq!(noted(&other), None, "{other}");
        }
    }

    #[test]
    fn marks_differ_and_limit_nothing() {
        let (one, two) = (random_limit().unwrap(), random_limit().unwrap());

        assert_ne!(one, two);
        assert!(one >= SMALLEST && two >= SMALLEST);
    }
}
