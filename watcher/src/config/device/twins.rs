//! One machine under two names.
//!
//! Two targets of a device that are reached in one place are one machine. If it is fenced under one
//! name, its other name still counts as another node, and two orders could reach it at once. So two
//! targets with one place are refused; `shared` looks for them over all devices. Two names that
//! differ by letter case or domain alone count as one target everywhere, and are only reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fence_core::PerTarget;
use fence_protocol::{NodeName, fold_hostlist};

use super::DeviceSettings;

/// The targets that share a place: a list for each place. Two names of one target do not count.
pub(super) fn in_one_place<T: Ord, P: IntoIterator<Item = T>>(
    targets: impl IntoIterator<Item = NodeName>,
    places: impl Fn(&NodeName) -> P,
) -> BTreeSet<Vec<NodeName>> {
    let mut all: BTreeMap<T, BTreeSet<NodeName>> = BTreeMap::new();
    for node in targets {
        for place in places(&node) {
            all.entry(place).or_default().insert(node.clone());
        }
    }
    let lists = all.values().map(|nodes| strangers(nodes, nodes));
    lists.filter(|nodes| !nodes.is_empty()).collect()
}

/// The `nodes` that are not a name of each of `others`.
pub(super) fn strangers(nodes: &BTreeSet<NodeName>, others: &BTreeSet<NodeName>) -> Vec<NodeName> {
    let is_one = |node: &&NodeName| others.iter().any(|other| !other.may_be(node));
    nodes.iter().filter(is_one).cloned().collect()
}

/// All these names in quotes; many names as a hostlist.
pub(super) fn listed(nodes: &[NodeName]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("'{node}'")).collect();
    match names.split_last() {
        Some((last, rest)) if (1..NAMES_MAX).contains(&rest.len()) => {
            format!("{} and {last}", rest.join(", "))
        }
        _ => format!("'{}'", fold_hostlist(nodes)),
    }
}

/// The most names that are listed one by one.
const NAMES_MAX: usize = 8;

/// The place of an address. Letter case, blanks around the address, the forms of an IP address, the
/// dot at the end of a full name, and the usual port make no difference.
pub(super) fn place_of_address(text: &str, usual_port: &str) -> (String, Option<String>) {
    let text = text.trim().to_ascii_lowercase();
    let (rest, usual_port) = match text.split_once("://") {
        Some(("http", rest)) => (rest, "80"),
        Some((_, rest)) => (rest, "443"),
        None => (text.as_str(), usual_port),
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None if rest.matches(':').count() == 1 => {
            rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        }
        None => (rest, None),
    };
    let host = match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.trim_end_matches('.').to_owned(),
    };
    let port = port.map(|port| port.trim_start_matches('0')).filter(|port| *port != usual_port);
    (host, port.map(str::to_owned))
}

/// The reports about names of one target, over all devices.
pub(in crate::config) fn reports(devices: &[DeviceSettings]) -> Vec<String> {
    let names: BTreeSet<&NodeName> = devices.iter().flat_map(names).collect();
    let mut machines: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
    for name in names {
        machines.entry(name.machine()).or_default().push(name);
    }
    let report = |names: Vec<&NodeName>| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!(
            "the targets {} differ by letter case or domain alone: they are \
             fenced one after the other; write one name for one node",
            names.join(" and ")
        )
    };
    let twins = machines.into_values().filter(|names| names.len() > 1).map(report);
    twins.chain(devices.iter().flat_map(words_for_all)).collect()
}

/// The reports about node names that were probably meant to be every node.
fn words_for_all(device: &DeviceSettings) -> Vec<String> {
    let is_word = |name: &&NodeName| {
        WORDS_FOR_ALL.iter().any(|word| name.as_str().eq_ignore_ascii_case(word))
    };
    let targets = device.targets.nodes().into_iter().flatten().filter(is_word);
    let nodes = device.nodes.iter().flatten().filter(is_word);
    let hint = |key: &str, name: &NodeName, instead: &str| {
        let device = &device.name;
        format!(
            "device '{device}': '{name}' in '{key}' is one node with this name; for every node, \
             {instead}"
        )
    };
    let targets = targets.map(|name| hint("targets", name, "write targets = \"*\""));
    targets.chain(nodes.map(|name| hint("nodes", name, "leave 'nodes' out"))).collect()
}

