//! The one order of a visit: sent, and what its answer is worth.
//!
//! An order is sent once. It is sent again only where the service itself says that it did not carry
//! it out: to the place that a 307 or 308 names, once; and after "not now" (429, a 503 that says
//! when to come again, a refusal with a message that the service is not ready), once a look at the
//! power shows that nothing has happened. A 500, 502 or 504 is no such refusal, whatever its
//! message says: behind a gateway, the order may be under way. Each time, [`OrderContext::forbids`] is asked
//! right before, and the client is looked for once more when the connection is ready, which a slow
//! BMC takes seconds for. A reset that no look can show (`Cycle`) is never sent again.
//!
//! An answer of success is not one where its body holds an error or a failed task. A task that is
//! named is asked until it ends, or the power shows the wanted state, or only enough time is left
//! to ask for the power: who accepted an order and is still at it has not refused it. No power
//! decides about a `Cycle`: a reset whose task does not end, or cannot be asked, is not
//! acknowledged.

use std::thread;
use std::time::Duration;

use fence_core::execution::Order;
use fence_protocol::PowerState;
use serde_json::json;

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
    /// Gives the order to `system`, which was looked at just now.
    pub(super) fn run(&self, system: System) -> Result<Came, Problem> {
        let is_there = self.is_shown_by(&system);
        let (target, reset_type) = match self.service.reset(self.order, system.reset) {
            Err(Problem::Failed(why)) if is_there => {
                return self.leave(format!("{}; nothing was sent: {why}", self.already()));
            }
            found => found?,
        };
        let (is_acknowledged, words) = self.send(target, reset_type, is_there)?;
        Ok((is_acknowledged, format!("{reset_type}: {words}")))
    }

    /// Counts what is there as done. Whoever asks for the power next must ask this very system.
    fn leave(&self, words: String) -> Result<Came, Problem> {
        if let Some(report) = self.job.forbids(self.limit) {
            return Err(Problem::Forbidden(report));
        }
        self.pin();
        Ok((true, words))
    }

    fn send(
        &self,
        mut target: ResourcePath,
        reset_type: &str,
        is_there: bool,
    ) -> Result<Came, Problem> {
        let body = json!({ "ResetType": reset_type }).to_string();
        let mut is_moved = false;
        let mut refused: Option<String> = None;
        loop {
            if let Some(report) = self.job.forbids(self.limit) {
                return refused.map_or(Err(Problem::Forbidden(report)), |words| Ok((false, words)));
            }
            let reply = match self.service.send_once(self.job.client, &target, body.clone()) {
                Ok(reply) => reply,
                Err(CallError::Unanswered(why)) => {
                    self.pin();
                    return Ok((false, why));
                }
                // Nothing was sent this time.
                Err(error) => {
                    let problem = Problem::from(error);
                    return refused.map_or(Err(problem), |words| Ok((false, words)));
                }
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
                    // Only what shows that nothing has happened lets the order be sent again.
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
            // A system that is off cannot be told to go off: most services refuse that.
            200..=299 | 400 | 405..=499 if is_there => {
                (true, format!("{words}; {}", self.already()))
            }
            _ => (false, words),
        }
    }

    /// What an order that was accepted has come to.
    fn accepted(&self, reply: &Reply, words: String) -> Came {
        let task = parse_task(&reply.body);
        match &task {
            Some(Task::Failed(why)) => return (false, format!("{words}; {why}")),
            Some(Task::Done) => return (true, words),
            Some(Task::Running) | None => {}
        }
        let location = reply.location.as_deref().and_then(ResourcePath::of_url);
        let is_task = |path: &ResourcePath| {
            let path = path.to_string();
            reply.status == 202 || path.contains("/Task") || path.contains("/Jobs/")
        };
        match location.filter(is_task).or_else(|| task_place(&reply.body)) {
            Some(place) => self.await_task(&place, words),
            // A task that runs somewhere, or a place that is none: nobody can ask.
            None if task.is_some() || (reply.status == 202 && reply.location.is_some()) => {
                self.open(&format!("{words}; its task has no place where it can be asked"))
            }
            None => (true, words),
        }
    }

    /// An order whose task has come to no end: the power decides, where it can. No power shows a
    /// reset.
    fn open(&self, words: &str) -> Came {
        match self.order {
            Order::Off | Order::On => (true, format!("{words}, the power decides")),
            Order::Cycle => (false, format!("{words}, and no power shows a reset")),
        }
    }

    fn await_task(&self, place: &ResourcePath, words: String) -> Came {
        // Whoever gave the order asks for the power afterwards, and needs time for that.
        let until = self.limit.min(Limit::in_ms(self.limit.left_ms() / 4 * 3));
        let mut pause_ms = TASK_PAUSE_MS.0;
        let mut seen = None;
        while !until.has_passed() {
            let asked = match self.service.follow(place, until) {
                Ok((_, reply)) if matches!(reply.status, 404 | 410) => {
                    return (true, format!("{words}; its task is not kept"));
                }
                Ok((_, reply)) => task_of(&reply),
                Err(error) => Err(Problem::from(error).into_text()),
            };
            match &asked {
                Ok(Task::Failed(why)) => return (false, format!("{words}; {why}")),
                Ok(Task::Done) => return (true, words),
                Ok(Task::Running) | Err(_) => {}
            }
            // A question that the end cuts short says less than the one before it.
            if seen.is_none() || asked.is_ok() || !until.has_passed() {
                seen = Some(asked);
            }
            let shown = self.service.glance(&self.path, until);
            if shown.is_some_and(|system| self.is_shown_by(&system)) {
                return (true, words);
            }
            thread::sleep(Duration::from_millis(pause_ms.min(until.left_ms())));
            pause_ms = (pause_ms * 2).min(TASK_PAUSE_MS.1);
        }
        match seen {
            None | Some(Ok(_)) => self.open(&format!("{words}; its task is still running")),
            Some(Err(why)) => {
                let (is_open, words) = self.open(&format!("{words}; its task cannot be asked"));
                (is_open, format!("{words}: {why}"))
            }
        }
    }

    /// Whether the service says itself that it did not take the order, and may take it soon.
    fn is_refused_for_now(&self, reply: &Reply) -> bool {
        let is_refused = match reply.status {
            429 => true,
            503 => reply.retry_after.is_some() || says_not_ready(&reply.body),
            // A gateway, or a service in the midst of the order, may say the same words.
            200..=399 | 500.. => false,
            _ => says_not_ready(&reply.body),
        };
        is_refused && self.order != Order::Cycle
    }

    /// Whether `system` shows the state that is ordered. On its way there, it is not there.
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
        let (address, system) = (self.service.address(), self.path.clone());
        self.job.pin.set(Machine::Redfish { address, system });
    }
}

/// What an answer for a task says; an error where it says nothing of the order. A task monitor
/// answers as the order would have been answered, once that is known.
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
