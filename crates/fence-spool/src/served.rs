//! The directories that a watcher serves, in the text of its lock.
//!
//! One line for each directory: `responses DEVICE INODE PATH`. Device and inode come first, because
//! one directory can have several paths. The path is for people, and for a directory that was
//! removed and created again.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::SpoolError;
use crate::dir::Dir;

/// The directories other than the directory of requests, which has the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    purpose: String,
    identity: (u64, u64),
    path: PathBuf,
}

/// The purposes of directories, as the lines name them.
const RESPONSES: &str = "responses";
const QUERIES: &str = "queries";

impl Served {
    /// These directories, without one that cannot be examined or whose path has a line end.
    pub(crate) fn of(responses: &Dir, queries: &Dir) -> Self {
        let place = |(purpose, dir): (&str, &Dir)| {
            let identity = dir.identity().ok()?;
            let path = dir.path().to_owned();
            let is_line = !path.as_os_str().as_bytes().contains(&b'\n');
            is_line.then(|| Place { purpose: purpose.to_owned(), identity, path })
        };
        let places = [(RESPONSES, responses), (QUERIES, queries)].into_iter().filter_map(place);
        Served { places: places.collect() }
    }

    /// The text of the lock of the watcher `pid`.
    pub(crate) fn to_text(&self, pid: u32) -> Vec<u8> {
        let mut text = format!("{pid}\n").into_bytes();
        for Place { purpose, identity: (device, inode), path } in &self.places {
            text.extend_from_slice(format!("{purpose} {device} {inode} ").as_bytes());
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        text
    }

    /// Reads the text of a lock. `None` if it names no directory. A line without its end is still
    /// being written.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let lines = text.split_inclusive(|byte| *byte == b'\n').skip(1);
        let places: Vec<Place> =
            lines.filter_map(|line| Place::parse(line.strip_suffix(b"\n")?)).collect();
        (!places.is_empty()).then_some(Served { places })
    }

    /// The watcher's directory of answers, if it is not `ours`.
    pub(crate) fn other_responses(&self, ours: &Dir) -> Result<Option<&Path>, SpoolError> {
        self.other(RESPONSES, ours)
    }

    /// The watcher's directory of queries, if it is not `ours`.
    pub(crate) fn other_queries(&self, ours: &Dir) -> Result<Option<&Path>, SpoolError> {
        self.other(QUERIES, ours)
    }

    fn other(&self, purpose: &str, ours: &Dir) -> Result<Option<&Path>, SpoolError> {
        let Some(place) = self.places.iter().find(|place| place.purpose == purpose) else {
            return Ok(None);
        };
        if place.identity == ours.identity()? {
            return Ok(None);
        }
        // The directory was created again, or is visible through another mount.
        let is_ours = Dir::open(&place.path).is_ok_and(|now| now.is_same(ours).unwrap_or(false));
        Ok(if is_ours { None } else { Some(&place.path) })
    }
}

impl Place {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok();
        let (purpose, device, inode) = (word()?.to_owned(), word()?, word()?);
        let identity = (device.parse().ok()?, inode.parse().ok()?);
        let path = PathBuf::from(OsStr::from_bytes(words.next()?));
        Some(Place { purpose, identity, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_served_is_read_again_and_compared_by_the_directory_itself() {
        let scratch = Scratch::new();
        let dir = |name: &str| Dir::create(&scratch.join(name)).unwrap();
        let (responses, queries, other) = (dir("a b"), dir("q"), dir("other"));
        let served = Served::of(&responses, &queries);
        let text = served.to_text(7);

        assert!(text.starts_with(b"7\nresponses "));
        assert_eq!(Served::parse(&text), Some(served.clone()));
        symlink(scratch.join("a b"), scratch.join("link")).unwrap();
        for same in ["a b", "link"] {
            let ours = Dir::open(&scratch.join(same)).unwrap();
            assert_eq!(served.other_responses(&ours).unwrap(), None, "{same}");
        }
        assert_eq!(served.other_responses(&other).unwrap(), Some(&*scratch.join("a b")));
        assert_eq!(served.other_queries(&other).unwrap(), Some(&*scratch.join("q")));
        assert_eq!(served.other_queries(&queries).unwrap(), None);

        fs::rename(scratch.join("a b"), scratch.join("old")).unwrap();
        let made_again = dir("a b");
        assert_eq!(served.other_responses(&made_again).unwrap(), None);
    }

    #[test]
    fn a_text_that_says_nothing_of_directories_or_is_half_written_is_none() {
        for text in ["", "7", "7\n", "7\nresponses 1 2 /a", "7\nresponses 1 /a\n", "7\nx\n"] {
            assert_eq!(Served::parse(text.as_bytes()), None, "{text:?}");
        }
        assert!(Served::parse(b"7\nresponses 1 2 /a\nlater 3 4 /b\nfurther\n").is_some());
    }
}
