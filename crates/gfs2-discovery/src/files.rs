//! Reading the files. None of them can lie on GFS2 or block: they are the kernel's, or were looked for
//! with care.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use fence_spool::{FileError, TrustedFile};

use crate::{Corosync, Lockspaces, Mounts, Reading};

/// What the files told.
pub(crate) struct Files {
    pub(crate) corosync: Reading<Corosync>,
    pub(crate) lockspaces: Reading<Lockspaces>,
    pub(crate) mounts: Mounts,
}

pub(crate) fn read(root: &Path) -> Files {
    let tables = names(&root.join(GFS2));
    let lockspaces = lockspaces(root, &tables);
    let mounts = mounts(root, &tables.unwrap_or_default());
    Files { corosync: corosync(root), lockspaces, mounts }
}

/// corosync's configuration.
pub(crate) fn corosync(root: &Path) -> Reading<Corosync> {
    let path = root.join(COROSYNC_CONF);
    let shown = path.display();
    match TrustedFile::find(&path).and_then(|file| file.read(CONF_BYTES_MAX)) {
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
        // Without the module there is nothing mounted.
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return Reading::Blind(format!("'/{GFS2}' cannot be listed: {error}")),
    };
    let cluster_name = fs::read_to_string(cluster.join("cluster_name")).ok();
    let cluster_name = cluster_name.map(|name| name.trim().to_owned()).filter(|n| !n.is_empty());
    let mut lockspaces = Lockspaces { cluster_name, members: BTreeMap::new(), tables };
    for name in spaces {
        let members = match lockspaces.table(&name) {
            Some(_) => names(&cluster.join("spaces").join(&name).join("nodes")),
            // Somebody else's: that it is there is all that matters.
            None => Ok(Vec::new()),
        };
        let members = members
            .map(|nodes| nodes.iter().filter_map(|node| node.parse().ok()).collect())
            .map_err(|error| error.to_string());
        lockspaces.members.insert(name, members);
    }
    Reading::Got(lockspaces)
}

fn mounts(root: &Path, tables: &[String]) -> Mounts {
    if tables.is_empty() {
        return Mounts::default();
    }
    let mountinfo = fs::read(root.join(MOUNTINFO)).unwrap_or_default();
    let id = |table: &String| {
        let id = fs::read_to_string(root.join(GFS2).join(table).join("id")).ok()?;
        Some((table.clone(), id))
    };
    let ids: Vec<_> = tables.iter().filter_map(id).collect();
    Mounts::new(&String::from_utf8_lossy(&mountinfo), &ids)
}

/// The names in a directory. Those that are no text are nobody's that is looked for.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?.filter_map(|entry| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    names.collect()
}

const COROSYNC_CONF: &str = "etc/corosync/corosync.conf";
const DLM_CLUSTER: &str = "sys/kernel/config/dlm/cluster";
const GFS2: &str = "sys/fs/gfs2";
const MOUNTINFO: &str = "proc/self/mountinfo";
const CONF_BYTES_MAX: usize = 1024 * 1024;
