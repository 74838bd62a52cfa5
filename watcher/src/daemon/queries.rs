//! The desk for questions: each is answered in a thread of its own, so that neither an execution
//! delays a question nor a question an execution.
//!
//! What a passing lack of descriptors keeps from being done is tried again a moment later: nothing is
//! lost by that, because a question that is not answered still lies there. Without a thread, a question
//! is answered at once: it was not asked, and why.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use fence_core::Now;
use fence_core::clock::difference;
use fence_core::watcher::{Coverage, Device, WRITE_GRACE_MS, outdated, route, unlisted};
use fence_device::{Limit, Pin, Reach, TargetList, ask_all};
use fence_protocol::{
    FenceAction, NodeName, PowerState, Query, QueryAnswer, QueryKind, RECORD_BYTES_MAX, RecordName,
    Request, Requested, TEXT_BYTES_MAX, shortened,
};
use fence_spool::{QueryText, SpoolError, WatcherSpool};
use log::{debug, error, trace, warn};
use serde_json::Value;

use super::worker::STACK_BYTES;
use super::{Wake, examined};
use crate::devices::{ConfiguredDevice, Devices};

/// The most questions that are asked of devices at the same time; more wait.
const ASKING_MAX: usize = 64;

/// How long before its client gives up a question is answered, in milliseconds: the answer says which
/// device was asked in vain. A quarter of what is left, where that is less.
pub(super) const ANSWER_RESERVE_MS: u64 = 1_000;

/// How long any other question to a device may take when nobody says otherwise, in milliseconds.
const ASK_MS: u64 = 20_000;

type Refusal = dyn FnOnce(&str);

/// What is done in a thread, and what instead if no thread can be had.
struct Task {
    work: Box<dyn FnOnce() + Send>,
    /// Is told why there is no thread; none where the work waits for one.
    refuse: Option<Box<Refusal>>,
}

pub(super) struct Desk {
    spool: Arc<WatcherSpool>,
    devices: Arc<Devices>,
    boot_id: String,
    wake: Sender<Wake>,
    asking: usize,
    waiting: VecDeque<Task>,
    /// Questions that are being answered, whose files are therefore not taken again.
    taken: BTreeSet<String>,
    answered: Sender<String>,
    answers: std::sync::mpsc::Receiver<String>,
}

impl Desk {
    pub(super) fn new(
        spool: Arc<WatcherSpool>,
        devices: Arc<Devices>,
        boot_id: &str,
        wake: Sender<Wake>,
    ) -> Self {
        let (answered, answers) = std::sync::mpsc::channel();
        Desk {
            spool,
            devices,
            boot_id: boot_id.to_owned(),
            wake,
            asking: 0,
            waiting: VecDeque::new(),
            taken: BTreeSet::new(),
            answered,
            answers,
        }
    }

    /// Takes the question in `file_name`; `state` describes the watcher, should that be asked. Gives
    /// the identity of one that wants a new configuration.
    pub(super) fn take(
        &mut self,
        file_name: &str,
        known: &[Device],
        state: impl Fn() -> Value,
        now: Now,
    ) -> Option<String> {
        if self.taken.contains(file_name) {
            return None;
        }
        let read = match self.spool.read_query(file_name) {
            Ok(read) => read?,
            Err(problem) => {
                report(&format!("query '{file_name}'"), &problem, &self.wake);
                return None;
            }
        };
        trace!("spool: looked at query {file_name}");
        let parsed = match read {
            QueryText::Whole { bytes, mtime_ms } if is_being_written(&bytes, mtime_ms, now) => {
                // The receiver is gone only when the daemon is.
                let _ = self.wake.send(Wake::LookAgain);
                return None;
            }
            QueryText::Whole { bytes, .. } => Query::parse(&bytes),
            QueryText::TooLarge(size) => {
                Err(format!("the query has {size} bytes; at most {RECORD_BYTES_MAX} are read"))
            }
        };
        let query = match parsed {
            Ok(query) if file_name != format!("{}.json", query.query_id) => {
                Err("its query_id is not its file name".to_owned())
            }
            Ok(query) => self.unanswerable(&query, now).map_or(Ok(query), Err),
            Err(why) => Err(why),
        };
        match query {
            Err(why) => {
                warn!("query '{file_name}': refused: {why}");
                // The file's name is its identity, whatever it says.
                let id = file_name.strip_suffix(".json").unwrap_or(file_name);
                write(&self.spool, file_name, &QueryAnswer::new(id, 3, why), &self.wake);
            }
            Ok(query) if query.query == QueryKind::State => {
                let mut answer = QueryAnswer::new(&query.query_id, 0, "fence-watcher is running");
                answer.state = Some(state());
                write(&self.spool, file_name, &answer, &self.wake);
            }
            Ok(query) if query.query == QueryKind::Reload => {
                self.taken.insert(file_name.to_owned());
                return Some(query.query_id);
            }
            Ok(query) => self.ask(file_name, query, known),
        }
        None
    }

