//! One visit to a Redfish service: what is asked. Logging in and out is `session`'s, the one order
//! `errand`'s.
//!
//! A service that is starting, or has too much to do, refuses what it is asked for a while. Asking
//! is harmless, so a question is repeated until the limit. What only helps (the service root, the
//! values that an action allows, systems that are not the one that is meant) is asked once, for a
//! short time.

mod session;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use fence_core::execution::{Order, OrderReport};
use fence_protocol::bounded;
use ureq::http::Method;

use super::answer::{error_words, is_passing, refusal};
use super::client::{CallError, Client, Reply};
use super::path::ResourcePath;
use super::resource::{
    Collection, Reset, System, parse_action_info, parse_collection, parse_system, reset_type,
};
use super::systems::{Ambiguity, Member, Systems};
use crate::{Client as RequestClient, Limit};

/// A service, from its opening to its closing.
pub(super) struct Service {
    client: Client,
    limit: Limit,
    session: Option<ResourcePath>,
}

/// Why something was not done. Nothing was ordered.
#[derive(Debug)]
pub(super) enum Problem {
    Unreachable(String),
    Failed(String),
    /// It must not be done any more: this is what came of the order.
    Forbidden(OrderReport),
}

impl Problem {
    pub(super) fn into_text(self) -> String {
        match self {
            Problem::Unreachable(text) | Problem::Failed(text) => text,
            Problem::Forbidden(_) => "it was too late for that".to_owned(),
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Untrusted(why) => Problem::Failed(format!(
                "its certificate is not trusted: {why}; is it the right BMC? Then correct \
                 'ca_file' or 'fingerprint'"
            )),
            CallError::Unusable(why) => Problem::Failed(format!(
                "its certificate is the configured one, and cannot be used: {why}; give the BMC a \
                 certificate with an RSA key of 2048 bits or an ECDSA key (P-256)"
            )),
            CallError::Withdrawn => Problem::Forbidden(OrderReport::Withdrawn),
            CallError::Unconnected(why)
            | CallError::BrokenOff(why)
            | CallError::Unanswered(why) => Problem::Unreachable(why),
        }
    }
}

impl Service {
    /// The service that `client` reaches, for work until `limit`.
    pub(super) fn new(client: Client, limit: Limit) -> Self {
        Service { client, limit, session: None }
    }

    /// Where the service is.
    pub(super) fn address(&self) -> SocketAddr {
        self.client.address()
    }

    /// `problem` as it may be shown, with the service that has it.
    pub(super) fn named(&self, problem: Problem) -> Problem {
        let named = |text| self.clean(&format!("{}: {text}", self.client.base()));
        match problem {
            Problem::Unreachable(text) => Problem::Unreachable(named(text)),
            Problem::Failed(text) => Problem::Failed(named(text)),
            forbidden @ Problem::Forbidden(_) => forbidden,
        }
    }

