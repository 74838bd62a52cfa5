//! What each target of a device needs for itself: an address, a plug, an instance.
//!
//! Each type has the same two rules: every target has such a text, and it is a right one; and no
//! two targets are reached in one place. Everything that breaks a rule is noted, not only the
//! first.

use fence_core::PerTarget;
use fence_protocol::NodeName;

use super::read::Common;
use super::twins::{in_one_place, listed};

/// The texts of one key, by target.
pub(super) struct Own<'a> {
    pub(super) key: &'static str,
    pub(super) texts: &'a PerTarget,
    /// Where they are written.
    pub(super) at: usize,
}

impl Own<'_> {
    /// Notes each text that is wrong, and each target without one.
    pub(super) fn check_each(&self, common: &Common, problem: impl Fn(&str) -> Option<String>) {
        let wrong: Vec<String> = match self.texts {
            PerTarget::Map(texts) => texts.values().filter_map(|text| problem(text)).collect(),
            // One pattern is one fault.
            PerTarget::Pattern(_) => {
                let mut texts = self.nodes(common).into_iter().filter_map(|n| self.texts.of(&n));
                texts.find_map(|text| problem(&text)).into_iter().collect()
            }
        };
        for text in wrong {
            self.note(common, &text);
        }
        let known = common.known_targets(self.texts);
        for node in known.iter().filter(|node| self.texts.of(node).is_none()) {
            self.note(common, &format!("there is none for '{node}'"));
        }
    }

    /// Notes all targets that are reached in one of the same `places`. They have `same` in common,
    /// and `why` says why two targets must not.
    pub(super) fn check_apart<T: Ord, P: IntoIterator<Item = T>>(
        &self,
        common: &Common,
        places: impl Fn(&NodeName) -> P,
        same: &str,
        why: &str,
    ) {
        if common.targets.is_none() {
            return;
        }
        let are_known = !common.known_targets(self.texts).is_empty();
        for nodes in in_one_place(self.nodes(common), places) {
            if are_known {
                self.note(common, &format!("{} have {same}: {why}", listed(&nodes)));
            } else {
                self.note(common, why);
            }
        }
    }

    /// The targets; where any may come, two names that could be theirs.
    fn nodes(&self, common: &Common) -> Vec<NodeName> {
        let known = common.known_targets(self.texts);
        if known.is_empty() {
            return SAMPLES.iter().filter_map(|name| name.parse().ok()).collect();
        }
        known.into_iter().collect()
    }

    fn note(&self, common: &Common, text: &str) {
        common.problems.at(self.at, format!("'{}': {text}", self.key));
    }
}

const SAMPLES: [&str; 2] = ["n1", "n2"];
