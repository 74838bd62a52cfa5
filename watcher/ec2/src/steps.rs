//! The steps of one call: find the instance, do what was asked, say honestly what came of it.
//!
//! Questions change nothing, so they are repeated where that may help. An order is sent again only
//! when EC2 refused it for coming too fast, or in a state that passes: these answers prove that
//! nothing was done.

use std::time::{Duration, SystemTime};

use fence_device::{Ec2Answer, Ec2Ask, Ec2Call, Ec2Outcome, Limit, is_instance_id};
use fence_protocol::bounded;
use tokio::time::sleep;

use crate::permission::{Look, Permission};
use crate::query::Query;
use crate::reply::{Instance, Meaning, Reply, the_one};
use crate::session::Session;

/// Does what `call` says, until `limit` at the latest.
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
    Ec2Answer { text, calls: session.take_calls(), ..answer }
}

/// Why a question has no answer.
#[derive(Debug)]
enum Trouble {
    /// EC2 refuses it, with this code and these words.
    Refused(String, String),
    /// The answer is none.
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
    let text = format!("{} answers, and lets us look at instances", session.place());
    Ok(Ec2Answer::of(Ec2Outcome::Done, text))
}

/// Whether EC2 says that it would do what `query` asks. False if it has done it instead.
async fn would(session: &Session, query: &Query) -> Result<bool, Trouble> {
    match ask(session, query).await {
        Err(Trouble::Refused(code, _)) if code == "DryRunOperation" => Ok(true),
        result => result.map(|_| false),
    }
}

/// Finds the instance and asks whether its orders would be allowed.
///
/// A service that imitates EC2 may not know dry runs, and would carry the orders out. So EC2 has to
/// show twice that it knows them before the order is asked for that would change anything: with a
/// question, and with the order that the instance has already followed.
async fn rehearse(session: &Session, call: &Ec2Call) -> Result<Ec2Answer, Trouble> {
    let Instance { id, state, .. } = find(session, call).await?;
    let done =
        |text: String| Ok(Ec2Answer::of(Ec2Outcome::Done, format!("{id} is {state}: {text}")));
    let mut orders = [
        ("StartInstances", Query::start(&id).dry()),
        ("StopInstances", Query::stop(&id, call.skip_os_shutdown).dry()),
    ];
    match state.as_str() {
        "running" => {}
        "stopped" => orders.reverse(),
        // What is in between could be changed by either.
        _ => return done("orders are not rehearsed in this state".to_owned()),
    }
    if !would(session, &Query::may_describe()).await? {
        return done("the service knows no dry runs".to_owned());
    }
    for (name, query) in orders {
        match would(session, &query).await {
            Ok(true) => {}
            Ok(false) => return done("the service knows no dry runs of orders".to_owned()),
            Err(Trouble::Refused(_, words)) => {
                return Err(Trouble::Wrong(format!("{name} {id} would be refused: {words}")));
            }
            Err(trouble) => return Err(trouble),
        }
    }
    done("both orders are allowed".to_owned())
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
    let (name, query) = match call.ask {
        Ec2Ask::On => ("StartInstances", Query::start(&id)),
        _ => ("StopInstances", Query::stop(&id, call.skip_os_shutdown)),
    };
    let answer = |outcome, words: String| {
        let answer = Ec2Answer::of(outcome, format!("{name} {id}: {words}"));
        Ok(Ec2Answer { instance: Some(id.clone()), ..answer })
    };
    if call.ask == Ec2Ask::Off && state == "terminated" {
        // The caller asks for the state, and that shows it.
        return answer(Ec2Outcome::Unclear, "it is terminated, nothing is left to stop".to_owned());
    }
    let (mut pause_ms, mut was_there) = (PAUSE_MS.0, false);
    loop {
        let limit = session.limit();
        if call.client.as_ref().is_some_and(|client| !client.is_waiting(limit)) {
            return answer(Ec2Outcome::Withdrawn, GONE.to_owned());
        }
        if limit.has_passed() {
            return answer(Ec2Outcome::TooLate, LATE.to_owned());
        }
        let permission = Permission::new(call.client.clone(), limit);
        let sent = session.send_order(&query, ORDER_MS_MAX, &permission).await;
        let reply = match (permission.look(), sent) {
            (Some(Look::Withdrawn), _) => return answer(Ec2Outcome::Withdrawn, GONE.to_owned()),
            (Some(Look::TooLate), _) => return answer(Ec2Outcome::TooLate, LATE.to_owned()),
            (_, Ok(reply)) => reply,
            (Some(Look::Permitted), Err(lost)) => return answer(Ec2Outcome::Unclear, lost.text),
            (None, Err(lost)) => {
                let words = format!("{} (not sent)", lost.text);
                return answer(Ec2Outcome::Unreachable, words);
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
                if !paused(session.limit(), &mut pause_ms).await {
                    let words = format!("{words} (not carried out)");
                    return answer(Ec2Outcome::Unreachable, words);
                }
            }
            // Nothing was done. It may get there by itself, and that is for the caller to find out.
            Meaning::Refused(code, words) if code == "IncorrectInstanceState" => {
                let states = states_before(call.ask);
                let now = state_of(session, &id).await;
                let is_there = now.as_deref() == Some(states.there);
                let passes = is_there && !was_there || now.as_deref() == Some(states.on_its_way);
                was_there |= is_there;
                if !passes || !paused(session.limit(), &mut pause_ms).await {
                    return answer(Ec2Outcome::Unclear, words);
                }
            }
            Meaning::Refused(_, words) => return answer(Ec2Outcome::Failed, words),
            Meaning::Broken(words) => return answer(Ec2Outcome::Unclear, words),
        }
    }
}

