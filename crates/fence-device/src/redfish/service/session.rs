//! Logging in to a service, and out of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use ureq::http::Method;

use super::super::answer::is_passing;
use super::super::client::{CallError, Reply};
use super::super::path::ResourcePath;
use super::super::resource::{parse_place, parse_sessions_place};
use super::{Problem, REDIRECTS_MAX, Service, accepted, body_of, never_ready, path};
use crate::{Limit, RedfishLogin, Secret};

impl Service {
    /// Logs in, once for the visit or with each call (HTTP basic authentication).
    pub(in crate::redfish) fn log_in(
        &mut self,
        login: RedfishLogin,
        username: &str,
        password: &Secret,
    ) -> Result<(), Problem> {
        self.client.secrets.add(password.clone());
        if login == RedfishLogin::Session {
            return self.open_session(username, password);
        }
        let login = STANDARD.encode(format!("{username}:{}", password.expose()));
        self.client.secrets.add(secret(&login)?);
        self.client.login = Some(("Authorization", secret(&format!("Basic {login}"))?));
        Ok(())
    }

    fn open_session(&mut self, username: &str, password: &Secret) -> Result<(), Problem> {
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
        self.client.secrets.add(token.clone());
        self.client.login = Some(("X-Auth-Token", token));
        // Without its place, only the service itself can end the session.
        let place = reply.location.as_deref().and_then(ResourcePath::of_url);
        self.session = place.or_else(|| parse_place(&reply.body));
        Ok(())
    }

    /// The place of the sessions in the service root, which this asks for before the login.
    fn sessions_place(&self) -> Result<Option<ResourcePath>, Problem> {
        match self.follow(&path(ROOT)?, self.hint_limit()) {
            Ok((_, reply)) => Ok(body_of(reply).and_then(|body| parse_sessions_place(&body))),
            Err(CallError::Unanswered(_) | CallError::BrokenOff(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Logs in at `place`, or at the place to which the service redirects: some services redirect
    /// for a slash at the end. The login goes to the same service, whatever host the service names.
    fn log_in_at(&self, place: &ResourcePath, login: &str) -> Result<Reply, Problem> {
        let mut place = place.clone();
        let mut redirects_left = REDIRECTS_MAX;
        let ask = || loop {
            let reply = self.again(|| {
                self.client.call(Method::POST, &place, Some(login.to_owned()), None, self.limit)
            })?;
            let location = reply.location.as_deref();
            let location = location.filter(|_| matches!(reply.status, 301 | 302 | 307 | 308));
            match location.and_then(ResourcePath::of_url).filter(|_| redirects_left > 0) {
                Some(moved) => (place, redirects_left) = (moved, redirects_left - 1),
                None => return Ok(((), reply)),
            }
        };
        let ((), reply) = self.until_ready(self.limit, ask)?;
        if is_passing(reply.status, &reply.body) {
            return Err(never_ready(&reply, SESSION_SERVICE));
        }
        Ok(reply)
    }

    /// Ends the session, if there is one, also after the limit. A service has few sessions, and a
    /// forgotten session lasts for half an hour.
    pub(in crate::redfish) fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            let limit = Limit::in_ms(LOG_OUT_MS_MAX);
            let _ = self.client.call(Method::DELETE, &session, None, None, limit);
        }
    }
}

fn secret(text: &str) -> Result<Secret, Problem> {
    Secret::new(text).map_err(Problem::Failed)
}

/// The name of the session service in messages.
const SESSION_SERVICE: &str = "the session service";

/// The places in the standard.
const ROOT: &str = "/redfish/v1/";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// The time to end a session, beyond the limit of the visit.
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
        service.log_in(RedfishLogin::Basic, "admin", &secret("s3cret").unwrap()).unwrap();
        let said = quoted("s3cret\n YWRtaW46czNjcmV0  x");
        assert_eq!(service.clean(&format!("s3cret: {said}")), "s3cret: *** *** x");

        let mut service = Service::new(client(), Limit::in_ms(0));
        let password = secret("a\"b\\").unwrap();
        assert!(service.log_in(RedfishLogin::Session, "admin", &password).is_err());
        let said = quoted(r#"{"Password":"a\"b\\"} a"b\"#);
        assert_eq!(service.clean(&said), r#"{"Password":"***"} ***"#);
        let cut = quoted(&format!("{} {}", "x".repeat(TEXT_BYTES_MAX - 3), password.expose()));
        assert!(!service.clean(&cut).contains('a'));
    }
}
