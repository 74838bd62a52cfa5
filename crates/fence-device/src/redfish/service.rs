//! One visit to a Redfish service: logging in, what is asked, the one order, logging out.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fence_core::execution::{Order, OrderReport};
use fence_protocol::bounded;
use serde_json::json;
use ureq::http::Method;

use super::client::{CallError, Client, Reply};
use super::resource::{
    ResourcePath, System, error_words, parse_action_info, parse_collection, parse_system,
    reset_type,
};
use crate::{Limit, Secret};

/// A service, from its opening to its closing.
pub(super) struct Service {
    client: Client,
    limit: Limit,
    /// What may stand in no text.
    secrets: Vec<Secret>,
    session: Option<ResourcePath>,
}

/// A system of the service's list.
pub(super) struct Member {
    /// Its path in the list.
    pub(super) path: ResourcePath,
    /// The path at which it was found.
    pub(super) place: ResourcePath,
    pub(super) system: System,
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
            CallError::Unanswered(why) => Problem::Unreachable(why),
        }
    }
}

impl Service {
    /// The service that `client` reaches, for work until `limit`.
    pub(super) fn new(client: Client, limit: Limit) -> Self {
        Service { client, limit, secrets: Vec::new(), session: None }
    }

    /// Sends the login with each call (HTTP basic authentication).
    pub(super) fn log_in_each_time(
        &mut self,
        username: &str,
        password: &Secret,
    ) -> Result<(), Problem> {
        let login = STANDARD.encode(format!("{username}:{}", password.expose()));
        self.secrets.extend([password.clone(), secret(&login)?]);
        self.client.log_in("Authorization", secret(&format!("Basic {login}"))?);
        Ok(())
    }

    /// Logs in for this visit.
    pub(super) fn open_session(
        &mut self,
        username: &str,
        password: &Secret,
    ) -> Result<(), Problem> {
        // The password as it is sent, which a careless service may quote.
        let quoted = json!(password.expose()).to_string();
        self.secrets.extend([password.clone(), secret(&quoted[1..quoted.len() - 1])?]);
        let login = json!({ "UserName": username, "Password": password.expose() }).to_string();
        let reply = self.call(Method::POST, &path(SESSIONS)?, Some(login))?;
        let reply = accepted(reply, "the session service")?;
        let session = reply.location.as_deref().and_then(ResourcePath::of_url);
        let (Some(token), Some(session)) = (reply.token, session) else {
            let text = "the login gave no session (no X-Auth-Token, or no Location)";
            return Err(Problem::Failed(text.to_owned()));
        };
        let token = secret(&token)?;
        self.secrets.push(token.clone());
        self.client.log_in("X-Auth-Token", token);
        self.session = Some(session);
        Ok(())
    }

    /// Ends the session, if there is one. Sessions are few, and a forgotten one lasts for half an hour;
    /// so this is tried also when the limit has passed.
    pub(super) fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            let limit = Limit::in_ms(LOG_OUT_MS_MAX);
            let _ = self.client.call(Method::DELETE, &session, None, limit);
        }
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

    /// `text` as it may be shown: one line, without secrets.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = self.secrets.iter().fold(text.to_owned(), |text, secret| secret.redact(&text));
        let words: Vec<&str> = text.split_whitespace().collect();
        bounded(&words.join(" "), TEXT_BYTES_MAX)
    }

    /// The places of all systems.
    pub(super) fn members(&self) -> Result<Vec<ResourcePath>, Problem> {
        parse_collection(&self.get(&path(SYSTEMS)?)?).map_err(Problem::Failed)
    }

    /// The system at `path`, as it is now, and its place, to which the service may have redirected.
    pub(super) fn system(&self, path: &ResourcePath) -> Result<(ResourcePath, System), Problem> {
        let (place, body) = self.get_at(path)?;
        Ok((place, parse_system(&body).map_err(Problem::Failed)?))
    }

    /// All systems.
    pub(super) fn systems(&self) -> Result<Vec<Member>, Problem> {
        let member = |path| {
            let (place, system) = self.system(&path)?;
            Ok(Member { path, place, system })
        };
        self.members()?.into_iter().map(member).collect()
    }

    /// Where and how `order` is given to `system`.
    pub(super) fn reset(
        &self,
        order: Order,
        system: System,
    ) -> Result<(ResourcePath, &'static str), Problem> {
        let Some(reset) = system.reset else {
            return Err(Problem::Failed("the system has no action to reset it".to_owned()));
        };
        let allowed = match (reset.allowed, &reset.info) {
            (None, Some(info)) => parse_action_info(&self.get(info)?).map_err(Problem::Failed)?,
            (allowed, _) => allowed,
        };
        let reset_type = reset_type(order, allowed.as_deref()).map_err(Problem::Failed)?;
        Ok((reset.target, reset_type))
    }

    /// Sends an order, once; tells whether the service said yes. From here on nobody knows what was
    /// done, but for an answer that says so.
    pub(super) fn send(&self, target: &ResourcePath, reset_type: &str) -> (bool, String) {
        let body = json!({ "ResetType": reset_type }).to_string();
        let reply = self.client.call(Method::POST, target, Some(body), self.limit);
        let (is_accepted, outcome) = match reply {
            Ok(reply) => (reply.status / 100 == 2, status_words(&reply)),
            Err(CallError::Untrusted(why) | CallError::Unanswered(why)) => (false, why),
        };
        (is_accepted, format!("{reset_type}: {outcome}"))
    }

    fn call(
        &self,
        method: Method,
        path: &ResourcePath,
        body: Option<String>,
    ) -> Result<Reply, Problem> {
        Ok(self.client.call(method, path, body, self.limit)?)
    }

    fn get(&self, path: &ResourcePath) -> Result<Vec<u8>, Problem> {
        self.get_at(path).map(|(_, body)| body)
    }

    /// The resource at `path`, or where the service says that it is, with its place. A redirection to
    /// another host is not followed: the login is for this one.
    fn get_at(&self, path: &ResourcePath) -> Result<(ResourcePath, Vec<u8>), Problem> {
        let mut place = path.clone();
        let mut reply = self.call(Method::GET, path, None)?;
        for _ in 0..REDIRECTS_MAX {
            let location = reply.location.as_deref().filter(|_| reply.status / 100 == 3);
            let Some(path) =
                location.and_then(|to| ResourcePath::redirected(to, self.client.base()))
            else {
                break;
            };
            reply = self.call(Method::GET, &path, None)?;
            place = path;
        }
        Ok((place, accepted(reply, &path.to_string())?.body))
    }
}

