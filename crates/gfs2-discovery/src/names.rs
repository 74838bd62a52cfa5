//! The node that a name means.
//!
//! A node has a name in the cluster, a name as a machine and a name for each of its addresses, some
//! with a domain and some without. As in host names and in Pacemaker, case has no meaning.

use std::net::IpAddr;

use crate::Target;

/// The names of one node.
pub(crate) struct Known<'a> {
    /// Its name in the cluster.
    pub(crate) name: Option<&'a str>,
    /// Its addresses, which can also be names.
    pub(crate) addresses: Vec<&'a str>,
}

pub(crate) fn known<'a>(name: Option<&'a str>, addresses: &'a [String]) -> Known<'a> {
    Known { name, addresses: addresses.iter().map(String::as_str).collect() }
}

/// The position of the only node in `nodes` that `target` means. A name that could mean two nodes
/// means none.
pub(crate) fn find(target: Target<'_>, nodes: &[Known<'_>]) -> Result<usize, String> {
    for wanted in target.names() {
        match places(wanted, nodes)[..] {
            [place] => return Ok(place),
            [] => {}
            _ => return Err(format!("'{wanted}' could mean several nodes")),
        }
    }
    Err(format!("there is no node '{}'", target.nodename.unwrap_or(target.plug)))
}

/// The positions of all nodes in `nodes` that `wanted` can mean.
///
/// The order of precedence: whole names, whole addresses, names without domain, addresses without
/// domain.
pub(crate) fn places(wanted: &str, nodes: &[Known<'_>]) -> Vec<usize> {
    for is in [is_same as fn(&str, &str) -> bool, is_same_without_domain] {
        let by_name = |node: &Known<'_>| node.name.is_some_and(|name| is(name, wanted));
        let by_address = |node: &Known<'_>| node.addresses.iter().any(|name| is(name, wanted));
        for has in [&by_name as &dyn Fn(&Known<'_>) -> bool, &by_address] {
            let fitting: Vec<_> = (0..nodes.len()).filter(|place| has(&nodes[*place])).collect();
            if !fitting.is_empty() {
                return fitting;
            }
        }
    }
    Vec::new()
}

/// Whether two names differ at most by case and by a domain that one of them lacks.
pub(crate) fn are_one(one: &str, other: &str) -> bool {
    is_same(one, other) || is_same_without_domain(one, other)
}

fn is_same(known: &str, wanted: &str) -> bool {
    known.eq_ignore_ascii_case(wanted)
}

/// Whether the names are the same except for a domain that only one of them has.
fn is_same_without_domain(known: &str, wanted: &str) -> bool {
    let host = |name: &str| name.parse::<IpAddr>().is_err();
    let short = |name: &'_ str| name.split('.').next().unwrap_or_default().to_owned();
    host(known)
        && host(wanted)
        && known.contains('.') != wanted.contains('.')
        && is_same(&short(known), &short(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &[(Option<&str>, &[&str])] = &[
        (Some("n1"), &["10.0.0.1"]),
        (Some("n2.a.org"), &["10.0.0.2", "n2-ib"]),
        (None, &["n3.a.org", "fe80::3"]),
        (Some("x.a.org"), &[]),
        (Some("x.b.org"), &["n1"]),
    ];

    fn find_names(plug: &str, nodename: Option<&str>) -> Result<usize, String> {
        let nodes: Vec<Known<'_>> = NODES
            .iter()
            .map(|(name, addresses)| Known { name: *name, addresses: addresses.to_vec() })
            .collect();
        find(Target { plug, nodename }, &nodes)
    }

    #[test]
    fn a_node_is_found_by_name_and_by_address_with_and_without_domain() {
        for (name, place) in [
            ("n1", 0),
            ("N1", 0),
            ("n1.a.org", 0),
            ("10.0.0.1", 0),
            ("n2", 1),
            ("n2.a.org", 1),
            ("n2-ib", 1),
            ("n3", 2),
            ("n3.a.org", 2),
            ("fe80::3", 2),
            ("x.b.org", 4),
        ] {
            assert_eq!(find_names(name, None), Ok(place), "{name}");
        }
    }

    #[test]
    fn a_name_that_means_no_node_or_two_finds_none() {
        assert_eq!(find_names("x", None).unwrap_err(), "'x' could mean several nodes");
        for name in ["", "n", "n2.b.org", "10", "10.0.0", "10.0.0.12", "n3.b.org"] {
            assert_eq!(find_names(name, None).unwrap_err(), format!("there is no node '{name}'"));
        }
    }

    #[test]
    fn the_clusters_own_name_outranks_the_devices() {
        assert_eq!(find_names("n1", Some("n2.a.org")), Ok(1));
        assert_eq!(find_names("n1", Some("unknown")), Ok(0));
        assert_eq!(find_names("outlet-7", Some("n3")), Ok(2));
        assert_eq!(find_names("a", Some("b")).unwrap_err(), "there is no node 'b'");
    }
}
