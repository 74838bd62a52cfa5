//! The wait for a signal, an inotify event or an instant, whichever comes first.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that stop the agent, read from a descriptor.
#[derive(Debug)]
pub(crate) struct Signals(Option<SignalFd>);

impl Signals {
    /// Blocks SIGTERM, SIGINT and SIGHUP; [`Signals::wait`] reports them.
    ///
    /// If the system has no free descriptor, the signals end the process, and its request is void
    /// because nobody holds it any more.
    pub(crate) fn take_over() -> Self {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            signals.add(signal);
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&signals, flags).ok();
        Signals(descriptor.filter(|_| signals.thread_block().is_ok()))
    }

    /// Waits until a signal arrives, `event` becomes readable or the instant is reached. Returns
    /// the signal's name. It may return early.
    pub(crate) fn wait(
        &self,
        event: Option<BorrowedFd<'_>>,
        until_boot_ms: u64,
    ) -> Option<&'static str> {
        fence_client::wait(
            self.0.as_ref().map(AsFd::as_fd).into_iter().chain(event),
            until_boot_ms,
        );
        self.pending()
    }

    fn pending(&self) -> Option<&'static str> {
        let info = self.0.as_ref()?.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Signal::try_from(number).ok().map(Signal::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn a_signal_ends_the_wait_and_not_the_process() {
        let signals = Signals::take_over();
        raise(Signal::SIGTERM).unwrap();

        assert_eq!(signals.wait(None, u64::MAX), Some("SIGTERM"));
        assert_eq!(signals.wait(None, 0), None);
    }

    #[test]
    fn an_event_ends_the_wait() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"x").unwrap();

        assert_eq!(Signals(None).wait(Some(reader.as_fd()), u64::MAX), None);
    }
}
