//! `/etc/corosync/corosync.conf`: the cluster's name, and the numbers of the nodes.
//!
//! This module reads the file as corosync does: a line is a comment (`#`), opens a section
//! (`name {`), sets a value (`key: value`) or closes the section (`}`).

use std::net::IpAddr;

use crate::Target;
use crate::names;

/// corosync's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corosync {
    /// The cluster's name.
    pub cluster_name: Option<String>,
    /// The nodes in their order.
    pub nodes: Vec<ClusterNode>,
}

/// A node of `nodelist`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its number.
    pub id: Option<u32>,
    /// Its name; without a name, Pacemaker uses an address or the host's name.
    pub name: Option<String>,
    /// `ring0_addr` and so on: addresses or host names.
    pub addresses: Vec<String>,
}

impl Corosync {
    /// Reads the text of the file. Ignores lines without a meaning: corosync itself checks the
    /// file.
    pub fn parse(text: &str) -> Self {
        let mut corosync = Corosync::default();
        let mut sections: Vec<&str> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some((name, _)) = line.split_once('{') {
                sections.push(name.trim());
                if sections == NODE {
                    corosync.nodes.push(ClusterNode::default());
                }
            } else if let Some((key, value)) = line.split_once(':') {
                corosync.set(&sections, key.trim(), value.trim());
            } else if line.contains('}') {
                sections.pop();
            }
        }
        corosync
    }

    fn set(&mut self, sections: &[&str], key: &str, value: &str) {
        if sections == ["totem"] && key == "cluster_name" {
            self.cluster_name = Some(value.to_owned());
        }
        let Some(node) = self.nodes.last_mut().filter(|_| sections == NODE) else { return };
        match key {
            // Zero means none: then corosync derives a number from the address.
            "nodeid" => node.id = value.parse().ok().filter(|id| *id != 0),
            "name" => node.name = Some(value.to_owned()),
            _ if key.starts_with("ring") && key.ends_with("_addr") => {
                node.addresses.push(value.to_owned());
            }
            _ => {}
        }
    }

    /// Whether each node has a name that Pacemaker takes from this file.
    pub(crate) fn names_all_nodes(&self) -> bool {
        let is_host = |address: &String| address.parse::<IpAddr>().is_err();
        let has_name =
            |node: &ClusterNode| node.name.is_some() || node.addresses.first().is_some_and(is_host);
        !self.nodes.is_empty() && self.nodes.iter().all(has_name)
    }

    /// The number of `target`.
    pub fn node_id(&self, target: Target<'_>) -> Result<u32, String> {
        let known =
            self.nodes.iter().map(|node| names::known(node.name.as_deref(), &node.addresses));
        let place = names::find(target, &known.collect::<Vec<_>>())
            .map_err(|why| format!("{why} in corosync.conf"))?;
        let id = self.nodes[place].id;
        id.ok_or_else(|| "the node has no nodeid in corosync.conf".to_owned())
    }
}

const NODE: [&str; 2] = ["nodelist", "node"];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# node { name: no }\n\ntotem {\n  version: 2\n  cluster_name: c\n  \
        interface {\n\
        ringnumber: 0\n }\n}\nnodelist {\n node {\n  ring0_addr: fe80::1\n  ring1_addr: n1-ib\n\
        nodeid: 1\n # name: commented\n  name: n1\n }\n\tnode{\n ring0_addr: n2.a.org\n nodeid: \
        22\n }\n\
        node {\n  name: n3\n nodeid: none\n }\n node {\n  name: zero\n nodeid: 0\n }\n}\nquorum \
        {\n  name: n4\n  nodeid: 4\n}\n";

    fn node_id(name: &str) -> Result<u32, String> {
        let target = Target { plug: name, nodename: None };
        Corosync::parse(TEXT).node_id(target)
    }

    #[test]
    fn nodes_have_numbers_names_and_addresses() {
        let corosync = Corosync::parse(TEXT);

        assert_eq!(corosync.cluster_name.as_deref(), Some("c"));
        assert_eq!(corosync.nodes.len(), 4);
        assert_eq!(corosync.nodes[0].addresses, ["fe80::1", "n1-ib"]);
        for (name, id) in [("n1", 1), ("n1-ib", 1), ("n2", 22), ("n2.a.org", 22)] {
            assert_eq!(node_id(name), Ok(id), "{name}");
        }
    }

    #[test]
    fn a_node_without_a_number_or_outside_the_list_has_none() {
        assert_eq!(node_id("n3").unwrap_err(), "the node has no nodeid in corosync.conf");
        assert_eq!(node_id("zero").unwrap_err(), "the node has no nodeid in corosync.conf");
        assert_eq!(node_id("n4").unwrap_err(), "there is no node 'n4' in corosync.conf");
        assert_eq!(
            node_id("commented").unwrap_err(),
            "there is no node 'commented' in corosync.conf"
        );
    }

    #[test]
    fn a_file_that_makes_no_sense_has_no_nodes() {
        for text in ["", "}", "}}\n{\n", "nodelist", "node {\nname: a\nnodeid: 1\n}", "\0\u{1}{{{{"]
        {
            assert_eq!(
                Corosync::parse(text).node_id(Target { plug: "a", nodename: None }).ok(),
                None
            );
        }
    }
}
