//! What the tests of several modules need: a spool in a directory of its own, and hostile files.

#[path = "../../../tests/common/left_out.rs"]
mod left_out;

use fence_protocol::{RecordName, RequestId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use std::fs::{self, Permissions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use self::left_out::left_out;
use crate::{ClientSpool, Places, WatcherSpool};

/// A directory of mode 0700 that goes with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("fence-spool-{}", RequestId::random()));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        set_mode(&path, 0o700);
        Scratch(path)
    }

    pub(crate) fn join(&self, part: &str) -> PathBuf {
        self.0.join(part)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Both halves on one spool.
pub(crate) struct Pair {
    pub(crate) client: ClientSpool,
    pub(crate) watcher: WatcherSpool,
    pub(crate) places: Places,
    _scratch: Scratch,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let places = Places::new(scratch.join("spool/requests"), scratch.join("spool/responses"));
        let watcher = WatcherSpool::open(&places, true).unwrap();
        let client = ClientSpool::open(&places).unwrap();
        Pair { client, watcher, places, _scratch: scratch }
    }

    pub(crate) fn request(&self, part: &str) -> PathBuf {
        self.places.requests.join(part)
    }

    pub(crate) fn response(&self, part: &str) -> PathBuf {
        self.places.responses.join(part)
    }
}

pub(crate) fn name(text: &str) -> RecordName {
    text.parse().unwrap()
}

/// Writes a file of mode 0600.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    set_mode(path, 0o600);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The permission bits of `path`.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Gives `path` to a user that is neither root nor us; false where we may not.
pub(crate) fn give_away(path: &Path) -> bool {
    let done = lchown(path, Some(65_534), None).is_ok();
    if !done {
        left_out("a file of somebody else", "only root can give a file away");
    }
    done
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Puts at `path`, one after the other, everything that must not be read as a record, and calls
/// `check` with a word that the refusal is to contain.
pub(crate) fn each_untrusted(path: &Path, mut check: impl FnMut(&str)) {
    let secret = path.with_file_name(".secret");
    write(&secret, b"{}");
    let mut refused = |word: &str| {
        check(word);
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    };
    symlink(&secret, path).unwrap();
    refused("a link");
    symlink("/nowhere/at/all", path).unwrap();
    refused("a link");
    mkfifo(path, Mode::S_IRWXU).unwrap();
    refused("a FIFO");
    fs::create_dir(path).unwrap();
    refused("a directory");
    // The path of a socket must be short.
    let socket = std::env::temp_dir().join(format!("{}.s", RequestId::random()));
    let listener = UnixListener::bind(&socket).unwrap();
    fs::rename(&socket, path).unwrap();
    refused("a socket");
    drop(listener);
    if mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).is_ok() {
        refused("a device");
    } else {
        left_out("a device", "nothing here has the right to make one");
    }
    for mode in [0o620, 0o602, 0o666] {
        write(path, b"{}");
        set_mode(path, mode);
        refused("others can write to it");
    }
    write(path, b"{}");
    if give_away(path) {
        refused("belongs to user 65534");
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// Whether an event is there within `milliseconds`.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(milliseconds)).unwrap() == 1
}
