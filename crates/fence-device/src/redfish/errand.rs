//! The one order of a visit, and the judgement of its answer.
//!
//! An order is sent once. It is sent again only if the service reports that it did not carry the
//! order out:
//!
//! - once to the place that a 307 or 308 names;
//! - after "not now" (429, a 503 with `Retry-After`, a refusal with a message that the service is
//!   not ready), if a look at the power shows that nothing has happened.
//!
//! A 500, 502 or 504 is no such refusal, whatever its message says: behind a gateway, the order may
//! be under way. Right before each sending, [`OrderContext::forbids`] checks the client, and the
//! connection checks it once more when it is ready, which takes seconds with a slow BMC. No look
//! can show a `Cycle`, so it is never sent again.
//!
//! A status of success does not count if the body contains an error or a failed task. If the answer
//! names a task, this module asks for the task until it ends, or the power shows the wanted state,
//! or only enough time is left to ask for the power. A service that accepted an order and still
//! works on it has not refused the order. No power state decides about a `Cycle`: a reset whose
//! task does not end, or cannot be asked, is not acknowledged.

use std::thread;
use std::time::Duration;

use fence_core::execution::Order;
use fence_protocol::PowerState;
use serde_json::json;
use ureq::http::Method;

use super::answer::{Task, parse_task, refusal, says_not_ready, task_place};
use super::client::{CallError, Reply};
use super::path::ResourcePath;
use super::resource::System;
use super::service::{Problem, Service, status_words};
use crate::pin::Machine;
use crate::{Limit, OrderContext};

/// An order for one system.
pub(super) struct Errand<'a> {
    pub(super) service: &'a Service,
    pub(super) order: Order,
    pub(super) job: &'a OrderContext<'a>,
    pub(super) limit: Limit,
    /// Where the system is.
    pub(super) path: ResourcePath,
}

/// Whether an order was acknowledged, and the words for it.
type Came = (bool, String);

