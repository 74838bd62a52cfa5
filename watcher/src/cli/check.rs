//! `fence-watcher check`: every device, whether it can be reached now, and what may surprise.
//!
//! The configuration itself was checked when it was read. Devices are asked, never told anything.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use fence_core::execution::Method;
use fence_core::watcher::{self as core, Coverage, Unroutable, route};
use fence_device::{ExecutorClient, Limit, Reach, TargetList};
use fence_protocol::{FenceAction, NodeName};
use fence_spool::Places;

use super::EXECUTOR_MODE;
use super::table::Table;
use crate::config::{DeviceKind, Settings, SpoolSettings, fold_hostlist, local_node};
use crate::devices::{ConfiguredDevice, Devices};

/// The text of `check`, and whether all devices of this node can be reached.
pub(super) fn check(settings: &Settings, offline: bool) -> anyhow::Result<(String, bool)> {
    // No watcher has to wait for this executor's end, so it locks what nobody looks at.
    let lock = Path::new("/dev/null");
    let executor = ExecutorClient::start(Path::new("/proc/self/exe"), &[EXECUTOR_MODE], lock)
        .context("cannot start the helper process that runs commands")?;
    let devices = Devices::build(settings, &executor);
    let devices = settings
        .devices
        .iter()
        .filter_map(|settings| Some((&settings.kind, Arc::clone(devices.get(&settings.name)?))));
    let mut checked: Vec<Checked> = devices
        .map(|(kind, device)| Checked {
            device,
            is_simulated: matches!(kind, DeviceKind::Simulated(_)),
            has_addresses: kind.addresses().is_some(),
            problems: Vec::new(),
            remarks: Vec::new(),
            unknown: Vec::new(),
            reach: None,
            list: None,
        })
        .collect();
    if !offline {
        ask(&mut checked);
    }
    let spool_problem = if offline { None } else { spool_problem(&settings.spool) };
    let is_well = spool_problem.is_none() && checked.iter().all(Checked::is_well);
    let mut notes = notes(&checked, settings, offline);
    notes.extend(spool_problem);
    Ok((report(&checked, &notes), is_well))
}

/// Why the spool, where there is one already, cannot be used: it lies on the wrong file system, or no
/// answer could be written.
fn spool_problem(spool: &SpoolSettings) -> Option<String> {
    let places = Places::new(&spool.request_dir, &spool.response_dir);
    if let Err(problem) = fence_spool::check_renames(&places) {
        return Some(problem.to_string());
    }
    let problem = fence_spool::check_answers(&places).err()?;
    Some(format!("no answer could be written: {problem}"))
}

/// What is known of a device.
struct Checked {
    device: Arc<ConfiguredDevice>,
    is_simulated: bool,
    /// It is many devices, of which one may be reached and another not.
    has_addresses: bool,
    /// What the driver finds wrong with its settings.
    problems: Vec<String>,
    /// What is unusual, and yet no problem.
    remarks: Vec<String>,
    /// What is missing for a fence of one of the targets.
    unknown: Vec<String>,
    /// What it answered, if it was asked.
    reach: Option<Reach>,
    /// The targets that it listed, if it was asked for them.
    list: Option<TargetList>,
}

/// What one question to a driver brought.
enum Finding {
    Problems(Vec<String>),
    Remarks(Vec<String>),
    Unknown(Vec<String>),
    Reach(Reach),
    List(TargetList),
}

/// Where the findings about one device go.
#[derive(Clone)]
struct Findings {
    index: usize,
    sender: Sender<(usize, Finding)>,
}

impl Findings {
    fn tell(&self, finding: Finding) {
        // The receiver is gone only when nobody waits any longer.
        let _ = self.sender.send((self.index, finding));
    }
}

type Question = fn(&ConfiguredDevice, &Findings);
type Questions = Mutex<VecDeque<(Findings, Arc<ConfiguredDevice>, Question)>>;

