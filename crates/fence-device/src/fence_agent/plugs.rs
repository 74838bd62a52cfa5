//! Whether an agent knows a plug. Some agents call every machine off that they do not know, so an "off"
//! proves something only where the plug is in the agent's list.

use fence_protocol::{NodeName, PowerState, bounded, fold_hostlist};

use super::{AgentAction, FenceAgentDevice, Listed, Ran, Target, listed_plugs};
use crate::command::LIST_BYTES_MAX;
use crate::{Limit, Outcome, Pin, Secrets};

/// What an agent wrote as its list.
pub(super) struct List {
    stdout: String,
    secrets: Secrets,
}

impl List {
    /// Its plugs, or why it is no list.
    pub(super) fn plugs(&self, separator: &str) -> Result<Vec<Listed<'_>>, String> {
        listed_plugs(&self.stdout, separator).map_err(|line| {
            let line = bounded(&self.secrets.hide(line), 64);
            format!("its list holds {line:?}, which is no plug")
        })
    }
}

/// The name of a node and of a plug that nobody has.
const NO_SUCH_NODE: &str = "fence-watcher-no-such-plug";

impl FenceAgentDevice {
    /// Whether the agent can list its plugs: as configured, else as it says.
    pub(super) fn can_list(&self, limit: Limit) -> bool {
        match &self.settings.actions {
            Some(actions) => actions.contains(&AgentAction::List),
            None => Self::declares(self.metadata_if_readable(limit).as_deref(), AgentAction::List),
        }
    }

    pub(super) fn separator(&self) -> &str {
        self.settings.options.get("separator").map_or(",", String::as_str)
    }

    /// Why an "off" for `target` proves nothing, if that is so.
    pub(super) fn doubt_about_off(
        &self,
        target: Target<'_>,
        pin: &Pin,
        limit: Limit,
    ) -> Option<String> {
        if !self.can_list(limit) {
            return None;
        }
        let says = "the agent says off, which is not believed";
        let plug = target.plug;
        let is_listed = match pin.is_listed() {
            Some(is_listed) => is_listed,
            None => match self.lists(target, limit) {
                Ok(is_listed) => is_listed,
                Err(problem) => {
                    return Some(format!(
                        "{says}: whether it knows '{plug}' cannot be told: {problem}"
                    ));
                }
            },
        };
        pin.set_listed(is_listed);
        (!is_listed).then(|| format!("{says}: '{plug}' is not in its list"))
    }

    /// Whether the agent has the plug of `target` in its list.
    fn lists(&self, target: Target<'_>, limit: Limit) -> Result<bool, String> {
        let list = self.list(Some(target), limit)?;
        Ok(self.is_among(&list.plugs(self.separator())?, target.plug))
    }

    /// Whether `plug` is listed, or each of several plugs that the agent switches together.
    fn is_among(&self, listed: &[Listed<'_>], plug: &str) -> bool {
        let has = |plug: &str| {
            !plug.is_empty() && listed.iter().any(|one| plug == one.plug || plug == one.alias)
        };
        let separator = self.settings.options.get("plug_separator").map_or(",", String::as_str);
        let mut parts = plug.split(separator).map(str::trim);
        has(plug) || !separator.is_empty() && parts.all(has)
    }

    /// What the agent's list says.
    pub(super) fn list(&self, target: Option<Target<'_>>, limit: Limit) -> Result<List, String> {
        match self.run(AgentAction::List, target, None, limit, LIST_BYTES_MAX)? {
            Ran { outcome: Outcome::Exited { code: 0, stdout, .. }, secrets } => {
                Ok(List { stdout, secrets })
            }
            ran => Err(self.failure(ran)),
        }
    }

    /// Why no state is one of a target: the agent shows a state of a plug that cannot exist.
    pub(super) fn blind_status(&self, limit: Limit) -> Option<String> {
        if !self.may_have(AgentAction::Status) || !self.has_one_contact() {
            return None;
        }
        // One machine needs no plug.
        let ignores_plugs = || Some(self.metadata_if_readable(limit)?.may_ignore_plugs());
        if self.settings.targets.len() == 1 && ignores_plugs().unwrap_or(true) {
            return None;
        }
        let node: NodeName = NO_SUCH_NODE.parse().ok()?;
        let nowhere = Target { node: &node, plug: NO_SUCH_NODE };
        let state = match self.state_of(nowhere, &Pin::default(), limit).state {
            PowerState::On => "on",
            PowerState::Off => "off",
            PowerState::Unknown => return None,
        };
        Some(format!(
            "the agent shows '{state}' for a plug that does not exist, so its status proves nothing about a \
             target: take \"status\" out of 'actions'"
        ))
    }

    /// The targets, known by name, whose plug is not in the agent's list: no "off" of theirs is believed.
    pub(super) fn unlisted_targets(&self, limit: Limit) -> Vec<String> {
        let targets = &self.settings.targets;
        if targets.is_empty() || !self.may_have(AgentAction::Status) || !self.can_list(limit) {
            return Vec::new();
        }
        let remedy =
            "take \"list\" out of 'actions', if the agent fails for plugs that it does not know";
        if self.settings.addresses().is_some() {
            return vec![format!(
                "no fence can be confirmed, because the agent lists plugs and no addresses: {remedy}"
            )];
        }
        let list = self.list(None, limit);
        let listed = list.as_ref().map_err(Clone::clone);
        let listed = match listed.and_then(|list| list.plugs(self.separator())) {
            Ok(listed) => listed,
            Err(problem) => {
                return vec![format!(
                    "no fence can be confirmed, because the agent's list cannot be read ({remedy}): {problem}"
                )];
            }
        };
        let plugs = targets.iter().filter_map(|node| Some((node, self.settings.plug.of(node)?)));
        let unknown: Vec<(&NodeName, String)> =
            plugs.filter(|(_, plug)| !self.is_among(&listed, plug)).collect();
        unlisted(&unknown).into_iter().collect()
    }
}

/// The sentence about targets with plugs that the agent does not list.
fn unlisted(unknown: &[(&NodeName, String)]) -> Option<String> {
    let names = fold_hostlist(unknown.iter().map(|(node, _)| *node));
    let which = match unknown {
        [] => return None,
        [(_, plug)] => format!("its plug '{plug}' is"),
        several if several.iter().all(|(node, plug)| node.as_str() == plug) => {
            "their plugs, which are their names, are".to_owned()
        }
        several => {
            let plugs: Vec<String> = several.iter().map(|(_, plug)| format!("'{plug}'")).collect();
            format!("their plugs {} are", plugs.join(", "))
        }
    };
    Some(format!("no fence of '{names}' can be confirmed: {which} not in the agent's list"))
}
