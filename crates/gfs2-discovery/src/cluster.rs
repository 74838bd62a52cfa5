//! The nodes of the cluster, with all their names.
//!
//! corosync's configuration has no remote nodes, and the CIB has no addresses. A node in both
//! sources is one node here.

use crate::names::{self, Known};
use crate::{Cib, Corosync, Reading};

/// The nodes, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNodes {
    nodes: Vec<Names>,
    /// Why existing sources could not be read, if no other source names the nodes.
    unread: Option<String>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    id: Option<String>,
    name: Option<String>,
    /// Its other names, and its addresses.
    others: Vec<String>,
}

impl ClusterNodes {
    /// The nodes of the two sources.
    pub fn of(corosync: &Reading<Corosync>, cib: &Reading<Cib>) -> Self {
        let mut nodes = Vec::new();
        if let Reading::Got(corosync) = corosync {
            nodes.extend(corosync.nodes.iter().map(|node| Names {
                id: node.id.map(|id| id.to_string()),
                name: node.name.clone(),
                others: node.addresses.clone(),
            }));
        }
        let mut all = ClusterNodes { nodes, unread: unread(corosync, cib) };
        if let Reading::Got(cib) = cib {
            cib.nodes().for_each(|(id, name)| all.add(id, name));
        }
        all
    }

    fn add(&mut self, id: &str, name: &str) {
        if name.is_empty() {
            return;
        }
        let is_it = |node: &&mut Names| {
            let has_name = |own: &String| own.eq_ignore_ascii_case(name);
            node.id.as_deref() == Some(id) || node.name.as_ref().is_some_and(has_name)
        };
        if let Some(node) = self.nodes.iter_mut().find(is_it) {
            // A fence uses the cluster manager's name of the node.
            node.others.extend(node.name.replace(name.to_owned()));
        } else {
            let (id, name) = (Some(id.to_owned()), Some(name.to_owned()));
            self.nodes.push(Names { id, name, others: Vec::new() });
        }
    }

    /// Whether `name` is the name of a node.
    pub fn have(&self, name: &str) -> bool {
        !names::places(name, &self.known()).is_empty()
    }

    /// The name, or else an address, of the node with this number.
    pub fn of_number(&self, number: u32) -> Option<&str> {
        let number = number.to_string();
        self.nodes.iter().find(|node| node.id.as_ref() == Some(&number))?.shown()
    }

    /// Why it cannot be decided whether `plug` is the name of another node than `nodename`.
    pub fn doubt(&self, plug: &str, nodename: &str) -> Option<&str> {
        let known = self.known();
        let own = names::places(nodename, &known);
        let is_own = names::places(plug, &known).iter().any(|place| own.contains(place));
        self.unread().filter(|_| !is_own && !names::are_one(plug, nodename))
    }

    /// Why existing sources could not be read, if no other source names the nodes.
    pub fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// The node with the name `plug`, if it is certainly another node than `nodename`.
    pub fn other_node(&self, plug: &str, nodename: &str) -> Option<&str> {
        let known = self.known();
        let (plugs, own) = (names::places(plug, &known), names::places(nodename, &known));
        let is_own = plugs.iter().any(|place| own.contains(place))
            || own.is_empty() && names::are_one(plug, nodename);
        self.nodes[*plugs.first().filter(|_| !is_own)?].shown()
    }

    fn known(&self) -> Vec<Known<'_>> {
        self.nodes.iter().map(|node| names::known(node.name.as_deref(), &node.others)).collect()
    }
}

fn unread(corosync: &Reading<Corosync>, cib: &Reading<Cib>) -> Option<String> {
    let by_corosync = matches!(corosync, Reading::Got(corosync) if corosync.names_all_nodes());
    let by_cib = matches!(cib, Reading::Got(cib) if cib.nodes().any(|(_, name)| !name.is_empty()));
    let why = [corosync.blindness(), cib.blindness()];
    let why: Vec<&str> = why.into_iter().flatten().collect();
    (!by_corosync && !by_cib && !why.is_empty()).then(|| why.join("; "))
}