    /// Why `query` is told that nothing can be said, if so. One that came too late is told as well: its
    /// client may still be there, and wait by another clock.
    fn unanswerable(&self, query: &Query, now: Now) -> Option<String> {
        let (theirs, asked) = (query.boot_id.as_deref(), query.asked_boottime_ms);
        difference(theirs, asked, &self.boot_id, now.boot_ms).or_else(|| {
            let late_ms = now.boot_ms.checked_sub(query.deadline_boottime_ms)?;
            Some(format!(
                "its deadline passed {late_ms} ms ago by the clock of fence-watcher: if its client \
                 still waits, the two do not share one CLOCK_BOOTTIME: run both on one kernel"
            ))
        })
    }

    /// Asks the devices what `query` wants to know.
    fn ask(&mut self, file_name: &str, query: Query, known: &[Device]) {
        self.taken.insert(file_name.to_owned());
        let (spool, devices) = (Arc::clone(&self.spool), Arc::clone(&self.devices));
        let (wake, answered, file_name) =
            (self.wake.clone(), self.answered.clone(), file_name.to_owned());
        let needs_lists = matches!(query.query, QueryKind::Power | QueryKind::Targets);
        let known = if needs_lists { known.to_vec() } else { Vec::new() };
        let refuse = {
            let (spool, wake, answered) = (Arc::clone(&spool), wake.clone(), answered.clone());
            let (id, file_name) = (query.query_id.clone(), file_name.clone());
            move |why: &str| {
                write(&spool, &file_name, &QueryAnswer::new(&id, 3, why), &wake);
                let _ = answered.send(file_name);
            }
        };
        let work = move || {
            let answer =
                Asker { spool: &spool, devices: &devices, known, wake: &wake }.answer(&query);
            write(&spool, &file_name, &answer, &wake);
            let _ = answered.send(file_name);
        };
        self.spawn(Task { work: Box::new(work), refuse: Some(Box::new(refuse)) });
    }

    /// Tells who asked for a new configuration what came of it.
    pub(super) fn reloaded(&mut self, answer: &QueryAnswer) {
        let file_name = format!("{}.json", answer.query_id);
        write(&self.spool, &file_name, answer, &self.wake);
        self.taken.remove(&file_name);
    }

    /// Asks these devices from now on.
    pub(super) fn set_devices(&mut self, devices: Arc<Devices>) {
        self.devices = devices;
    }

    /// Answers a question that an older client put as a request.
    pub(super) fn inquire(&mut self, name: RecordName, request: Request, known: &[Device]) {
        let known = known.to_vec();
        let (spool, devices) = (Arc::clone(&self.spool), Arc::clone(&self.devices));
        let wake = self.wake.clone();
        let refuse = {
            let (wake, name) = (wake.clone(), name.clone());
            move |why: &str| {
                let _ = wake.send(Wake::Inquired(name, false, why.to_owned()));
            }
        };
        let work = move || {
            let asker = Asker { spool: &spool, devices: &devices, known, wake: &wake };
            let (reached, words) = asker.inquiry(&request);
            let _ = wake.send(Wake::Inquired(name, reached, words));
        };
        self.spawn(Task { work: Box::new(work), refuse: Some(Box::new(refuse)) });
    }

