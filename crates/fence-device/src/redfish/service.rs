//! One visit to a Redfish service: the questions. `session` logs in and out, `errand` sends the one
//! order.
//!
//! A service that is starting or overloaded refuses questions for a while. Questions are harmless,
//! so this module repeats them until the limit. It asks questions that only help once, for a short
//! time: the service root, the values that an action allows, systems other than the wanted one.

mod session;

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
use crate::Limit;

/// A service, from its opening to its closing.
pub(super) struct Service {
    pub(super) client: Client,
    limit: Limit,
    session: Option<ResourcePath>,
}

/// A system, and the place where it was found.
pub(super) type Found = (ResourcePath, System);

/// Why a visit failed. No order was sent.
#[derive(Debug)]
pub(super) enum Problem {
    Unreachable(String),
    Failed(String),
    /// The order may not be sent any more; this is its report.
    Forbidden(OrderReport),
}

impl Problem {
    pub(super) fn into_text(self) -> String {
        match self {
            Problem::Unreachable(text) | Problem::Failed(text) => text,
            Problem::Forbidden(_) => "no time was left".to_owned(),
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

    /// `problem` without secrets, with the URL of the service.
    pub(super) fn named(&self, problem: Problem) -> Problem {
        let named = |text| self.clean(&format!("{}: {text}", self.client.base));
        match problem {
            Problem::Unreachable(text) => Problem::Unreachable(named(text)),
            Problem::Failed(text) => Problem::Failed(named(text)),
            forbidden @ Problem::Forbidden(_) => forbidden,
        }
    }

    /// `text` on one line, without secrets in its quotations.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = self.client.secrets.shown(text);
        let words: Vec<&str> = text.split_whitespace().collect();
        bounded(&words.join(" "), TEXT_BYTES_MAX)
    }

    /// The places of all systems. If a further part of the list cannot be read,
    /// [`Collection::next`] is the place of that part.
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
        // A list whose next part is a part that was read is at its end.
        all.next = None;
        Ok(all)
    }

    /// A further part of the list of systems; the question may take a part of the time left.
    fn page(&self, place: &ResourcePath) -> Result<Collection, String> {
        let reply = self.ask(place, self.hint_limit()).map_err(Problem::into_text)?.1;
        let reply = accepted(reply, "the list of systems").map_err(Problem::into_text)?;
        parse_collection(&reply.body)
    }

    /// The present system at `path`, and its place, to which the service may have redirected.
    pub(super) fn system(&self, path: &ResourcePath) -> Result<Found, Problem> {
        let (place, body) = self.get_at(path)?;
        Ok((place, parse_system(&body).map_err(Problem::Failed)?))
    }

    /// The power of the system at `path`, asked once.
    pub(super) fn glance(&self, path: &ResourcePath, limit: Limit) -> Option<System> {
        let (_, reply) = self.follow(path, limit).ok()?;
        body_of(reply).and_then(|body| parse_system(&body).ok())
    }