/// Asks the devices of this node, many at once. A driver that does not come back is not waited for.
fn ask(checked: &mut [Checked]) {
    let (sender, findings) = mpsc::channel();
    let mut time_max_ms = 0;
    let mut questions: VecDeque<(_, _, Question)> = VecDeque::new();
    for (index, checked) in checked.iter_mut().enumerate().filter(|(_, c)| c.device.here) {
        // What stays if nothing else is said.
        checked.problems = vec!["it could not be checked in time".to_owned()];
        checked.reach = Some(Reach::Unreachable("it was not asked, or did not answer".to_owned()));
        checked.unknown = vec!["its targets could not be looked for in time".to_owned()];
        if checked.device.is_to_be_discovered() {
            let unlisted = "it was not asked, or did not answer".to_owned();
            checked.list = Some(TargetList::Unreachable(unlisted));
        }
        time_max_ms = time_max_ms.max(checked.device.monitor_timeout_ms);
        let findings = Findings { index, sender: sender.clone() };
        let settings = (findings.clone(), Arc::clone(&checked.device), ask_settings as Question);
        questions.extend([settings, (findings, Arc::clone(&checked.device), ask_device)]);
    }
    let threads = questions.len().min(ASKING_MAX);
    let questions = Arc::new(Mutex::new(questions));
    let started = (0..threads).take_while(|_| spawn(&questions).is_ok()).count();
    if started == 0 {
        // Without a thread, one is asked after the other.
        answer(&questions);
    }
    drop(sender);
    let limit = Limit::in_ms(CHECK_MS_MAX + time_max_ms);
    while let Ok((index, finding)) = findings.recv_timeout(Duration::from_millis(limit.left_ms())) {
        match finding {
            Finding::Problems(problems) => checked[index].problems = problems,
            Finding::Remarks(remarks) => checked[index].remarks = remarks,
            Finding::Unknown(unknown) => checked[index].unknown = unknown,
            Finding::Reach(reach) => checked[index].reach = Some(reach),
            Finding::List(list) => checked[index].list = Some(list),
        }
    }
}

/// Starts a thread that asks what is to be asked. A driver that does not come back holds up its thread
/// alone.
fn spawn(questions: &Arc<Questions>) -> io::Result<()> {
    let questions = Arc::clone(questions);
    thread::Builder::new().spawn(move || answer(&questions)).map(drop)
}

fn answer(questions: &Questions) {
    let next = || questions.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((findings, device, question)) = next() {
        question(&device, &findings);
    }
}

/// What needs no contact with the device.
fn ask_settings(device: &ConfiguredDevice, findings: &Findings) {
    findings.tell(Finding::Problems(device.driver.check()));
    findings.tell(Finding::Remarks(device.driver.remarks(Limit::in_ms(LIST_MS_MAX))));
}

/// What the device itself is asked: one thing after the other, for some devices talk to one client.
fn ask_device(device: &ConfiguredDevice, findings: &Findings) {
    device.driver.prepare(Limit::in_ms(LIST_MS_MAX));
    let reach = device.reach(Limit::in_ms(device.monitor_timeout_ms));
    let is_reached = matches!(reach, Reach::Reachable(_));
    findings.tell(Finding::Reach(reach));
    let mut targets = device.known_targets();
    if device.is_to_be_discovered() {
        let list = device.driver.targets(Limit::in_ms(LIST_MS_MAX));
        if let TargetList::Nodes(nodes) = &list {
            targets.extend(nodes.iter().cloned());
        }
        findings.tell(Finding::List(list));
    }
    if !is_reached {
        // There is nothing more to be learned of its targets.
        return findings.tell(Finding::Unknown(Vec::new()));
    }
    let mut unknown = device.driver.unknown_targets(Limit::in_ms(LIST_MS_MAX));
    unknown.extend(lacks(device, &targets));
    findings.tell(Finding::Unknown(unknown));
}

