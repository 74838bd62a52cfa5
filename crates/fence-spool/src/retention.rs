//! Keeping the watcher's directories small: files that are set aside, and old files.
//!
//! No request waits for this. The caller decides which age is old.

use fence_protocol::RequestId;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::dir::{Dir, is_plain, is_visible_json};
use crate::place::kind;
use crate::record::{mtime_ms, size};
use crate::{SpoolError, WatcherSpool};

impl WatcherSpool {
    /// Moves a pending file that is no request into `.rejected`, where people can look at it. That
    /// directory keeps the youngest 100 files and 16 MiB. A file over 1 MiB is removed instead.
    pub fn set_aside(&self, file_name: &str) -> Result<(), SpoolError> {
        if !is_plain(file_name) {
            return Err(self.requests.error("set aside", file_name, Errno::EINVAL));
        }
        // Cut, so that the new name fits into the 255 bytes of a file name.
        let kept = &file_name[..file_name.floor_char_boundary(200)];
        let aside = format!("{kept}.{}", RequestId::random());
        match self.requests.rename(file_name, &self.rejected, &aside) {
            Err(Errno::ENOENT) if self.requests.lacks(file_name) => Ok(()),
            Err(errno) => Err(self.requests.rename_error("set aside", file_name, errno)),
            Ok(()) => bound_rejected(&self.rejected),
        }
    }

    /// Removes answers last written before `older_than_wall_ms`, and the oldest of more than
    /// `keep_max`; returns their number. Removes marks of started requests, queries with their
    /// answers, and unfinished files by the same age.
    ///
    /// It examines every file, so no client may wait for it.
    pub fn prune_answers(
        &self,
        older_than_wall_ms: i64,
        keep_max: usize,
    ) -> Result<usize, SpoolError> {
        let unfinished = |name: &str| name.starts_with('.') && name.strip_suffix(".tmp").is_some();
        let old = |_: usize, file: &FileStat| mtime_ms(file) < older_than_wall_ms;
        remove(&self.requests, unfinished, old)?;
        remove(&self.responses, unfinished, old)?;
        remove(&self.started, |_| true, old)?;
        remove(&self.queries, |_| true, old)?;
        remove(&self.responses, is_visible_json, |younger, file| {
            younger >= keep_max || old(younger, file)
        })
    }
}

/// The name of a file that may have to be removed, and its description.
type Old = (String, FileStat);

fn entries(dir: &Dir, meant: impl Fn(&str) -> bool) -> Result<Vec<Old>, SpoolError> {
    let old = |name: String| dir.stat(&name).ok().map(|stat| (name, stat));
    Ok(dir.names()?.into_iter().filter(|name| meant(name)).filter_map(old).collect())
}

/// Removes the regular files of `dir` that are `meant` and for which `is_due` holds. `is_due` gets
/// the number of younger files.
fn remove(
    dir: &Dir,
    meant: impl Fn(&str) -> bool,
    is_due: impl Fn(usize, &FileStat) -> bool,
) -> Result<usize, SpoolError> {
    let mut files = entries(dir, meant)?;
    files.retain(|(_, stat)| kind(stat) == SFlag::S_IFREG);
    files.sort_by_key(|(_, stat)| std::cmp::Reverse(mtime_ms(stat)));
    let mut removed = 0;
    for (younger, (name, stat)) in files.iter().enumerate() {
        if is_due(younger, stat) && dir.unlink(name)? {
            removed += 1;
        }
    }
    Ok(removed)
}

fn bound_rejected(rejected: &Dir) -> Result<(), SpoolError> {
    let mut files = entries(rejected, |_| true)?;
    // By the time of the rename, which is not the time of the last write.
    files.sort_by_key(|(_, stat)| std::cmp::Reverse((stat.st_ctime, stat.st_ctime_nsec)));
    let (mut kept_bytes, mut kept) = (0, 0);
    for (name, stat) in &files {
        let bytes = size(stat);
        let fits = bytes <= REJECTED_FILE_BYTES_MAX && kept_bytes + bytes <= REJECTED_BYTES_MAX;
        if kind(stat) == SFlag::S_IFDIR {
            // A directory with files stays: its files are not ours.
            let _ = rejected.remove_dir(name);
        } else if fits && kept < REJECTED_FILES_MAX {
            kept_bytes += bytes;
            kept += 1;
        } else {
            rejected.unlink(name)?;
        }
    }
    Ok(())
}