/// Words for every node in other programs.
const WORDS_FOR_ALL: [&str; 2] = ["all", "any"];

/// The targets that a device names.
pub(super) fn names(device: &DeviceSettings) -> Vec<&NodeName> {
    let called = match device.kind.addresses().or(device.kind.plugs()) {
        Some(PerTarget::Map(called)) => Some(called.keys()),
        _ => None,
    };
    device.targets.nodes().into_iter().flatten().chain(called.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn addresses_of_one_place_are_equal_however_they_are_written() {
        for (one, other, usual_port) in [
            ("bmc", " BMC ", "623"),
            ("bmc.example.com", "bmc.example.com.", "623"),
            ("bmc:623", "bmc", "623"),
            ("bmc:0623", "bmc", "623"),
            ("https://bmc", "BMC:443/", "443"),
            ("http://bmc:80", "https://bmc", "443"),
            ("fd00::1", "[FD00:0:0::1]:623", "623"),
            ("10.0.0.1", "::ffff:10.0.0.1", "623"),
        ] {
            let places = [one, other].map(|text| place_of_address(text, usual_port));
            assert_eq!(places[0], places[1], "{one} {other}");
        }
        for (one, other) in [("bmc", "bmc:6230"), ("bmc-1", "bmc-2"), ("10.0.0.1", "10.0.0.2")] {
            assert_ne!(place_of_address(one, "623"), place_of_address(other, "623"));
        }
    }

    #[test]
    fn two_names_of_one_node_may_share_a_place_and_two_nodes_may_not() {
        let find = |names: &[&str]| {
            let names = names.iter().map(|name| node(name));
            let lists = in_one_place(names, |_| Some("1"));
            lists.iter().map(|nodes| listed(nodes)).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(find(&["n3", "N3", "n3.example.com"]), "");
        assert_eq!(find(&["n3", "N3", "n4"]), "'N3', 'n3' and 'n4'");
        assert_eq!(find(&["10.0.0.1", "10.0.0.2"]), "'10.0.0.1' and '10.0.0.2'");
        assert_eq!(in_one_place([node("a"), node("b")], |_| None::<u8>).len(), 0);
    }

    #[test]
    fn all_that_share_a_place_are_listed_for_each_place() {
        let place = |node: &NodeName| node.as_str().chars().take(1).collect::<Vec<_>>();
        let nodes = ["a1", "a2", "a3", "b1", "c1", "c2"].map(node);
        let lists: Vec<String> =
            in_one_place(nodes, place).iter().map(|nodes| listed(nodes)).collect();
        assert_eq!(lists, ["'a1', 'a2' and 'a3'", "'c1' and 'c2'"]);

        let many: Vec<NodeName> = (1..=9).map(|number| node(&format!("n{number}"))).collect();
        assert_eq!(listed(&many), "'n[1-9]'");
        assert_eq!(listed(&many[..1]), "'n1'");
    }

    #[test]
    fn a_word_for_every_node_is_reported_with_what_to_write() {
        let reports = |keys: &str| {
            let text =
                format!("[[device]]\nname = 'd'\ntype = 'simulated'\nstate_file = '/s'\n{keys}\n");
            let origin = crate::config::Origin {
                file: "w.toml".as_ref(),
                node: "n1".to_owned(),
                environment: &[],
                programs_must_exist: false,
            };
            crate::config::parse(&text, &origin).unwrap().reports()
        };
        for word in ["ALL", "all", "Any"] {
            let found = reports(&format!("targets = '{word}'"));
            assert_eq!(
                found,
                [format!(
                    "device 'd': '{word}' in 'targets' is one node with this name; for every node, \
                     write targets = \"*\""
                )]
            );
        }
        let found = reports("targets = '*'\nnodes = 'ALL'");
        assert!(found.len() == 1 && found[0].ends_with("leave 'nodes' out"), "{found:?}");
        let found = reports("targets = ['all', 'any', 'n1']\nnodes = ['ALL', 'ANY']");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(reports("targets = ['all-1', 'n1']").is_empty());
    }
}
