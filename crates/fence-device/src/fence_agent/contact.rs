//! Asks an agent whether its device can be reached.

use std::path::Path;

use fence_protocol::NodeName;
use fence_spool::program_problem;

use super::{AgentAction, FenceAgentDevice, Ran, Target};
use crate::contacts::{Contacted, contact_all};
use crate::{Called, Limit, OUTPUT_BYTES_MAX, Reach, RunOutcome};

impl FenceAgentDevice {
    pub(super) fn contact(&self, limit: Limit) -> Reach {
        if let Some(doubt) = self.doubt_about_plugs(limit) {
            return Reach::Unreachable(doubt);
        }
        if !self.can(AgentAction::Monitor) {
            return self.program_only("the agent exists; it has no action 'monitor'");
        }
        if self.has_one_contact() {
            return match self.monitor(None, limit) {
                Ok(()) => Reach::Reachable("its monitor succeeded".to_owned()),
                Err(problem) => Reach::Unreachable(problem),
            };
        }
        if self.settings.targets.is_empty() {
            let words =
                "the agent exists; it was not contacted, because no target is configured by name";
            return self.program_only(words);
        }
        // The option that names a target has its address.
        let called = Called { address: Some(&self.settings.plug), plug: None };
        let places: Vec<Vec<&NodeName>> = self.settings.targets.iter().map(|n| vec![n]).collect();
        contact_all(Contacted::Targets, &places, called, |targets| {
            targets.iter().try_for_each(|node| {
                let plug = self.settings.plug.of(node).ok_or("no plug is configured")?;
                self.monitor(Some(Target { node, plug: &plug, host: None }), limit)
            })
        })
    }

    /// Whether the targets are plugs of one device. Otherwise the option that names a target has
    /// its address.
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
            Ran { outcome: RunOutcome::Exited { code: 0, .. }, .. } => Ok(()),
            ran => Err(self.failure(&ran)),
        }
    }
}
