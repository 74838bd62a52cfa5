//! The steps of one call: find the instance, carry out the call, report the outcome.
//!
//! Questions change nothing, so this module repeats them where that may help. It sends an order
//! again only if EC2 refused the order as too fast, or because of a state that passes: these
//! answers prove that nothing was done.

use std::time::{Duration, SystemTime};

use fence_device::{Ec2Answer, Ec2Ask, Ec2Call, Ec2Outcome, Limit, is_instance_id};
use fence_protocol::bounded;
use tokio::time::sleep;

use crate::permission::Permission;
use crate::query::Query;
use crate::reply::{Instance, Meaning, Reply, the_one};
use crate::session::Session;

/// Carries `call` out, until `limit` at the latest.
pub(crate) async fn carry_out(call: &Ec2Call, limit: Limit) -> Ec2Answer {
    let mut pause_ms = PAUSE_MS.0;
    let session = loop {
        match Session::open(call, limit).await {
            Ok(session) => break session,
            Err(trouble) if trouble.passes && paused(limit, &mut pause_ms).await => {}
            Err(trouble) => return trouble.answer,
        }
    };
    let result = match call.ask {
        Ec2Ask::Reach => reach(&session).await,
        Ec2Ask::Targets => targets(&session, call).await,
        Ec2Ask::Power => power(&session, call).await,
        Ec2Ask::Rehearse => rehearse(&session, call).await,
        Ec2Ask::Off | Ec2Ask::On => order(&session, call).await,
    };
    let answer = result.unwrap_or_else(Ec2Answer::from);
    let text = bounded(&session.redact(&answer.text), TEXT_BYTES_MAX);
    Ec2Answer { text, calls: session.calls.take(), ..answer }
}

/// Why a question has no answer.
#[derive(Debug)]
enum Trouble {
    /// EC2 refuses it, with this code and these words.
    Refused(String, String),
    /// The answer is not usable.
    Wrong(String),
    /// EC2 did not answer, or was not able to.
    Unreachable(String),
}

impl From<Trouble> for Ec2Answer {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(_, words) | Trouble::Wrong(words) => {
                Ec2Answer::of(Ec2Outcome::Failed, words)
            }
            Trouble::Unreachable(words) => Ec2Answer::of(Ec2Outcome::Unreachable, words),
        }
    }
}

async fn reach(session: &Session) -> Result<Ec2Answer, Trouble> {
    would(session, &Query::may_describe()).await?;
    let text = format!("{} answers, and allows to describe instances", session.place());
    Ok(Ec2Answer::of(Ec2Outcome::Done, text))
}

/// Whether EC2 reports that it would carry `query` out; `false` if it carried `query` out instead.
async fn would(session: &Session, query: &Query) -> Result<bool, Trouble> {
    match ask(session, query).await {
        Err(Trouble::Refused(code, _)) if code == "DryRunOperation" => Ok(true),
        result => result.map(|_| false),
    }
}

/// Finds the instance and asks whether EC2 would allow its orders.
///
/// A service that imitates EC2 may not know dry runs, and would carry the orders out. So the
/// service must show twice that it knows dry runs before this function asks for the order that
/// would change the state: first with a question, then with the order whose state the instance
/// already has.
async fn rehearse(session: &Session, call: &Ec2Call) -> Result<Ec2Answer, Trouble> {
    let Instance { id, state, .. } = find(session, call).await?;
    let done = |text: &str| Ok(Ec2Answer::of(Ec2Outcome::Done, format!("{id} is {state}: {text}")));
    let mut orders = [Query::start(&id).dry(), Query::stop(&id, call.skip_os_shutdown).dry()];
    match state.as_str() {
        "running" => {}
        "stopped" => orders.reverse(),
        // Either order could change an instance that is between two states.
        _ => return done("orders are not rehearsed in this state"),
    }
    if !would(session, &Query::may_describe()).await? {
        return done("the service does not support dry runs");
    }
    for query in orders {
        match would(session, &query).await {
            Ok(true) => {}
            Ok(false) => return done("the service does not support dry runs of orders"),
            Err(Trouble::Refused(_, words)) => {
                let name = query.action;
                return Err(Trouble::Wrong(format!("{name} {id} would be refused: {words}")));
            }
            Err(trouble) => return Err(trouble),
        }
    }
    done("both orders are allowed")
}