/// The place of the one system with this `Id` or `Name`.
pub(super) fn position_of(name: &str, systems: &[Member]) -> Result<usize, String> {
    let mut found = systems.iter().enumerate().filter(|(_, member)| member.system.is_called(name));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        (None, _) => Err(format!("none of its {} systems is '{name}'", systems.len())),
        _ => Err(format!("more than one of its systems is '{name}': configure a URI")),
    }
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

fn status_words(reply: &Reply) -> String {
    match error_words(&reply.body).filter(|_| reply.status >= 300) {
        Some(words) => format!("HTTP {}: {words}", reply.status),
        None => format!("HTTP {}", reply.status),
    }
}

fn path(text: &str) -> Result<ResourcePath, Problem> {
    text.parse().map_err(Problem::Failed)
}

fn secret(text: &str) -> Result<Secret, Problem> {
    Secret::new(text).map_err(Problem::Failed)
}

/// The places that the standard fixes.
const SYSTEMS: &str = "/redfish/v1/Systems";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// How often one resource may be somewhere else.
const REDIRECTS_MAX: usize = 3;

/// How long it may take to end a session, beyond the limit of what was done in it.
const LOG_OUT_MS_MAX: u64 = 2_000;

/// The longest text, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_found_by_a_name_that_no_other_has() {
        let system = |id: &str, name: &str| {
            let text = format!(r#"{{"Id": "{id}", "Name": "{name}"}}"#);
            let path: ResourcePath = format!("/S/{id}").parse().unwrap();
            let system = parse_system(text.as_bytes()).unwrap();
            Member { place: path.clone(), path, system }
        };
        let systems = [system("1", "node1"), system("2", "node2"), system("node2", "3")];

        assert_eq!(position_of("node1", &systems), Ok(0));
        assert_eq!(position_of("2", &systems), Ok(1));
        assert_eq!(position_of("3", &systems), Ok(2));
        assert!(position_of("node2", &systems).unwrap_err().contains("more than one"));
        assert!(position_of("node", &systems).unwrap_err().contains("none of its 3 systems"));
        assert!(position_of("", &systems).is_err());
    }

    #[test]
    fn what_is_shown_is_one_line_without_secrets_even_where_it_is_cut() {
        let address = ([127, 0, 0, 1], 1).into();
        let client = || Client::new("https://bmc".into(), address, None);
        let mut service = Service::new(client(), Limit::in_ms(0));
        service.log_in_each_time("admin", &secret("s3cret").unwrap()).unwrap();
        assert_eq!(service.clean("s3cret\n YWRtaW46czNjcmV0  x"), "*** *** x");

        let mut service = Service::new(client(), Limit::in_ms(0));
        let password = secret("a\"b\\").unwrap();
        assert!(service.open_session("admin", &password).is_err());
        assert_eq!(service.clean(r#"{"Password":"a\"b\\"} a"b\"#), r#"{"Password":"***"} ***"#);
        let cut = format!("{}{}", "x".repeat(TEXT_BYTES_MAX - 2), password.expose());
        assert!(!service.clean(&cut).contains('a'));
    }
}
