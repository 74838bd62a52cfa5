//! The GFS2 file systems that a node holds at the moment of its fence.
//!
//! At that moment the node is dead, and the survivors' recovery waits for the fence. So nothing
//! here touches a path on GFS2, where even a `stat` can hang until the fence is over. This crate
//! reads files of the kernel and of the cluster's configuration, and the output of programs, which
//! it kills at the time limit.
//!
//! It asks three sources side by side; none knows everything:
//!
//! - `dlm`: the kernel's members of each lockspace. Reliable, but only for file systems that this
//!   node has also mounted.
//! - `cib`: Pacemaker's resources and their operation history. Also for file systems that this node
//!   never mounted.
//! - `nnf`: Near Node Flash's Kubernetes objects, if Kubernetes is configured.
//!
//! `corosync`, `mounts` and `names` support them. `cluster` answers another question: whether a
//! name belongs to another node of the cluster. Only `files` and `programs` touch the system; the
//! other modules turn texts into values. [`conclude`] combines the answers. An error makes a source
//! blind, and has no other effect: the result is information only.

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

/// The node in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its name for the fence device.
    pub plug: &'a str,
    /// Its name in the cluster, if known; the names differ if Pacemaker maps them.
    pub nodename: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Both names. The cluster's name comes first: another node can have the device's name for this
    /// node.
    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.nodename.into_iter().chain([self.plug])
    }
}

/// The content of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// The content.
    Got(T),
    /// The source exists, but could not be read, for this reason.
    Blind(String),
    /// This node has no such source, for this reason.
    Absent(String),
}

/// The contents of all sources.
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

/// The parameters of a discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The directory that replaces `/`.
    pub root: PathBuf,
    /// The time limit of the programs; zero runs no program.
    pub time_max: Duration,
    /// How to reach Kubernetes.
    pub kubernetes: Kubernetes,
}

/// The environment variable for [`Search::root`]: a copy of another node's files, or a test's.
pub const ROOT_VARIABLE: &str = "GFS2_DISCOVERY_ROOT";

/// Asks all sources which file systems `target` holds. Takes at most `search.time_max` and the time
/// to read some files.
pub fn discover(target: Target<'_>, search: &Search) -> Discovery {
    conclude(target, &gather(target, search))
}

/// Reads the sources that [`conclude`] needs for `target`, within the same time.
pub fn gather(target: Target<'_>, search: &Search) -> Evidence {
    let (cib, storages, mut files) = programs::ask(target, search, || files::read(&search.root));
    if let Reading::Got(cib) = &cib {
        files.follow(&search.root, cib.directories());
    }
    let files::Files { corosync, lockspaces, mounts, .. } = files;
    Evidence { corosync, lockspaces, mounts, cib, storages }
}

/// The nodes of the cluster: by corosync's configuration, and if that is not enough, also by the
/// CIB, which knows remote nodes. `cibadmin` may take `search.time_max`.
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

/// The conclusion from `evidence` about `target`.
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
    /// The content as `parse` understands it; an error of `parse` makes the source blind.
    fn then<U>(self, parse: impl FnOnce(T) -> Result<U, String>) -> Reading<U> {
        match self {
            Reading::Got(value) => parse(value).map_or_else(Reading::Blind, Reading::Got),
            Reading::Blind(why) => Reading::Blind(why),
            Reading::Absent(why) => Reading::Absent(why),
        }
    }

    /// The content, or why there is none.
    fn result(&self) -> Result<&T, String> {
        match self {
            Reading::Got(value) => Ok(value),
            Reading::Blind(why) | Reading::Absent(why) => Err(why.clone()),
        }
    }

    /// The source's report, which `of` makes from the content.
    fn report(&self, of: impl FnOnce(&T) -> Report) -> Report {
        match self {
            Reading::Got(value) => of(value),
            Reading::Blind(why) => Report::Blind(why.clone()),
            Reading::Absent(why) => Report::Absent(why.clone()),
        }
    }

    /// Why the existing source could not be read.
    fn blindness(&self) -> Option<&str> {
        match self {
            Reading::Blind(why) => Some(why),
            Reading::Got(_) | Reading::Absent(_) => None,
        }
    }
}
