//! Logging in to a service, and out of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use ureq::http::Method;

use super::super::answer::is_passing;
use super::super::client::{CallError, Reply};
use super::super::path::ResourcePath;
use super::super::resource::{parse_place, parse_sessions_place};
use super::{Problem, REDIRECTS_MAX, Service, accepted, is_ok, never_ready, path};
use crate::{Limit, Secret};

impl Service {
    /// Sends the login with each call (HTTP basic authentication).
    pub(in crate::redfish) fn log_in_each_time(
        &mut self,
        username: &str,
        password: &Secret,
    ) -> Result<(), Problem> {
        let login = STANDARD.encode(format!("{username}:{}", password.expose()));
        self.client.hide(password.clone());
        self.client.hide(secret(&login)?);
        self.client.log_in("Authorization", secret(&format!("Basic {login}"))?);
        Ok(())
    }

    /// Logs in for this visit.
    pub(in crate::redfish) fn open_session(
        &mut self,
        username: &str,
        password: &Secret,
    ) -> Result<(), Problem> {
        self.client.hide(password.clone());
        let login = json!({ "UserName": username, "Password": password.expose() }).to_string();
        let fixed = path(SESSIONS)?;
        let place = self.sessions_place()?.unwrap_or_else(|| fixed.clone());
        let mut reply = self.log_in_at(&place, &login)?;
        if matches!(reply.status, 404 | 405 | 501) && place != fixed {
            reply = self.log_in_at(&fixed, &login)?;
        }
        let reply = accepted(reply, "the session service")?;
        let Some(token) = &reply.token else {
            let text = "the login gave no session (no X-Auth-Token)";
            return Err(Problem::Failed(text.to_owned()));
        };
        let token = secret(token)?;
        self.client.hide(token.clone());
        self.client.log_in("X-Auth-Token", token);
        // Without its place, nobody can end the session but the service itself.
        let place = reply.location.as_deref().and_then(ResourcePath::of_url);
        self.session = place.or_else(|| parse_place(&reply.body));
        Ok(())
    }

    /// Where the service root says that sessions are opened. It is asked before the login.
    fn sessions_place(&self) -> Result<Option<ResourcePath>, Problem> {
        match self.follow(&path(ROOT)?, self.hint_limit()) {
            Ok((_, reply)) => {
                Ok(Some(reply).filter(is_ok).and_then(|reply| parse_sessions_place(&reply.body)))
            }
            Err(CallError::Unanswered(_) | CallError::BrokenOff(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A login. A service that sends it on to another place gets it there: some do that for a slash
    /// at the end. Whatever host is named, the login goes to this very service.
    fn log_in_at(&self, place: &ResourcePath, login: &str) -> Result<Reply, Problem> {
        let mut place = place.clone();
        let mut redirects_left = REDIRECTS_MAX;
        let mut before = None;
        loop {
            let asked = self.again(|| {
                self.client.call(Method::POST, &place, Some(login.to_owned()), self.limit)
            });
            let reply = match (asked, before) {
                // The limit cut this login short: the refusal before it says more.
                (Err(_), Some(refused)) if self.limit.has_passed() => {
                    return Err(never_ready(&refused, SESSION_SERVICE));
                }
                (asked, _) => asked?,
            };
            let location = reply.location.as_deref();
            let location = location.filter(|_| matches!(reply.status, 301 | 302 | 307 | 308));
            let moved = location.and_then(ResourcePath::of_url);
            match moved.filter(|_| redirects_left > 0) {
                Some(moved) => {
                    place = moved;
                    redirects_left -= 1;
                }
                None if !is_passing(reply.status, &reply.body) => return Ok(reply),
                None if !self.has_paused(reply.retry_after) => {
                    return Err(never_ready(&reply, SESSION_SERVICE));
                }
                None => {}
            }
            before = Some(reply);
        }
    }

    /// Ends the session, if there is one. Sessions are few, and a forgotten one lasts for half an
    /// hour; so this is tried also when the limit has passed.
    pub(in crate::redfish) fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            let limit = Limit::in_ms(LOG_OUT_MS_MAX);
            let _ = self.client.call(Method::DELETE, &session, None, limit);
        }
    }
}

fn secret(text: &str) -> Result<Secret, Problem> {
    Secret::new(text).map_err(Problem::Failed)
}

/// What a login is asked of, for people.
const SESSION_SERVICE: &str = "the session service";

/// The places that the standard fixes.
const ROOT: &str = "/redfish/v1/";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// How long it may take to end a session, beyond the limit of what was done in it.
const LOG_OUT_MS_MAX: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::super::super::client::Client;
    use super::super::TEXT_BYTES_MAX;
    use super::*;
    use crate::quoted;

    #[test]
    fn what_is_shown_is_one_line_without_secrets_even_where_it_is_cut() {
        let address = ([127, 0, 0, 1], 1).into();
        let client = || Client::new("https://bmc".into(), address, None);
        let mut service = Service::new(client(), Limit::in_ms(0));
        service.log_in_each_time("admin", &secret("s3cret").unwrap()).unwrap();
        let said = quoted("s3cret\n YWRtaW46czNjcmV0  x");
        assert_eq!(service.clean(&format!("s3cret: {said}")), "s3cret: *** *** x");

        let mut service = Service::new(client(), Limit::in_ms(0));
        let password = secret("a\"b\\").unwrap();
        assert!(service.open_session("admin", &password).is_err());
        let said = quoted(r#"{"Password":"a\"b\\"} a"b\"#);
        assert_eq!(service.clean(&said), r#"{"Password":"***"} ***"#);
        let cut = quoted(&format!("{} {}", "x".repeat(TEXT_BYTES_MAX - 3), password.expose()));
        assert!(!service.clean(&cut).contains('a'));
    }
}
