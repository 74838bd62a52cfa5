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

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// What a source let be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// This.
    Got(T),
    /// Nothing, for this reason, though the source is there.
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
    let until = Instant::now() + search.time_max;
    let asked = programs::ask(target, search);
    let mut files = files::read(&search.root);
    let programs::Answers { cib, storages, mounts } = asked.answers(until);
    let cib = cib.then(|text| Cib::parse(&String::from_utf8_lossy(&text)));
    let storages = storages.then(|objects| Ok(NodeStorages::new(objects, mounts)));
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
    let cib = programs::ask_cib(search);
    ClusterNodes::of(&corosync, &cib.then(|text| Cib::parse(&String::from_utf8_lossy(&text))))
}

/// What `evidence` says about `target`.
pub fn conclude(target: Target<'_>, evidence: &Evidence) -> Discovery {
    let by_cib = match &evidence.cib {
        Reading::Got(cib) => cib.node(target),
        _ => None,
    };
    let by_corosync = match &evidence.corosync {
        Reading::Got(corosync) => corosync.node_id(target).map_err(|why| why.to_string()),
        Reading::Blind(why) | Reading::Absent(why) => Err(why.clone()),
    };
    let id = by_corosync.or_else(|why| by_cib.and_then(CibNode::number).ok_or(why));
    let dlm = match &evidence.lockspaces {
        Reading::Got(lockspaces) => match &id {
            Ok(id) => lockspaces.report(*id),
            Err(why) => Report::Blind(format!("the target's node id is not known: {why}")),
        },
        Reading::Blind(why) => Report::Blind(why.clone()),
        Reading::Absent(why) => Report::Absent(why.clone()),
    };
    let cib = match &evidence.cib {
        Reading::Got(cib) => cib.report(by_cib, id.as_ref().ok().copied(), &evidence.mounts),
        Reading::Blind(why) => Report::Blind(why.clone()),
        Reading::Absent(why) => Report::Absent(why.clone()),
    };
    let nnf = match &evidence.storages {
        Reading::Got(storages) => storages.report(target),
        Reading::Blind(why) => Report::Blind(why.clone()),
        Reading::Absent(why) => Report::Absent(why.clone()),
    };
    Discovery::new(vec![(Source::Dlm, dlm), (Source::Cib, cib), (Source::Nnf, nnf)])
}

/// The number of `target` in the cluster, by corosync's configuration below `root`.
pub fn node_id(root: &Path, target: Target<'_>) -> Result<u32, NoNodeId> {
    match files::corosync(root) {
        Reading::Got(corosync) => corosync.node_id(target),
        Reading::Blind(why) | Reading::Absent(why) => Err(NoNodeId(why)),
    }
}

/// Why a node has no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoNodeId(String);

impl fmt::Display for NoNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoNodeId {}

impl<T> Reading<T> {
    /// What `parse` makes of what was read; what it cannot read makes the source blind.
    fn then<U>(self, parse: impl FnOnce(T) -> Result<U, String>) -> Reading<U> {
        match self {
            Reading::Got(value) => parse(value).map_or_else(Reading::Blind, Reading::Got),
            Reading::Blind(why) => Reading::Blind(why),
            Reading::Absent(why) => Reading::Absent(why),
        }
    }

    /// Why nothing could be read, though the source is there.
    fn blindness(&self) -> Option<&str> {
        match self {
            Reading::Blind(why) => Some(why),
            Reading::Got(_) | Reading::Absent(_) => None,
        }
    }
}