    /// Asks `device` for its targets, for the routing of requests that name no device.
    pub(super) fn list(&mut self, device: String) {
        let (spool, devices) = (Arc::clone(&self.spool), Arc::clone(&self.devices));
        let wake = self.wake.clone();
        let work = move || {
            if let Some(device) = devices.get(&device) {
                let asker =
                    Asker { spool: &spool, devices: &devices, known: Vec::new(), wake: &wake };
                asker.list(device, in_ms(ASK_MS));
            }
        };
        // The request that needs the list waits for it, and a thread may be had by then.
        self.spawn(Task { work: Box::new(work), refuse: None });
    }

    /// A thread is free again.
    pub(super) fn done(&mut self) {
        // A question to the watcher before a new beginning is not one of ours.
        self.asking = self.asking.saturating_sub(1);
        self.go_on();
    }

    /// Begins what waits, as far as there is room.
    pub(super) fn go_on(&mut self) {
        let mut postponed = VecDeque::new();
        while self.asking < ASKING_MAX
            && let Some(task) = self.waiting.pop_front()
        {
            postponed.extend(self.start(task));
        }
        postponed.append(&mut self.waiting);
        self.waiting = postponed;
        while let Ok(file_name) = self.answers.try_recv() {
            self.taken.remove(&file_name);
        }
    }

    fn spawn(&mut self, task: Task) {
        self.waiting.push_back(task);
        self.go_on();
    }

    /// Does `task` in a thread. Gives it back if no thread can be had at the moment and it waits for one.
    fn start(&mut self, task: Task) -> Option<Task> {
        let Task { work, refuse } = task;
        let slot = Arc::new(Mutex::new(Some(work)));
        let (theirs, wake) = (Arc::clone(&slot), self.wake.clone());
        let thread = thread::Builder::new().name("query".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let _done = Done(wake);
            if let Some(work) = take(&theirs) {
                work();
            }
        });
        let Err(problem) = spawned else {
            self.asking += 1;
            return None;
        };
        if let Some(refuse) = refuse {
            let why = format!("not asked: fence-watcher cannot start a thread: {problem}");
            error!("a question was {why}");
            refuse(&why);
            return None;
        }
        error!("a question has to wait: cannot start a thread: {problem}");
        let _ = self.wake.send(Wake::LookAgain);
        take(&slot).map(|work| Task { work, refuse: None })
    }
}

/// Says that a thread is free again, also if it panicked.
struct Done(Sender<Wake>);

