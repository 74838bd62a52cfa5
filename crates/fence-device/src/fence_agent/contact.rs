//! Asking an agent whether its device can be reached.

use std::path::Path;

use fence_protocol::NodeName;
use fence_spool::program_problem;

use super::{AgentAction, FenceAgentDevice, Ran, Target};
use crate::contacts::listed;
use crate::pool::ask_all;
use crate::{Called, Limit, OUTPUT_BYTES_MAX, Outcome, Reach, grouped};

impl FenceAgentDevice {
    pub(super) fn contact(&self, limit: Limit) -> Reach {
        let reach = self.contact_now(limit);
        // A failure to read the metadata was perhaps a passing one, and a fence has no time for it.
        if self.is_undescribed() && !matches!(reach, Reach::Unreachable(_)) {
            let _ = self.metadata(limit);
        }
        reach
    }

    fn contact_now(&self, limit: Limit) -> Reach {
        if let Some(doubt) = self.doubt_about_plugs(limit) {
            return Reach::Unreachable(doubt);
        }
        if !self.can(AgentAction::Monitor) {
            return self.program_only("the agent is there; it has no monitor");
        }
        if self.has_one_contact() {
            return match self.monitor(None, limit) {
                Ok(()) => Reach::Reachable("its monitor succeeded".to_owned()),
                Err(problem) => Reach::Unreachable(problem),
            };
        }
        if self.settings.targets.is_empty() {
            let words = "the agent is there; no target is configured by name to contact it for";
            return self.program_only(words);
        }
        // The option that names a target says where it is reached.
        let called = Called { address: Some(&self.settings.plug), plug: None };
        summary(self.settings.targets.len(), &self.contact_all(limit), called)
    }

    /// Whether the device is one thing, in which the targets are plugs; otherwise the option that
    /// names a target says where it is reached.
    pub(super) fn has_one_contact(&self) -> bool {
        matches!(self.settings.plug_option.as_deref(), None | Some("plug" | "port"))
    }

    fn program_only(&self, words: &str) -> Reach {
        match program_problem(Path::new(&self.settings.agent)) {
            Some(problem) => Reach::Unreachable(problem),
            None => Reach::NotAsked(words.to_owned()),
        }
    }

    fn monitor(&self, target: Option<Target<'_>>, limit: Limit) -> Result<(), String> {
        match self.run(AgentAction::Monitor, target, None, limit, OUTPUT_BYTES_MAX)? {
            Ran { outcome: Outcome::Exited { code: 0, .. }, .. } => Ok(()),
            ran => Err(self.failure(ran)),
        }
    }

    /// Contacts the targets that are known by name, some at a time; gives those that did not answer.
    fn contact_all(&self, limit: Limit) -> Vec<(&NodeName, String)> {
        let targets: Vec<&NodeName> = self.settings.targets.iter().collect();
        let answers = ask_all(&targets, |node| {
            let plug = self.settings.plug.of(node);
            let contact = plug.ok_or_else(|| "no plug is configured".to_owned());
            let contact =
                contact.and_then(|plug| self.monitor(Some(Target::new(node, &plug)), limit));
            contact.err().map(|problem| (*node, problem))
        });
        answers.into_iter().flatten().collect()
    }
}

/// One machine that does not answer does not take the others' fencing away.
fn summary(count: usize, failures: &[(&NodeName, String)], called: Called<'_>) -> Reach {
    if failures.is_empty() {
        return Reach::Reachable(format!("{count} of {count} targets answer"));
    }
    let groups = grouped(failures.iter().map(|(node, why)| (*node, why.as_str())), called);
    if failures.len() == count {
        let each = groups.iter().map(|(names, problem)| format!("({names}): {problem}"));
        let each = each.collect::<Vec<_>>().join("; ");
        return Reach::Unreachable(format!("no target answers {each}"));
    }
    let answering = count - failures.len();
    let reasons = listed(&groups);
    Reach::Reachable(format!("{answering} of {count} targets answer, but not {reasons}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_that_answers_is_enough_and_the_others_are_named() {
        let nodes: Vec<NodeName> = ["n1", "n2"].map(|name| name.parse().unwrap()).to_vec();
        let failed = |indices: &[usize]| {
            let failures = indices.iter().map(|i| (&nodes[*i], format!("cause {i}")));
            summary(2, &failures.collect::<Vec<_>>(), Called::default())
        };

        assert_eq!(failed(&[]), Reach::Reachable("2 of 2 targets answer".into()));
        let text = "1 of 2 targets answer, but not n2: cause 1";
        assert_eq!(failed(&[1]), Reach::Reachable(text.into()));
        assert_eq!(
            failed(&[0, 1]),
            Reach::Unreachable("no target answers (n1): cause 0; (n2): cause 1".into())
        );
    }
}