async fn targets(session: &Session, call: &Ec2Call) -> Result<Ec2Answer, Trouble> {
    let instances = describe(session, Query::describe_all(&call.tag)).await?;
    let alive = instances.iter().filter(|instance| !instance.is_dead());
    let values = alive.flat_map(|instance| instance.values_of(&call.tag));
    let names = values.map(str::to_owned).collect();
    let text = format!("the values of the tag {} in {}", call.tag, session.place());
    Ok(Ec2Answer { names, ..Ec2Answer::of(Ec2Outcome::Done, text) })
}

async fn power(session: &Session, call: &Ec2Call) -> Result<Ec2Answer, Trouble> {
    let instance = find(session, call).await?;
    let text = format!("{} is {}", instance.id, instance.state);
    Ok(Ec2Answer { instance: Some(instance.id.clone()), ..Ec2Answer::of(instance.power(), text) })
}

async fn order(session: &Session, call: &Ec2Call) -> Result<Ec2Answer, Trouble> {
    let Instance { id, state, .. } = find(session, call).await?;
    // EC2 takes an order in the state `before`, to which the state `on_its_way` passes.
    let (query, before, on_its_way) = match call.ask {
        Ec2Ask::On => (Query::start(&id), "stopped", "stopping"),
        _ => (Query::stop(&id, call.skip_os_shutdown), "running", "pending"),
    };
    let name = query.action;
    let answer = |outcome, words: String| {
        let answer = Ec2Answer::of(outcome, format!("{name} {id}: {words}"));
        Ok(Ec2Answer { instance: Some(id.clone()), ..answer })
    };
    let forbidden = |outcome| match outcome {
        Ec2Outcome::Withdrawn => answer(outcome, "the client did not wait any more".to_owned()),
        _ => answer(outcome, "there was no time left to send it".to_owned()),
    };
    if call.ask == Ec2Ask::Off && state == "terminated" {
        // The caller asks for the state, which shows that the instance is off.
        return answer(Ec2Outcome::Unclear, "it is terminated, nothing is left to stop".to_owned());
    }
    let (mut pause_ms, mut was_there) = (PAUSE_MS.0, false);
    loop {
        let permission = Permission::new(call.client.clone(), session.limit);
        if let Err(outcome) = permission.check() {
            return forbidden(outcome);
        }
        let sent = session.send(&query, ORDER_MS_MAX, Some(&permission)).await;
        let reply = match (permission.found(), sent) {
            (Some(Err(outcome)), _) => return forbidden(outcome),
            (_, Ok(reply)) => reply,
            (Some(Ok(())), Err(lost)) => return answer(Ec2Outcome::Unclear, lost.text),
            (None, Err(lost)) => {
                return answer(Ec2Outcome::Unreachable, format!("{} (not sent)", lost.text));
            }
        };
        match reply.verdict() {
            Meaning::Accepted => {
                return match reply.changed(name, &id) {
                    Ok(now) => answer(Ec2Outcome::Done, format!("from {state} to {now}")),
                    Err(words) => answer(Ec2Outcome::Unclear, words),
                };
            }
            Meaning::Throttled(words) => {
                if !paused(session.limit, &mut pause_ms).await {
                    let words = format!("{words} (not carried out)");
                    return answer(Ec2Outcome::Unreachable, words);
                }
            }
            // Nothing was done. The instance may reach the wanted state without the order; the
            // caller finds that out.
            Meaning::Refused(code, words) if code == "IncorrectInstanceState" => {
                let now = state_of(session, &id).await;
                let is_there = now.as_deref() == Some(before);
                let passes = is_there && !was_there || now.as_deref() == Some(on_its_way);
                was_there |= is_there;
                if !passes || !paused(session.limit, &mut pause_ms).await {
                    return answer(Ec2Outcome::Unclear, words);
                }
            }
            Meaning::Refused(_, words) => return answer(Ec2Outcome::Failed, words),
            Meaning::Broken(words) => return answer(Ec2Outcome::Unclear, words),
        }
    }
}

