//! Asks devices all questions and gives no order, for `fence-watcher check` and for a watcher that
//! answers a `check` query.
//!
//! The reader of the findings decides what they mean.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fence_device::{Called, Limit, Reach, TargetList, ask_some, grouped};
use fence_protocol::NodeName;
use serde::{Deserialize, Serialize};

use crate::asking::{self, Limits};
use crate::devices::ConfiguredDevice;

/// The findings about a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// Whether it can be reached; `None` if nothing was contacted.
    pub reachable: Option<bool>,
    /// The result of the contact, or why there was none.
    pub words: String,
    /// Some targets cannot be fenced, and `words` names them.
    pub is_partial: bool,
    /// Errors in the settings, and what is missing for a fence of its targets.
    pub problems: Vec<String>,
    /// Unusual properties that are no problem.
    pub remarks: Vec<String>,
    /// The targets of its list, if it was asked for the list.
    pub targets: Option<Vec<String>>,
    /// Why it gave no list, if it was asked for the list.
    pub unlisted: Option<String>,
}

impl Findings {
    /// Whether no finding speaks against a fence.
    pub fn is_well(&self) -> bool {
        self.reachable != Some(false)
            && !self.is_partial
            && self.problems.is_empty()
            && self.unlisted.is_none()
    }
}

/// The findings of the running watcher about one of its devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Examined {
    /// The device's name.
    pub name: String,
    /// Identifies the watcher's settings for it: `DeviceSettings::fingerprint`.
    pub settings: String,
    /// The findings.
    pub findings: Findings,
}

/// The findings about a device while it is asked.
#[derive(Clone)]
struct Open {
    findings: Findings,
    problems: Vec<String>,
    lacks: Vec<String>,
}

/// Asks a device, and stores each finding at once: a later finding may come too late.
type Question = fn(&ConfiguredDevice, &Mutex<Open>, Depth);

/// How long [`examine`] may take with these devices, in milliseconds.
pub fn time_max_ms<'a>(devices: impl IntoIterator<Item = &'a Arc<ConfiguredDevice>>) -> u64 {
    let monitors = devices.into_iter().map(|device| device.monitor_timeout_ms);
    OTHER_MS_MAX + monitors.max().unwrap_or(0)
}

/// The extent of the questions to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The contact with it, and its list.
    Contact,
    /// Everything that a fence of each target needs.
    Whole,
}

/// Asks `devices`, many at once. Returns the findings in the order of `devices`, and waits for no
/// driver after `limit`.
pub fn examine(devices: &[Arc<ConfiguredDevice>], depth: Depth, limit: Limit) -> Vec<Findings> {
    let both: [Question; 2] = [ask_settings, ask_device];
    let open: Vec<_> = devices.iter().map(|one| Arc::new(Mutex::new(Open::new(one)))).collect();
    let questions = devices
        .iter()
        .zip(&open)
        .flat_map(|(device, open)| both.map(|ask| (Arc::clone(device), Arc::clone(open), ask)));
    let limits = Limits { device: limit, all: limit };
    asking::ask(&questions.collect::<Vec<_>>(), limits, move |(device, open, ask)| {
        ask(device, open, depth);
    });
    let findings = open.iter().map(|open| {
        let Open { findings, problems, lacks } = lock(open).clone();
        Findings { problems: [problems, lacks].concat(), ..findings }
    });
    findings.collect()
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    /// The findings if the device does not answer.
    fn new(device: &ConfiguredDevice) -> Self {
        let silence = "it was not asked, or did not answer".to_owned();
        Open {
            problems: vec!["it could not be checked in time".to_owned()],
            lacks: vec!["its targets could not be checked in time".to_owned()],
            findings: Findings {
                reachable: Some(false),
                unlisted: device.is_to_be_discovered().then(|| silence.clone()),
                words: silence,
                ..Findings::default()
            },
        }
    }
}

/// Asks the questions that need no contact with the device.
fn ask_settings(device: &ConfiguredDevice, open: &Mutex<Open>, depth: Depth) {
    let problems = device.driver.check();
    lock(open).problems = problems;
    if depth == Depth::Whole {
        let remarks = device.driver.remarks(Limit::in_ms(LIST_MS_MAX));
        lock(open).findings.remarks = remarks;
    }
}

/// Contacts the device, and asks for its targets if they are to be discovered. Returns all known
/// targets.
fn contacted(device: &ConfiguredDevice, open: &Mutex<Open>) -> BTreeSet<NodeName> {
    device.driver.prepare(Limit::in_ms(LIST_MS_MAX));
    let (reachable, words) = match device.reach(Limit::in_ms(device.monitor_timeout_ms)) {
        Reach::Reachable(words) => (Some(true), words),
        Reach::Unreachable(words) => (Some(false), words),
        Reach::NotAsked(words) => (None, words),
    };
    let mut known = lock(open);
    known.findings.reachable = reachable;
    known.findings.words = words;
    drop(known);
    let mut targets = device.known_targets();
    if device.is_to_be_discovered() {
        let (listed, unlisted) = match device.driver.targets(Limit::in_ms(LIST_MS_MAX)) {
            TargetList::Nodes(nodes) => (Some(nodes), None),
            TargetList::Unreachable(why) | TargetList::NoList(why) => (None, Some(why)),
        };
        targets.extend(listed.iter().flatten().cloned());
        let names = |nodes: Vec<NodeName>| nodes.iter().map(ToString::to_string).collect();
        let mut open = lock(open);
        open.findings.targets = listed.map(names);
        open.findings.unlisted = unlisted;
    }
    targets
}