/// What is missing for an order, target by target.
fn lacks(device: &ConfiguredDevice, targets: &BTreeSet<NodeName>) -> Vec<String> {
    let at_once = if device.addresses.is_some() { AT_ONCE_MAX } else { device.max_concurrent };
    let limit = Limit::in_ms(TARGETS_MS_MAX);
    let (targets, lacks) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    let next = || targets.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(target) = next() {
            let own_limit = limit.min(Limit::in_ms(device.monitor_timeout_ms));
            let why = if limit.has_passed() {
                Some("no time was left".to_owned())
            } else {
                device.driver.lack(target, own_limit)
            };
            let lack = why.map(|why| (target, why));
            lacks.lock().unwrap_or_else(PoisonError::into_inner).extend(lack);
        }
    };
    thread::scope(|scope| {
        for _ in 1..at_once.min(AT_ONCE_MAX) {
            // Where no more threads are to be had, this one does more.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut lacks = lacks.into_inner().unwrap_or_else(PoisonError::into_inner);
    lacks.sort_unstable();
    let sentence = |(target, why)| format!("a fence of '{target}' is not certain to work: {why}");
    lacks.into_iter().map(sentence).collect()
}

impl Checked {
    fn is_well(&self) -> bool {
        let is_lost = matches!(self.reach, Some(Reach::Unreachable(_)));
        let is_unlisted = !matches!(self.list, None | Some(TargetList::Nodes(_)));
        !is_lost && !is_unlisted && self.problems.is_empty() && self.unknown.is_empty()
    }

    /// What the core has to know of it.
    fn facts(&self) -> core::Device {
        let mut facts = self.device.facts();
        if let Some(TargetList::Nodes(nodes)) = &self.list {
            facts.coverage = Coverage::Discovered(Some(nodes.iter().cloned().collect()));
        }
        facts
    }
}

fn report(checked: &[Checked], notes: &[String]) -> String {
    let mut text = table(checked);
    let topology = topology(&checked.iter().map(Checked::facts).collect::<Vec<_>>());
    if !topology.is_empty() {
        text.push('\n');
        text.push_str(&topology.text());
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str("note: ");
        text.push_str(&fence_log::one_line(note));
        text.push('\n');
    }
    text
}

fn table(checked: &[Checked]) -> String {
    let mut table = Table::new([
        "DEVICE",
        "TYPE",
        "REACHABLE",
        "TARGETS",
        "METHOD",
        "CONCURRENT",
        "ON THIS NODE",
    ]);
    for checked @ Checked { device, reach, .. } in checked {
        table.row([
            &device.name,
            device.type_name,
            match reach {
                Some(Reach::Reachable(_)) => "yes",
                Some(Reach::Unreachable(_)) => "NO",
                None => "not asked",
            },
            &targets(checked),
            match device.method() {
                Method::OnOff => "onoff",
                Method::Cycle => "cycle",
            },
            &match device.addresses {
                Some(_) => format!("{} an address", device.max_concurrent),
                None => device.max_concurrent.to_string(),
            },
            if device.here { "yes" } else { "no" },
        ]);
    }
    table.text()
}

/// Who fences what: the targets, the device that is used, and those that can be named instead.
fn topology(devices: &[core::Device]) -> Table<3> {
    let listed: BTreeSet<&NodeName> = devices
        .iter()
        .filter(|device| device.here)
        .filter_map(|device| match &device.coverage {
            Coverage::Nodes(nodes) | Coverage::Discovered(Some(nodes)) => Some(nodes),
            Coverage::Any | Coverage::Discovered(None) => None,
        })
        .flatten()
        .collect();
    let mut groups: Vec<(Vec<String>, Vec<&NodeName>)> = Vec::new();
    for target in &listed {
        let by = serving(devices, target);
        match groups.iter_mut().find(|(known, _)| *known == by) {
            Some((_, targets)) => targets.push(target),
            None => groups.push((by, vec![target])),
        }
    }
    let mut table = Table::new(["TARGETS", "FENCED BY", "OR, IF NAMED, BY"]);
    let mut row = |targets: &str, by: &[String]| {
        if let Some((used, others)) = by.split_first() {
            table.row([targets, used, &others.join(", ")]);
        }
    };
    for (by, targets) in &groups {
        row(&short_list(targets), by);
    }
    let mut other = (0..).filter_map(|n| format!("any-other-{n}").parse::<NodeName>().ok());
    if let Some(other) = other.find(|name| !listed.contains(name)) {
        row("any other", &serving(devices, &other));
    }
    table
}

/// The devices of this node that can fence `target`, first the one that is used for it.
fn serving(devices: &[core::Device], target: &NodeName) -> Vec<String> {
    let by = |named: Option<&str>| match route(devices, named, target, FenceAction::Off) {
        Ok(device) => Some(device.name.clone()),
        Err(Unroutable::Unable(name, _)) => Some(name),
        Err(_) => None,
    };
    let used = by(None);
    let others = devices.iter().filter_map(|device| by(Some(&device.name)));
    let others = others.filter(|name| Some(name) != used.as_ref());
    used.iter().cloned().chain(others).collect()
}

/// Nodes, or their number where the list would fill the screen.
fn short_list(nodes: &[&NodeName]) -> String {
    match fold_hostlist(nodes.iter().copied()) {
        text if text.len() > TARGETS_WIDTH_MAX => format!("{} nodes", nodes.len()),
        text => text,
    }
}

/// The targets, as they are written or as they were listed.
fn targets(checked: &Checked) -> String {
    match (checked.device.fixed_targets(), &checked.list) {
        (Some(nodes), _) => short_list(&nodes.iter().collect::<Vec<_>>()),
        (None, Some(TargetList::Nodes(nodes))) => {
            format!("discover: {}", short_list(&nodes.iter().collect::<Vec<_>>()))
        }
        (None, _) => checked.device.targets_text.clone(),
    }
}

fn notes(checked: &[Checked], settings: &Settings, offline: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for checked in checked {
        let name = &checked.device.name;
        if !checked.device.here {
            notes.push(format!("'{name}' is not used on this node, '{}'", settings.node));
            continue;
        }
        match &checked.reach {
            Some(Reach::Unreachable(why)) => {
                notes.push(format!("'{name}' cannot be reached: {why}"));
            }
            Some(Reach::Reachable(words)) if checked.has_addresses => {
                notes.push(format!("'{name}': {words}"));
            }
            _ => {}
        }
        if let Some(TargetList::Unreachable(why) | TargetList::NoList(why)) = &checked.list {
            notes.push(format!("'{name}' gives no list of its targets: {why}"));
        }
        let problems = checked.problems.iter().chain(&checked.unknown).chain(&checked.remarks);
        notes.extend(problems.map(|problem| format!("'{name}': {problem}")));
        if checked.is_simulated {
            notes.push(format!(
                "'{name}' is simulated: it only pretends to fence, nothing is really cut off"
            ));
        }
        notes.extend(unable(&checked.device));
    }
    if !checked.iter().any(|checked| checked.device.here) {
        notes.push(format!(
            "no device is for this node, '{}': nothing can be fenced",
            settings.node
        ));
    }
    notes.extend(settings.reports());
    if !offline && settings.node != local_node() {
        notes.push(format!(
            "asked from this machine, '{}': '{}' may reach other devices",
            local_node(),
            settings.node
        ));
    }
    notes
}

/// What the device cannot do, so that nobody learns it from a fence.
fn unable(device: &ConfiguredDevice) -> Vec<String> {
    let (name, abilities) = (&device.name, device.driver.abilities());
    let mut notes: Vec<String> = [FenceAction::Off, FenceAction::On, FenceAction::Reboot]
        .into_iter()
        .filter(|action| !abilities.serve(*action, device.method()))
        .map(|action| format!("'{name}' has no way to do '{action}': it refuses such requests"))
        .collect();
    if !abilities.power {
        notes.push(format!("'{name}' has no 'status': that it did a fence has to be believed"));
    }
    notes
}

/// How long a device may take to list its targets, or to describe itself.
const LIST_MS_MAX: u64 = 11_000;

/// How many questions are asked at the same time.
const ASKING_MAX: usize = 64;

/// How long the questions for single targets may take, all together.
const TARGETS_MS_MAX: u64 = 30_000;

/// How long all of it may take, besides the contact.
const CHECK_MS_MAX: u64 = 3 * LIST_MS_MAX + TARGETS_MS_MAX + 2_000;

/// How many targets are asked for at once.
const AT_ONCE_MAX: usize = 16;

/// The widest list of targets that is shown in full.
const TARGETS_WIDTH_MAX: usize = 40;
