//! One kill: the victim, and the system call at which it dies.
//!
//! strace does this: it stops the process when it enters the call and sends SIGKILL, so that the
//! call is not executed. A kill at every call of one kind is therefore a kill at every boundary
//! between two of them. The programs are those that ship, and do not know about the kill.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

/// The process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// The watcher, with requests that exist before its start. Its main thread does all work on the
    /// spool; this victim and the next count only the calls of that thread.
    Starting,
    /// The watcher, with requests that arrive when it is ready.
    Watcher,
    /// The first thread of the watcher, its executor, a keeper or a device's program that enters
    /// the call.
    Anyone,
    /// The executor, under a watcher that survives.
    Executor,
    /// A keeper or its program, under a watcher and an executor that survive.
    Keeper,
    /// An agent, with a running watcher.
    Agent,
    /// An agent whose watcher is stopped: its request must never be executed.
    UnseenAgent,
}

impl Victim {
    pub(crate) const ALL: [Self; 7] = [
        Self::Starting,
        Self::Watcher,
        Self::Anyone,
        Self::Executor,
        Self::Keeper,
        Self::Agent,
        Self::UnseenAgent,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Watcher => "watcher",
            Self::Anyone => "anyone",
            Self::Executor => "executor",
            Self::Keeper => "keeper",
            Self::Agent => "agent",
            Self::UnseenAgent => "unseen-agent",
        }
    }

    /// The calls by which it changes anything that other processes see.
    pub(crate) fn deeds(self) -> &'static [&'static str] {
        match self {
            Self::Starting | Self::Watcher => &[
                "write",
                "fsync",
                "renameat2",
                "unlinkat",
                "linkat",
                "flock",
                "fchmod",
                "mkdirat",
                "fchmodat",
                "clone3",
                "socketpair",
                "sendto",
                "inotify_add_watch",
                "ftruncate",
                "shutdown",
            ],
            Self::Anyone => {
                &["write", "sendto", "rename", "renameat2", "fsync", "clone3", "vfork", "execve"]
            }
            Self::Executor => &[
                "sendto",
                "socketpair",
                "clone3",
                "vfork",
                "epoll_ctl",
                "wait4",
                "timerfd_settime",
                "kill",
            ],
            Self::Keeper => &[
                "write",
                "sendto",
                "memfd_create",
                "pipe2",
                "clone3",
                "vfork",
                "execve",
                "wait4",
                "timerfd_settime",
            ],
            Self::Agent | Self::UnseenAgent => &[
                "write",
                "fsync",
                "renameat2",
                "unlinkat",
                "flock",
                "fchmod",
                "sendto",
                "connect",
                "inotify_add_watch",
                "inotify_rm_watch",
            ],
        }
    }
}

/// Calls that change nothing, but between which other processes may have changed something.
pub(crate) const LOOKS: &[&str] =
    &["openat", "newfstatat", "read", "close", "fcntl", "futex", "epoll_wait", "poll", "mmap"];

/// `victim:call:nth`, as it is printed and as it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) victim: Victim,
    pub(crate) call: String,
    pub(crate) nth: u32,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.victim.word(), self.call, self.nth)
    }
}

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no victim:call:number");
        let [victim, call, nth] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(wrong());
        };
        let victim = Victim::ALL.into_iter().find(|known| known.word() == victim);
        Ok(Kill {
            victim: victim.ok_or_else(wrong)?,
            call: call.to_owned(),
            nth: nth.parse().map_err(|_| wrong())?,
        })
    }
}

impl Kill {
    /// `command`, with this kill. The trace is written to `trace`.
    pub(crate) fn upon(&self, command: &Command, trace: &Path) -> Command {
        let mut traced = self.strace(trace);
        // The tracer is the grandchild: the child is the program itself, as without a tracer.
        traced.arg("-D");
        if self.victim == Victim::Anyone {
            traced.arg("-f");
        }
        traced.arg("--").arg(command.get_program()).args(command.get_args());
        traced.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                traced.env(name, value);
            }
        }
        traced
    }

    /// The command that kills the running process `pid` in this way.
    pub(crate) fn upon_process(&self, pid: &str, trace: &Path) -> Command {
        let mut traced = self.strace(trace);
        if self.victim == Victim::Keeper {
            // Another thread starts its programs.
            traced.arg("-f");
        }
        traced.args(["-p", pid]);
        traced
    }

    fn strace(&self, trace: &Path) -> Command {
        let mut traced = Command::new("strace");
        // Not every machine has every call; the question mark allows this.
        traced.arg("-q").arg("-o").arg(trace).arg("-e").arg(format!("trace=?{}", self.call));
        traced.arg("-e").arg(format!("inject=?{}:signal=SIGKILL:when={}", self.call, self.nth));
        traced
    }
}