impl Drop for Done {
    fn drop(&mut self) {
        // The receiver is gone only when the daemon is.
        let _ = self.0.send(Wake::QueryDone);
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn report(what: &str, problem: &SpoolError, wake: &Sender<Wake>) {
    error!("{what}: {problem}");
    if problem.is_passing() {
        // The receiver is gone only when the daemon is.
        let _ = wake.send(Wake::LookAgain);
    }
}

/// Whether a query is cut off, and its client may still be writing it in place.
fn is_being_written(bytes: &[u8], mtime_wall_ms: i64, now: Now) -> bool {
    let age_ms = now.wall_ms.saturating_sub(mtime_wall_ms);
    let is_young = u64::try_from(age_ms).is_ok_and(|age_ms| age_ms < WRITE_GRACE_MS);
    is_young && Query::is_cut_off(bytes)
}

fn write(spool: &WatcherSpool, file_name: &str, answer: &QueryAnswer, wake: &Sender<Wake>) {
    debug!("spool: answer query {file_name} with code {}", answer.code);
    // Its client looks beside the query, whatever that says of itself.
    let name = file_name.strip_suffix(".json").unwrap_or(file_name);
    if let Err(problem) = spool.answer_query(name, &answer.to_json()) {
        report(&format!("query '{file_name}'"), &problem, wake);
        if problem.is_passing() {
            // It is asked once more by the next look, if somebody still waits for it.
            return;
        }
    }
    remove(spool, file_name);
}

fn remove(spool: &WatcherSpool, file_name: &str) {
    if let Err(problem) = spool.remove_query(file_name) {
        error!("query '{file_name}': {problem}");
    }
}

/// When a question is answered at the latest whose client gives up at `deadline_boot_ms`.
fn limit_before(deadline_boot_ms: u64) -> Limit {
    let left_ms = Limit { not_after_boot_ms: deadline_boot_ms }.left_ms();
    in_ms((left_ms - ANSWER_RESERVE_MS.min(left_ms / 4)).min(ASK_MS))
}

fn in_ms(ms: u64) -> Limit {
    Limit { not_after_boot_ms: fence_device::boot_ms_now() + ms }
}

/// Asks devices, and tells the daemon what it learns on the way.
struct Asker<'a> {
    spool: &'a WatcherSpool,
    devices: &'a Devices,
    /// What the core knows of them, where a target's state is asked for.
    known: Vec<Device>,
    wake: &'a Sender<Wake>,
}

impl Asker<'_> {
    fn answer(&self, query: &Query) -> QueryAnswer {
        let id = &query.query_id;
        let limit = limit_before(query.deadline_boottime_ms);
        match query.query {
            QueryKind::Reachable => match self.devices.choose(query.device.as_deref()) {
                Ok(devices) => {
                    let (reached, words) = self.reachable(&devices, limit);
                    QueryAnswer::new(id, u8::from(!reached), words)
                }
                Err(why) => QueryAnswer::new(id, 3, why),
            },
            QueryKind::Targets => match self.targets(query.device.as_deref(), limit) {
                Ok((targets, problems)) => {
                    let words = [format!("{} targets", targets.len())];
                    let words: Vec<_> = words.into_iter().chain(problems).collect();
                    let mut answer = QueryAnswer::new(id, 0, words.join("; "));
                    answer.targets = targets.iter().map(ToString::to_string).collect();
                    answer
                }
                Err((code, why)) => QueryAnswer::new(id, code, why),
            },
            QueryKind::Power => {
                let target = match query.target() {
                    Some(Ok(target)) => target,
                    Some(Err(why)) => return QueryAnswer::new(id, 3, format!("target: {why}")),
                    None => return QueryAnswer::new(id, 3, "no target is named"),
                };
                let (power, words) = self.power(query.device.as_deref(), &target, limit);
                let code = u8::from(power == PowerState::Unknown);
                let mut answer = QueryAnswer::new(id, code, words);
                answer.power = Some(power);
                answer
            }
            QueryKind::Check => examined::answer(self.devices, query),
            // The daemon itself answers what concerns it.
            QueryKind::State | QueryKind::Reload => {
                QueryAnswer::new(id, 3, "no device is asked for this")
            }
        }
    }

    fn inquiry(&self, request: &Request) -> (bool, String) {
        let device = request.device.as_deref();
        match (&request.action, &request.target_node) {
            (Requested::Inquiry("status"), Some(target)) => {
                let (power, words) = self.power(device, target, in_ms(ASK_MS));
                (power != PowerState::Unknown, format!("not a fence, only asked: {words}"))
            }
            (Requested::Inquiry("list"), _) => match self.targets(device, in_ms(ASK_MS)) {
                Ok((targets, _)) => {
                    let names: Vec<_> = targets.iter().map(NodeName::as_str).collect();
                    (true, names.join("\n"))
                }
                Err((_, why)) => (false, why),
            },
            _ => match self.devices.choose(device) {
                Ok(devices) => self.reachable(&devices, in_ms(ASK_MS)),
                Err(why) => (false, why),
            },
        }
    }

