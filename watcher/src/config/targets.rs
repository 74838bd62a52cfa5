//! Which nodes a device can fence, and node lists written short.

use std::collections::BTreeSet;
use std::fmt;

use fence_protocol::NodeName;

/// Which nodes a device can fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Any (`"*"`): the device itself refuses what it does not know.
    Any,
    /// These.
    Nodes(BTreeSet<NodeName>),
    /// Those that the device lists (`"discover"`).
    Discover,
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::Any => f.write_str("*"),
            Targets::Nodes(nodes) => f.write_str(&fold_hostlist(nodes)),
            Targets::Discover => f.write_str("discover"),
        }
    }
}

/// The hostlist expression that names `nodes`: `n[1-3,5]`.
pub fn fold_hostlist<'a>(nodes: impl IntoIterator<Item = &'a NodeName>) -> String {
    let mut parts: Vec<Numbered> = nodes.into_iter().map(|node| split(node.as_str())).collect();
    parts.sort_unstable();
    parts
        .chunk_by(|a, b| a.prefix == b.prefix && a.number.is_some() && b.number.is_some())
        .map(|group| match group {
            [one] => format!("{}{}", one.prefix, one.digits),
            _ => format!("{}[{}]", group[0].prefix, ranges(group)),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// A name as its text and the number at its end. Ordered for folding.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Numbered<'a> {
    prefix: &'a str,
    number: Option<u32>,
    digits: &'a str,
}

fn split(name: &str) -> Numbered<'_> {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[prefix.len()..];
    match digits.parse() {
        Ok(number) => Numbered { prefix, number: Some(number), digits },
        Err(_) => Numbered { prefix: name, number: None, digits: "" },
    }
}

fn ranges(group: &[Numbered]) -> String {
    group
        .chunk_by(follows)
        .map(|range| match range {
            [one] => one.digits.to_owned(),
            _ => format!("{}-{}", range[0].digits, range[range.len() - 1].digits),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Whether a range that holds `a` goes on with `b`: the next number, in the same way of writing.
fn follows(a: &Numbered, b: &Numbered) -> bool {
    let width = if a.digits.starts_with('0') { a.digits.len() } else { 0 };
    let next = a.number.and_then(|number| number.checked_add(1));
    next.is_some_and(|next| format!("{next:0width$}") == b.digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fence_protocol::expand_hostlist;

    #[test]
    fn a_folded_list_names_the_same_nodes() {
        for (written, folded) in [
            ("n1,n2,n3,n5", "n[1-3,5]"),
            ("n[1-12]", "n[1-12]"),
            ("n[08-11]", "n[08-11]"),
            ("n9,n10,n010,n011", "n[9,010,10,011]"),
            ("b,a,n1", "a,b,n1"),
            ("rack1-n[1-2],rack2-n1", "rack1-n[1-2],rack2-n1"),
            ("n99999999999", "n99999999999"),
            ("7,8", "[7-8]"),
        ] {
            let nodes: BTreeSet<NodeName> = expand_hostlist(written).unwrap().into_iter().collect();
            let text = fold_hostlist(&nodes);

            assert_eq!(text, folded);
            let again: BTreeSet<NodeName> = expand_hostlist(&text).unwrap().into_iter().collect();
            assert_eq!(again, nodes, "{written}");
        }
    }
}
