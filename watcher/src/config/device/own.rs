//! The text that each target of a device needs for itself: an address, a plug, an instance.
//!
//! All types have the same two rules: every target has a right text, and no two targets are reached
//! in one place. Every breach of a rule is noted, not only the first.

use fence_core::PerTarget;
use fence_protocol::NodeName;

use super::read::Common;
use super::twins::{in_one_place, listed};
use crate::config::reader::Section;

/// The texts of one key, by target.
pub(super) struct Own<'a> {
    pub(super) section: &'a Section<'a>,
    pub(super) common: &'a Common,
    pub(super) key: &'static str,
    pub(super) texts: &'a PerTarget,
}

impl Own<'_> {
    /// Notes each text that is wrong, and each target without one.
    pub(super) fn check_each(&self, problem: impl Fn(&str) -> Option<String>) {
        let wrong: Vec<String> = match self.texts {
            PerTarget::Map(texts) => texts.values().filter_map(|text| problem(text)).collect(),
            // One pattern is one fault.
            PerTarget::Pattern(_) => {
                let mut texts = self.nodes().into_iter().filter_map(|node| self.texts.of(&node));
                texts.find_map(|text| problem(&text)).into_iter().collect()
            }
        };
        for text in wrong {
            self.note(&text);
        }
        let known = self.common.known_targets(self.texts);
        for node in known.iter().filter(|node| self.texts.of(node).is_none()) {
            self.note(&format!("there is none for '{node}'"));
        }
    }

    /// Notes all targets that share one of their `places`. They have `same` in common, and `why`
    /// says why two targets must not.
    pub(super) fn check_apart<T: Ord, P: IntoIterator<Item = T>>(
        &self,
        places: impl Fn(&NodeName) -> P,
        same: &str,
        why: &str,
    ) {
        if self.common.targets.is_none() {
            return;
        }
        let are_known = !self.common.known_targets(self.texts).is_empty();
        for nodes in in_one_place(self.nodes(), places) {
            if are_known {
                self.note(&format!("{} have {same}: {why}", listed(&nodes)));
            } else {
                self.note(why);
            }
        }
    }

    /// The targets. If the device has no list of targets, two names that its targets could have.
    fn nodes(&self) -> Vec<NodeName> {
        let known = self.common.known_targets(self.texts);
        if known.is_empty() {
            return SAMPLES.iter().filter_map(|name| name.parse().ok()).collect();
        }
        known.into_iter().collect()
    }

    /// Notes `text` where the texts are written: at their key, or with the targets.
    pub(super) fn note(&self, text: &str) {
        let written = if self.section.has(self.key) { self.key } else { "targets" };
        self.section.at(written, format!("'{}': {text}", self.key));
    }
}

const SAMPLES: [&str; 2] = ["n1", "n2"];
