//! Which node is meant: Pacemaker's names and a device's fixed names together.
//!
//! Pacemaker passes `nodename`, the cluster's name of the node to fence. It adds the device's name
//! of that node, as `port` up to 3.0.0 and as `plug` from 3.0.1 on, unless the device configures
//! that parameter. So `plug` and `port` can both be given, and a configured name can be the name of
//! another node. A success would then report the wrong node as off to the cluster.
//!
//! This module reads nothing: `gfs2_discovery` finds the names that the cluster knows.

use gfs2_discovery::ClusterNodes;

/// `plug` and `port` name two targets, and nothing shows which one is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoTargets;

/// The target among the given names; `None` if none is given.
///
/// Of two names, Pacemaker added the one that equals `nodename`, and the configured name is meant.
pub fn meant<'a>(
    plug: Option<&'a str>,
    port: Option<&'a str>,
    nodename: Option<&str>,
) -> Result<Option<&'a str>, TwoTargets> {
    match (plug, port) {
        (Some(plug), Some(port)) if plug != port => match nodename {
            Some(node) if node == plug => Ok(Some(port)),
            Some(node) if node == port => Ok(Some(plug)),
            _ => Err(TwoTargets),
        },
        _ => Ok(plug.or(port)),
    }
}

/// The sender's word for the node that is to be fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Pacemaker: by its name in the cluster.
    Named(&'a str),
    /// `dlm_controld`: by its number in the cluster.
    Numbered(u32),
}

/// The node that is to be fenced, if the sender says more than the target. `dlm_controld` itself
/// sends the number; a `nodename` beside it comes from its configuration.
pub fn wanted(nodename: Option<&str>, dlm_node: Option<u32>) -> Option<Wanted<'_>> {
    dlm_node.map(Wanted::Numbered).or(nodename.map(Wanted::Named))
}

/// Whether `target` must be compared with the names of the cluster's nodes: only if the sender
/// named the node, and by another name than the device's.
pub fn is_doubtful(target: &str, wanted: Option<Wanted<'_>>) -> bool {
    match wanted {
        Some(Wanted::Named(node)) => node != target,
        Some(Wanted::Numbered(_)) => true,
        None => false,
    }
}

/// Whether `nodes` has both names: then no other source is needed.
pub fn is_decided(target: &str, wanted: Option<Wanted<'_>>, nodes: &ClusterNodes) -> bool {
    let has_wanted = match wanted {
        Some(Wanted::Named(node)) => nodes.have(node),
        Some(Wanted::Numbered(number)) => nodes.of_number(number).is_some(),
        None => true,
    };
    has_wanted && nodes.have(target)
}

