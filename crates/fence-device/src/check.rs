//! Looking at the files that a configuration names, without waiting for a GFS2 file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fence_spool::PlaceError;
use nix::unistd::{AccessFlags, access, geteuid};

/// Whether the directory `path` lies on GFS2, where any further look may hang until the fence that is
/// awaited has been done. Nothing below the place where such a file system begins is touched.
pub(crate) fn is_on_gfs2(path: &Path) -> bool {
    matches!(fence_spool::open_log_dir(path), Err(PlaceError::Gfs2 { .. }))
}

/// What keeps `program` from being run as somebody's with our rights; `None` when nothing does.
pub(crate) fn program_problem(program: &str) -> Option<String> {
    let path = Path::new(program);
    if !path.is_absolute() {
        return Some(format!("\"{program}\" is not an absolute path"));
    }
    if path.parent().is_some_and(is_on_gfs2) {
        return Some(format!("\"{program}\" lies on GFS2, which hangs while a fence is awaited"));
    }
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Some(format!("\"{program}\" cannot be found: {error}")),
    };
    if !metadata.is_file() || access(path, AccessFlags::X_OK).is_err() {
        return Some(format!("\"{program}\" is not an executable file"));
    }
    let is_ours = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    let for_group = metadata.mode() & 0o020 != 0 && metadata.gid() != 0;
    if !is_ours || for_group || metadata.mode() & 0o002 != 0 {
        return Some(format!(
            "\"{program}\" can be changed by others; make it root's: chown root, chmod go-w"
        ));
    }
    None
}