const REJECTED_FILES_MAX: usize = 100;
const REJECTED_BYTES_MAX: u64 = 16 * 1024 * 1024;
const REJECTED_FILE_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pair, name, names, write};
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    fn written_at(path: &Path, milliseconds: u64) {
        write(path, b"{}");
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(milliseconds)).unwrap();
    }

    /// Changes `probe` until the file system's clock has moved on since `path` was changed.
    fn await_later_change(path: &Path, probe: &Path) {
        let changed = |path: &Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.ctime(), metadata.ctime_nsec())
        };
        write(probe, b"");
        while changed(probe) <= changed(path) {
            write(probe, b"");
        }
    }

    #[test]
    fn what_is_set_aside_is_kept_under_a_name_of_its_own() {
        let pair = Pair::new();
        let long = format!("{}ä{}.json", "x".repeat(199), "y".repeat(40));
        for content in ["one", "two"] {
            for file in ["bad.json", &long] {
                write(&pair.request(file), content.as_bytes());
                pair.watcher.set_aside(file).unwrap();
            }
        }
        pair.watcher.set_aside("bad.json").unwrap();

        let kept = names(&pair.request(".rejected"));
        assert_eq!(kept.len(), 4);
        assert_eq!(kept.iter().filter(|name| name.starts_with("bad.json.")).count(), 2);
        assert_eq!(pair.watcher.pending().unwrap(), [""; 0]);
    }

    #[test]
    fn a_link_is_set_aside_itself_and_its_target_stays() {
        let pair = Pair::new();
        write(&pair.request(".secret"), b"secret");
        std::os::unix::fs::symlink(pair.request(".secret"), pair.request("n.json")).unwrap();

        pair.watcher.set_aside("n.json").unwrap();

        assert_eq!(fs::read(pair.request(".secret")).unwrap(), b"secret");
        assert_eq!(names(&pair.request(".rejected")).len(), 1);
    }

    #[test]
    fn what_is_large_or_an_empty_directory_is_not_kept() {
        let pair = Pair::new();
        let path = pair.request("n.json");
        for (length, kept) in [
            (REJECTED_FILE_BYTES_MAX, 1),
            (REJECTED_FILE_BYTES_MAX + 1, 1),
            (100 * REJECTED_FILE_BYTES_MAX, 1),
        ] {
            write(&path, b"");
            File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            pair.watcher.set_aside("n.json").unwrap();
            assert_eq!(names(&pair.request(".rejected")).len(), kept, "{length}");
        }
        fs::create_dir(&path).unwrap();
        pair.watcher.set_aside("n.json").unwrap();
        assert_eq!(names(&pair.request(".rejected")).len(), 1);
        fs::create_dir_all(path.join("full")).unwrap();
        pair.watcher.set_aside("n.json").unwrap();
        assert!(!path.exists(), "it is out of the way even if it cannot be removed");
    }

    #[test]
    fn the_youngest_100_files_and_16_mib_are_kept() {
        let pair = Pair::new();
        // Its own time says nothing: what counts is when it was set aside.
        written_at(&pair.request("first.json"), 4_000_000_000_000);
        pair.watcher.set_aside("first.json").unwrap();
        let first = names(&pair.request(".rejected")).remove(0);
        await_later_change(&pair.request(".rejected").join(&first), &pair.request(".probe"));
        for number in 0..REJECTED_FILES_MAX {
            let file = format!("n{number}.json");
            written_at(&pair.request(&file), 1_000_000);
            pair.watcher.set_aside(&file).unwrap();
        }
        let kept = names(&pair.request(".rejected"));
        assert_eq!(kept.len(), REJECTED_FILES_MAX);
        assert!(!kept.contains(&first), "the oldest goes first");

        for number in 0..20 {
            let file = format!("big{number}.json");
            write(&pair.request(&file), b"");
            let open = File::options().write(true).open(pair.request(&file)).unwrap();
            open.set_len(REJECTED_FILE_BYTES_MAX).unwrap();
            pair.watcher.set_aside(&file).unwrap();
        }
        let kept = names(&pair.request(".rejected"));
        let bytes: u64 = kept
            .iter()
            .map(|name| fs::metadata(pair.request(".rejected").join(name)).unwrap().len())
            .sum();
        assert!(bytes <= REJECTED_BYTES_MAX, "{bytes}");
        assert!(kept.iter().filter(|name| name.starts_with("big")).count() >= 15);
    }

    #[test]
    fn answers_go_by_age_and_then_by_number_the_oldest_first() {
        let pair = Pair::new();
        for (file, milliseconds) in [("a", 1000), ("b", 2000), ("c", 3000), ("d", 4000)] {
            written_at(&pair.response(&format!("{file}.json")), milliseconds);
        }
        assert_eq!(pair.watcher.prune_answers(1000, 10).unwrap(), 0, "the limit itself is kept");
        assert_eq!(pair.watcher.prune_answers(1001, 10).unwrap(), 1);
        assert_eq!(names(&pair.places.responses), [".started", "b.json", "c.json", "d.json"]);
        assert_eq!(pair.watcher.prune_answers(0, 2).unwrap(), 1);
        assert_eq!(names(&pair.places.responses), [".started", "c.json", "d.json"]);
        assert_eq!(pair.watcher.prune_answers(3001, 1).unwrap(), 1);
        assert_eq!(names(&pair.places.responses), [".started", "d.json"]);
    }

    #[test]
    fn only_what_is_old_and_meant_is_pruned() {
        let pair = Pair::new();
        let id = RequestId::random();
        pair.watcher.mark_started(&id).unwrap();
        let _held = pair.client.submit(&name("pending"), b"{}").unwrap();
        let old = [
            pair.request(".x.json.tmp"),
            pair.response(".x.json.tmp"),
            pair.response(".started").join("old"),
            pair.places.queries.join("x.json"),
            pair.places.queries.join("x.answer"),
            pair.places.queries.join(".x.answer.tmp"),
        ];
        let kept = [
            pair.request("old.json"),
            pair.request(".watcher.lock"),
            pair.request(".claimed/old.json"),
            pair.response("notes.txt"),
        ];
        for path in old.iter().chain(&kept) {
            written_at(path, 1000);
        }
        write(&pair.request(".young.json.tmp"), b"");

        assert_eq!(pair.watcher.prune_answers(2000, 10).unwrap(), 0, "none of it is an answer");

        assert!(old.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
        assert!(pair.request(".young.json.tmp").exists());
        assert!(pair.watcher.answered(&name("x"), Some(&id), None).unwrap());
    }
}
