//! One text for all targets with the same problem.
//!
//! Sixteen BMCs with a missing password file have one fault, and an administrator reads it once,
//! with the sixteen targets beside it. Texts that differ only in the target's name, address or plug
//! are the same text.

use std::collections::BTreeMap;

use fence_core::PerTarget;
use fence_protocol::{NodeName, fold_hostlist, natural_order};

/// A device's other names for its targets in its texts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Called<'a> {
    /// The address of each target.
    pub address: Option<&'a PerTarget>,
    /// The plug of each target.
    pub plug: Option<&'a PerTarget>,
}

/// The targets of each text, as a hostlist, and the text. In the text of several targets, the
/// placeholders of the configuration (`{address}`, `{plug}`, `{target}`) replace the differences.
///
/// The result contains every target, in natural order.
pub fn grouped<'a>(
    texts: impl IntoIterator<Item = (&'a NodeName, &'a str)>,
    called: Called<'_>,
) -> Vec<(String, String)> {
    let mut groups: BTreeMap<String, Vec<(&NodeName, &str)>> = BTreeMap::new();
    for (target, text) in texts {
        let group = groups.entry(without_names(target, text, called)).or_default();
        group.push((target, text));
    }
    let mut groups: Vec<(String, Vec<(&NodeName, &str)>)> = groups.into_iter().collect();
    for (_, members) in &mut groups {
        members.sort_by(|one, other| natural_order(one.0.as_str(), other.0.as_str()));
        members.dedup();
    }
    groups.sort_by(|(_, one), (_, other)| natural_order(one[0].0.as_str(), other[0].0.as_str()));
    let said = |(common, members): (String, Vec<(&NodeName, &str)>)| {
        // The same text, word for word, needs no placeholder.
        let first = members[0].1;
        let is_same = members.iter().all(|(_, text)| *text == first);
        let text = if is_same { first.to_owned() } else { common };
        (fold_hostlist(members.iter().map(|(target, _)| *target)), text)
    };
    groups.into_iter().map(said).collect()
}

/// `text` about `target`, with the placeholders of the configuration for the target's own values.
pub fn without_names(target: &NodeName, text: &str, called: Called<'_>) -> String {
    let of = |names: Option<&PerTarget>| names.and_then(|names| names.of(target));
    let address = of(called.address);
    let host = address.as_deref().map(host).filter(|host| *host != target.as_str());
    let names = [
        (address.clone(), "{address}"),
        // The error of a look-up contains only the host.
        (host.map(str::to_owned), "{address}"),
        (of(called.plug), "{plug}"),
        (Some(target.to_string()), TARGET),
    ];
    names.into_iter().fold(text.to_owned(), |text, (name, placeholder)| match name {
        Some(name) if !name.is_empty() => with_word_replaced(&text, &name, placeholder),
        _ => text,
    })
}

/// The host of an address that may have a scheme and a port.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(rest) = rest.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match rest.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => rest,
    }
}

/// The placeholder of the target's name.
pub const TARGET: &str = "{target}";

/// `text` with `placeholder` for each `word` that is not inside another word or number.
fn with_word_replaced(text: &str, word: &str, placeholder: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "-_{}".contains(c);
    let (mut replaced, mut done) = (String::with_capacity(text.len()), 0);
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        if !text[..at].ends_with(is_part) && !text[end..].starts_with(is_part) {
            replaced.extend([&text[done..at], placeholder]);
            done = end;
        }
    }
    replaced + &text[done..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[(&str, &str)], called: Called<'_>) -> Vec<(String, String)> {
        let nodes: Vec<(NodeName, &str)> =
            texts.iter().map(|(name, text)| (name.parse().unwrap(), *text)).collect();
        grouped(nodes.iter().map(|(node, text)| (node, *text)), called)
    }

    fn pairs(groups: &[(String, String)]) -> Vec<(&str, &str)> {
        groups.iter().map(|(targets, text)| (targets.as_str(), text.as_str())).collect()
    }

    #[test]
    fn one_text_is_said_once_with_its_targets_in_the_order_of_their_numbers() {
        let groups = of(
            &[("n10", "no file"), ("n2", "no file"), ("n9", "dead"), ("n1", "no file")],
            Called::default(),
        );

        assert_eq!(pairs(&groups), [("n[1-2,10]", "no file"), ("n9", "dead")]);
    }

    #[test]
    fn texts_that_differ_by_the_targets_own_names_alone_are_one() {
        let address = PerTarget::Pattern("{target}-bmc".to_owned());
        let called = Called { address: Some(&address), plug: None };
        let groups = of(
            &[
                ("n1", "BMC n1-bmc: no answer"),
                ("n2", "BMC n2-bmc: no answer"),
                ("n3", "BMC n3-bmc: wrong password"),
                // Another one's address is not its own.
                ("n4", "BMC n1-bmc: no answer"),
            ],
            called,
        );

        assert_eq!(
            pairs(&groups),
            [
                ("n[1-2]", "BMC {address}: no answer"),
                ("n3", "BMC n3-bmc: wrong password"),
                ("n4", "BMC n1-bmc: no answer"),
            ]
        );
        // A fault of the look-up names the host alone, however the address is written.
        for pattern in [
            "https://{target}-bmc",
            "https://{target}-bmc:8443/",
            "{target}-bmc:623",
            "{target}-bmc",
        ] {
            let address = PerTarget::Pattern(pattern.to_owned());
            let called = Called { address: Some(&address), plug: None };
            let text = |n: u32| format!("'n{n}-bmc' cannot be looked up: no answer in time");
            let groups = of(&[("n1", &text(1)), ("n2", &text(2))], called);
            let common = "'{address}' cannot be looked up: no answer in time";
            assert_eq!(pairs(&groups), [("n[1-2]", common)], "{pattern}");
        }
        assert_eq!(host("https://[fd00::1]:443/"), "fd00::1");
        assert_eq!(host("fd00::1"), "fd00::1");
        let groups = of(&[("n1", "n1 is lost, n10 not"), ("n2", "n2 is lost, n10 not")], called);
        assert_eq!(pairs(&groups), [("n[1-2]", "{target} is lost, n10 not")]);
    }
}
