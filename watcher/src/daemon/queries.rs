//! The desk for questions: each is answered in a thread of its own, so that neither an execution
//! delays a question nor a question an execution.
//!
//! What a passing lack of descriptors keeps from being done is tried again a moment later: nothing
//! is lost by that, because a question that is not answered still lies there. Without a thread, a
//! question is answered at once: it was not asked, and why.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use fence_core::Now;
use fence_core::clock::difference;
use fence_core::watcher::{Device, WRITE_GRACE_MS};
use fence_device::{HELPER_STACK_BYTES, Subject};
use fence_protocol::{
    Query, QueryAnswer, QueryCode, QueryKind, RECORD_BYTES_MAX, RecordName, Request,
};
use fence_spool::{QueryText, SpoolError, WatcherSpool};
use log::{debug, error, trace, warn};
use serde_json::json;

use super::Wake;
use super::asker::{Asker, wrong};
use crate::asking::{ASKING_MAX, Limits};
use crate::devices::Devices;
use crate::state::State;

/// What devices are asked for, by a thread.
#[derive(Clone)]
enum Question {
    /// The query in the file of this name.
    Query(String, Box<Query>),
    /// The request by which an older client asks.
    Inquiry(RecordName, Box<Request>),
    /// The targets of this device, for the routing of requests that name no device.
    Targets(String),
}

#[derive(Clone)]
struct Task {
    question: Question,
    asker: Asker,
}

impl Task {
    fn ask(&self) {
        let Task { question, asker } = self;
        match question {
            Question::Query(file_name, query) => {
                let subject = Subject::new("query", &query.query_id);
                let answer = subject.within(|| asker.answer(query));
                write(&asker.spool, file_name, &answer, &asker.wake);
            }
            Question::Inquiry(name, request) => {
                let subject = Subject::new("request", &request.request_id);
                let (reached, words) = subject.within(|| asker.inquiry(request));
                let _ = asker.wake.send(Wake::Inquired(name.clone(), reached, words));
            }
            Question::Targets(device) => {
                if let Some(device) = asker.devices.get(device) {
                    asker.list(device, Limits::of_unknown_client().device);
                }
            }
        }
    }
}

pub(super) struct Desk {
    spool: Arc<WatcherSpool>,
    devices: Arc<Devices>,
    boot_id: String,
    wake: Sender<Wake>,
    asking: usize,
    waiting: VecDeque<Task>,
    /// The files of queries that are being answered. They are not taken again.
    taken: BTreeSet<String>,
}

impl Desk {
    pub(super) fn new(
        spool: Arc<WatcherSpool>,
        devices: Arc<Devices>,
        boot_id: &str,
        wake: Sender<Wake>,
    ) -> Self {
        Desk {
            spool,
            devices,
            boot_id: boot_id.to_owned(),
            wake,
            asking: 0,
            waiting: VecDeque::new(),
            taken: BTreeSet::new(),
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
            Ok(query) => {
                self.taken.insert(file_name.to_owned());
                let needs_lists = matches!(query.query, QueryKind::Power | QueryKind::Targets);
                let known = if needs_lists { known } else { &[] };
                self.ask(Question::Query(file_name.to_owned(), Box::new(query)), known);
            }
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
        self.ask(Question::Inquiry(name, Box::new(request)), known);
    }

    /// Asks `device` for its targets, for the routing of requests that name no device.
    pub(super) fn list(&mut self, device: String) {
        self.ask(Question::Targets(device), &[]);
    }

    /// A thread has ended, which asked what the query in `file_name` wants to know.
    pub(super) fn done(&mut self, file_name: Option<String>) {
        // A thread of the watcher before a new beginning is not one of ours.
        self.asking = self.asking.saturating_sub(1);
        if let Some(file_name) = file_name {
            self.taken.remove(&file_name);
        }
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
    }

    fn ask(&mut self, question: Question, known: &[Device]) {
        let asker = Asker {
            spool: Arc::clone(&self.spool),
            devices: Arc::clone(&self.devices),
            known: known.to_vec(),
            wake: self.wake.clone(),
        };
        self.waiting.push_back(Task { question, asker });
        self.go_on();
    }

    /// Has a thread ask. Returns the task if it waits because no thread can be started.
    fn start(&mut self, task: Task) -> Option<Task> {
        let theirs = task.clone();
        let file_name = match &task.question {
            Question::Query(file_name, _) => Some(file_name.clone()),
            Question::Inquiry(..) | Question::Targets(_) => None,
        };
        let wake = self.wake.clone();
        let thread = thread::Builder::new().name("query".into()).stack_size(HELPER_STACK_BYTES);
        let spawned = thread.spawn(move || {
            theirs.ask();
            // The receiver is gone only when the daemon is.
            let _ = wake.send(Wake::Asked(file_name));
        });
        let Err(problem) = spawned else {
            self.asking += 1;
            return None;
        };
        let why = format!("not asked: fence-watcher cannot start a thread: {problem}");
        match &task.question {
            Question::Query(file_name, query) => {
                write(&self.spool, file_name, &wrong(&query.query_id, why.clone()), &self.wake);
                self.taken.remove(file_name);
            }
            Question::Inquiry(name, _) => {
                let _ = self.wake.send(Wake::Inquired(name.clone(), false, why.clone()));
            }
            Question::Targets(_) => {
                // The request that needs the list waits for it, and a thread may be had by then.
                error!("a question has to wait: cannot start a thread: {problem}");
                let _ = self.wake.send(Wake::LookAgain);
                return Some(task);
            }
        }
        error!("a question was {why}");
        None
    }
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
