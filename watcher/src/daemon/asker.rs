//! Asks devices what a client wants to know, and sends the daemon what they show by the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use fence_core::watcher::{Coverage, Device, Unroutable, outdated, route, unlisted};
use fence_device::{Limit, Pin, Reach, TargetList};
use fence_protocol::{
    FenceAction, NodeName, PowerState, Query, QueryAnswer, QueryCode, QueryKind, Request,
    Requested, TEXT_BYTES_MAX, shortened,
};
use fence_spool::WatcherSpool;
use log::{error, warn};

use super::{Wake, examined};
use crate::asking::{Limits, ask};
use crate::devices::{ConfiguredDevice, Devices};

/// Asks devices, and sends the daemon what the devices show by the way.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) spool: Arc<WatcherSpool>,
    pub(super) devices: Arc<Devices>,
    /// What the core knows of the devices, for questions about targets.
    pub(super) known: Vec<Device>,
    pub(super) wake: Sender<Wake>,
}

impl Asker {
    pub(super) fn answer(&self, query: &Query) -> QueryAnswer {
        let id = &query.query_id;
        let limits = Limits::before(query.deadline_boottime_ms);
        match query.query {
            QueryKind::Reachable => match self.devices.choose(query.device.as_deref()) {
                Ok(devices) => {
                    let (reached, words) = self.reachable(&devices, limits);
                    let code = if reached { QueryCode::Yes } else { QueryCode::NotReached };
                    QueryAnswer::new(id, code, words)
                }
                Err(why) => wrong(id, why),
            },
            QueryKind::Targets => match self.targets(query.device.as_deref(), limits) {
                Ok((targets, problems)) => {
                    let words = [format!("{} targets", targets.len())];
                    let words: Vec<_> = words.into_iter().chain(problems).collect();
                    let mut answer = QueryAnswer::new(id, QueryCode::Yes, words.join("; "));
                    answer.targets = targets.iter().map(ToString::to_string).collect();
                    answer
                }
                Err((code, why)) => QueryAnswer::new(id, code, why),
            },
            QueryKind::Power => {
                let target = match query.target() {
                    Some(Ok(target)) => target,
                    Some(Err(why)) => return wrong(id, format!("target: {why}")),
                    None => return wrong(id, "no target is named".to_owned()),
                };
                let (code, power, words) =
                    self.power(query.device.as_deref(), &target, limits.device);
                let mut answer = QueryAnswer::new(id, code, words);
                answer.power = Some(power);
                answer
            }
            QueryKind::Check => examined::answer(&self.devices, query),
            // The daemon itself answers what concerns it.
            QueryKind::State | QueryKind::Reload => {
                wrong(id, "no device is asked for this".to_owned())
            }
        }
    }

    pub(super) fn inquiry(&self, request: &Request) -> (bool, String) {
        let (device, limits) = (request.device.as_deref(), Limits::of_unknown_client());
        match (&request.action, &request.target_node) {
            (Requested::Inquiry("status"), Some(target)) => {
                let (code, _, words) = self.power(device, target, limits.device);
                (code == QueryCode::Yes, format!("not a fence, only asked: {words}"))
            }
            (Requested::Inquiry("list"), _) => match self.targets(device, limits) {
                Ok((targets, _)) => {
                    let names: Vec<_> = targets.iter().map(NodeName::as_str).collect();
                    (true, names.join("\n"))
                }
                Err((_, why)) => (false, why),
            },
            _ => match self.devices.choose(device) {
                Ok(devices) => self.reachable(&devices, limits),
                Err(why) => (false, why),
            },
        }
    }

    /// Whether a fence would succeed as far as a light look shows: each device is reached, and an
    /// answer could be written.
    fn reachable(&self, devices: &[Arc<ConfiguredDevice>], limits: Limits) -> (bool, String) {
        let wake = self.wake.clone();
        let reaches = ask(devices, limits, move |device| reach(device, limits.device, &wake));
        let silent = |device: &ConfiguredDevice| {
            let text = "was not asked, or did not answer in time";
            (false, format!("fence device '{}' {text}", device.name))
        };
        let each = devices.iter().zip(reaches);
        let mut reaches: Vec<_> =
            each.map(|(device, reach)| reach.unwrap_or_else(|| silent(device))).collect();
        match self.spool.try_answering() {
            // Once it has passed, an answer is written, a moment later.
            Err(problem) if !problem.is_passing() => {
                error!("no answer could be written: {problem}");
                reaches.push((false, format!("no answer could be written: {problem}")));
            }
            _ => {}
        }
        let words = |wanted: bool| {
            let words: Vec<_> = reaches
                .iter()
                .filter(|(reached, _)| *reached == wanted)
                .map(|(_, words)| words.as_str())
                .collect();
            words.join("; ")
        };
        let all = reaches.iter().all(|(reached, _)| *reached);
        (all, shortened(&words(all), TEXT_BYTES_MAX))
    }

