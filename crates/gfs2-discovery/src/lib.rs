//! Which GFS2 file systems a node holds, at the moment at which it is to be fenced.
//!
//! The node is dead then, and the survivors' recovery waits for the fence. So nothing here touches
//! a path on GFS2, where a mere `stat` can hang until the fence is over; what is read are files of
//! the kernel and of the cluster's configuration, and what programs write, which are killed when
//! the time is over.
//!
//! Three sources, none of which knows everything, are asked side by side:
//!
//! - `dlm`: the kernel's members of each lockspace. True, but only for what this node has mounted
//!   too.
//! - `cib`: Pacemaker's resources and their operation history. Also for what this node never
//!   mounted.
//! - `nnf`: Near Node Flash's Kubernetes objects, where there are any.
//!
//! `corosync`, `mounts` and `names` help them. `cluster` answers another question: whether a name
//! is that of another node of the cluster. `files` and `programs` are the only modules that touch
//! the system; everything else takes texts and gives values. [`conclude`] puts the answers
//! together. Whatever goes wrong makes a source blind, and nothing worse: this is information.

mod attributes;
mod cib;
mod cluster;
mod corosync;
mod discovery;
mod dlm;
mod files;
mod history;
mod list;
mod mounts;
mod names;
mod nnf;
mod programs;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use cib::Cib;
use cib::CibNode;
pub use cluster::ClusterNodes;
pub use corosync::{ClusterNode, Corosync};
pub use discovery::{Discovery, Finding, Held, Report, Source};
pub use dlm::Lockspaces;
pub use mounts::{Mount, Mounts};
pub use nnf::NodeStorages;
pub use programs::{Kubernetes, find_program, kubernetes_nodes};

/// The node that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its name for the fence device.
    pub plug: &'a str,
    /// Its name in the cluster, where that is known; the two differ where Pacemaker maps them.
    pub nodename: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Both names. The cluster's own comes first: another node can have the device's name for this
    /// one.
    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.nodename.into_iter().chain([self.plug])
    }
}

/// What was read from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// This.
    Got(T),
    /// The source exists, but could not be read, for this reason.
    Blind(String),
    /// There is no such source here; what is missing.
    Absent(String),
}

/// All that was read.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// corosync's configuration: names and numbers of nodes.
    pub corosync: Reading<Corosync>,
    /// The kernel's lockspaces.
    pub lockspaces: Reading<Lockspaces>,
    /// This node's own GFS2 mounts, for the names of the file systems that the CIB means.
    pub mounts: Mounts,
    /// Pacemaker's configuration and status.
    pub cib: Reading<Cib>,
    /// Near Node Flash's objects.
    pub storages: Reading<NodeStorages>,
}

/// Where to look, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The directory that stands for `/`.
    pub root: PathBuf,
    /// How long the programs may take; with none they are not asked.
    pub time_max: Duration,
    /// How to reach Kubernetes.
    pub kubernetes: Kubernetes,
}

/// The environment's name for [`Search::root`]: a copy of another node's files, or a test's.
pub const ROOT_VARIABLE: &str = "GFS2_DISCOVERY_ROOT";

/// Asks all sources which file systems `target` holds. Takes no longer than `search.time_max` and
/// what reading some files takes.
pub fn discover(target: Target<'_>, search: &Search) -> Discovery {
    conclude(target, &gather(target, search))
}

/// Reads all that [`conclude`] needs for `target`, within the same time.
pub fn gather(target: Target<'_>, search: &Search) -> Evidence {
    let (cib, storages, mut files) = programs::ask(target, search, || files::read(&search.root));
    if let Reading::Got(cib) = &cib {
        files.follow(&search.root, cib.directories());
    }
    let files::Files { corosync, lockspaces, mounts, .. } = files;
    Evidence { corosync, lockspaces, mounts, cib, storages }
}

/// The nodes of the cluster: by corosync's configuration, and where that is not enough, by the CIB
/// as well, which knows remote nodes. `cibadmin` may take `search.time_max`.
pub fn cluster_nodes(
    is_enough: impl FnOnce(&ClusterNodes) -> bool,
    search: &Search,
) -> ClusterNodes {
    let corosync = files::corosync(&search.root);
    let unasked = Reading::Absent("it is not asked".to_owned());
    let nodes = ClusterNodes::of(&corosync, &unasked);
    if is_enough(&nodes) || search.time_max.is_zero() {
        return nodes;
    }
    ClusterNodes::of(&corosync, &programs::ask_cib(search))
}

/// What `evidence` says about `target`.
pub fn conclude(target: Target<'_>, evidence: &Evidence) -> Discovery {
    let by_cib = evidence.cib.result().ok().and_then(|cib| cib.node(target));
    let by_corosync = evidence.corosync.result().and_then(|corosync| corosync.node_id(target));
    let id = by_corosync.or_else(|why| by_cib.and_then(CibNode::number).ok_or(why));
    let dlm = evidence.lockspaces.report(|lockspaces| match &id {
        Ok(id) => lockspaces.report(*id),
        Err(why) => Report::Blind(format!("the target's node id is not known: {why}")),
    });
    let number = id.as_ref().ok().copied();
    let cib = evidence.cib.report(|cib| cib.report(by_cib, number, &evidence.mounts));
    let nnf = evidence.storages.report(|storages| storages.report(target));
    Discovery::new(vec![(Source::Dlm, dlm), (Source::Cib, cib), (Source::Nnf, nnf)])
}

/// The number of `target` in the cluster, by corosync's configuration below `root`.
pub fn node_id(root: &Path, target: Target<'_>) -> Result<u32, String> {
    files::corosync(root).result()?.node_id(target)
}

impl<T> Reading<T> {
    /// What `parse` makes of what was read; what it cannot read makes the source blind.
    fn then<U>(self, parse: impl FnOnce(T) -> Result<U, String>) -> Reading<U> {
        match self {
            Reading::Got(value) => parse(value).map_or_else(Reading::Blind, Reading::Got),
            Reading::Blind(why) => Reading::Blind(why),
            Reading::Absent(why) => Reading::Absent(why),
        }
    }

    /// What was read, or why nothing was.
    fn result(&self) -> Result<&T, String> {
        match self {
            Reading::Got(value) => Ok(value),
            Reading::Blind(why) | Reading::Absent(why) => Err(why.clone()),
        }
    }

    /// The source's report, which `of` makes from what was read.
    fn report(&self, of: impl FnOnce(&T) -> Report) -> Report {
        match self {
            Reading::Got(value) => of(value),
            Reading::Blind(why) => Report::Blind(why.clone()),
            Reading::Absent(why) => Report::Absent(why.clone()),
        }
    }

    /// Why the source, which exists, could not be read.
    fn blindness(&self) -> Option<&str> {
        match self {
            Reading::Blind(why) => Some(why),
            Reading::Got(_) | Reading::Absent(_) => None,
        }
    }
}
