//! A file that we wrote and keep open, and the events on it.
//!
//! Whoever takes or removes the file shows by that what became of it. The watch is on the file and
//! not on a directory, whose watch costs more the more files lie there. Waiting is the caller's.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

#[derive(Debug)]
pub(crate) struct Watched {
    /// Open for as long as we wait: a lock on it stays, and its removal shows as `IN_ATTRIB`.
    _file: File,
    inotify: Option<Inotify>,
}

impl Watched {
    /// `start` is [`watch`], but in a test.
    pub(crate) fn new(file: File, start: fn(&File) -> nix::Result<Inotify>) -> Self {
        // A user has 128 instances: whoever comes later looks from time to time instead.
        let inotify = start(&file).ok();
        Watched { _file: file, inotify }
    }

    pub(crate) fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn drain(&self) {
        if let Some(inotify) = &self.inotify {
            while inotify.read_events().is_ok() {}
        }
    }
}

/// Watches `file` under whatever name it has or will have.
pub(crate) fn watch(file: &File) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events =
        AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str(), events)?;
    Ok(inotify)
}
