//! The sign that a watcher lives, which does not depend on a file.
//!
//! A lock file can be removed while a watcher holds its lock; a second watcher would create the
//! file again and lock it. So a watcher also locks directories of the spool, with a shared lock of
//! the open file description. Others can examine such a lock without taking it, and it ends with
//! its process. It hinders nobody, because shared locks do not exclude each other. A process that
//! wants to be the watcher looks for the signs of others.
//!
//! The directories are the directory of requests, the directory of claims, and their parent. The
//! name of the directory of requests decides which byte of the parent is locked: so a spool that is
//! removed and created again is still known as served. A directory that others can open carries no
//! sign: anybody could lock it, and prevent the watcher's start.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::fstat;
use std::os::fd::OwnedFd;

use crate::SpoolError;
use crate::dir::Dir;

/// A sign, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sign {
    _places: Vec<Place>,
}

/// One byte of one directory, through a separate open file description.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    offset: libc::off_t,
}

/// Whether another process serves the spool of these requests.
pub(crate) fn is_set(requests: &Dir) -> Result<bool, SpoolError> {
    is_set_at(requests, &places(requests)?)
}

/// Sets the sign; `None`, without a sign, if another process has set it.
pub(crate) fn set(requests: &Dir) -> Result<Option<Sign>, SpoolError> {
    let places = places(requests)?;
    let mut signed = Vec::new();
    for place in places {
        match fcntl(&place.directory, FcntlArg::F_OFD_SETLK(&place.byte(libc::F_RDLCK))) {
            Ok(_) => signed.push(place),
            // A file system without such locks carries no sign.
            Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            Err(errno) => return Err(requests.error("lock", ".", errno)),
        }
    }
    // Of two processes that set it at the same moment, none continues.
    Ok((!is_set_at(requests, &signed)?).then_some(Sign { _places: signed }))
}

impl Place {
    fn byte(&self, kind: libc::c_int) -> libc::flock {
        range(kind, self.offset, 1)
    }
}

/// A lock of this kind on `len` bytes from `start` on; 0 means all bytes to the end.
#[expect(clippy::cast_possible_truncation, reason = "the constants are 0 to 2")]
pub(crate) fn range(kind: libc::c_int, start: libc::off_t, len: libc::off_t) -> libc::flock {
    let (l_type, l_whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type, l_whence, l_start: start, l_len: len, l_pid: 0 }
}

fn is_set_at(requests: &Dir, places: &[Place]) -> Result<bool, SpoolError> {
    for place in places {
        // Asks which lock would block an exclusive lock. Our own locks do not count.
        let mut byte = place.byte(libc::F_WRLCK);
        match fcntl(&place.directory, FcntlArg::F_OFD_GETLK(&mut byte)) {
            Ok(_) if i32::from(byte.l_type) != libc::F_UNLCK => return Ok(true),
            Ok(_) | Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            Err(errno) => return Err(requests.error("examine the lock of", ".", errno)),
        }
    }
    Ok(false)
}

/// The places at which the sign is set, and looked for.
fn places(requests: &Dir) -> Result<Vec<Place>, SpoolError> {
    let above = offset_above(requests);
    let mut places = Vec::new();
    for (name, offset) in [(".", 0), (".claimed", 0), ("..", above)] {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let private = match requests.stat(name) {
            Ok(stat) => stat.st_mode & (libc::S_IRGRP | libc::S_IROTH) == 0,
            Err(Errno::ENOENT) => false,
            Err(errno) => return Err(requests.error("examine", name, errno)),
        };
        if !private {
            continue;
        }
        match requests.file(name, flags) {
            Ok(directory) => {
                let directory = OwnedFd::from(directory);
                // The directory may have been replaced since.
                let stat = fstat(&directory).map_err(|e| requests.error("examine", name, e))?;
                if stat.st_mode & (libc::S_IRGRP | libc::S_IROTH) == 0 {
                    places.push(Place { directory, offset });
                }
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => {}
            Err(errno) => return Err(requests.error("open", name, errno)),
        }
    }
    Ok(places)
}

/// The byte of the parent directory for this directory of requests: two spools in one parent have
/// two bytes.
fn offset_above(requests: &Dir) -> libc::off_t {
    let path = requests.join("");
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    // FNV-1a: the same in every version of the program.
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Byte 0 is for a spool whose directory of requests is the parent itself.
    libc::off_t::try_from(hash >> 2).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pair, Scratch, set_mode};
    use std::fs;

    #[test]
    fn a_sign_is_seen_by_others_as_long_as_it_lasts_and_set_by_one_alone() {
        let pair = Pair::new();
        let requests = &pair.watcher.requests;
        assert!(!is_set(requests).unwrap());

        let sign = set(requests).unwrap().unwrap();

        assert!(is_set(requests).unwrap());
        assert!(set(requests).unwrap().is_none());
        assert!(is_set(requests).unwrap(), "the attempt takes nothing away");
        drop(sign);
        assert!(!is_set(requests).unwrap());
        assert!(set(requests).unwrap().is_some());
    }

    #[test]
    fn a_spool_that_was_made_anew_is_still_known_as_served() {
        let pair = Pair::new();
        set_mode(pair.places.requests.parent().unwrap(), 0o700);
        let _sign = set(&pair.watcher.requests).unwrap().unwrap();
        assert_eq!(places(&pair.watcher.requests).unwrap().len(), 3);

        fs::remove_dir_all(&pair.places.requests).unwrap();
        let made = Dir::create(&pair.places.requests).unwrap();
        assert!(is_set(&made).unwrap());

        let beside = Dir::create(&pair.places.requests.with_file_name("others")).unwrap();
        assert!(!is_set(&beside).unwrap(), "another spool beside it");
    }

    #[test]
    fn a_directory_that_others_can_open_carries_no_sign() {
        let scratch = Scratch::new();
        let make = |name: &str, mode| {
            let dir = Dir::create(&scratch.join(name)).unwrap();
            set_mode(&scratch.join(name), mode);
            dir
        };
        let above = make("above", 0o755);
        let requests = make("above/requests", 0o750);
        // A stranger who can open them locks whatever there is.
        let others = [&above, &requests]
            .map(|dir| dir.file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).unwrap());
        for other in &others {
            let place = Place { directory: other.try_clone().unwrap().into(), offset: 0 };
            let all = libc::flock { l_len: 0, ..place.byte(libc::F_RDLCK) };
            fcntl(other, FcntlArg::F_OFD_SETLK(&all)).unwrap();
        }
        assert!(!is_set(&requests).unwrap());

        let claimed = make("above/requests/.claimed", 0o700);
        let _sign = set(&requests).unwrap().unwrap();
        assert!(is_set(&requests).unwrap(), "by what lies in '{}'", claimed.join("").display());
    }
}
