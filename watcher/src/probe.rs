//! What a device says of itself when it is asked all that can be asked, and told nothing: for
//! `fence-watcher check`, and for a watcher that is asked in its place.
//!
//! What follows from the findings is the reader's to say.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fence_device::{Called, Limit, Reach, Subject, TargetList, ask_some, grouped};
use fence_protocol::NodeName;
use serde::{Deserialize, Serialize};

use crate::devices::ConfiguredDevice;

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// Whether it can be reached; `None` where nothing was contacted.
    pub reachable: Option<bool>,
    /// What the contact brought, or why there was none.
    pub words: String,
    /// Some targets cannot be fenced, and `words` names them.
    pub is_partial: bool,
    /// What the driver finds wrong with its settings, and what is missing for a fence of its
    /// targets.
    pub problems: Vec<String>,
    /// What is unusual, and yet no problem.
    pub remarks: Vec<String>,
    /// The targets that it listed, if it was asked for them.
    pub targets: Option<Vec<String>>,
    /// Why it gave no list of its targets, though it was asked.
    pub unlisted: Option<String>,
}

impl Findings {
    /// Whether nothing speaks against a fence.
    pub fn is_well(&self) -> bool {
        self.reachable != Some(false)
            && !self.is_partial
            && self.problems.is_empty()
            && self.unlisted.is_none()
    }
}

/// What the watcher that runs says of one of its devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Examined {
    /// The device's name.
    pub name: String,
    /// Which settings the watcher has for it: [`ConfiguredDevice::fingerprint`].
    pub settings: String,
    /// What was found.
    pub findings: Findings,
}

/// What one question to a driver brought.
enum Finding {
    Problems(Vec<String>),
    Remarks(Vec<String>),
    Lacks { is_partial: bool, lacks: Vec<String> },
    Reach(Reach),
    List(TargetList),
}

/// What is known of a device until its answers are in.
struct Open {
    findings: Findings,
    problems: Vec<String>,
    lacks: Vec<String>,
}

/// Where the findings about one device go.
#[derive(Clone)]
struct Teller {
    index: usize,
    sender: Sender<(usize, Finding)>,
}

impl Teller {
    fn tell(&self, finding: Finding) {
        // The receiver is gone only when nobody waits any longer.
        let _ = self.sender.send((self.index, finding));
    }
}

type Question = fn(&ConfiguredDevice, &Teller);
type Questions = Mutex<VecDeque<(Teller, Arc<ConfiguredDevice>, Question)>>;

/// How long [`examine`] may take with these devices, in milliseconds.
pub fn time_max_ms<'a>(devices: impl IntoIterator<Item = &'a Arc<ConfiguredDevice>>) -> u64 {
    let monitors = devices.into_iter().map(|device| device.monitor_timeout_ms);
    OTHER_MS_MAX + monitors.max().unwrap_or(0)
}

/// How much a device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Whether it is reached, and what it lists.
    Contact,
    /// All that a fence of each target needs.
    Whole,
}

/// Asks `devices`, many at once; gives the findings in their order. A driver that does not come
/// back by `limit` is not waited for.
pub fn examine(devices: &[Arc<ConfiguredDevice>], depth: Depth, limit: Limit) -> Vec<Findings> {
    let (sender, answers) = mpsc::channel();
    let mut questions: VecDeque<(_, _, Question)> = VecDeque::new();
    for (index, device) in devices.iter().enumerate() {
        let teller = Teller { index, sender: sender.clone() };
        let (of_settings, of_device): (Question, Question) = match depth {
            Depth::Contact => (ask_problems, ask_contact),
            Depth::Whole => (ask_settings, ask_device),
        };
        let settings = (teller.clone(), Arc::clone(device), of_settings);
        questions.extend([settings, (teller, Arc::clone(device), of_device)]);
    }
    let threads = questions.len().min(ASKING_MAX);
    let questions = Arc::new(Mutex::new(questions));
    let started = (0..threads).take_while(|_| spawn(&questions).is_ok()).count();
    if started == 0 {
        // Without a thread, one is asked after the other.
        answer(&questions);
    }
    drop(sender);
    let mut open: Vec<Open> = devices.iter().map(|device| unanswered(device)).collect();
    while let Ok((index, finding)) = answers.recv_timeout(Duration::from_millis(limit.left_ms())) {
        open[index].learn(finding);
    }
    open.into_iter().map(Open::close).collect()
}

/// What stays if nothing else is said.
fn unanswered(device: &ConfiguredDevice) -> Open {
    let silence = "it was not asked, or did not answer".to_owned();
    Open {
        problems: vec!["it could not be checked in time".to_owned()],
        lacks: vec!["its targets could not be looked for in time".to_owned()],
        findings: Findings {
            reachable: Some(false),
            unlisted: device.is_to_be_discovered().then(|| silence.clone()),
            words: silence,
            ..Findings::default()
        },
    }
}

