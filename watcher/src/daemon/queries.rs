//! The questions of clients. A separate thread answers each question, so no execution delays a
//! question, and no question delays an execution.
//!
//! If a passing lack of descriptors prevents a step, it is tried again a moment later. No question
//! is lost, because the file of an unanswered question stays. If no thread can be started, the
//! answer follows at once: "not asked", and why.

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
use fence_spool::{QueryText, WatcherSpool};
use log::{debug, error, trace, warn};
use serde_json::json;

use super::asker::Asker;
use super::{Wake, report};
use crate::asking::{ASKING_MAX, Limits};
use crate::devices::Devices;
use crate::state::State;

/// A question to devices, which a thread asks.
#[derive(Clone)]
pub(super) enum Question {
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
    /// Asks. Returns the name of the file if the question was a query, which is now answered.
    fn ask(self) -> Option<String> {
        let Task { question, asker } = self;
        match question {
            Question::Query(file_name, query) => {
                let subject = Subject::new("query", &query.query_id);
                let answer = subject.within(|| asker.answer(&query));
                asker.write(&file_name, &answer);
                return Some(file_name);
            }
            Question::Inquiry(name, request) => {
                let subject = Subject::new("request", &request.request_id);
                let (reached, words) = subject.within(|| asker.inquiry(&request));
                let _ = asker.wake.send(Wake::Inquired(name, reached, words));
            }
            Question::Targets(device) => {
                if let Some(device) = asker.devices.get(&device) {
                    asker.list(device, Limits::of_unknown_client().device);
                }
            }
        }
        None
    }
}

pub(super) struct Desk {
    /// Asks the devices of the current configuration.
    pub(super) asker: Asker,
    boot_id: String,
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
            asker: Asker { spool, devices, known: Vec::new(), wake },
            boot_id: boot_id.to_owned(),
            asking: 0,
            waiting: VecDeque::new(),
            taken: BTreeSet::new(),
        }
    }

    /// Takes the query in `file_name`; `state` describes the watcher for a `state` query. Returns
    /// the identity of a `reload` query.
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
        let Asker { spool, wake, .. } = &self.asker;
        let read = match spool.read_query(file_name) {
            Ok(read) => read?,
            Err(problem) => {
                report(&format!("query '{file_name}'"), &problem, wake);
                return None;
            }
        };
        trace!("spool: looked at query {file_name}");
        let parsed = match read {
            QueryText::Whole { bytes, mtime_ms } if is_being_written(&bytes, mtime_ms, now) => {
                // The receiver is gone only when the daemon is.
                let _ = wake.send(Wake::LookAgain);
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
                // The file's name is its identity, whatever its content is.
                let id = file_name.strip_suffix(".json").unwrap_or(file_name);
                self.asker.write(file_name, &QueryAnswer::new(id, QueryCode::WrongQuery, why));
            }
            Ok(query) if query.query == QueryKind::State => {
                let mut answer =
                    QueryAnswer::new(&query.query_id, QueryCode::Yes, "fence-watcher is running");
                answer.state = Some(json!(state()));
                self.asker.write(file_name, &answer);
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

    /// Why `query` cannot be answered, if it cannot. A query that came too late gets an answer as
    /// well: its client may still wait, by another clock.
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

    /// Answers a query for a new configuration.
    pub(super) fn reloaded(&mut self, answer: &QueryAnswer) {
        let file_name = format!("{}.json", answer.query_id);
        self.asker.write(&file_name, answer);
        self.taken.remove(&file_name);
    }

    /// The thread of a question has ended: the question in `file_name`, if it was a query.
    pub(super) fn done(&mut self, file_name: Option<String>) {
        // A thread from before a new beginning is not counted.
        self.asking = self.asking.saturating_sub(1);
        if let Some(file_name) = file_name {
            self.taken.remove(&file_name);
        }
        self.go_on();
    }

    /// Starts waiting questions, as far as there is room.
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

    /// Asks devices, of which the core knows `known`.
    pub(super) fn ask(&mut self, question: Question, known: &[Device]) {
        let asker = Asker { known: known.to_vec(), ..self.asker.clone() };
        self.waiting.push_back(Task { question, asker });
        self.go_on();
    }

    /// Starts a thread for `task`. Returns the task if it waits because no thread can be started.
    fn start(&mut self, task: Task) -> Option<Task> {
        let theirs = task.clone();
        let wake = self.asker.wake.clone();
        let thread = thread::Builder::new().name("query".into()).stack_size(HELPER_STACK_BYTES);
        let spawned = thread.spawn(move || {
            let file_name = theirs.ask();
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
                let answer = QueryAnswer::new(&query.query_id, QueryCode::WrongQuery, &why);
                self.asker.write(file_name, &answer);
                self.taken.remove(file_name);
            }
            Question::Inquiry(name, _) => {
                let _ = self.asker.wake.send(Wake::Inquired(name.clone(), false, why.clone()));
            }
            Question::Targets(_) => {
                // The request that needs the list waits for it, and later a thread may start.
                error!("a question has to wait: cannot start a thread: {problem}");
                let _ = self.asker.wake.send(Wake::LookAgain);
                return Some(task);
            }
        }
        error!("a question was {why}");
        None
    }
}

/// Whether a query is cut off, so that its client may still be writing it in place.
fn is_being_written(bytes: &[u8], mtime_wall_ms: i64, now: Now) -> bool {
    let age_ms = now.wall_ms.saturating_sub(mtime_wall_ms);
    let is_young = u64::try_from(age_ms).is_ok_and(|age_ms| age_ms < WRITE_GRACE_MS);
    is_young && Query::is_cut_off(bytes)
}

impl Asker {
    fn write(&self, file_name: &str, answer: &QueryAnswer) {
        debug!("spool: answer query {file_name} with code {}", u8::from(answer.code));
        // The client looks for the answer beside the query, whatever identity the query names.
        let name = file_name.strip_suffix(".json").unwrap_or(file_name);
        if let Err(problem) = self.spool.answer_query(name, &answer.to_json()) {
            report(&format!("query '{file_name}'"), &problem, &self.wake);
            if problem.is_passing() {
                // The next look asks again, if the client still waits.
                return;
            }
        }
        if let Err(problem) = self.spool.remove_query(file_name) {
            error!("query '{file_name}': {problem}");
        }
    }
}
