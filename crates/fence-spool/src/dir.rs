//! One open directory of the spool, and the system calls on the names in it.
//!
//! Each call goes through the directory's descriptor, never through its path: what was checked when
//! it was opened is what is used. Which call means what is `client`'s and `watcher`'s.

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
            // No new directory gets the inode while it is open here, so equality is identity.
            Ok(now) => now.is_same(self).unwrap_or(false),
            // A failure that may pass, such as too many open files, says nothing about the path.
            Err(PlaceError::Io { .. }) => true,
            Err(_) => false,
        }
    }

    /// The directory to which the path leads by now, where that is another one.
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

    /// Opens `name` itself: no link is followed and nothing is waited for.
    pub(crate) fn file(&self, name: &str, flags: OFlag) -> nix::Result<File> {
        let always = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags | always, RECORD_MODE).map(File::from)
    }

    /// Describes `name` itself, be it a link.
    pub(crate) fn stat(&self, name: &str) -> nix::Result<FileStat> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Whether there is anything under `name`.
    pub(crate) fn has(&self, name: &str) -> Result<bool, SpoolError> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.error("examine", name, errno)),
        }
    }

    /// Whether nothing is under `name`. In doubt something is.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.stat(name) == Err(Errno::ENOENT)
    }

    /// Removes the file `name`; false when there is none.
    pub(crate) fn unlink(&self, name: &str) -> Result<bool, SpoolError> {
        self.remove(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes the empty directory `name`; false when there is none.
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

    /// Renames `name` to `to_name` in `to`, where nothing of that name may be.
    pub(crate) fn rename(&self, name: &str, to: &Dir, to_name: &str) -> nix::Result<()> {
        // The `renameat2` of nix is for glibc only.
        renameat_with(&self.fd, name, &to.fd, to_name, RenameFlags::NOREPLACE)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    }

    /// Why a [`Dir::rename`] of `name`, which was done for `operation`, failed.
    pub(crate) fn rename_error(
        &self,
        operation: &'static str,
        name: &str,
        errno: Errno,
    ) -> SpoolError {
        match errno {
            // What a file system says to a flag that it does not know; NFS and some of FUSE do.
            Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP => {
                SpoolError::NoExclusiveRename { path: self.path.clone() }
            }
            errno => self.error(operation, name, errno),
        }
    }

    /// Renames a hidden file of its own, and fails if no file can ever be renamed so. A failure
    /// that may pass, such as a full disk, shows nothing.
    pub(crate) fn try_rename(&self) -> Result<(), SpoolError> {
        // Should this process be killed in between, the next one removes them.
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

    /// Writes a hidden file of so many bytes and removes it. Several callers at once do not disturb
    /// each other.
    pub(crate) fn try_writing(&self, bytes: usize) -> Result<(), SpoolError> {
        // Should this process be killed in between, it is pruned by its age.
        let name = format!(".{}.tmp", RequestId::random());
        drop(self.write_new(&name, &vec![b' '; bytes])?);
        self.unlink(&name).map(drop)
    }

    /// Gives the file `name` the same name in `to`, where nothing of that name may be.
    pub(crate) fn link(&self, name: &str, to: &Dir) -> nix::Result<()> {
        linkat(&self.fd, name, &to.fd, name, AtFlags::empty())
    }

    /// Gives the file `name` the name `to_name` as well, where nothing of that name may be.
    pub(crate) fn link_as(&self, name: &str, to_name: &str) -> nix::Result<()> {
        linkat(&self.fd, name, &self.fd, to_name, AtFlags::empty())
    }

    /// Makes names and removals durable.
    pub(crate) fn sync(&self) -> Result<(), SpoolError> {
        fsync(&self.fd).map_err(|errno| self.own_error("sync", errno))
    }

    /// Fills `name` with `bytes` in one step; false, and nothing changed, when there already is
    /// one. One caller at a time for one name.
    pub(crate) fn put(
        &self,
        name: &str,
        temporary: &str,
        bytes: &[u8],
        durable: bool,
    ) -> Result<bool, SpoolError> {
        // Unlinked and made anew, never truncated: nothing that has another name by now is touched.
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
            // What cannot be removed is pruned by its age.
            let _ = self.unlink(temporary);
        }
        if durable && placed.is_ok() {
            self.sync()?;
        }
        placed
    }

    /// Writes the new file `name` for its owner alone. What could not be written whole is removed.
    pub(crate) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<File, SpoolError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = self.file(name, flags).map_err(|errno| self.error("create", name, errno))?;
        // The mode given to open was cut by the umask.
        let written = fchmod(&file, RECORD_MODE)
            .map_err(Into::into)
            .and_then(|()| file.write_all(bytes))
            .map_err(|error| self.error("write", name, error));
        if written.is_err() {
            // The first error is reported; a rest that stays is pruned by its age.
            let _ = self.unlink(name);
        }
        written.map(|()| file)
    }

    /// The names in the directory, in no order. A name that is not UTF-8 is nobody's record.
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

/// Whether `name` is that of a record, not of a hidden or an unfinished file.
pub(crate) fn is_visible_json(name: &str) -> bool {
    !name.starts_with('.') && name.strip_suffix(".json").is_some()
}

/// Whether `name` is a name in a directory and not a path that leads elsewhere.
pub(crate) fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

const RECORD_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