/// The state of an instance, if EC2 shows it.
async fn state_of(session: &Session, id: &str) -> Option<String> {
    let found = describe(session, Query::describe_id(id)).await.ok()?;
    found.into_iter().find(|instance| instance.id == id).map(|instance| instance.state)
}

/// The instance of `call`.
async fn find(session: &Session, call: &Ec2Call) -> Result<Instance, Trouble> {
    let wanted = call.instance.as_str();
    if !is_instance_id(wanted) {
        let instances = describe(session, Query::describe_tagged(&call.tag, wanted)).await?;
        return the_one(&instances, &call.tag, wanted).map_err(Trouble::Wrong);
    }
    let instances = describe(session, Query::describe_id(wanted)).await?;
    let mut found = instances.into_iter().filter(|instance| instance.id == wanted);
    match (found.next(), found.next()) {
        (Some(instance), None) => Ok(instance),
        (None, _) => Err(Trouble::Wrong(format!("EC2 knows no instance {wanted}"))),
        _ => Err(Trouble::Wrong(format!("EC2 describes {wanted} more than once"))),
    }
}

/// All instances that `query` asks for, on however many pages.
async fn describe(session: &Session, query: Query) -> Result<Vec<Instance>, Trouble> {
    let mut instances = Vec::new();
    let mut next = Some(query.clone());
    for _ in 0..PAGES_MAX {
        let Some(this) = next else { return Ok(instances) };
        let page = ask(session, &this).await?.page().map_err(Trouble::Wrong)?;
        instances.extend(page.instances);
        next = page.next.map(|token| query.page(&token));
    }
    Err(Trouble::Wrong(format!("EC2's answer has more than {PAGES_MAX} pages")))
}

/// Asks, and asks again while EC2 reports that it cannot answer now.
async fn ask(session: &Session, query: &Query) -> Result<Reply, Trouble> {
    let mut pause_ms = PAUSE_MS.0;
    let mut was_lost = false;
    let mut before = None;
    loop {
        let reply = match (session.send(query, QUESTION_MS_MAX, None).await, before) {
            (Ok(reply), _) => reply,
            // The limit cut this question short: the earlier refusal says more.
            (Err(_), Some(words)) if session.limit.has_passed() => {
                return Err(Trouble::Unreachable(words));
            }
            // A connection may break once.
            (Err(lost), words) if !lost.is_late && !was_lost => {
                (was_lost, before) = (true, words);
                continue;
            }
            (Err(lost), _) => return Err(Trouble::Unreachable(lost.text)),
        };
        match reply.verdict() {
            Meaning::Accepted => return Ok(reply),
            Meaning::Refused(code, words) => return Err(Trouble::Refused(code, words)),
            Meaning::Throttled(words) | Meaning::Broken(words) => {
                if !paused(session.limit, &mut pause_ms).await {
                    return Err(Trouble::Unreachable(words));
                }
                before = Some(words);
            }
        }
    }
}

/// Waits, the next time for longer; `false` if that would leave no time to ask again.
async fn paused(limit: Limit, pause_ms: &mut u64) -> bool {
    // Callers that EC2 refused together must not come back together.
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
    let wait_ms = *pause_ms / 2 + u64::from(now) % *pause_ms;
    if limit.left_ms() <= wait_ms {
        return false;
    }
    sleep(Duration::from_millis(wait_ms)).await;
    *pause_ms = (*pause_ms * 2).min(PAUSE_MS.1);
    true
}

/// The longest text of an answer, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// The time limit for the answer to a question. It usually comes within a tenth of a second.
const QUESTION_MS_MAX: u64 = 5_000;

/// The time limit for the answer to an order. After that, the state shows more than an answer.
const ORDER_MS_MAX: u64 = 10_000;

/// The approximate first and longest pause before the next question to EC2.
const PAUSE_MS: (u64, u64) = (200, 4_000);

/// The limit of pages in an answer; each has up to a thousand instances.
const PAGES_MAX: usize = 100;
