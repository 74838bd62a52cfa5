//! Reading the files. No file is on GFS2, and no read blocks: the files are the kernel's, or a safe
//! walk found them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use fence_spool::{FileError, TrustedFile};

use crate::mounts::{Point, points};
use crate::{Corosync, Lockspaces, Mounts, Reading};

/// The contents of the files.
pub(crate) struct Files {
    pub(crate) corosync: Reading<Corosync>,
    pub(crate) lockspaces: Reading<Lockspaces>,
    pub(crate) mounts: Mounts,
    /// All mount points of this node; empty if no GFS2 file system is mounted.
    points: Vec<Point>,
}

impl Files {
    /// Resolves links: these directories count as the mount points to which they lead.
    pub(crate) fn follow<'a>(&mut self, root: &Path, directories: impl Iterator<Item = &'a str>) {
        if self.points.is_empty() {
            return;
        }
        for directory in directories {
            if self.mounts.table_at(directory).is_none()
                && let Some(to) = followed(root, &self.points, directory)
            {
                self.mounts.add_link(directory, &to);
            }
        }
    }
}

/// The directory to which `directory` leads. Reads only local file systems, which cannot hang. A
/// mount point is recognised by its text, and not touched.
fn followed(root: &Path, points: &[Point], directory: &str) -> Option<String> {
    let mut left: VecDeque<String> = parts(directory.strip_prefix('/')?).collect();
    let mut at = String::new();
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.truncate(at.rfind('/').unwrap_or(0));
            continue;
        }
        let next = format!("{at}/{part}");
        let is_point = points.iter().any(|point| point.directory == next);
        let target = if is_point {
            None
        } else if is_local(points, &at) {
            fs::read_link(root.join(&next[1..])).ok()
        } else {
            return None;
        };
        let Some(target) = target else {
            at = next;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return None;
        }
        let target = target.to_str()?;
        if target.starts_with('/') {
            at.clear();
        }
        for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(part);
        }
    }
    Some(at)
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned)
}

/// Whether reading `directory` needs neither a cluster nor a network.
fn is_local(points: &[Point], directory: &str) -> bool {
    let is_above = |point: &&Point| {
        let below = directory.strip_prefix(point.directory.trim_end_matches('/'));
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    };
    let innermost = points.iter().filter(is_above).max_by_key(|point| point.directory.len());
    innermost.is_none_or(|point| LOCAL.contains(&point.kind.as_str()))
}

pub(crate) fn read(root: &Path) -> Files {
    let tables = names(&root.join(GFS2));
    let lockspaces = lockspaces(root, &tables);
    let (mounts, points) = mounts(root, &tables.unwrap_or_default());
    Files { corosync: corosync(root), lockspaces, mounts, points }
}

/// corosync's configuration.
pub(crate) fn corosync(root: &Path) -> Reading<Corosync> {
    let path = root.join(COROSYNC_CONF);
    let shown = path.display();
    match TrustedFile::find_information(&path).and_then(|file| file.read(CONF_BYTES_MAX)) {
        Ok(bytes) => Reading::Got(Corosync::parse(&String::from_utf8_lossy(&bytes))),
        Err(FileError::Missing) => Reading::Absent(format!("there is no '{shown}'")),
        Err(why) => Reading::Blind(format!("'{shown}' is not read: {why}")),
    }
}

fn lockspaces(root: &Path, tables: &io::Result<Vec<String>>) -> Reading<Lockspaces> {
    let cluster = root.join(DLM_CLUSTER);
    let spaces = match names(&cluster.join("spaces")) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Reading::Absent("DLM does not run here".to_owned());
        }
        Err(error) => return Reading::Blind(format!("DLM's lockspaces cannot be listed: {error}")),
    };
    let tables = match tables {
        Ok(tables) => tables.iter().cloned().collect(),
        // Without the kernel module no GFS2 file system is mounted.
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return Reading::Blind(format!("'/{GFS2}' cannot be listed: {error}")),
    };
    let cluster_name = fs::read_to_string(cluster.join("cluster_name")).ok();
    let cluster_name = cluster_name.map(|name| name.trim().to_owned()).filter(|n| !n.is_empty());
    let mut lockspaces = Lockspaces { cluster_name, members: BTreeMap::new(), tables };
    for name in spaces {
        let members = match lockspaces.table(&name) {
            Some(_) => names(&cluster.join("spaces").join(&name).join("nodes")),
            // Not of GFS2: only its existence matters.
            None => Ok(Vec::new()),
        };
        let members = members
            .map(|nodes| nodes.iter().filter_map(|node| node.parse().ok()).collect())
            .map_err(|error| error.to_string());
        lockspaces.members.insert(name, members);
    }
    Reading::Got(lockspaces)
}

fn mounts(root: &Path, tables: &[String]) -> (Mounts, Vec<Point>) {
    if tables.is_empty() {
        return (Mounts::default(), Vec::new());
    }
    let mountinfo = fs::read(root.join(MOUNTINFO)).unwrap_or_default();
    let id = |table: &String| {
        let id = fs::read_to_string(root.join(GFS2).join(table).join("id")).ok()?;
        Some((table.clone(), id))
    };
    let ids: Vec<_> = tables.iter().filter_map(id).collect();
    let mountinfo = String::from_utf8_lossy(&mountinfo);
    (Mounts::new(&mountinfo, &ids), points(&mountinfo))
}

/// The names in a directory, without those that are not UTF-8.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(io::Result::transpose).collect()
}

const COROSYNC_CONF: &str = "etc/corosync/corosync.conf";
const DLM_CLUSTER: &str = "sys/kernel/config/dlm/cluster";
const GFS2: &str = "sys/fs/gfs2";
const MOUNTINFO: &str = "proc/self/mountinfo";
/// File systems that the kernel can read without a cluster or a network.
const LOCAL: &[&str] = &[
    "btrfs", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "rootfs",
    "squashfs", "tmpfs", "xfs", "zfs",
];
/// The number of links that the kernel follows.
const LINKS_MAX: usize = 40;
const CONF_BYTES_MAX: usize = 1024 * 1024;
