//! The names that a device gives to its targets: a plug, an address, an instance.

use std::collections::BTreeMap;

use fence_protocol::NodeName;

/// A text for each target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PerTarget {
    /// The same text for all targets, with the target's name in place of each `{target}`.
    Pattern(String),
    /// One text for each listed target; other targets have none.
    Map(BTreeMap<NodeName, String>),
}

impl PerTarget {
    /// The text for `target`, if it has one.
    pub fn of(&self, target: &NodeName) -> Option<String> {
        match self {
            PerTarget::Pattern(pattern) => Some(pattern.replace("{target}", target.as_str())),
            PerTarget::Map(texts) => texts.get(target).cloned(),
        }
    }

    /// The text, if all targets have the same.
    pub fn of_all(&self) -> Option<&str> {
        match self {
            PerTarget::Pattern(pattern) if !pattern.contains("{target}") => Some(pattern),
            _ => None,
        }
    }

    /// The target that the device calls `text`, if that is certain: the only such target of the
    /// map, or the name that turns the pattern into `text`.
    pub fn target_of(&self, text: &str) -> Option<NodeName> {
        match self {
            PerTarget::Pattern(pattern) => {
                let (before, after) = pattern.split_once("{target}")?;
                let name = text.strip_prefix(before)?.strip_suffix(after)?;
                let target = name.parse().ok()?;
                (self.of(&target).as_deref() == Some(text)).then_some(target)
            }
            PerTarget::Map(texts) => {
                let mut found = texts.iter().filter(|(_, of_one)| *of_one == text);
                let (target, _) = found.next()?;
                found.next().is_none().then(|| target.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_pattern_names_every_target_and_a_map_only_its_own() {
        let pattern = PerTarget::Pattern("{target}-ipmi.{target}.net".into());
        assert_eq!(pattern.of(&node("n1")).unwrap(), "n1-ipmi.n1.net");

        let map = PerTarget::Map([(node("n1"), "3".to_owned())].into());
        assert_eq!(map.of(&node("n1")).unwrap(), "3");
        assert_eq!(map.of(&node("n2")), None);

        assert_eq!(PerTarget::Pattern("pdu".into()).of_all(), Some("pdu"));
        assert_eq!((pattern.of_all(), map.of_all()), (None, None));
    }

    #[test]
    fn a_target_is_derived_from_a_plug_only_if_it_is_certain() {
        let pattern = PerTarget::Pattern("vm-{target}".into());
        assert_eq!(pattern.target_of("vm-n1"), Some(node("n1")));
        assert_eq!(pattern.target_of("n1"), None);
        assert_eq!(pattern.target_of("vm-"), None);
        assert_eq!(pattern.target_of("vm-../x"), None);
        assert_eq!(PerTarget::Pattern("3".into()).target_of("3"), None);
        let twice = PerTarget::Pattern("{target}-{target}".into());
        assert_eq!(twice.target_of("n1-n2"), None);
        assert_eq!(twice.of(&node("n1")).unwrap(), "n1-n1");

        let shared = [(node("n1"), "3".to_owned()), (node("n2"), "3".to_owned())];
        assert_eq!(PerTarget::Map(shared.into()).target_of("3"), None);
        let own = [(node("n1"), "3".to_owned()), (node("n2"), "4".to_owned())];
        assert_eq!(PerTarget::Map(own.into()).target_of("4"), Some(node("n2")));
    }
}
