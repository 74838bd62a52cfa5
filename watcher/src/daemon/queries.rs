//! The desk for questions: each is answered in a thread of its own, so that neither an execution
//! delays a question nor a question an execution.
//!
//! What a passing lack of descriptors keeps from being done is tried again a moment later: nothing
//! is lost by that, because a question that is not answered still lies there. Without a thread, a
//! question is answered at once: it was not asked, and why.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use fence_core::Now;
use fence_core::clock::difference;
use fence_core::watcher::{Device, WRITE_GRACE_MS};
use fence_device::{Limit, Subject};
use fence_protocol::{
    Query, QueryAnswer, QueryCode, QueryKind, RECORD_BYTES_MAX, RecordName, Request,
};
use fence_spool::{QueryText, SpoolError, WatcherSpool};
use log::{debug, error, trace, warn};
use serde_json::json;

use super::Wake;
use super::asker::{ASK_MS, Asker, wrong};
use super::worker::STACK_BYTES;
use crate::devices::Devices;
use crate::state::State;

/// The most questions that are asked of devices at the same time; more wait.
const ASKING_MAX: usize = 64;

type Refuse = dyn FnOnce(&str);

/// What is done in a thread, and what instead if no thread can be had.
struct Task {
    work: Box<dyn FnOnce() + Send>,
    /// Is told why there is no thread; none where the work waits for one.
    refuse: Option<Box<Refuse>>,
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

    /// Takes the question in `file_name`; `state` describes the watcher, should that be asked.
    /// Gives the identity of one that wants a new configuration.
    pub(super) fn take(
        &mut self,
        file_name: &str,
        known: &[Device],
        state: impl Fn() -> State,
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
                write(&self.spool, file_name, &wrong(id, why), &self.wake);
            }
            Ok(query) if query.query == QueryKind::State => {
                let mut answer =
                    QueryAnswer::new(&query.query_id, QueryCode::Yes, "fence-watcher is running");
                answer.state = Some(json!(state()));
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

    /// Why `query` is told that nothing can be said, if so. One that came too late is told as well:
    /// its client may still be there, and wait by another clock.
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
                write(&spool, &file_name, &wrong(&id, why.to_owned()), &wake);
                let _ = answered.send(file_name);
            }
        };
        let work = move || {
            let asker = Asker { spool: &spool, devices: &devices, known, wake: &wake };
            let answer = Subject::new("query", &query.query_id).within(|| asker.answer(&query));
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
            let subject = Subject::new("request", &request.request_id);
            let (reached, words) = subject.within(|| asker.inquiry(&request));
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
                asker.list(device, Limit::in_ms(ASK_MS));
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

    /// Does `task` in a thread. Gives it back if no thread can be had at the moment and it waits
    /// for one.
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
    debug!("spool: answer query {file_name} with code {}", u8::from(answer.code));
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
