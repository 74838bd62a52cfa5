//! Reading a file of another writer.
//!
//! It may be a link to a secret, a FIFO that blocks, a device, a file of another user, or a file of
//! 100 MB. This module examines it before and after it opens it, and reads up to a limit.
//! `fence-protocol` gives the content its meaning.

use fence_protocol::RECORD_BYTES_MAX;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat};
use std::fs::File;
use std::io::{self, Read};

use crate::SpoolError;
use crate::dir::Dir;
use crate::place::{WRITABLE_BY_OTHERS, is_trusted_owner, kind, permissions};

/// The file under a record's name.
#[derive(Debug)]
pub enum Sight {
    /// There is no such file.
    Gone,
    /// Why the file was not read: it is not a regular file, or another user than root and ours can
    /// have written it.
    Untrusted(String),
    /// The file has this many bytes, and was not read.
    TooLarge(u64),
    /// The file could not be read, for a reason that may pass.
    Failed(SpoolError),
    /// The whole file was read.
    Content {
        /// Its content.
        bytes: Vec<u8>,
        /// Its identity and its age.
        facts: Facts,
    },
}

/// The identity of a file that was read, and the time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The device that has it.
    pub dev: u64,
    /// Its inode on the device.
    pub ino: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The time of its last change, in milliseconds since 1970 by the wall clock.
    pub mtime_ms: i64,
}

/// Why a file was not opened.
pub(crate) enum OpenRefusal {
    /// It exists, and is not trusted.
    Untrusted(SpoolError),
    /// The system refused.
    System(Errno),
}

impl OpenRefusal {
    /// The error of the refused `operation` with `name` in `dir`.
    pub(crate) fn into_error(self, dir: &Dir, operation: &'static str, name: &str) -> SpoolError {
        match self {
            OpenRefusal::Untrusted(error) => error,
            OpenRefusal::System(errno) => dir.error(operation, name, errno),
        }
    }
}

/// Reads `name`. Also returns the open file if it is trusted.
pub(crate) fn inspect(dir: &Dir, name: &str) -> (Sight, Option<File>) {
    match open(dir, name, OFlag::O_RDONLY) {
        Ok(file) => (read(dir, name, &file), Some(file)),
        Err(OpenRefusal::Untrusted(error)) => (Sight::Untrusted(error.to_string()), None),
        Err(OpenRefusal::System(Errno::ENOENT)) => (Sight::Gone, None),
        Err(OpenRefusal::System(errno)) => (Sight::Failed(dir.error("read", name, errno)), None),
    }
}

/// The same for a file that was opened before it was moved to `name`, so that reading it needs no
/// new descriptor. If `name` is another file by now, that file is read.
pub(crate) fn inspect_open(dir: &Dir, name: &str, before: Option<File>) -> (Sight, Option<File>) {
    let identity = |stat: &FileStat| (stat.st_dev, stat.st_ino);
    if let Some(file) = before
        && let (Ok(there), Ok(open)) = (dir.stat(name), fstat(&file))
        && identity(&there) == identity(&open)
        && distrust(&open).is_none()
    {
        return (read(dir, name, &file), Some(file));
    }
    inspect(dir, name)
}

/// Opens `name` if it is a regular file that only root and our user can have written.
pub(crate) fn open(dir: &Dir, name: &str, flags: OFlag) -> Result<File, OpenRefusal> {
    let check = |stat: &FileStat| match distrust(stat) {
        Some(reason) => {
            Err(OpenRefusal::Untrusted(dir.error("trust", name, io::Error::other(reason))))
        }
        None => Ok(()),
    };
    match dir.stat(name) {
        // Examined before it is opened: opening a device can already have an effect.
        Ok(stat) => check(&stat)?,
        Err(Errno::ENOENT) if flags.contains(OFlag::O_CREAT) => {}
        Err(errno) => return Err(OpenRefusal::System(errno)),
    }
    let file = dir.file(name, flags).map_err(OpenRefusal::System)?;
    check(&fstat(&file).map_err(OpenRefusal::System)?)?;
    Ok(file)
}

/// The time of the last change in milliseconds since 1970.
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
    let mut bytes = Vec::with_capacity(usize::try_from(size(&stat)).unwrap_or(0) + 1);
    // One byte more than allowed, because the file may be growing.
    match file.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Err(error) => Sight::Failed(dir.error("read", name, error)),
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

fn distrust(stat: &FileStat) -> Option<String> {
    let what = match kind(stat) {
        SFlag::S_IFREG => None,
        SFlag::S_IFLNK => Some("a link"),
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFIFO => Some("a FIFO"),
        SFlag::S_IFSOCK => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(what) = what {
        return Some(format!("it is {what}, not a regular file"));
    }
    if !is_trusted_owner(stat.st_uid) {
        return Some(format!("it belongs to user {}, not to root", stat.st_uid));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Some(format!("others can write to it (mode {:04o})", permissions(stat)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scratch, each_untrusted, write};

    #[test]
    fn what_is_no_file_of_ours_is_never_opened() {
        let scratch = Scratch::new();
        let dir = Dir::open(&scratch.join("")).unwrap();

        each_untrusted(&scratch.join("n.json"), |word| {
            let (sight, file) = inspect(&dir, "n.json");
            let Sight::Untrusted(reason) = sight else { panic!("{word}: {sight:?}") };
            assert!(reason.contains(word), "{reason}");
            assert!(reason.contains(scratch.join("n.json").to_str().unwrap()), "{reason}");
            assert!(file.is_none(), "{word}");
        });
        assert!(matches!(inspect(&dir, "n.json").0, Sight::Gone));
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_not_beyond() {
        let scratch = Scratch::new();
        let dir = Dir::open(&scratch.join("")).unwrap();
        let path = scratch.join("n.json");
        write(&path, b"");
        let file = File::options().write(true).open(&path).unwrap();

        for (length, is_read) in [
            (0, true),
            (RECORD_BYTES_MAX, true),
            (RECORD_BYTES_MAX + 1, false),
            (100 * 1024 * 1024, false),
            (1 << 40, false),
        ] {
            file.set_len(length).unwrap();
            match inspect(&dir, "n.json").0 {
                Sight::Content { bytes, facts } => {
                    assert!(is_read, "{length}");
                    assert_eq!((bytes.len() as u64, facts.size), (length, length));
                }
                Sight::TooLarge(size) => assert_eq!((is_read, size), (false, length)),
                other => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn facts_tell_one_file_from_another_and_when_it_was_written() {
        use std::os::unix::fs::MetadataExt;
        let scratch = Scratch::new();
        let dir = Dir::open(&scratch.join("")).unwrap();
        let path = scratch.join("n.json");
        write(&path, b"{}");
        let written = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_800_000_000_123);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(written).unwrap();
        let expected = file.metadata().unwrap();

        let (Sight::Content { facts, .. }, _) = inspect(&dir, "n.json") else { panic!() };

        assert_eq!((facts.dev, facts.ino), (expected.dev(), expected.ino()));
        assert_eq!((facts.size, facts.mtime_ms), (2, 1_800_000_000_123));
    }
}