    /// `text` as it may be shown: one line, without secrets in what it quotes.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = self.client.secrets().shown(text);
        let words: Vec<&str> = text.split_whitespace().collect();
        bounded(&words.join(" "), TEXT_BYTES_MAX)
    }

    /// The places of all systems. Where a further part of the list cannot be read, its place is
    /// left as [`Collection::next`].
    pub(super) fn collection(&self) -> Result<Collection, Problem> {
        let first = self.get_at(&path(SYSTEMS)?)?.1;
        let mut all = parse_collection(&first).map_err(Problem::Failed)?;
        let mut seen = Vec::new();
        while let Some(place) = all.next.take_if(|place| !seen.contains(place)) {
            let page = match self.page(&place) {
                _ if seen.len() == PAGES_MAX => Err("the list has too many parts".to_owned()),
                page => page,
            };
            match page {
                Ok(page) => {
                    page.members.into_iter().for_each(|member| all.add(member));
                    all.unreadable.extend(page.unreadable);
                    all.next = page.next;
                }
                Err(why) => {
                    all.unreadable.push(format!("{}: {why}", place.quoted()));
                    all.next = Some(place);
                    return Ok(all);
                }
            }
            seen.push(place);
        }
        // A list that goes on where it was is at its end.
        all.next = None;
        Ok(all)
    }

    /// One further part of the list of systems, asked for a part of the time that is left.
    fn page(&self, place: &ResourcePath) -> Result<Collection, String> {
        let reply = self.ask(place, self.hint_limit()).map_err(Problem::into_text)?.1;
        let reply = accepted(reply, "the list of systems").map_err(Problem::into_text)?;
        parse_collection(&reply.body)
    }

    /// The system at `path`, as it is now, and its place, to which the service may have redirected.
    pub(super) fn system(&self, path: &ResourcePath) -> Result<(ResourcePath, System), Problem> {
        let (place, body) = self.get_at(path)?;
        Ok((place, parse_system(&body).map_err(Problem::Failed)?))
    }

    /// The power of the system at `path`, asked once.
    pub(super) fn glance(&self, path: &ResourcePath, limit: Limit) -> Option<System> {
        let (_, reply) = self.follow(path, limit).ok()?;
        Some(reply).filter(is_ok).and_then(|reply| parse_system(&reply.body).ok())
    }

    /// All systems that can be read; first those whose places are called like the `wanted`. Once
    /// each of the wanted is found by its `Id`, the others get little time.
    pub(super) fn systems(&self, wanted: &[&str]) -> Result<Systems, Problem> {
        let Collection { members: mut paths, unreadable, next } = self.collection()?;
        paths.sort_by_key(|path| !wanted.iter().any(|name| path.ends_in(name)));
        let mut systems = Systems { members: Vec::new(), unreadable, may_pass: next.is_some() };
        let mut until = self.limit;
        let mut is_found = false;
        for (at, path) in paths.iter().enumerate() {
            if !is_found && systems.have_ids(wanted) {
                is_found = true;
                until = until.min(Limit::in_ms(OTHERS_MS_MAX));
            }
            if is_found && until.has_passed() {
                systems.unreadable.push(format!("{}: there was no time for it", path.quoted()));
                continue;
            }
            // One that is silent must not take the time of the others.
            let share_ms = until.left_ms() / (paths.len() - at + 1) as u64;
            let limit = until.min(Limit::in_ms(share_ms.max(MEMBER_MS_MIN)));
            let problem = match self.again(|| self.follow(path, limit)) {
                Ok((place, reply)) => {
                    systems.may_pass |= is_passing(reply.status, &reply.body);
                    let body = accepted(reply, &path.quoted()).map(|reply| reply.body);
                    let read = |body: Vec<u8>| parse_system(&body).map_err(Problem::Failed);
                    match body.and_then(read) {
                        Ok(system) => {
                            let member = Member { path: path.clone(), place, system };
                            systems.members.push(member);
                            continue;
                        }
                        Err(problem) => problem.into_text(),
                    }
                }
                Err(error) => {
                    systems.may_pass = true;
                    Problem::from(error).into_text()
                }
            };
            systems.unreadable.push(format!("{}: {problem}", path.quoted()));
        }
        Ok(systems)
    }

    /// The one system with this `Id` or `Name`. Others that cannot be read do not matter for an
    /// `Id`.
    pub(super) fn named_system(&self, name: &str) -> Result<(ResourcePath, System), Problem> {
        loop {
            let systems = self.systems(&[name])?;
            let may_pass = systems.may_pass;
            let why = match systems.into_named(name) {
                Ok(Member { place, system, .. }) => return Ok((place, system)),
                Err((Ambiguity::None | Ambiguity::Unsure, why)) if may_pass => why,
                Err((_, why)) => return Err(Problem::Failed(why)),
            };
            if !self.has_paused(None) {
                return Err(Problem::Unreachable(why));
            }
        }
    }

    /// Where and how `order` is given to a system.
    pub(super) fn reset(
        &self,
        order: Order,
        reset: Result<Reset, String>,
    ) -> Result<(ResourcePath, &'static str), Problem> {
        let reset = reset.map_err(Problem::Failed)?;
        let allowed = match (reset.allowed, &reset.info) {
            (None, Some(info)) => self.hint(info),
            (allowed, _) => allowed,
        };
        let reset_type = reset_type(order, allowed.as_deref()).map_err(Problem::Failed)?;
        Ok((reset.target, reset_type))
    }

    /// The reset types that the description at `info` allows, if it can be read.
    fn hint(&self, info: &ResourcePath) -> Option<Vec<String>> {
        let (_, reply) = self.follow(info, self.hint_limit()).ok()?;
        Some(reply).filter(is_ok).and_then(|reply| parse_action_info(&reply.body))
    }

    /// How long a question that only helps may take.
    fn hint_limit(&self) -> Limit {
        let time_ms = (self.limit.left_ms() / 3).min(HINT_MS_MAX);
        self.limit.min(Limit::in_ms(time_ms))
    }

    /// Sends an order, once, if `waits` still waits when its connection is ready.
    pub(super) fn send_once(
        &self,
        waits: Option<&RequestClient>,
        path: &ResourcePath,
        body: String,
    ) -> Result<Reply, CallError> {
        self.client.call_for(waits, path, body, self.limit)
    }

    /// The resource at `path`, or where the service says that it is, with its place; asked again
    /// while the service refuses that for a while.
    fn get_at(&self, path: &ResourcePath) -> Result<(ResourcePath, Vec<u8>), Problem> {
        let (place, reply) = self.ask(path, self.limit)?;
        if is_passing(reply.status, &reply.body) {
            return Err(never_ready(&reply, &path.quoted()));
        }
        Ok((place, accepted(reply, &path.quoted())?.body))
    }

    /// Asks for the resource at `path`, and asks again while the service says that it is not ready.
    /// Where the limit cuts a question short, the refusal before it says more.
    fn ask(&self, path: &ResourcePath, until: Limit) -> Result<(ResourcePath, Reply), Problem> {
        let mut before = None;
        loop {
            let (place, reply) = match (self.again(|| self.follow(path, until)), before) {
                (Err(_), Some(refused)) if until.has_passed() => return Ok(refused),
                (asked, _) => asked?,
            };
            let may_pass = is_passing(reply.status, &reply.body) && !until.has_passed();
            if !(may_pass && self.has_paused(reply.retry_after)) {
                return Ok((place, reply));
            }
            before = Some((place, reply));
        }
    }

    /// What `ask` brings, which is harmless: asked again where the service breaks the connection
    /// off, as one does that restarts, or has too many of them.
    fn again<T>(&self, ask: impl Fn() -> Result<T, CallError>) -> Result<T, CallError> {
        let mut breaks_left = BREAKS_MAX;
        loop {
            match ask() {
                Err(CallError::Unanswered(_) | CallError::BrokenOff(_))
                    if breaks_left > 0 && self.has_paused(Some(0)) =>
                {
                    breaks_left -= 1;
                }
                asked => return asked,
            }
        }
    }

    /// Asks for the resource at `path`, once. A redirection to another host is not followed: the
    /// login is for this one.
    pub(super) fn follow(
        &self,
        path: &ResourcePath,
        limit: Limit,
    ) -> Result<(ResourcePath, Reply), CallError> {
        let mut place = path.clone();
        let mut reply = self.client.call(Method::GET, path, None, limit)?;
        for _ in 0..REDIRECTS_MAX {
            let statuses = [301, 302, 303, 307, 308];
            let Some(path) = self.redirected(&place, &reply, &statuses) else { break };
            reply = self.client.call(Method::GET, &path, None, limit)?;
            place = path;
        }
        Ok((place, reply))
    }

    /// Where the service sends a caller of `from` on to by one of these statuses, if that is on
    /// itself.
    pub(super) fn redirected(
        &self,
        from: &ResourcePath,
        reply: &Reply,
        statuses: &[u16],
    ) -> Option<ResourcePath> {
        let location = reply.location.as_deref().filter(|_| statuses.contains(&reply.status))?;
        let (base, ip) = (self.client.base(), self.client.address().ip());
        ResourcePath::redirected(location, from, base, Some(ip))
    }

    /// Waits as long as the service wants, or for less: a fence cannot wait for half a minute, and
    /// many services are ready before. `false` where no time is left.
    pub(super) fn has_paused(&self, retry_after: Option<u64>) -> bool {
        let left_ms = self.limit.left_ms();
        if left_ms < PAUSE_MS.0 {
            return false;
        }
        let wanted_ms = retry_after.map_or(PAUSE_MS.1, |seconds| seconds.saturating_mul(1_000));
        let pause_ms = wanted_ms.clamp(PAUSE_MS.0, PAUSE_MS.2).min(left_ms / 2);
        thread::sleep(Duration::from_millis(pause_ms));
        true
    }
}