/// The state in which EC2 takes an order, and the one that passes to it.
struct StatesBefore {
    on_its_way: &'static str,
    there: &'static str,
}

fn states_before(ask: Ec2Ask) -> StatesBefore {
    match ask {
        Ec2Ask::On => StatesBefore { on_its_way: "stopping", there: "stopped" },
        _ => StatesBefore { on_its_way: "pending", there: "running" },
    }
}

/// The state of an instance, if it can be told.
async fn state_of(session: &Session, id: &str) -> Option<String> {
    let found = describe(session, Query::describe_id(id)).await.ok()?;
    found.into_iter().find(|instance| instance.id == id).map(|instance| instance.state)
}

/// The instance that is meant.
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

/// Asks, and asks again while EC2 says that it cannot answer now.
async fn ask(session: &Session, query: &Query) -> Result<Reply, Trouble> {
    let mut pause_ms = PAUSE_MS.0;
    let mut was_lost = false;
    let mut before = None;
    loop {
        let reply = match (session.send(query, QUESTION_MS_MAX).await, before) {
            (Ok(reply), _) => reply,
            // The limit cut this question short: the refusal before it says more.
            (Err(_), Some(words)) if session.limit().has_passed() => {
                return Err(Trouble::Unreachable(words));
            }
            // A connection may break once.
            (Err(lost), _) if lost.is_late || was_lost => {
                return Err(Trouble::Unreachable(lost.text));
            }
            (Err(_), words) => {
                (was_lost, before) = (true, words);
                continue;
            }
        };
        match reply.verdict() {
            Meaning::Accepted => return Ok(reply),
            Meaning::Refused(code, words) => return Err(Trouble::Refused(code, words)),
            Meaning::Throttled(words) | Meaning::Broken(words) => {
                if !paused(session.limit(), &mut pause_ms).await {
                    return Err(Trouble::Unreachable(words));
                }
                before = Some(words);
            }
        }
    }
}

/// Waits, the next time for longer; false when that would leave no time to ask again.
async fn paused(limit: Limit, pause_ms: &mut u64) -> bool {
    // Those who were refused together must not come back together.
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
    let wait_ms = *pause_ms / 2 + u64::from(now) % *pause_ms;
    if limit.left_ms() <= wait_ms {
        return false;
    }
    sleep(Duration::from_millis(wait_ms)).await;
    *pause_ms = (*pause_ms * 2).min(PAUSE_MS.1);
    true
}

/// The longest text that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Why an order is not sent.
const GONE: &str = "nobody waited for it any more";
const LATE: &str = "there was no time left to send it";

/// How long the answer to a question is waited for. It usually comes within a tenth of a second.
const QUESTION_MS_MAX: u64 = 5_000;

/// How long the answer to an order is waited for. After that, the state tells more than an answer.
const ORDER_MS_MAX: u64 = 10_000;

/// About the first and the longest pause before EC2 is asked again.
const PAUSE_MS: (u64, u64) = (200, 4_000);

/// The most pages of an answer, of a thousand instances each.
const PAGES_MAX: usize = 100;
