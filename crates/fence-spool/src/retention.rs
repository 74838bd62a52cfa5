//! Keeping the watcher's directories small: what is set aside, and what has grown old.
//!
//! None of this lies on the way of a request. What "old" means is the caller's to say.

use fence_protocol::RequestId;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::dir::{Dir, is_plain, is_visible_json};
use crate::place::kind;
use crate::record::{mtime_ms, size};
use crate::{SpoolError, WatcherSpool};

impl WatcherSpool {
    /// Moves a pending file that is no request into `.rejected`, where the youngest 100 files and
    /// 16 MiB are kept for people to look at. A file over 1 MiB is removed instead.
    pub fn set_aside(&self, file_name: &str) -> Result<(), SpoolError> {
        if !is_plain(file_name) {
            return Err(self.requests.error("set aside", file_name, Errno::EINVAL));
        }
        // Cut so that the whole fits into the 255 bytes of a file name.
        let kept = &file_name[..file_name.floor_char_boundary(200)];
        let aside = format!("{kept}.{}", RequestId::random());
        match self.requests.rename(file_name, &self.rejected, &aside) {
            Err(Errno::ENOENT) if !self.requests.has(file_name) => return Ok(()),
            Err(errno) => return Err(self.requests.error("set aside", file_name, errno)),
            Ok(()) => {}
        }
        bound_rejected(&self.rejected)
    }

    /// Removes answers last written before `older_than_wall_ms`, and the oldest of more than
    /// `keep_max`; gives their number. Marks of started requests, queries with their answers, and
    /// unfinished files go by the same age.
    ///
    /// It looks at every file, so it belongs where nobody waits.
    pub fn prune_answers(
        &self,
        older_than_wall_ms: i64,
        keep_max: usize,
    ) -> Result<usize, SpoolError> {
        let unfinished = |name: &str| name.starts_with('.') && name.strip_suffix(".tmp").is_some();
        let old = |_: usize, file: &Old| mtime_ms(&file.stat) < older_than_wall_ms;
        remove(&self.requests, unfinished, old)?;
        remove(&self.responses, unfinished, old)?;
        remove(&self.started, |_| true, old)?;
        remove(&self.queries, |_| true, old)?;
        remove(&self.responses, is_visible_json, |younger, file| {
            younger >= keep_max || old(younger, file)
        })
    }
}

/// A regular file that may have to go.
struct Old {
    name: String,
    stat: FileStat,
}

/// Removes the regular files of `dir` that are `meant` and for which `is_due` holds, given how many
/// of them are younger.
fn remove(
    dir: &Dir,
    meant: impl Fn(&str) -> bool,
    is_due: impl Fn(usize, &Old) -> bool,
) -> Result<usize, SpoolError> {
    let mut files = Vec::new();
    for name in dir.names()? {
        if meant(&name)
            && let Ok(stat) = dir.stat(&name)
            && kind(&stat) == SFlag::S_IFREG
        {
            files.push(Old { name, stat });
        }
    }
    files.sort_by_key(|file| std::cmp::Reverse(mtime_ms(&file.stat)));
    let mut removed = 0;
    for (younger, file) in files.iter().enumerate() {
        if is_due(younger, file) && dir.unlink(&file.name)? {
            removed += 1;
        }
    }
    Ok(removed)
}

fn bound_rejected(rejected: &Dir) -> Result<(), SpoolError> {
    let mut files = Vec::new();
    for name in rejected.names()? {
        if let Ok(stat) = rejected.stat(&name) {
            files.push(Old { name, stat });
        }
    }
    // By the time of the renaming, which the time of writing does not tell.
    files.sort_by_key(|file| std::cmp::Reverse((file.stat.st_ctime, file.stat.st_ctime_nsec)));
    let mut kept_bytes = 0;
    let mut kept = 0;
    for file in &files {
        let bytes = size(&file.stat);
        let is_directory = kind(&file.stat) == SFlag::S_IFDIR;
        let fits = bytes <= REJECTED_FILE_BYTES_MAX && kept_bytes + bytes <= REJECTED_BYTES_MAX;
        if is_directory {
            // One that is not empty stays: what is in it is not ours to remove.
            let _ = rejected.remove_dir(&file.name);
        } else if fits && kept < REJECTED_FILES_MAX {
            kept_bytes += bytes;
            kept += 1;
        } else {
            rejected.unlink(&file.name)?;
        }
    }
    Ok(())
}

const REJECTED_FILES_MAX: usize = 100;
const REJECTED_BYTES_MAX: u64 = 16 * 1024 * 1024;
const REJECTED_FILE_BYTES_MAX: u64 = 1024 * 1024;