    /// All systems that can be read; first those whose places end in a `wanted` name. Once each
    /// wanted name is found as an `Id`, the other systems get little time.
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
            // A silent system must not take the time of the others.
            let share_ms = until.left_ms() / (paths.len() - at + 1) as u64;
            let limit = until.min(Limit::in_ms(share_ms.max(MEMBER_MS_MIN)));
            let member = if is_found && until.has_passed() {
                Err("there was no time for it".to_owned())
            } else {
                self.member(path, limit, &mut systems.may_pass).map_err(Problem::into_text)
            };
            match member {
                Ok(member) => systems.members.push(member),
                Err(why) => systems.unreadable.push(format!("{}: {why}", path.quoted())),
            }
        }
        Ok(systems)
    }

    /// The system at `path` of the list. Sets `may_pass` if it may be readable soon.
    fn member(
        &self,
        path: &ResourcePath,
        limit: Limit,
        may_pass: &mut bool,
    ) -> Result<Member, Problem> {
        let asked = self.again(|| self.follow(path, limit));
        *may_pass |= asked.as_ref().is_ok_and(|(_, reply)| is_passing(reply.status, &reply.body));
        *may_pass |= asked.is_err();
        let (place, reply) = asked?;
        let reply = accepted(reply, &path.quoted())?;
        let system = parse_system(&reply.body).map_err(Problem::Failed)?;
        Ok(Member { path: path.clone(), place, system })
    }

    /// The one system with this `Id` or `Name`. An `Id` counts also if other systems cannot be
    /// read.
    pub(super) fn named_system(&self, name: &str) -> Result<Found, Problem> {
        loop {
            let systems = self.systems(&[name])?;
            let why = match systems.named(name) {
                Ok(Member { place, system, .. }) => return Ok((place.clone(), system.clone())),
                Err((Ambiguity::None | Ambiguity::Unsure, why)) if systems.may_pass => why,
                Err((_, why)) => return Err(Problem::Failed(why)),
            };
            if !self.has_paused(None) {
                return Err(Problem::Unreachable(why));
            }
        }
    }

    /// The place and the reset type for `order`.
    pub(super) fn reset(
        &self,
        order: Order,
        reset: Result<Reset, String>,
    ) -> Result<(ResourcePath, &'static str), Problem> {
        let reset = reset.map_err(Problem::Failed)?;
        let allowed = match (reset.allowed, &reset.info) {
            (None, Some(info)) => {
                let reply = self.follow(info, self.hint_limit()).ok();
                reply.and_then(|(_, reply)| parse_action_info(&body_of(reply)?))
            }
            (allowed, _) => allowed,
        };
        let reset_type = reset_type(order, allowed.as_deref()).map_err(Problem::Failed)?;
        Ok((reset.target, reset_type))
    }

    /// The limit of a question that only helps.
    fn hint_limit(&self) -> Limit {
        let time_ms = (self.limit.left_ms() / 3).min(HINT_MS_MAX);
        self.limit.min(Limit::in_ms(time_ms))
    }

    /// The resource at `path`, and its place, to which the service may have redirected. Repeats the
    /// question while the service is not ready.
    fn get_at(&self, path: &ResourcePath) -> Result<(ResourcePath, Vec<u8>), Problem> {
        let (place, reply) = self.ask(path, self.limit)?;
        if is_passing(reply.status, &reply.body) {
            return Err(never_ready(&reply, &path.quoted()));
        }
        Ok((place, accepted(reply, &path.quoted())?.body))
    }

    /// Asks for the resource at `path`, and repeats the question while the service is not ready.
    fn ask(&self, path: &ResourcePath, until: Limit) -> Result<(ResourcePath, Reply), Problem> {
        self.until_ready(until, || self.again(|| self.follow(path, until)))
    }

    /// Calls `ask` until the service is ready. If the limit cuts a call short, the refusal before
    /// it says more.
    fn until_ready<T>(
        &self,
        until: Limit,
        mut ask: impl FnMut() -> Result<(T, Reply), CallError>,
    ) -> Result<(T, Reply), Problem> {
        let mut before = None;
        loop {
            let (place, reply) = match (ask(), before) {
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

    /// The result of `ask`, which must be harmless: repeats it if the service breaks the connection
    /// off. A service that restarts or has too many connections does that.
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

    /// Asks for the resource at `path`, once. It does not follow a redirection to another host: the
    /// login is for this host.
    pub(super) fn follow(
        &self,
        path: &ResourcePath,
        limit: Limit,
    ) -> Result<(ResourcePath, Reply), CallError> {
        let mut place = path.clone();
        let mut reply = self.client.call(Method::GET, path, None, None, limit)?;
        for _ in 0..REDIRECTS_MAX {
            let statuses = [301, 302, 303, 307, 308];
            let Some(path) = self.redirected(&place, &reply, &statuses) else { break };
            reply = self.client.call(Method::GET, &path, None, None, limit)?;
            place = path;
        }
        Ok((place, reply))
    }

    /// The place to which a reply with one of these statuses redirects from `from`, if that place
    /// is on the same service.
    pub(super) fn redirected(
        &self,
        from: &ResourcePath,
        reply: &Reply,
        statuses: &[u16],
    ) -> Option<ResourcePath> {
        let location = reply.location.as_deref().filter(|_| statuses.contains(&reply.status))?;
        ResourcePath::redirected(location, from, &self.client.base, Some(self.client.address.ip()))
    }

    /// Waits as long as the service wants, or less: a fence cannot wait for half a minute, and many
    /// services are ready earlier. `false` if no time is left.
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

/// The service was not ready by the limit.
fn never_ready(reply: &Reply, what: &str) -> Problem {
    let words = status_words(reply);
    Problem::Unreachable(format!("{what}: {words}; asked again until no time was left"))
}

/// The body of an answer with a status of success.
fn body_of(reply: Reply) -> Option<Vec<u8>> {
    matches!(reply.status, 200..=299).then_some(reply.body)
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

/// The status of an answer, with the words of its error.
pub(super) fn status_words(reply: &Reply) -> String {
    let words = match reply.status {
        200..=299 => refusal(&reply.body),
        _ => error_words(&reply.body),
    };
    let words = words.map_or(String::new(), |words| format!(": {words}"));
    format!("HTTP {}{words}", reply.status)
}

fn path(text: &str) -> Result<ResourcePath, Problem> {
    text.parse().map_err(Problem::Failed)
}

/// The place of the systems in the standard.
const SYSTEMS: &str = "/redfish/v1/Systems";

/// The limit of redirections for one question.
const REDIRECTS_MAX: usize = 3;

/// How often a question is repeated because its connection broke off.
const BREAKS_MAX: usize = 2;

/// The shortest, the usual and the longest pause before a question is repeated, in milliseconds.
const PAUSE_MS: (u64, u64, u64) = (250, 1_000, 3_000);

/// The time limit of a question that only helps, in milliseconds.
const HINT_MS_MAX: u64 = 5_000;

/// The least time for each of several systems, in milliseconds.
const MEMBER_MS_MIN: u64 = 2_000;

/// The time limit for all systems that are not needed, in milliseconds.
const OTHERS_MS_MAX: u64 = 3_000;

/// The limit of parts in a list.
const PAGES_MAX: usize = 100;

/// The longest text, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