impl Names {
    /// The name, or else an address.
    fn shown(&self) -> Option<&str> {
        self.name.as_deref().or(self.others.first().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COROSYNC: &str = "nodelist {\n node {\n name: n1\n nodeid: 1\n ring0_addr: 10.0.0.1\n }\n\
        node {\n name: n2.a.org\n nodeid: 2\n ring0_addr: n2-ib\n }\n\
        node {\n nodeid: 3\n ring0_addr: 10.0.0.3\n }\n\
        node {\n name: x.a.org\n nodeid: 4\n }\n node {\n name: x.b.org\n nodeid: 5\n }\n}\n";
    const CIB: &str = r#"<cib><configuration><nodes><node id="1" uname="n1"/>
        <node id="3" uname="n3"/><node id="4" uname="x4"/></nodes></configuration>
        <status><node_state id="remote1" uname="remote1"/></status></cib>"#;

    fn nodes(corosync: bool, cib: bool) -> ClusterNodes {
        let absent = || "not here".to_owned();
        let text = if corosync {
            Reading::Got(Corosync::parse(COROSYNC))
        } else {
            Reading::Absent(absent())
        };
        let cib =
            if cib { Reading::Got(Cib::parse(CIB).unwrap()) } else { Reading::Blind(absent()) };
        ClusterNodes::of(&text, &cib)
    }

    #[test]
    fn a_plug_that_is_another_nodes_name_is_found_under_each_name() {
        let nodes = nodes(true, true);
        for (plug, nodename, other) in [
            ("n2.a.org", "n1", Some("n2.a.org")),
            ("n2", "n1", Some("n2.a.org")),
            ("N2", "n1", Some("n2.a.org")),
            ("n2-ib", "n1", Some("n2.a.org")),
            ("10.0.0.3", "n1", Some("n3")),
            ("n3", "n1", Some("n3")),
            ("n1", "n3", Some("n1")),
            ("remote1", "n1", Some("remote1")),
            ("n1", "remote1", Some("n1")),
            ("n1", "node-that-nobody-knows", Some("n1")),
            ("x.a.org", "x.b.org", Some("x4")),
            ("x4", "x.b.org", Some("x4")),
            // One node.
            ("n1", "n1", None),
            ("N1", "n1", None),
            ("n1.a.org", "n1", None),
            ("n2", "n2.a.org", None),
            ("n2-ib", "n2", None),
            ("10.0.0.3", "n3", None),
            ("x.a.org", "x4", None),
            ("x", "x.b.org", None),
            ("Remote1", "remote1", None),
            // No node.
            ("outlet-7", "n1", None),
            ("n1-ipmi", "n1", None),
            ("n2-ipmi", "n1", None),
            ("7", "n1", None),
            ("", "n1", None),
        ] {
            assert_eq!(nodes.other_node(plug, nodename), other, "{plug} for {nodename}");
        }
    }

    #[test]
    fn what_one_source_does_not_know_the_other_does() {
        assert_eq!(nodes(true, false).other_node("n2", "n1"), Some("n2.a.org"));
        assert_eq!(nodes(true, false).other_node("remote1", "n1"), None);
        assert_eq!(nodes(false, true).other_node("remote1", "n1"), Some("remote1"));
        assert_eq!(nodes(false, false).other_node("n2", "n1"), None);
        assert_eq!(nodes(false, false).doubt("n2", "n1"), Some("not here"));
    }

    #[test]
    fn a_source_that_cannot_be_read_leaves_a_doubt_where_no_other_names_the_nodes() {
        let cib = || Reading::Got(Cib::parse(CIB).unwrap());
        let no_cib = || Reading::<Cib>::Absent("no cibadmin".into());
        let late = || Reading::<Cib>::Blind("cibadmin was killed".into());
        let corosync = |text: &str| Reading::Got(Corosync::parse(text));
        let unread = || Reading::<Corosync>::Blind("others can write to it".into());
        let absent = || Reading::<Corosync>::Absent("no corosync.conf".into());
        let addresses = "nodelist {\n node {\n ring0_addr: 10.0.0.1\n nodeid: 1\n }\n node {\n\
            ring0_addr: fe80::2\n nodeid: 2\n }\n}\n";
        let hosts = "nodelist {\n node {\n ring0_addr: n1\n }\n node {\n name: n2\n }\n}\n";
        let half = "nodelist {\n node {\n ring0_addr: 10.0.0.1\n }\n node {\n name: n2\n }\n}\n";
        for (corosync, cib, why) in [
            (corosync(addresses), late(), Some("cibadmin was killed")),
            (corosync(half), late(), Some("cibadmin was killed")),
            (corosync(""), late(), Some("cibadmin was killed")),
            (absent(), late(), Some("cibadmin was killed")),
            (unread(), no_cib(), Some("others can write to it")),
            (unread(), late(), Some("others can write to it; cibadmin was killed")),
            (unread(), Reading::Got(Cib::default()), Some("others can write to it")),
            (unread(), cib(), None),
            (corosync(addresses), cib(), None),
            (corosync(addresses), no_cib(), None),
            (corosync(hosts), late(), None),
            (corosync(hosts), no_cib(), None),
            (absent(), no_cib(), None),
        ] {
            let nodes = ClusterNodes::of(&corosync, &cib);
            assert_eq!(nodes.doubt("outlet-7", "n1"), why, "{corosync:?} {cib:?}");
            // One name in two forms is one node, whoever could be asked.
            assert_eq!(nodes.doubt("N1.a.org", "n1"), None);
        }
        let nodes = ClusterNodes::of(&corosync(addresses), &late());
        assert_eq!(nodes.doubt("10.0.0.1", "10.0.0.1"), None);
    }

    #[test]
    fn a_number_has_the_name_that_any_source_knows() {
        for (number, corosync, cib, both) in [
            (1, Some("n1"), Some("n1"), Some("n1")),
            (2, Some("n2.a.org"), None, Some("n2.a.org")),
            (3, Some("10.0.0.3"), Some("n3"), Some("n3")),
            (4, Some("x.a.org"), Some("x4"), Some("x4")),
            (9, None, None, None),
            (0, None, None, None),
        ] {
            assert_eq!(nodes(true, false).of_number(number), corosync, "{number}");
            assert_eq!(nodes(false, true).of_number(number), cib, "{number}");
            assert_eq!(nodes(true, true).of_number(number), both, "{number}");
        }
    }

    #[test]
    fn a_node_that_came_back_with_another_number_is_one_under_each() {
        let corosync = "nodelist {\n node {\n nodeid: 7\n ring0_addr: 10.0.0.7\n }\n}\n";
        let cib = r#"<cib><configuration><nodes><node id="2" uname="n2"/><node id="7" uname="n2"/>
            </nodes></configuration></cib>"#;
        let nodes = ClusterNodes::of(
            &Reading::Got(Corosync::parse(corosync)),
            &Reading::Got(Cib::parse(cib).unwrap()),
        );
        assert_eq!(nodes.other_node("10.0.0.7", "n2"), None);
        assert_eq!(nodes.other_node("10.0.0.7", "n1"), Some("n2"));
    }
}
