//! One open directory of the spool, and the system calls on the names in it.
//!
//! Each call goes through the directory's descriptor, never through its path: the directory that
//! was checked is the directory that is used. `client` and `watcher` give the calls their meaning.

use fence_protocol::RequestId;
use nix::dir::Dir as Listing;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, linkat, unlinkat};
use rustix::fs::{RenameFlags, renameat_with};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::{PlaceError, SpoolError, create_dir, open_dir};

#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(crate) fn open(path: &Path) -> Result<Self, PlaceError> {
        Ok(Dir { fd: open_dir(path)?, path: path.to_owned() })
    }

    pub(crate) fn create(path: &Path) -> Result<Self, PlaceError> {
        Ok(Dir { fd: create_dir(path)?, path: path.to_owned() })
    }

    /// Whether the path still leads to this very directory.
    pub(crate) fn is_current(&self) -> bool {
        match Dir::open(&self.path) {
            // No new directory gets the inode while this one is open, so equality is identity.
            Ok(now) => now.is_same(self).unwrap_or(false),
            // A failure that may pass, such as too many open files, says nothing about the path.
            Err(PlaceError::Io { .. }) => true,
            Err(_) => false,
        }
    }

    /// The directory to which the path leads now, if it is another one.
    pub(crate) fn moved(&self) -> Result<Option<Dir>, SpoolError> {
        let now = Dir::open(&self.path)?;
        Ok(if self.is_same(&now)? { None } else { Some(now) })
    }

    /// Whether both are the same directory.
    pub(crate) fn is_same(&self, other: &Dir) -> Result<bool, SpoolError> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> Result<(u64, u64), SpoolError> {
        match fstat(&self.fd) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino)),
            Err(errno) => Err(self.own_error("examine", errno)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn error(
        &self,
        operation: &'static str,
        name: &str,
        source: impl Into<io::Error>,
    ) -> SpoolError {
        SpoolError::Io { operation, path: self.join(name), source: source.into() }
    }

    fn own_error(&self, operation: &'static str, errno: Errno) -> SpoolError {
        SpoolError::Io { operation, path: self.path.clone(), source: errno.into() }
    }

    /// Opens `name` itself: follows no link and does not wait.
    pub(crate) fn file(&self, name: &str, flags: OFlag) -> nix::Result<File> {
        let always = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags | always, RECORD_MODE).map(File::from)
    }

    /// Describes `name` itself, even if it is a link.
    pub(crate) fn stat(&self, name: &str) -> nix::Result<FileStat> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Whether the directory has an entry `name`.
    pub(crate) fn has(&self, name: &str) -> Result<bool, SpoolError> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.error("examine", name, errno)),
        }
    }

    /// Whether the directory certainly has no entry `name`.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.stat(name) == Err(Errno::ENOENT)
    }

    /// Removes the file `name`; false if it does not exist.
    pub(crate) fn unlink(&self, name: &str) -> Result<bool, SpoolError> {
        self.remove(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes the empty directory `name`; false if it does not exist.
    pub(crate) fn remove_dir(&self, name: &str) -> Result<bool, SpoolError> {
        self.remove(name, UnlinkatFlags::RemoveDir)
    }

    fn remove(&self, name: &str, flags: UnlinkatFlags) -> Result<bool, SpoolError> {
        match unlinkat(&self.fd, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    /// Renames `name` to `to_name` in `to`; fails if that name exists.
    pub(crate) fn rename(&self, name: &str, to: &Dir, to_name: &str) -> nix::Result<()> {
        // The `renameat2` of nix is for glibc only.
        renameat_with(&self.fd, name, &to.fd, to_name, RenameFlags::NOREPLACE)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    }

    /// The error of a [`Dir::rename`] of `name` that was a part of `operation`.
    pub(crate) fn rename_error(
        &self,
        operation: &'static str,
        name: &str,
        errno: Errno,
    ) -> SpoolError {
        match errno {
            // The errors of a file system that does not know the flag, such as NFS and some FUSE.
            Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP => {
                SpoolError::NoExclusiveRename(self.path.clone())
            }
            errno => self.error(operation, name, errno),
        }
    }

    /// Renames a new hidden file, and fails if the file system can never rename so. A failure that
    /// may pass, such as a full disk, shows nothing.
    pub(crate) fn try_rename(&self) -> Result<(), SpoolError> {
        // If this process is killed meanwhile, the next one removes them.
        let (before, after) = (".try.tmp", ".tried.tmp");
        let remove = || self.unlink(before).and_then(|_| self.unlink(after));
        if remove().and_then(|_| self.write_new(before, b"")).is_err() {
            return Ok(());
        }
        let renamed = self.rename(before, self, after);
        let _ = remove();
        match renamed.map_err(|errno| self.rename_error("rename", before, errno)) {
            Err(error @ SpoolError::NoExclusiveRename { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes a hidden file of this many bytes and removes it. Concurrent callers do not disturb
    /// each other.
    pub(crate) fn try_writing(&self, bytes: usize) -> Result<(), SpoolError> {
        // If this process is killed meanwhile, pruning removes the file.
        let name = format!(".{}.tmp", RequestId::random());
        drop(self.write_new(&name, &vec![b' '; bytes])?);
        self.unlink(&name).map(drop)
    }

    /// Links the file `name` under the same name in `to`; fails if that name exists.
    pub(crate) fn link(&self, name: &str, to: &Dir) -> nix::Result<()> {
        linkat(&self.fd, name, &to.fd, name, AtFlags::empty())
    }

    /// Links the file `name` as `to_name`; fails if that name exists.
    pub(crate) fn link_as(&self, name: &str, to_name: &str) -> nix::Result<()> {
        linkat(&self.fd, name, &self.fd, to_name, AtFlags::empty())
    }

    /// Makes names and removals durable.
    pub(crate) fn sync(&self) -> Result<(), SpoolError> {
        fsync(&self.fd).map_err(|errno| self.own_error("sync", errno))
    }

    /// Creates `name` with `bytes` in one step; false, without a change, if `name` exists. At most
    /// one caller at a time for each name.
    pub(crate) fn put(
        &self,
        name: &str,
        temporary: &str,
        bytes: &[u8],
        durable: bool,
    ) -> Result<bool, SpoolError> {
        // Unlinked and created anew, never truncated: the old file may have another name by now.
        self.unlink(temporary)?;
        let file = self.write_new(temporary, bytes)?;
        let written = if durable { file.sync_all() } else { Ok(()) };
        let placed = written.map_err(|error| self.error("sync", name, error)).and_then(|()| {
            match self.rename(temporary, self, name) {
                Ok(()) => Ok(true),
                Err(Errno::EEXIST) => Ok(false),
                Err(errno) => Err(self.rename_error("write", name, errno)),
            }
        });
        if !matches!(placed, Ok(true)) {
            // Pruning removes a file that stays here.
            let _ = self.unlink(temporary);
        }
        if durable && placed.is_ok() {
            self.sync()?;
        }
        placed
    }

    /// Writes the new file `name`, for its owner alone. Removes an incomplete file.
    pub(crate) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<File, SpoolError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = self.file(name, flags).map_err(|errno| self.error("create", name, errno))?;
        // The umask has reduced the mode that was given to open.
        let written = fchmod(&file, RECORD_MODE)
            .map_err(Into::into)
            .and_then(|()| file.write_all(bytes))
            .map_err(|error| self.error("write", name, error));
        if written.is_err() {
            // The first error is reported; pruning removes a file that stays here.
            let _ = self.unlink(name);
        }
        written.map(|()| file)
    }

    /// The names in the directory, in no order. A name that is not UTF-8 is no record, and left
    /// out.
    pub(crate) fn names(&self) -> Result<Vec<String>, SpoolError> {
        let failed = |errno| self.own_error("list", errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listing = Listing::openat(&self.fd, ".", flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in listing {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

/// Whether `name` names a record, and not a hidden or unfinished file.
pub(crate) fn is_visible_json(name: &str) -> bool {
    !name.starts_with('.') && name.strip_suffix(".json").is_some()
}

/// Whether `name` is a name in a directory, and not a path that leads elsewhere.
pub(crate) fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

const RECORD_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