    /// Whether a fence would succeed as far as a light look shows: each device is reached, and an answer
    /// could be written.
    fn reachable(&self, devices: &[&Arc<ConfiguredDevice>], limit: Limit) -> (bool, String) {
        let mut reaches = ask_all(devices, |device| self.reach(device, limit));
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

    /// Contacts `device`, if its turn comes while there is time.
    fn reach(&self, device: &Arc<ConfiguredDevice>, limit: Limit) -> (bool, String) {
        if limit.has_passed() {
            let text = format!("fence device '{}' was not asked: no time was left", device.name);
            return (false, text);
        }
        let (reached, words) = match device.reach(limit) {
            Reach::Reachable(words) => (true, words),
            Reach::Unreachable(words) => (false, words),
            // Nothing speaks against it, and that is not to be shown as a contact.
            Reach::NotAsked(words) => {
                return (true, format!("fence device '{}' was not asked: {words}", device.name));
            }
        };
        let _ = self.wake.send(Wake::Reached(Arc::clone(device), reached));
        let verb = if reached { "is reachable" } else { "is not reachable" };
        let text = format!("fence device '{}' {verb}", device.name);
        (reached, if words.is_empty() { text } else { format!("{text}: {words}") })
    }

    /// The targets that are known, and which devices gave no list. A device that does not answer takes
    /// nothing away from the others, and has the targets that it listed before: it is an error only if it is
    /// the one that was named, or if nothing is known.
    fn targets(
        &self,
        named: Option<&str>,
        limit: Limit,
    ) -> Result<(BTreeSet<NodeName>, Vec<String>), (u8, String)> {
        let devices = self.devices.choose(named).map_err(|why| (3, why))?;
        let lists = ask_all(&devices, |device| match device.fixed_targets() {
            Some(targets) => TargetList::Nodes(targets.iter().cloned().collect()),
            None => self.list(device, limit),
        });
        let (mut all, mut problems) = (BTreeSet::new(), Vec::new());
        for (device, list) in devices.iter().zip(lists) {
            let text = |why| format!("fence device '{}': {why}", device.name);
            match list {
                TargetList::Nodes(targets) => all.extend(targets),
                TargetList::Unreachable(why) => {
                    all.extend(self.listed_before(&device.name));
                    problems.push((1, text(why)));
                }
                // It can fence targets that it cannot list, so no list would be one of all.
                TargetList::NoList(why) if !device.is_to_be_discovered() => {
                    return Err((2, text(why)));
                }
                TargetList::NoList(why) => problems.push((2, text(why))),
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

    fn list(&self, device: &Arc<ConfiguredDevice>, limit: Limit) -> TargetList {
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

    /// The device on which a fence of `target` would be executed, or why there is none. As for a fence,
    /// devices are asked for their lists where these decide.
    fn device_for(
        &self,
        named: Option<&str>,
        target: &NodeName,
        limit: Limit,
    ) -> Result<&Arc<ConfiguredDevice>, String> {
        let mut known = self.known.clone();
        let lists = unlisted(&self.known, named, target).into_iter();
        for name in lists.chain(outdated(&self.known, named, target)) {
            let Some(device) = self.devices.get(name) else { continue };
            if let TargetList::Nodes(nodes) = self.list(device, limit)
                && let Some(facts) = known.iter_mut().find(|facts| facts.name == name)
            {
                let is_it = nodes.contains(target);
                facts.coverage = Coverage::Discovered(Some(nodes.into_iter().collect()));
                if is_it {
                    break;
                }
            }
        }
        let device =
            route(&known, named, target, FenceAction::Off).map_err(|why| why.to_string())?;
        let missing = || format!("there is no fence device '{}'", device.name);
        self.devices.get(&device.name).ok_or_else(missing)
    }

    fn power(&self, named: Option<&str>, target: &NodeName, limit: Limit) -> (PowerState, String) {
        let device = match self.device_for(named, target, limit) {
            Ok(device) => device,
            Err(why) => return (PowerState::Unknown, why),
        };
        if !device.driver.abilities().power {
            let why = format!("fence device '{}' cannot be asked for the state", device.name);
            return (PowerState::Unknown, why);
        }
        let report = device.driver.power(target, &Pin::default(), limit);
        let words = match report.state {
            PowerState::On => format!("'{target}' is on"),
            PowerState::Off => format!("'{target}' is off"),
            PowerState::Unknown => {
                format!("fence device '{}' did not show the state of '{target}'", device.name)
            }
        };
        if report.detail.is_empty() {
            return (report.state, words);
        }
        (report.state, format!("{words}: {}", report.detail))
    }
}