/// A service that was not ready as long as there was time.
fn never_ready(reply: &Reply, what: &str) -> Problem {
    let words = status_words(reply);
    Problem::Unreachable(format!("{what}: {words}; asked again until no time was left"))
}

fn is_ok(reply: &Reply) -> bool {
    matches!(reply.status, 200..=299)
}

fn accepted(reply: Reply, what: &str) -> Result<Reply, Problem> {
    let words = || status_words(&reply);
    match reply.status {
        200..=299 => Ok(reply),
        401 | 403 => Err(Problem::Failed(format!(
            "the login was refused ({}): check 'username' and the password",
            words()
        ))),
        404 => Err(Problem::Failed(format!("there is no {what} ({})", words()))),
        _ => Err(Problem::Failed(format!("{what}: {}", words()))),
    }
}

/// What an answer says of an error.
pub(super) fn status_words(reply: &Reply) -> String {
    let words = match reply.status {
        200..=299 => refusal(&reply.body),
        _ => error_words(&reply.body),
    };
    match words {
        Some(words) => format!("HTTP {}: {words}", reply.status),
        None => format!("HTTP {}", reply.status),
    }
}

fn path(text: &str) -> Result<ResourcePath, Problem> {
    text.parse().map_err(Problem::Failed)
}

/// The place of the systems, which the standard fixes.
const SYSTEMS: &str = "/redfish/v1/Systems";

/// How often one resource may be somewhere else.
const REDIRECTS_MAX: usize = 3;

/// How often one question is asked again because its connection broke off.
const BREAKS_MAX: usize = 2;

/// The shortest pause before a question is asked again, the usual one, and the longest, in
/// milliseconds.
const PAUSE_MS: (u64, u64, u64) = (250, 1_000, 3_000);

/// How long a question that only helps may take, in milliseconds.
const HINT_MS_MAX: u64 = 5_000;

/// How long each of several systems may take at least, in milliseconds.
const MEMBER_MS_MIN: u64 = 2_000;

/// How long all systems may take together that are not needed, in milliseconds.
const OTHERS_MS_MAX: u64 = 3_000;

/// In how many parts a list may come.
const PAGES_MAX: usize = 100;

/// The longest text, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