impl Open {
    fn learn(&mut self, finding: Finding) {
        let findings = &mut self.findings;
        match finding {
            Finding::Problems(problems) => self.problems = problems,
            Finding::Remarks(remarks) => findings.remarks = remarks,
            Finding::Lacks { is_partial, lacks } => {
                findings.is_partial = is_partial;
                self.lacks = lacks;
            }
            Finding::Reach(reach) => {
                (findings.reachable, findings.words) = match reach {
                    Reach::Reachable(words) => (Some(true), words),
                    Reach::Unreachable(words) => (Some(false), words),
                    Reach::NotAsked(words) => (None, words),
                }
            }
            Finding::List(list) => {
                (findings.targets, findings.unlisted) = match list {
                    TargetList::Nodes(nodes) => {
                        (Some(nodes.iter().map(ToString::to_string).collect()), None)
                    }
                    TargetList::Unreachable(why) | TargetList::NoList(why) => (None, Some(why)),
                }
            }
        }
    }

    fn close(self) -> Findings {
        let problems = self.problems.into_iter().chain(self.lacks).collect();
        Findings { problems, ..self.findings }
    }
}

/// Starts a thread that asks what is to be asked. A driver that does not come back holds up its
/// thread alone.
fn spawn(questions: &Arc<Questions>) -> io::Result<()> {
    let (questions, subject) = (Arc::clone(questions), Subject::of_this_thread());
    let ask = move || subject.within(|| answer(&questions));
    thread::Builder::new().name("check".into()).spawn(ask).map(drop)
}

fn answer(questions: &Questions) {
    let next = || questions.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((teller, device, question)) = next() {
        question(&device, &teller);
    }
}

/// What needs no contact with the device.
fn ask_problems(device: &ConfiguredDevice, teller: &Teller) {
    teller.tell(Finding::Problems(device.driver.check()));
}

fn ask_settings(device: &ConfiguredDevice, teller: &Teller) {
    ask_problems(device, teller);
    teller.tell(Finding::Remarks(device.driver.remarks(Limit::in_ms(LIST_MS_MAX))));
}

/// Whether the device is reached, and its list, where it has one; gives the contact and the
/// targets.
fn contacted(device: &ConfiguredDevice, teller: &Teller) -> (Reach, BTreeSet<NodeName>) {
    device.driver.prepare(Limit::in_ms(LIST_MS_MAX));
    let reach = device.reach(Limit::in_ms(device.monitor_timeout_ms));
    teller.tell(Finding::Reach(reach.clone()));
    let mut targets = device.known_targets();
    if device.is_to_be_discovered() {
        let list = device.driver.targets(Limit::in_ms(LIST_MS_MAX));
        if let TargetList::Nodes(nodes) = &list {
            targets.extend(nodes.iter().cloned());
        }
        teller.tell(Finding::List(list));
    }
    (reach, targets)
}

fn ask_contact(device: &ConfiguredDevice, teller: &Teller) {
    contacted(device, teller);
    teller.tell(Finding::Lacks { is_partial: false, lacks: Vec::new() });
}

/// What the device itself is asked: one thing after the other, for some devices talk to one client.
fn ask_device(device: &ConfiguredDevice, teller: &Teller) {
    let (reach, targets) = contacted(device, teller);
    let words = match reach {
        Reach::Reachable(words) | Reach::NotAsked(words) => words,
        // There is nothing more to be learned of its targets.
        Reach::Unreachable(_) => {
            return teller.tell(Finding::Lacks { is_partial: false, lacks: Vec::new() });
        }
    };
    let unknown = device.driver.unknown_targets(Limit::in_ms(LIST_MS_MAX));
    let targets: Vec<NodeName> = targets.into_iter().collect();
    let (is_partial, lacks) = not_yet_said(&words, unknown, lacks_of(device, &targets));
    teller.tell(Finding::Lacks { is_partial, lacks });
}

/// What is missing, without what the words of the contact say already; and whether they say any of
/// it. Several questions to one device find the same fault.
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

/// Between the targets and the reason, where a driver says which it cannot fence.
const CANNOT: &str = "' cannot be fenced: ";

/// What is missing for orders: the targets for which the same is missing, and what it is.
fn lacks_of(device: &ConfiguredDevice, targets: &[NodeName]) -> Vec<(String, String)> {
    let at_once = if device.addresses.is_some() { AT_ONCE_MAX } else { device.max_concurrent };
    let limit = Limit::in_ms(TARGETS_MS_MAX);
    let lacks = ask_some(targets, at_once.min(AT_ONCE_MAX), |target| {
        if limit.has_passed() {
            return Some("no time was left".to_owned());
        }
        device.driver.lack(target, limit.min(Limit::in_ms(device.monitor_timeout_ms)))
    });
    let lacks = targets.iter().zip(&lacks).filter_map(|(at, why)| Some((at, why.as_deref()?)));
    let called = Called { address: device.addresses.as_ref(), plug: device.plugs.as_ref() };
    grouped(lacks, called)
}

/// How long a device may take to list its targets, or to describe itself.
const LIST_MS_MAX: u64 = 11_000;

/// How many questions are asked at the same time.
const ASKING_MAX: usize = 64;

/// How long the questions for single targets may take, all together.
const TARGETS_MS_MAX: u64 = 30_000;

/// How long all of it may take, besides the contact.
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
