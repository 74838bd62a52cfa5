//! Whether an agent knows a plug. Some agents report every unknown machine as off, so an "off"
//! proves something only if the plug is in the agent's list.

use fence_protocol::{NodeName, PowerState, bounded, fold_hostlist};

use super::output::no_list;
use super::{AgentAction, FenceAgentDevice, FenceAgentSettings};
use super::{Listed, Ran, Target, listed_plugs};
use crate::pin::Listing;
use crate::pool::ask_all;
use crate::program::LIST_BYTES_MAX;
use crate::{Limit, Pin, RunOutcome, Secrets};

/// The list that an agent wrote.
pub(super) struct List {
    stdout: String,
    secrets: Secrets,
}

impl List {
    /// Its plugs, or why they cannot be read.
    pub(super) fn plugs(&self, separator: &str) -> Result<Vec<Listed<'_>>, String> {
        listed_plugs(&self.stdout, separator).map_err(|line| {
            let line = bounded(&self.secrets.hide(line), 64);
            format!("its list contains {line:?}, which is not a plug")
        })
    }
}

/// A name that no node and no plug has.
const NO_SUCH_NODE: &str = "fence-watcher-no-such-plug";

impl FenceAgentDevice {
    /// Whether the agent can list its plugs: as configured, else by its metadata.
    pub(super) fn can_list(&self, limit: Limit) -> bool {
        self.has(AgentAction::List, || self.metadata_if_readable(limit))
    }

    pub(super) fn separator(&self) -> &str {
        self.settings.options.get("separator").map_or(",", String::as_str)
    }

    /// Why an "off" for `target` proves nothing, if it does not.
    pub(super) fn doubt_about_off(
        &self,
        target: Target<'_>,
        pin: &Pin,
        limit: Limit,
    ) -> Option<String> {
        let doubt = self.doubt_about_plug(target, pin, limit)?;
        Some(format!("the agent shows \"off\", which is not trusted: {}", doubt.text))
    }

    /// Why no order for `target` may be given, as far as the agent's list shows.
    ///
    /// If the state is asked after an order, the list is read then, and the "off" of an unknown
    /// plug is not trusted. Otherwise the list is read before the order: nothing shows later
    /// whether the agent accepted an unknown plug, or acted on another machine.
    pub(super) fn doubt_about_order(
        &self,
        action: AgentAction,
        target: Target<'_>,
        pin: &Pin,
        limit: Limit,
    ) -> Option<Doubt> {
        let is_confirmed = action != AgentAction::Reboot && self.may_have(AgentAction::Status);
        if is_confirmed && !self.needs_description() {
            return None;
        }
        self.doubt_about_plug(target, pin, limit)
    }

    /// Why it is not certain that the agent knows the plug of `target`, if the agent can list its
    /// plugs.
    fn doubt_about_plug(&self, target: Target<'_>, pin: &Pin, limit: Limit) -> Option<Doubt> {
        if !self.can_list(limit) {
            return None;
        }
        let plug = target.plug;
        let listing = match pin.listing().map_or_else(|| self.listing(target, limit), Ok) {
            Ok(listing) => listing,
            Err(doubt) => {
                let text = format!("it is not known whether it has '{plug}': {}", doubt.text);
                return Some(Doubt { text, ..doubt });
            }
        };
        pin.set_listing(listing);
        match listing {
            Listing::Listed | Listing::NoList => None,
            Listing::OneMachine if !self.needs_description() => None,
            Listing::OneMachine => Some(Doubt::from(ONE_MACHINE.to_owned())),
            Listing::Unlisted => Some(Doubt::from(format!("'{plug}' is not in its list"))),
        }
    }

    /// What the agent's list shows of the plug of `target`.
    fn listing(&self, target: Target<'_>, limit: Limit) -> Result<Listing, Doubt> {
        Ok(self.listing_in(&self.list(Some(target), limit)?, target.plug)?)
    }

