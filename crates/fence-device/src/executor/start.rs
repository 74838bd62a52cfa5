//! The starts of programs, each in a thread of its own.
//!
//! Starting a program opens its file, and that hangs where the file's server does not answer. Nobody
//! but the thread that starts it waits for that. The process that is to become the program exists by
//! then: it bears the thread's name until it has become the program, which is how it is found when it
//! is to be killed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::spawn::{Started, spawn};
use super::{Command, Outcome};

/// The stack of a thread that starts a program, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// What came of the start of job number so-and-so.
type Start = (u64, Result<Started, Outcome>);

#[derive(Debug)]
pub(super) struct Starter {
    shared: Arc<Shared>,
    sender: Sender<Start>,
    starts: Receiver<Start>,
}

#[derive(Debug)]
struct Shared {
    null: File,
    /// Readable when a start is over.
    over: EventFd,
    is_closed: AtomicBool,
    /// How many threads may have a process that is not a program yet.
    under_way: AtomicUsize,
}

impl Starter {
    pub(super) fn new() -> io::Result<Self> {
        let (sender, starts) = channel();
        let shared = Shared {
            null: File::open("/dev/null")?,
            over: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            is_closed: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
        };
        Ok(Starter { shared: Arc::new(shared), sender, starts })
    }

    /// Becomes readable when a start is over.
    pub(super) fn wait_fd(&self) -> BorrowedFd<'_> {
        self.shared.over.as_fd()
    }

    /// Starts the program of job `id`, some time later.
    pub(super) fn begin(&self, id: u64, command: Command) {
        let (shared, sender) = (Arc::clone(&self.shared), self.sender.clone());
        let start = move || {
            // The receiver is gone only when the process is about to end.
            let _ = sender.send((id, shared.start(&command)));
            let _ = shared.over.write(1);
        };
        let thread = thread::Builder::new().name(name(id)).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(start) {
            let outcome = Outcome::NotStarted(format!("cannot start a thread: {error}"));
            let _ = self.sender.send((id, Err(outcome)));
            let _ = self.shared.over.write(1);
        }
    }

    /// The next start that is over.
    pub(super) fn next(&self) -> Option<Start> {
        // Read first: what comes between the two is announced again.
        let _ = self.shared.over.read();
        self.starts.try_recv().ok()
    }

    /// From now on no process is made any more.
    pub(super) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
    }

    /// Whether no process is being made.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.under_way.load(Ordering::SeqCst) == 0
    }
}

impl Shared {
    fn start(&self, command: &Command) -> Result<Started, Outcome> {
        // Counted before the look: whoever closes sees it, or it sees that it is closed.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let result = if self.is_closed.load(Ordering::SeqCst) {
            Err(Outcome::NotStarted("the executor is about to end".to_owned()))
        } else {
            spawn(command, &self.null)
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

/// The name of the thread that starts job `id`, at most 15 bytes.
pub(super) fn name(id: u64) -> String {
    format!("start {id:x}")
}
