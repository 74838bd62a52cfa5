//! Which GFS2 file systems the target holds: in the forms of a request, the audit and a terminal.
//!
//! This is information for the responder and the audit. It never decides about a fence.
//! `gfs2_discovery` finds the file systems; `fence_core::budget` limits the time.
//!
//! One search does decide, and runs at the same time: whether Kubernetes has the node that nnf-sos
//! is to fence. It runs whether discovery is enabled or not.

use std::time::Duration;

use fence_audit::{DiscoveryOutcome, DiscoveryRecord, SourceRecord, SourceState};
use fence_protocol::bounded;
use gfs2_discovery::{
    ClusterNodes, Discovery as Found, Finding, Reading, Report, Search, Target, cluster_nodes,
    conclude, gather, kubernetes_nodes,
};

use crate::target::{self, Wanted};

/// What the sources said; `None` if discovery is disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovery(Option<Found>);

impl Discovery {
    /// Searches as `search` says, if at all, for at most `time_max`. Also returns the cluster's
    /// nodes, if all sources of their names answered in that time.
    pub(crate) fn of(
        target: Target<'_>,
        search: Option<&Search>,
        time_max: Duration,
    ) -> (Self, Option<ClusterNodes>) {
        let Some(search) = search else { return (Discovery(None), None) };
        let evidence = gather(target, &within(search, time_max));
        // Without time for programs nobody read the CIB, and a short time may have cut it off.
        let is_final = !search.time_max.is_zero() && !matches!(evidence.cib, Reading::Blind(_));
        let nodes = is_final.then(|| ClusterNodes::of(&evidence.corosync, &evidence.cib));
        (Discovery(Some(conclude(target, &evidence))), nodes)
    }

    /// The names found.
    pub(crate) fn filesystems(&self) -> Vec<String> {
        self.0.as_ref().map(Found::names).unwrap_or_default()
    }

    /// The finding in one line.
    pub(crate) fn to_words(&self) -> String {
        self.0.as_ref().map_or("GFS2 discovery disabled".to_owned(), |found| {
            bounded(&found.to_string(), WORDS_BYTES_MAX)
        })
    }

    /// The finding for the audit.
    pub(crate) fn to_record(&self) -> DiscoveryRecord {
        let Some(found) = &self.0 else {
            return DiscoveryRecord::of(DiscoveryOutcome::Disabled);
        };
        let mut record = DiscoveryRecord::of(match found.outcome() {
            Finding::Found => DiscoveryOutcome::Found,
            Finding::None => DiscoveryOutcome::None,
            Finding::Unknown => DiscoveryOutcome::Unknown,
        });
        for (name, ways) in found.learned() {
            let ways = ways.iter().map(|(source, how)| format!("{}: {how}", source.as_str()));
            record.learned.insert(name.to_owned(), ways.collect());
        }
        for (source, report) in found.reports() {
            let (state, why) = match report {
                Report::Answered { remark, .. } => (SourceState::Answered, remark.clone()),
                Report::Blind(why) => (SourceState::Blind, Some(why.clone())),
                Report::Absent(why) => (SourceState::Absent, Some(why.clone())),
            };
            record.sources.insert(source.as_str().to_owned(), SourceRecord { state, why });
        }
        record
    }

    /// The finding for people, line by line.
    pub(crate) fn to_lines(&self) -> Vec<String> {
        let record = self.to_record();
        let mut lines = vec![format!("discovery: {}", record.outcome)];
        for (name, ways) in &record.learned {
            lines.extend(ways.iter().map(|way| format!("discovery: '{name}' by {way}")));
        }
        for (source, SourceRecord { state, why }) in &record.sources {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            lines.push(format!("discovery: {source} {state}{why}"));
        }
        lines
    }
}

/// What Kubernetes says about the name of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Kubernetes has such a node.
    Known,
    /// Kubernetes has no such node: why the agent refuses it, and what to do.
    Unknown(String),
    /// Kubernetes did not answer, although kubectl is configured: why.
    NotKnown(String),
    /// Kubernetes was not asked, because kubectl is not configured: why.
    NotAsked(String),
}

impl Naming {
    /// Asks for the nodes, for at most `time_max`, and looks for `target` among them if it is
    /// given.
    pub(crate) fn of(target: Option<&str>, search: &Search, time_max: Duration) -> Self {
        // A fence that does nothing is of no use, also where discovery runs no program.
        let time_max = search.time_max.max(NAMING_TIME_MIN).min(time_max);
        let unknown = |why| match target {
            Some(target) => {
                format!("it is not known whether Kubernetes has a node '{target}': {why}")
            }
            None => format!("it is not known which nodes Kubernetes has: {why}"),
        };
        match (kubernetes_nodes(&Search { time_max, ..search.clone() }), target) {
            (Reading::Got(nodes), Some(target)) if !nodes.contains(target) => {
                Naming::Unknown(format!(
                    "Kubernetes has no compute node '{target}', and nnf-sos reports success for a node \
                     that it does not know; give Kubernetes' name, with pcmk_host_map or plug"
                ))
            }
            (Reading::Got(_), _) => Naming::Known,
            (Reading::Blind(why), _) => Naming::NotKnown(unknown(why)),
            (Reading::Absent(why), _) => Naming::NotAsked(unknown(why)),
        }
    }
}

/// How long kubectl may take to name the nodes, if discovery has less time. The API server of a
/// loaded system needs seconds.
const NAMING_TIME_MIN: Duration = Duration::from_secs(8);

/// The cluster's nodes, as many as the check of `target` needs. The search takes at most
/// `time_max`.
pub(crate) fn nodes(
    target: &str,
    wanted: Option<Wanted<'_>>,
    search: &Search,
    time_max: Duration,
) -> ClusterNodes {
    let is_enough = |nodes: &ClusterNodes| target::is_decided(target, wanted, nodes);
    cluster_nodes(is_enough, &within(search, time_max))
}

fn within(search: &Search, time_max: Duration) -> Search {
    Search { time_max: search.time_max.min(time_max), ..search.clone() }
}

/// The longest finding in words: it is a part of a line in each log.
const WORDS_BYTES_MAX: usize = 1024;