    fn listing_in(&self, list: &List, plug: &str) -> Result<Listing, String> {
        if let Some(listing) = no_list(&list.stdout) {
            return Ok(listing);
        }
        let listed = list.plugs(self.separator())?;
        Ok(if self.is_among(&listed, plug) { Listing::Listed } else { Listing::Unlisted })
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

    /// Asks the agent for its list.
    pub(super) fn list(&self, target: Option<Target<'_>>, limit: Limit) -> Result<List, Doubt> {
        match self.run(AgentAction::List, target, None, limit, LIST_BYTES_MAX)? {
            Ran { outcome: RunOutcome::Exited { code: 0, stdout, .. }, secrets } => {
                Ok(List { stdout, secrets })
            }
            ran => {
                let is_unreached = matches!(
                    ran.outcome,
                    RunOutcome::Exited { .. }
                        | RunOutcome::TimedOut { .. }
                        | RunOutcome::NotReported
                );
                Err(Doubt { text: self.failure(&ran), is_unreached })
            }
        }
    }

    /// Why no state proves anything about a target: the agent shows a state of a plug that cannot
    /// exist.
    pub(super) fn blind_status(&self, limit: Limit) -> Option<String> {
        if !self.may_have(AgentAction::Status) || !self.has_one_contact() {
            return None;
        }
        // A device of one machine needs no plug.
        let ignores_plugs = || Some(self.metadata_if_readable(limit)?.may_ignore_plugs());
        if self.settings.targets.len() == 1 && ignores_plugs().unwrap_or(true) {
            return None;
        }
        let node: NodeName = NO_SUCH_NODE.parse().ok()?;
        let nowhere = Target { node: &node, plug: NO_SUCH_NODE, host: None };
        let state = match self.state_of(nowhere, &Pin::default(), limit).ok()?.0.state {
            PowerState::On => "on",
            PowerState::Off => "off",
            PowerState::Unknown => return None,
        };
        Some(format!(
            "the agent shows '{state}' for a plug that does not exist, so its status proves \
             nothing about a target: take \"status\" out of 'actions'"
        ))
    }

    /// The targets, known by name, whose plug is not in the agent's list: their fences are not
    /// ordered, or not confirmed.
    pub(super) fn unlisted_targets(&self, limit: Limit) -> Vec<String> {
        let FenceAgentSettings { targets, plug, .. } = &self.settings;
        let targets = targets.iter().filter_map(|node| Some((node, plug.of(node)?)));
        let targets: Vec<(&NodeName, String)> = targets.collect();
        if targets.is_empty() || !self.can_list(limit) {
            return Vec::new();
        }
        if self.settings.addresses().is_some() {
            return self.unlisted_addresses(&targets, limit);
        }
        let list = match self.list(None, limit) {
            Ok(list) => list,
            Err(Doubt { text, .. }) => return vec![unreadable(&text)],
        };
        let mut unknown = Vec::new();
        for (node, plug) in targets {
            match self.listing_in(&list, &plug) {
                Ok(Listing::Listed | Listing::NoList) => {}
                Ok(Listing::OneMachine) if !self.needs_description() => {}
                Ok(Listing::OneMachine) => {
                    return vec![format!("no target can be fenced: the agent has {ONE_MACHINE}")];
                }
                Ok(Listing::Unlisted) => unknown.push((node, plug)),
                Err(problem) => return vec![unreadable(&problem)],
            }
        }
        unlisted(&unknown).into_iter().collect()
    }

    /// The same if each plug is an address: the agent has a separate list for each address, and
    /// this list has no address.
    fn unlisted_addresses(&self, targets: &[(&NodeName, String)], limit: Limit) -> Vec<String> {
        let mut found = ask_all(targets, |(node, plug)| {
            let why = match self.listing(Target { node, plug, host: None }, limit) {
                Ok(Listing::NoList | Listing::OneMachine | Listing::Listed) => return None,
                Ok(Listing::Unlisted) => "the agent lists plugs and no addresses".to_owned(),
                Err(Doubt { text, .. }) => format!("the agent's list cannot be read: {text}"),
            };
            Some(format!("no fence of '{node}' can be confirmed ({REMEDY}): {why}"))
        });
        found.sort();
        found.into_iter().flatten().collect()
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

/// Why it is not certain that an agent knows a plug.
pub(super) struct Doubt {
    pub(super) text: String,
    /// The agent did not answer. It may answer another try, or another node.
    pub(super) is_unreached: bool,
}

impl From<String> for Doubt {
    fn from(text: String) -> Self {
        Doubt { text, is_unreached: false }
    }
}

fn unreadable(problem: &str) -> String {
    format!(
        "no fence can be confirmed, because the agent's list cannot be read ({REMEDY}): {problem}"
    )
}

/// What to do about a list that cannot be used.
const REMEDY: &str = "if the agent fails for plugs that it does not know, set 'plug_option', and \
                      list its actions without \"list\" in 'actions'";

/// The meaning of the list of an agent without plugs.
const ONE_MACHINE: &str = "\"N/A\" for a list, so it may act on one and the same machine for every \
                           target: write in 'plug_option' which of its options names the target, \
                           such as \"ip\"";
