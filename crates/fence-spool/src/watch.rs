//! A file that we wrote and keep open, and its events.
//!
//! A claim or a removal of the file is an event. The watch is on the file, because the cost of a
//! watch on a directory grows with the number of its files. The caller waits.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

#[derive(Debug)]
pub(crate) struct Watched {
    /// Open during the wait: so its lock stays, and its removal is reported as `IN_ATTRIB`.
    file: File,
    watch: Option<Watch>,
}

/// An inotify instance, and its one watch.
pub(crate) type Watch = (Inotify, WatchDescriptor);

impl Watched {
    /// `start` is [`watch`], except in a test.
    pub(crate) fn new(file: File, start: fn(&File) -> nix::Result<Watch>) -> Self {
        // A user has 128 instances: a process without one looks from time to time instead.
        let watch = start(&file).ok();
        Watched { file, watch }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|(inotify, _)| inotify.as_fd())
    }

    pub(crate) fn drain(&self) {
        if let Some((inotify, _)) = &self.watch {
            while inotify.read_events().is_ok() {}
        }
    }

    /// Removes the watch. The kernel needs about 15 ms to close an instance that still has a watch,
    /// and no time if the watch was removed a moment before.
    pub(crate) fn unwatch(&self) {
        if let Some((inotify, watch)) = &self.watch {
            // A watch that is gone with its file needs no removal.
            let _ = inotify.rm_watch(*watch);
        }
    }
}

/// Watches `file`, whatever name it has or gets.
pub(crate) fn watch(file: &File) -> nix::Result<Watch> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events =
        AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let watch = inotify.add_watch(path.as_str(), events)?;
    Ok((inotify, watch))
}
