//! The clocks by which fences are timed, and the boot that they count from.
//!
//! Both programs read them here, so both have the same answer to a clock that fails: [`problem`] refuses
//! to begin with it, and later it reads as the far future, in which every deadline has passed. Nothing
//! starts then, and nobody goes on waiting.
//!
//! What an instant means is decided elsewhere: `fence_core` takes it as an argument.

use std::{fs, io};

use chrono::Utc;
use fence_core::{Now, clock};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_BOOTTIME`: it runs while the machine sleeps and no one can set it.
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

/// Why this process cannot keep deadlines, if so: it cannot read the clock, or reads another one than the
/// machine's.
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
