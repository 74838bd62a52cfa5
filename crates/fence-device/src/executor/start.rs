//! The start of a program, in a separate thread.
//!
//! The start of a program opens its file, and hangs if the file's server does not respond. Only the
//! thread that starts the program waits for this. The process that will become the program is a
//! child by then, and can be killed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::spawn::{Started, spawn};
use super::{Command, RunOutcome};

/// The stack of a thread that starts a program, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// A program that is being started.
#[derive(Debug)]
pub(super) struct Start {
    /// Readable when the start is over.
    over: Arc<EventFd>,
    thread: JoinHandle<Result<Started, RunOutcome>>,
}

impl Start {
    /// Begins to start the program of `command`.
    pub(super) fn begin(command: Command, null: Arc<File>) -> io::Result<Self> {
        let over = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let tell = Arc::clone(&over);
        let start = move || {
            let result = spawn(&command, &null);
            // A counter that is 0 has room.
            let _ = tell.write(1);
            result
        };
        let thread = thread::Builder::new().name("start".to_owned()).stack_size(STACK_BYTES);
        Ok(Start { over, thread: thread.spawn(start)? })
    }

    /// Readable when the start is over.
    pub(super) fn wait_fd(&self) -> BorrowedFd<'_> {
        self.over.as_fd()
    }

    /// The result of the start, or the start itself if it is not over.
    pub(super) fn take(self) -> Result<Result<Started, RunOutcome>, Self> {
        if self.over.read().is_err() {
            return Err(self);
        }
        // A thread that panicked may have started the program.
        Ok(self.thread.join().unwrap_or(Err(RunOutcome::ExecutorLost)))
    }
}
