//! Which node is meant: Pacemaker's own words and a device's fixed ones side by side.
//!
//! Pacemaker passes `nodename`, the cluster's name of the node to fence, and adds the name that the
//! device knows it by: as `port` up to 3.0.0, as `plug` from 3.0.1 on, unless the device configures
//! that very parameter. So `plug` and `port` can both be there, and a configured one can be the name of
//! another node than the one to be fenced: then a success would tell the cluster that the wrong node
//! is off.
//!
//! Nothing is read here: whose names the cluster knows is `gfs2_discovery`'s.

use gfs2_discovery::ClusterNodes;

/// `plug` and `port` name two targets, and which one is meant cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoTargets;

/// The target among the names that were given; `None` when none was.
///
/// Of two names the one that equals `nodename` was added by Pacemaker, and the configured one is meant.
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

/// Whether `target` has to be compared with the names of the cluster's nodes: only where the cluster
/// manager named the node, and otherwise than the device does.
pub fn is_doubtful(target: &str, nodename: Option<&str>) -> bool {
    nodename.is_some_and(|node| node != target)
}

/// Why `target` is not acted on for `nodename`: it is the name of another node. Nodes whose names
/// nobody could read keep no fence from being done: a device's names are its own, and are mostly
/// different from the cluster's on purpose.
pub fn refusal(target: &str, nodename: Option<&str>, nodes: &ClusterNodes) -> Option<String> {
    let node = nodename.filter(|_| is_doubtful(target, nodename))?;
    let other = nodes.other_node(target, node)?;
    Some(format!(
        "the cluster means its node '{node}', but the target '{target}' is its node '{other}': give this \
         device's resource pcmk_host_list={other}, or take plug and port out of it"
    ))
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
        match refusal(target, nodename, nodes) {
            None => Ok(target.to_owned()),
            Some(text) => {
                assert!(text.contains(target) && text.contains(nodename.unwrap()), "{text}");
                Err("another")
            }
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
