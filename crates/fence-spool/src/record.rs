//! Reading a file that somebody else has put there.
//!
//! It may be anything: a link to a secret, a FIFO that blocks, a device, a file of another user, a
//! file of 100 MB. It is looked at before it is opened and again when it is open, and read only up to
//! a limit. What the content means is `fence-protocol`'s.

use fence_protocol::RECORD_BYTES_MAX;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, fstat};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::SpoolError;
use crate::dir::Dir;
use crate::place::{is_trusted_owner, kind, permissions};

/// What lies under a record's name.
#[derive(Debug)]
pub enum Sight {
    /// Nothing.
    Gone,
    /// Something that is not read, and why not: no regular file, or one that somebody besides root
    /// and us can have written.
    Untrusted(String),
    /// A file of so many bytes, which is not read.
    TooLarge(u64),
    /// A file that we may read but could not, for a reason that may pass.
    Failed(SpoolError),
    /// A file, read whole.
    Content {
        /// What it holds.
        bytes: Vec<u8>,
        /// Which file it is.
        facts: Facts,
    },
}

/// Which file was read, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The device that it lies on.
    pub dev: u64,
    /// Its inode there.
    pub ino: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, in milliseconds since 1970 by the wall clock.
    pub mtime_ms: i64,
}

/// Reads `name`, and gives the open file as well when it is one that we trust.
pub(crate) fn inspect(dir: &Dir, name: &str) -> (Sight, Option<File>) {
    let file = match open(dir, name) {
        Ok(file) => file,
        Err(sight) => return (sight, None),
    };
    (read(dir, name, &file), Some(file))
}

/// Opens `name` for reading if it is a regular file that nobody besides root and us can have written.
pub(crate) fn open(dir: &Dir, name: &str) -> Result<File, Sight> {
    let failed = |errno| match errno {
        Errno::ENOENT => Sight::Gone,
        // It has become a link since it was looked at.
        Errno::ELOOP => Sight::Untrusted(format!("'{}' is a link", dir.join(name).display())),
        _ => Sight::Failed(dir.error("read", name, errno)),
    };
    let check = |stat: &FileStat| match distrust(&dir.join(name), stat) {
        Some(reason) => Err(Sight::Untrusted(reason)),
        None => Ok(()),
    };
    check(&dir.stat(name).map_err(failed)?)?;
    let file = dir.file(name, OFlag::O_RDONLY).map_err(failed)?;
    check(&fstat(&file).map_err(failed)?)?;
    Ok(file)
}

/// The time of the last writing in milliseconds since 1970.
pub(crate) fn mtime_ms(stat: &FileStat) -> i64 {
    stat.st_mtime.saturating_mul(1000).saturating_add(stat.st_mtime_nsec / 1_000_000)
}

/// The size in bytes.
pub(crate) fn size(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn read(dir: &Dir, name: &str, file: &File) -> Sight {
    let stat = match fstat(file) {
        Ok(stat) => stat,
        Err(errno) => return Sight::Failed(dir.error("examine", name, errno)),
    };
    if size(&stat) > RECORD_BYTES_MAX {
        return Sight::TooLarge(size(&stat));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, because the file may be growing.
    match file.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Err(source) => {
            Sight::Failed(SpoolError::Io { operation: "read", path: dir.join(name), source })
        }
        Ok(_) if bytes.len() as u64 > RECORD_BYTES_MAX => Sight::TooLarge(bytes.len() as u64),
        Ok(_) => {
            let facts = Facts {
                dev: stat.st_dev,
                ino: stat.st_ino,
                size: size(&stat),
                mtime_ms: mtime_ms(&stat),
            };
            Sight::Content { bytes, facts }
        }
    }
}

fn distrust(path: &Path, stat: &FileStat) -> Option<String> {
    let path = path.display();
    let what = match kind(stat) {
        SFlag::S_IFREG => None,
        SFlag::S_IFLNK => Some("a link"),
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFIFO => Some("a FIFO"),
        SFlag::S_IFSOCK => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(what) = what {
        return Some(format!("'{path}' is {what}, not a regular file"));
    }
    if !is_trusted_owner(stat.st_uid) {
        return Some(format!("'{path}' belongs to user {}, not to root", stat.st_uid));
    }
    if stat.st_mode & (libc::S_IWGRP | libc::S_IWOTH) != 0 {
        return Some(format!("others can write to '{path}' (mode {:04o})", permissions(stat)));
    }
    None
}