impl Errand<'_> {
    /// Gives the order to `system`, whose state is new.
    pub(super) fn run(&self, system: System) -> Result<Came, Problem> {
        let is_there = self.is_shown_by(&system);
        match self.service.reset(self.order, system.reset) {
            Ok((target, reset_type)) => {
                let (is_acknowledged, words) = self.send(target, reset_type, is_there)?;
                Ok((is_acknowledged, format!("{reset_type}: {words}")))
            }
            // The present state counts as done. The next question for the power must go to the
            // same system.
            Err(Problem::Failed(why)) if is_there => {
                if let Some(report) = self.job.forbids(self.limit) {
                    return Err(Problem::Forbidden(report));
                }
                self.pin();
                Ok((true, format!("{}; nothing was sent: {why}", self.already())))
            }
            Err(problem) => Err(problem),
        }
    }

    fn send(
        &self,
        mut target: ResourcePath,
        reset_type: &str,
        is_there: bool,
    ) -> Result<Came, Problem> {
        let body = json!({ "ResetType": reset_type }).to_string();
        let post = |target: &ResourcePath| {
            let (client, body) = (&self.service.client, Some(body.clone()));
            client.call(Method::POST, target, body, self.job.client, self.limit)
        };
        let mut is_moved = false;
        let mut refused: Option<String> = None;
        loop {
            let sent = match self.job.forbids(self.limit) {
                Some(report) => Err(Problem::Forbidden(report)),
                None => match post(&target) {
                    Err(CallError::Unanswered(why)) => {
                        self.pin();
                        return Ok((false, why));
                    }
                    sent => sent.map_err(Problem::from),
                },
            };
            let reply = match (sent, &refused) {
                (Ok(reply), _) => reply,
                // Nothing was sent this time.
                (Err(_), Some(words)) => return Ok((false, words.clone())),
                (Err(problem), None) => return Err(problem),
            };
            self.pin();
            let moved = self.service.redirected(&target, &reply, &[307, 308]).filter(|_| !is_moved);
            if let Some(moved) = moved {
                (target, is_moved) = (moved, true);
            } else if self.is_refused_for_now(&reply) {
                let words = status_words(&reply);
                if !self.service.has_paused(reply.retry_after) {
                    return Ok((false, words));
                }
                match self.service.system(&self.path) {
                    Ok((_, system)) if self.is_shown_by(&system) => {
                        return Ok((true, format!("{words}; {}", self.already())));
                    }
                    // Only a state that shows that nothing has happened permits another sending.
                    Ok((place, system))
                        if place == self.path && system.power != PowerState::Unknown =>
                    {
                        refused = Some(words);
                    }
                    _ => return Ok((false, words)),
                }
            } else {
                return Ok(self.judge(&reply, is_there));
            }
        }
    }

    fn judge(&self, reply: &Reply, is_there: bool) -> Came {
        let words = status_words(reply);
        match reply.status {
            200..=299 if refusal(&reply.body).is_none() => self.accepted(reply, words),
            // Most services refuse to switch off a system that is off.
            200..=299 | 400 | 405..=499 if is_there => {
                (true, format!("{words}; {}", self.already()))
            }
            _ => (false, words),
        }
    }

    /// The result of an order that the service accepted.
    fn accepted(&self, reply: &Reply, words: String) -> Came {
        let is_running = match parse_task(&reply.body) {
            Some(Task::Failed(why)) => return (false, format!("{words}; {why}")),
            Some(Task::Done) => return (true, words),
            task => task.is_some(),
        };
        let location = reply.location.as_deref().and_then(ResourcePath::of_url);
        let is_task = |path: &ResourcePath| {
            let path = path.to_string();
            reply.status == 202 || path.contains("/Task") || path.contains("/Jobs/")
        };
        match location.filter(is_task).or_else(|| task_place(&reply.body)) {
            Some(place) => self.await_task(&place, words),
            // A running task without a place, or an unusable place: nobody can ask for the task.
            None if is_running || (reply.status == 202 && reply.location.is_some()) => {
                self.open(&format!("{words}; its task has no place where it can be asked"))
            }
            None => (true, words),
        }
    }

    /// The result of an order whose task has not ended: the power decides, except for a reset,
    /// which no power shows.
    fn open(&self, words: &str) -> Came {
        match self.order {
            Order::Off | Order::On => (true, format!("{words}, the power decides")),
            Order::Cycle => (false, format!("{words}, and no power shows a reset")),
        }
    }

    fn await_task(&self, place: &ResourcePath, words: String) -> Came {
        // The plan asks for the power afterwards, and needs time for that.
        let until = self.limit.min(Limit::in_ms(self.limit.left_ms() / 4 * 3));
        let mut pause_ms = TASK_PAUSE_MS.0;
        let (mut is_asked, mut why_unknown) = (false, None);
        while !until.has_passed() {
            let asked = match self.service.follow(place, until) {
                Ok((_, reply)) if matches!(reply.status, 404 | 410) => {
                    return (true, format!("{words}; its task is not kept"));
                }
                Ok((_, reply)) => task_of(&reply),
                Err(error) => Err(Problem::from(error).into_text()),
            };
            match asked {
                Ok(Task::Failed(why)) => return (false, format!("{words}; {why}")),
                Ok(Task::Done) => return (true, words),
                Ok(Task::Running) => why_unknown = None,
                // A question that the limit cut short says less than the question before it.
                Err(_) if is_asked && until.has_passed() => {}
                Err(why) => why_unknown = Some(why),
            }
            is_asked = true;
            let shown = self.service.glance(&self.path, until);
            if shown.is_some_and(|system| self.is_shown_by(&system)) {
                return (true, words);
            }
            thread::sleep(Duration::from_millis(pause_ms.min(until.left_ms())));
            pause_ms = (pause_ms * 2).min(TASK_PAUSE_MS.1);
        }
        let Some(why) = why_unknown else {
            return self.open(&format!("{words}; its task is still running"));
        };
        let (is_open, words) = self.open(&format!("{words}; its task cannot be asked"));
        (is_open, format!("{words}: {why}"))
    }

    /// Whether the service reports that it did not take the order, and may take it soon.
    fn is_refused_for_now(&self, reply: &Reply) -> bool {
        let is_refused = match reply.status {
            429 => true,
            503 => reply.retry_after.is_some() || says_not_ready(&reply.body),
            // A gateway, or a service that carries the order out, may use the same words.
            200..=399 | 500.. => false,
            _ => says_not_ready(&reply.body),
        };
        is_refused && self.order != Order::Cycle
    }

    /// Whether `system` shows the ordered state. A system on its way there does not show it.
    fn is_shown_by(&self, system: &System) -> bool {
        match self.order {
            Order::Off => system.power == PowerState::Off,
            Order::On => system.power == PowerState::On,
            Order::Cycle => false,
        }
    }

    fn already(&self) -> &'static str {
        if self.order == Order::Off { "it is off already" } else { "it is on already" }
    }

    fn pin(&self) {
        let (address, system) = (self.service.client.address, self.path.clone());
        self.job.pin.set(Machine::Redfish { address, system });
    }
}

/// The state of a task by its answer; an error if the answer says nothing about the order. A task
/// monitor gives the final answer to the order, once that is known.
fn task_of(reply: &Reply) -> Result<Task, String> {
    match reply.status {
        200..=299 => Ok(match (parse_task(&reply.body), reply.status) {
            (Some(task), _) => task,
            (None, 202) => Task::Running,
            (None, _) => refusal(&reply.body).map_or(Task::Done, Task::Failed),
        }),
        401 | 403 | 429 | ..=399 | 500.. => Err(status_words(reply)),
        _ if says_not_ready(&reply.body) => Err(status_words(reply)),
        _ => Ok(Task::Failed(format!("its task has failed: {}", status_words(reply)))),
    }
}

/// The first and the longest pause between two questions for a task, in milliseconds.
const TASK_PAUSE_MS: (u64, u64) = (100, 1_000);
