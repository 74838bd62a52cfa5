//! The clocks for the deadlines of fences, and the identity of the boot.
//!
//! Both programs read the clocks here, so both treat a failing clock in the same way. At the start,
//! [`problem`] reports it, and the program does not begin. Later, the clock reads as the far
//! future: every deadline has passed, so nothing starts and no client waits.
//!
//! `fence_core` decides what an instant means, and takes it as an argument.

use std::{fs, io};

use chrono::Utc;
use fence_core::{Now, clock};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_BOOTTIME`, which runs while the machine sleeps and cannot be set.
pub fn boot_ms() -> u64 {
    milliseconds(read())
}

/// The present instant, by both clocks.
pub fn now() -> Now {
    Now { boot_ms: boot_ms(), wall_ms: Utc::now().timestamp_millis() }
}

/// This boot's identity.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// Why this process cannot keep deadlines, if it cannot read the clock, or reads another clock than
/// that of the machine.
pub fn problem() -> Option<String> {
    unreadable(read()).or_else(|| {
        clock::shifted(|path| {
            let link = fs::read_link(path).map(|target| target.to_string_lossy().into_owned());
            link.or_else(|_| fs::read_to_string(path)).ok()
        })
    })
}

fn read() -> nix::Result<TimeSpec> {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
}

fn milliseconds(read: nix::Result<TimeSpec>) -> u64 {
    read.map_or(u64::MAX, |time| {
        let milliseconds = time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000;
        u64::try_from(milliseconds).unwrap_or(u64::MAX)
    })
}

fn unreadable(read: nix::Result<TimeSpec>) -> Option<String> {
    let why = read.err()?.desc();
    Some(format!("cannot read CLOCK_BOOTTIME, so deadlines of fences cannot be kept: {why}"))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_clock_that_fails_is_a_problem_and_reads_as_later_than_every_deadline() {
        assert_eq!(milliseconds(Err(Errno::EPERM)), u64::MAX);
        assert_eq!(milliseconds(Ok(TimeSpec::new(-1, 0))), u64::MAX);
        let problem = unreadable(Err(Errno::EPERM)).unwrap();
        assert!(problem.contains("CLOCK_BOOTTIME") && problem.contains("permitted"), "{problem}");
    }

    #[test]
    fn a_clock_that_is_read_counts_milliseconds_and_is_no_problem() {
        let time = TimeSpec::new(7, 12_999_999);
        assert_eq!((milliseconds(Ok(time)), unreadable(Ok(time))), (7_012, None));
    }

    #[test]
    fn the_instant_by_both_clocks_is_the_present_one() {
        let (before, now, after) = (boot_ms(), now(), boot_ms());
        assert!(before <= now.boot_ms && now.boot_ms <= after && after < u64::MAX);
        assert!(now.wall_ms > 0);
    }

    #[test]
    fn the_boot_is_one_word() {
        let boot = boot_id().unwrap();
        assert_eq!(boot.split_whitespace().collect::<Vec<_>>(), [&boot]);
    }
}
