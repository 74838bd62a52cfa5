//! The clock by which the agent's time runs, and the boot that it counts from.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_BOOTTIME`: it runs while the machine sleeps and no one can set it.
pub fn boot_ms() -> u64 {
    // The clock exists on every Linux since 2.6.39; 0 would only let all deadlines lie in the past.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let milliseconds = time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000;
        u64::try_from(milliseconds).unwrap_or(0)
    })
}

/// Why that is not the machine's own clock, if it is not.
pub fn shifted() -> Option<String> {
    fence_core::clock::shifted(|path| {
        let link = std::fs::read_link(path).map(|target| target.to_string_lossy().into_owned());
        link.or_else(|_| std::fs::read_to_string(path)).ok()
    })
}

/// This boot's identity, where the system tells it.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}