    /// The targets that are known, and which devices gave no list. A device that does not answer
    /// takes nothing away from the others, and has the targets that it listed before: it is an
    /// error only if it is the one that was named, or if nothing is known.
    fn targets(
        &self,
        named: Option<&str>,
        limits: Limits,
    ) -> Result<(BTreeSet<NodeName>, Vec<String>), (QueryCode, String)> {
        let devices = self.devices.choose(named).map_err(|why| (QueryCode::WrongQuestion, why))?;
        let asker = self.clone();
        let lists = ask(&devices, limits, move |device| match device.fixed_targets() {
            Some(targets) => TargetList::Nodes(targets.iter().cloned().collect()),
            None => asker.list(device, limits.device),
        });
        let (mut all, mut problems) = (BTreeSet::new(), Vec::new());
        for (device, list) in devices.iter().zip(lists) {
            let text = |why| format!("fence device '{}': {why}", device.name);
            let silent = || TargetList::Unreachable("no answer in time".to_owned());
            match list.unwrap_or_else(silent) {
                TargetList::Nodes(targets) => all.extend(targets),
                TargetList::Unreachable(why) => {
                    all.extend(self.listed_before(&device.name));
                    problems.push((QueryCode::NotReached, text(why)));
                }
                // It can fence targets that it cannot list, so no list would be one of all.
                TargetList::NoList(why) if !device.is_to_be_discovered() => {
                    return Err((QueryCode::NoList, text(why)));
                }
                TargetList::NoList(why) => problems.push((QueryCode::NoList, text(why))),
            }
        }
        match problems.first() {
            Some(problem) if named.is_some() || all.is_empty() => Err(problem.clone()),
            _ => Ok((all, problems.into_iter().map(|(_, text)| text).collect())),
        }
    }

    /// What a device listed when it was last asked. A fence of such a target still goes to it.
    fn listed_before(&self, device: &str) -> BTreeSet<NodeName> {
        let facts = self.known.iter().find(|facts| facts.name == device);
        match facts.map(|facts| &facts.coverage) {
            Some(Coverage::Discovered(Some(nodes))) => nodes.clone(),
            _ => BTreeSet::new(),
        }
    }

    pub(super) fn list(&self, device: &Arc<ConfiguredDevice>, limit: Limit) -> TargetList {
        let list = device.driver.targets(limit);
        let (targets, reached) = match &list {
            TargetList::Nodes(targets) => (Some(targets.iter().cloned().collect()), true),
            TargetList::NoList(_) => (None, true),
            TargetList::Unreachable(_) => (None, false),
        };
        if let TargetList::NoList(why) | TargetList::Unreachable(why) = &list {
            warn!("fence device '{}' gave no list of its targets: {why}", device.name);
        }
        // The receiver is gone only when the daemon is.
        let _ = self.wake.send(Wake::Listed(Arc::clone(device), targets));
        let _ = self.wake.send(Wake::Reached(Arc::clone(device), reached));
        list
    }

    /// The device on which a fence of `target` would be executed, or why there is none: then the
    /// question is wrong. As for a fence, devices are asked for their lists where these decide.
    fn device_for(
        &self,
        named: Option<&str>,
        target: &NodeName,
        limit: Limit,
    ) -> Result<&Arc<ConfiguredDevice>, (QueryCode, String)> {
        let mut known = self.known.clone();
        let mut all_listed = true;
        let lists = unlisted(&self.known, named, target).into_iter();
        for name in lists.chain(outdated(&self.known, named, target)) {
            let Some(device) = self.devices.get(name) else { continue };
            let TargetList::Nodes(nodes) = self.list(device, limit) else {
                all_listed = false;
                continue;
            };
            let Some(facts) = known.iter_mut().find(|facts| facts.name == name) else { continue };
            let is_it = nodes.contains(target);
            facts.coverage = Coverage::Discovered(Some(nodes.into_iter().collect()));
            if is_it {
                break;
            }
        }
        let device = route(&known, named, target, FenceAction::Off).map_err(|why| {
            let code = match why {
                Unroutable::Unable(..) => QueryCode::NotReached,
                // A list that did not come may have the target.
                Unroutable::Nobody | Unroutable::NotCovered(_) if !all_listed => {
                    QueryCode::NotReached
                }
                _ => QueryCode::WrongQuestion,
            };
            (code, why.to_string())
        })?;
        let missing = || format!("there is no fence device '{}'", device.name);
        self.devices.get(&device.name).ok_or_else(|| (QueryCode::WrongQuestion, missing()))
    }

    fn power(
        &self,
        named: Option<&str>,
        target: &NodeName,
        limit: Limit,
    ) -> (QueryCode, PowerState, String) {
        let device = match self.device_for(named, target, limit) {
            Ok(device) => device,
            Err((code, why)) => return (code, PowerState::Unknown, why),
        };
        if !device.driver.abilities().power {
            let why = format!("fence device '{}' cannot be asked for the state", device.name);
            return (QueryCode::NotReached, PowerState::Unknown, why);
        }
        let report = device.driver.power(target, &Pin::default(), limit);
        let (code, words) = match report.state {
            PowerState::On => (QueryCode::Yes, format!("'{target}' is on")),
            PowerState::Off => (QueryCode::Yes, format!("'{target}' is off")),
            PowerState::Unknown => (
                QueryCode::NotReached,
                format!("fence device '{}' did not show the state of '{target}'", device.name),
            ),
        };
        if report.detail.is_empty() {
            return (code, report.state, words);
        }
        (code, report.state, format!("{words}: {}", report.detail))
    }
}

/// Contacts `device`.
fn reach(device: &Arc<ConfiguredDevice>, limit: Limit, wake: &Sender<Wake>) -> (bool, String) {
    let name = &device.name;
    let (reached, words) = match device.reach(limit) {
        Reach::Reachable(words) => (true, words),
        Reach::Unreachable(words) => (false, words),
        // Nothing speaks against a fence, but this is no contact.
        Reach::NotAsked(words) => {
            return (true, format!("fence device '{name}' was not asked: {words}"));
        }
    };
    let _ = wake.send(Wake::Reached(Arc::clone(device), reached));
    let verb = if reached { "is reachable" } else { "is not reachable" };
    let text = format!("fence device '{name}' {verb}");
    (reached, if words.is_empty() { text } else { format!("{text}: {words}") })
}

/// The answer to a question that is wrong.
pub(super) fn wrong(query_id: &str, why: String) -> QueryAnswer {
    QueryAnswer::new(query_id, QueryCode::WrongQuestion, why)
}
