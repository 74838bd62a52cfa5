//! Asks devices for the answers to clients, and reports to the daemon what the devices show.

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

/// Asks devices, and reports to the daemon their lists and whether they were reached.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) spool: Arc<WatcherSpool>,
    pub(super) devices: Arc<Devices>,
    /// What the core knows of the devices, for questions about targets.
    pub(super) known: Vec<Device>,
    pub(super) wake: Sender<Wake>,
}

/// Why a question has no answer.
type Refusal = (QueryCode, String);

impl Asker {
    pub(super) fn answer(&self, query: &Query) -> QueryAnswer {
        let (id, named) = (&query.query_id, query.device.as_deref());
        let limits = Limits::before(query.deadline_boottime_ms);
        let answer = match query.query {
            QueryKind::Reachable => self.reachable(named, limits).map(|(reached, words)| {
                let code = if reached { QueryCode::Yes } else { QueryCode::NotReached };
                QueryAnswer::new(id, code, words)
            }),
            QueryKind::Targets => self.targets(named, limits).map(|(targets, problems)| {
                let words = [format!("{} targets", targets.len())];
                let words: Vec<_> = words.into_iter().chain(problems).collect();
                let mut answer = QueryAnswer::new(id, QueryCode::Yes, words.join("; "));
                answer.targets = targets.iter().map(ToString::to_string).collect();
                answer
            }),
            QueryKind::Power => match query.target() {
                Some(Ok(target)) => {
                    let (code, power, words) = self.power(named, &target, limits.device);
                    let mut answer = QueryAnswer::new(id, code, words);
                    answer.power = Some(power);
                    Ok(answer)
                }
                Some(Err(why)) => Err((QueryCode::WrongQuery, format!("target: {why}"))),
                None => Err((QueryCode::WrongQuery, "no target is named".to_owned())),
            },
            QueryKind::Check => Ok(examined::answer(&self.devices, query)),
            // The daemon itself answers these.
            QueryKind::State | QueryKind::Reload => {
                Err((QueryCode::WrongQuery, "no device is asked for this".to_owned()))
            }
        };
        answer.unwrap_or_else(|(code, why)| QueryAnswer::new(id, code, why))
    }

    pub(super) fn inquiry(&self, request: &Request) -> (bool, String) {
        let (named, limits) = (request.device.as_deref(), Limits::of_unknown_client());
        let answer = match (&request.action, &request.target_node) {
            (Requested::Inquiry("status"), Some(target)) => {
                let (code, _, words) = self.power(named, target, limits.device);
                Ok((code == QueryCode::Yes, format!("not a fence, only asked: {words}")))
            }
            (Requested::Inquiry("list"), _) => self.targets(named, limits).map(|(targets, _)| {
                let listed: Vec<_> = targets.iter().map(NodeName::as_str).collect();
                (true, listed.join("\n"))
            }),
            _ => self.reachable(named, limits),
        };
        answer.unwrap_or_else(|(_, why)| (false, why))
    }

    fn choose(&self, named: Option<&str>) -> Result<Vec<Arc<ConfiguredDevice>>, Refusal> {
        self.devices.choose(named).map_err(|why| (QueryCode::WrongQuery, why))
    }

    /// Whether a fence would succeed as far as a light look shows: each device is reached, and an
    /// answer can be written.
    fn reachable(&self, named: Option<&str>, limits: Limits) -> Result<(bool, String), Refusal> {
        let (devices, wake) = (self.choose(named)?, self.wake.clone());
        let reaches = ask(&devices, limits, move |device| reach(device, limits.device, &wake));
        let silent = |device: &ConfiguredDevice| {
            let text = "was not asked, or did not answer in time";
            (false, format!("fence device '{}' {text}", device.name))
        };
        let each = devices.iter().zip(reaches);
        let mut reaches: Vec<_> =
            each.map(|(device, reach)| reach.unwrap_or_else(|| silent(device))).collect();
        // After a passing problem, an answer is written a moment later.
        if let Err(problem) = self.spool.try_answering()
            && !problem.is_passing()
        {
            error!("no answer could be written: {problem}");
            reaches.push((false, format!("no answer could be written: {problem}")));
        }
        let all = reaches.iter().all(|(reached, _)| *reached);
        let words = reaches.iter().filter(|(reached, _)| *reached == all);
        let words: Vec<_> = words.map(|(_, words)| words.as_str()).collect();
        Ok((all, shortened(&words.join("; "), TEXT_BYTES_MAX)))
    }

    /// The known targets, and which devices gave no list. A device that does not answer takes no
    /// target of another device away, and keeps the targets that it listed before. It is an error
    /// only if it is the named device, or if no target is known.
    fn targets(
        &self,
        named: Option<&str>,
        limits: Limits,
    ) -> Result<(BTreeSet<NodeName>, Vec<String>), Refusal> {
        let devices = self.choose(named)?;
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
                // The device can fence targets that it cannot list, so no list would be complete.
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

    /// The device's last list. A fence of a target in this list still goes to the device.
    fn listed_before(&self, device: &str) -> BTreeSet<NodeName> {
        let facts = self.known.iter().find(|facts| facts.name == device);
        match facts.map(|facts| &facts.coverage) {
            Some(Coverage::Discovered(Some(nodes))) => nodes.clone(),
            _ => BTreeSet::new(),
        }
    }

    pub(super) fn list(&self, device: &Arc<ConfiguredDevice>, limit: Limit) -> TargetList {
        let list = device.driver.targets(limit);
        let targets = match &list {
            TargetList::Nodes(targets) => Some(targets.iter().cloned().collect()),
            TargetList::NoList(why) | TargetList::Unreachable(why) => {
                warn!("fence device '{}' gave no list of its targets: {why}", device.name);
                None
            }
        };
        let reached = !matches!(list, TargetList::Unreachable(_));
        // The receiver is gone only when the daemon is.
        let _ = self.wake.send(Wake::Listed(Arc::clone(device), targets));
        let _ = self.wake.send(Wake::Reached(Arc::clone(device), reached));
        list
    }

    /// The device on which a fence of `target` would be executed. If there is none, the question is
    /// wrong. As for a fence, devices are asked for their lists if a list decides.
    fn device_for(
        &self,
        named: Option<&str>,
        target: &NodeName,
        limit: Limit,
    ) -> Result<&Arc<ConfiguredDevice>, Refusal> {
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
                // A missing list may have the target.
                Unroutable::Nobody | Unroutable::NotCovered(_) if !all_listed => {
                    QueryCode::NotReached
                }
                _ => QueryCode::WrongQuery,
            };
            (code, why.to_string())
        })?;
        let missing = || format!("there is no fence device '{}'", device.name);
        self.devices.get(&device.name).ok_or_else(|| (QueryCode::WrongQuery, missing()))
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