/// Why `target` is refused for the wanted node: it is the name of another node, or it may be
/// because the cluster's names exist and cannot be read. If the cluster has no names here, nothing
/// is refused: a device has its own names, which mostly differ from the cluster's on purpose.
pub fn refusal(target: &str, wanted: Option<Wanted<'_>>, nodes: &ClusterNodes) -> Option<String> {
    match wanted.filter(|_| is_doubtful(target, wanted))? {
        Wanted::Named(node) => {
            if let Some(other) = nodes.other_node(target, node) {
                return Some(format!(
                    "the cluster means its node '{node}', but the target '{target}' is its node '{other}': \
                     give this device's resource pcmk_host_list={other}, or take plug and port out of it"
                ));
            }
            let why = nodes.doubt(target, node)?;
            Some(format!(
                "the cluster means its node '{node}', and whether the target '{target}' is another of its \
                 nodes cannot be checked: {why}"
            ))
        }
        Wanted::Numbered(number) => {
            let Some(node) = nodes.of_number(number) else {
                let why = nodes.unread()?;
                return Some(format!(
                    "DLM means its node {number}, and whether the target '{target}' is another node cannot \
                     be checked: {why}"
                ));
            };
            let other = nodes.other_node(target, node)?;
            Some(format!(
                "DLM means its node {number}, which is '{node}', but the target '{target}' is node \
                 '{other}': correct port in the connect line of node={number} in dlm.conf, and take it \
                 out of the device line"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gfs2_discovery::{Cib, Corosync, Reading};

    fn decide(
        plug: Option<&str>,
        port: Option<&str>,
        nodename: Option<&str>,
        nodes: &ClusterNodes,
    ) -> Result<String, &'static str> {
        let target = meant(plug, port, nodename).map_err(|TwoTargets| "two")?;
        let target = target.or(nodename).ok_or("none")?;
        match refusal(target, wanted(nodename, None), nodes) {
            None => Ok(target.to_owned()),
            Some(text) => {
                assert!(text.contains(target) && text.contains(nodename.unwrap()), "{text}");
                Err("another")
            }
        }
    }

    #[test]
    fn the_number_that_dlm_gives_outranks_each_name() {
        let corosync = "nodelist {\n node {\n name: n1\n nodeid: 1\n }\n node {\n name: n2\n nodeid: 2\n }\n\
                        node {\n ring0_addr: 10.0.0.3\n nodeid: 3\n }\n}\n";
        let (absent, late) = (
            || Reading::<Cib>::Absent(String::new()),
            || Reading::<Cib>::Blind("cibadmin was killed".into()),
        );
        let known = ClusterNodes::of(&Reading::Got(Corosync::parse(corosync)), &absent());
        let without_pacemaker = ClusterNodes::of(&Reading::Got(Corosync::parse(corosync)), &late());
        let unread = ClusterNodes::of(&Reading::Blind("mode 666".into()), &absent());
        let none = ClusterNodes::default();
        for (number, target, nodes, is_refused) in [
            (1, "n2", &known, true),
            (1, "10.0.0.3", &known, true),
            (3, "n1", &known, true),
            (3, "n1", &without_pacemaker, true),
            (9, "n1", &unread, true),
            (1, "n1", &known, false),
            (1, "N1.a.org", &known, false),
            (1, "outlet-7", &known, false),
            (3, "n3", &known, false),
            (3, "n3", &without_pacemaker, false),
            (3, "10.0.0.3", &known, false),
            // A number that no source knows.
            (9, "n2", &known, false),
            (9, "outlet-7", &without_pacemaker, true),
            (1, "n2", &none, false),
        ] {
            let wanted = wanted(Some(target), Some(number));
            let refusal = refusal(target, wanted, nodes);
            assert_eq!(refusal.is_some(), is_refused, "{number} {target}: {refusal:?}");
            let names_both =
                |text: &String| text.contains(&number.to_string()) && text.contains(target);
            assert!(refusal.as_ref().is_none_or(names_both), "{refusal:?}");
        }
    }

    #[test]
    fn where_the_names_cannot_be_read_no_other_name_than_the_nodes_own_is_taken() {
        let cib = Reading::<Cib>::Blind("cibadmin was killed".into());
        let nodes = ClusterNodes::of(&Reading::Absent(String::new()), &cib);
        let refused = |target, nodename| refusal(target, wanted(nodename, None), &nodes);

        let why = refused("n2", Some("n1")).unwrap();
        assert!(
            ["'n1'", "'n2'", "cibadmin was killed"].iter().all(|part| why.contains(part)),
            "{why}"
        );
        for (target, nodename) in [("n1", Some("n1")), ("N1", Some("n1")), ("n2", None)] {
            assert_eq!(refused(target, nodename), None, "{target} {nodename:?}");
        }
    }

    #[test]
    fn the_configured_name_is_meant_unless_it_is_another_nodes() {
        let corosync = "nodelist {\n node {\n name: n1\n nodeid: 1\n }\n node {\n name: n2.a.org\n\
                        nodeid: 2\n }\n}\n";
        let cib = Reading::<Cib>::Absent(String::new());
        let cluster = ClusterNodes::of(&Reading::Got(Corosync::parse(corosync)), &cib);
        let unknown = ClusterNodes::default();
        let row = |plug, port, nodename, expected, expected_unknown| {
            let shown = format!("plug={plug:?} port={port:?} nodename={nodename:?}");
            assert_eq!(
                decide(plug, port, nodename, &cluster).as_deref().map_err(|why| *why),
                expected,
                "{shown}"
            );
            assert_eq!(
                decide(plug, port, nodename, &unknown).as_deref().map_err(|why| *why),
                expected_unknown,
                "{shown}, names unknown"
            );
        };
        let same = |plug, port, nodename, expected| row(plug, port, nodename, expected, expected);
        let (n1, n2) = (Some("n1"), Some("n2"));
        // By hand, by DLM, by an old Pacemaker: nobody says more than the target.
        same(None, None, None, Err("none"));
        same(n1, None, None, Ok("n1"));
        same(None, n2, None, Ok("n2"));
        same(n1, n1, None, Ok("n1"));
        same(n1, n2, None, Err("two"));
        // By Pacemaker, without a fixed name.
        same(None, None, n1, Ok("n1"));
        same(n1, None, n1, Ok("n1"));
        same(None, n1, n1, Ok("n1"));
        same(n1, n1, n1, Ok("n1"));
        same(Some("outlet-7"), None, n1, Ok("outlet-7"));
        // A fixed name beside the one that Pacemaker adds.
        same(Some("rabbit-1"), n1, n1, Ok("rabbit-1"));
        same(n1, Some("rabbit-1"), n1, Ok("rabbit-1"));
        same(Some("rabbit-1"), Some("rabbit-2"), n1, Err("two"));
        same(Some(""), n1, n1, Ok(""));
        // One node, written in two ways.
        same(Some("N1"), None, n1, Ok("N1"));
        same(Some("n1.a.org"), n1, n1, Ok("n1.a.org"));
        same(n2, None, Some("n2.a.org"), Ok("n2"));
        // A fixed name that is another node's.
        row(n2, None, n1, Err("another"), Ok("n2"));
        row(None, n2, n1, Err("another"), Ok("n2"));
        row(n2, n1, n1, Err("another"), Ok("n2"));
        row(n1, n2, n1, Err("another"), Ok("n2"));
        row(Some("N2.A.ORG"), n1, n1, Err("another"), Ok("N2.A.ORG"));
        row(n1, None, Some("gone"), Err("another"), Ok("n1"));
    }
}
