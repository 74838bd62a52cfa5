//! The ends of children and a timer, as files on which the executor and a keeper wait.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

#[derive(Debug)]
pub(super) struct Events {
    /// Readable after the end of a child.
    pub(super) child_ends: SignalFd,
    /// Readable after the instant of [`Events::set_timer`].
    pub(super) timer: TimerFd,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGCHLD]);
        let timer_flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Events {
            child_ends: SignalFd::with_flags(
                &signals,
                SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
            )?,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, timer_flags)?,
        })
    }

    /// Empties the queue of signals. One signal can report several ends, so its details do not
    /// matter.
    pub(super) fn drain_child_ends(&self) -> io::Result<()> {
        while self.child_ends.read_signal()?.is_some() {}
        Ok(())
    }

    /// Sets the timer to this instant of `CLOCK_BOOTTIME`.
    pub(super) fn set_timer(&self, boot_ms: u64) -> io::Result<()> {
        let seconds = i64::try_from(boot_ms / 1000).unwrap_or(i64::MAX);
        let nanoseconds = i64::try_from(boot_ms % 1000).unwrap_or(0) * 1_000_000;
        let instant = Expiration::OneShot(TimeSpec::new(seconds, nanoseconds));
        Ok(self.timer.set(instant, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}
