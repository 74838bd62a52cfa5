//! A file that we wrote and keep open, and the events on it.
//!
//! Whoever takes or removes the file shows by that what became of it. The watch is on the file and
//! not on a directory, whose watch costs more the more files lie there. Waiting is the caller's.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

#[derive(Debug)]
pub(crate) struct Watched {
    /// Open for as long as we wait: a lock on it stays, and its removal shows as `IN_ATTRIB`.
    file: File,
    watch: Option<Watch>,
}

/// An inotify instance, and its one watch.
pub(crate) type Watch = (Inotify, WatchDescriptor);

impl Watched {
    /// `start` is [`watch`], but in a test.
    pub(crate) fn new(file: File, start: fn(&File) -> nix::Result<Watch>) -> Self {
        // A user has 128 instances: whoever comes later looks from time to time instead.
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

    /// Ends the watching. Closing an instance that still watches takes the kernel some 15 ms; after
    /// this, and a moment later, it takes none.
    pub(crate) fn unwatch(&self) {
        if let Some((inotify, watch)) = &self.watch {
            // A watch that is gone with its file is as good as removed.
            let _ = inotify.rm_watch(*watch);
        }
    }
}

/// Watches `file` under whatever name it has or will have.
pub(crate) fn watch(file: &File) -> nix::Result<Watch> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events =
        AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let watch = inotify.add_watch(path.as_str(), events)?;
    Ok((inotify, watch))
}