/// Asks the device one question after the other, because some devices serve one client at a time.
fn ask_device(device: &ConfiguredDevice, open: &Mutex<Open>, depth: Depth) {
    let targets: Vec<NodeName> = contacted(device, open).into_iter().collect();
    let Findings { reachable, words, .. } = lock(open).findings.clone();
    if depth == Depth::Contact || reachable == Some(false) {
        // A device that is not reached shows nothing of its targets.
        return lock(open).lacks.clear();
    }
    let unknown = device.driver.unknown_targets(Limit::in_ms(LIST_MS_MAX));
    let (is_partial, lacks) = not_yet_said(&words, unknown, lacks_of(device, &targets));
    let mut open = lock(open);
    open.findings.is_partial = is_partial;
    open.lacks = lacks;
}

/// The lacks that the words of the contact do not contain; and whether they contain any. Several
/// questions to one device find the same fault.
fn not_yet_said(
    words: &str,
    mut unknown: Vec<String>,
    lacks: Vec<(String, String)>,
) -> (bool, Vec<String>) {
    let is_said = |targets: &str, why: &str| words.contains(&format!("{targets}: {why}"));
    let all = unknown.len();
    unknown.retain(|sentence| {
        let parts = sentence.strip_prefix('\'').and_then(|rest| rest.split_once(CANNOT));
        !parts.is_some_and(|(targets, why)| is_said(targets, why))
    });
    let mut is_partial = unknown.len() < all;
    for (targets, why) in lacks {
        if is_said(&targets, &why) {
            is_partial = true;
        } else if !unknown.contains(&format!("'{targets}{CANNOT}{why}")) {
            unknown.push(format!("a fence of '{targets}' is not certain to work: {why}"));
        }
    }
    (is_partial, unknown)
}

/// Between the targets and the reason, in a driver's sentence about targets that it cannot fence.
const CANNOT: &str = "' cannot be fenced: ";

/// What is missing for orders, each with the targets that lack it.
fn lacks_of(device: &ConfiguredDevice, targets: &[NodeName]) -> Vec<(String, String)> {
    let at_once =
        if device.kind.addresses().is_some() { AT_ONCE_MAX } else { device.max_concurrent };
    let limit = Limit::in_ms(TARGETS_MS_MAX);
    let lacks = ask_some(targets, at_once.min(AT_ONCE_MAX), |target| {
        if limit.has_passed() {
            return Some("no time was left".to_owned());
        }
        device.driver.lack(target, limit.min(Limit::in_ms(device.monitor_timeout_ms)))
    });
    let lacks = targets.iter().zip(&lacks).filter_map(|(at, why)| Some((at, why.as_deref()?)));
    let called = Called { address: device.kind.addresses(), plug: device.kind.plugs() };
    grouped(lacks, called)
}

/// How long a device may take to list its targets, or to describe itself.
const LIST_MS_MAX: u64 = 11_000;

/// How long the questions for single targets may take, all together.
const TARGETS_MS_MAX: u64 = 30_000;

/// How long all questions may take, without the contact.
const OTHER_MS_MAX: u64 = 3 * LIST_MS_MAX + TARGETS_MS_MAX + 2_000;

/// How many targets are asked for at once.
const AT_ONCE_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str, unknown: &[&str], lacks: &[(&str, &str)]) -> (bool, Vec<String>) {
        let unknown = unknown.iter().map(|text| (*text).to_owned()).collect();
        let lacks = lacks.iter().map(|(at, why)| ((*at).to_owned(), (*why).to_owned())).collect();
        not_yet_said(words, unknown, lacks)
    }

    #[test]
    fn a_fault_that_several_questions_find_is_said_once_and_stays_a_fault() {
        let words = "3 of 24 BMCs answered; cannot be asked: n[4-24]: no answer";
        assert_eq!(of(words, &[], &[("n[4-24]", "no answer")]), (true, vec![]));
        let unknown = "'n[4-24]' cannot be fenced: no answer";
        assert_eq!(of(words, &[unknown], &[]), (true, vec![]));
        let once = (false, vec![unknown.to_owned()]);
        assert_eq!(of("it answered", &[unknown], &[("n[4-24]", "no answer")]), once);
    }

    #[test]
    fn another_fault_or_another_target_is_said() {
        let words = "1 of 2 BMCs answered; cannot be asked: n2: no answer";
        for (targets, why) in
            [("n1", "no answer"), ("n2", "wrong password"), ("n[1-2]", "no answer")]
        {
            let text = format!("a fence of '{targets}' is not certain to work: {why}");
            assert_eq!(of(words, &[], &[(targets, why)]), (false, vec![text]));
        }
        let other = "there was no time to look at 'n2'";
        assert_eq!(of(words, &[other], &[]), (false, vec![other.to_owned()]));
    }
}
