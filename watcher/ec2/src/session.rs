//! The credentials and the endpoint, and one signed call.
//!
//! AWS's own crate finds credentials, region and endpoint, in the order that all of AWS's tools
//! use. This module does not interpret answers, and sends nothing twice.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpClient};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::service_config::ServiceConfigKey;
use fence_device::{Ec2Answer, Ec2Call, Ec2Outcome, Limit, Secret, Secrets, quoted};
use fence_protocol::bounded;
use tokio::time::timeout;

use crate::permission::Permission;
use crate::query::Query;
use crate::reply::{Reply, is_passing};

/// The state that all calls share.
#[derive(Debug)]
pub(crate) struct Session {
    credentials: Credentials,
    region: String,
    endpoint: String,
    /// When the last call must end.
    pub(crate) limit: Limit,
    /// One line for each call that was made, for the log.
    pub(crate) calls: RefCell<Vec<String>>,
}

/// A call without a whole answer, and why.
#[derive(Debug)]
pub(crate) struct Lost {
    /// The time ran out; the connection did not break.
    pub(crate) is_late: bool,
    pub(crate) text: String,
}

/// Why there is no session. Nothing was sent to EC2.
#[derive(Debug)]
pub(crate) struct NoSession {
    /// A session may be possible a moment later.
    pub(crate) passes: bool,
    pub(crate) answer: Ec2Answer,
}

impl NoSession {
    fn new(outcome: Ec2Outcome, text: impl Into<String>) -> Self {
        NoSession { passes: false, answer: Ec2Answer::of(outcome, text) }
    }
}

impl Session {
    /// Finds region, endpoint and credentials, until `limit` at the latest.
    pub(crate) async fn open(call: &Ec2Call, limit: Limit) -> Result<Self, NoSession> {
        let found = within(limit, LOGIN_MS_MAX, Box::pin(login(call))).await;
        let (credentials, region, endpoint) = found.unwrap_or_else(|| {
            let text = "the services that give region and credentials (instance metadata, STS) did \
                        not answer in time; to use none of them, set 'region' and 'access_key' or \
                        'profile'";
            Err(NoSession::new(Ec2Outcome::Unreachable, text))
        })?;
        Ok(Session { credentials, region, endpoint, limit, calls: RefCell::default() })
    }

    /// The endpoint and the region, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{} ({})", self.endpoint, self.region)
    }

    /// `text` without the secrets of this program, in case a service repeated them. Quotations stay
    /// marked.
    pub(crate) fn redact(&self, text: &str) -> String {
        let keys = [Some(self.credentials.secret_access_key()), self.credentials.session_token()];
        let known = keys.into_iter().flatten().filter_map(|key| Secret::new(key).ok());
        known.collect::<Secrets>().hide_in_quotes(text)
    }

    /// Sends `query` once, and waits for the answer for at most `ms_max` milliseconds. An order is
    /// sent only with its `permission`.
    pub(crate) async fn send(
        &self,
        query: &Query,
        ms_max: u64,
        permission: Option<&Permission>,
    ) -> Result<Reply, Lost> {
        let begin = Instant::now();
        let sent = self.exchange(query, ms_max, permission).await;
        let came = match &sent {
            Ok(reply) => format!("status {}", reply.status),
            Err(lost) => lost.text.clone(),
        };
        let ms = begin.elapsed().as_millis();
        let call = format!("POST {} {}: {came} after {ms} ms", self.endpoint, query.action);
        self.calls.borrow_mut().push(bounded(&self.redact(&call), CALL_BYTES_MAX));
        sent
    }

    /// Each call uses its own connection. The peer may have closed a connection that was used
    /// before, and an order that is sent into it is lost.
    async fn exchange(
        &self,
        query: &Query,
        ms_max: u64,
        permission: Option<&Permission>,
    ) -> Result<Reply, Lost> {
        let lost = |is_late, text| Lost { is_late, text };
        let request = self.signed(&query.form, permission).map_err(|error| {
            lost(false, format!("the call cannot be made: {}", quoted(&in_words(&*error))))
        })?;
        let connector = connector(Connector::builder());
        let exchange = async {
            let response = connector.call(request).await?;
            let status = response.status().as_u16();
            let mut bytes = Vec::new();
            let mut body = ByteStream::new(response.into_body());
            while let Some(part) = body.try_next().await? {
                if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                    return Err(format!("more than {ANSWER_BYTES_MAX} bytes").into());
                }
                bytes.extend_from_slice(&part);
            }
            let body = String::from_utf8(bytes)?;
            Ok::<Reply, Box<dyn Error + Send + Sync>>(Reply { status, body })
        };
        let place = self.place();
        match within(self.limit, ms_max, exchange).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(error)) => {
                let words = quoted(&in_words(&*error));
                Err(lost(false, format!("no whole answer from {place}: {words}")))
            }
            None => Err(lost(true, format!("no answer from {place} in time"))),
        }
    }

    fn signed(
        &self,
        form: &str,
        permission: Option<&Permission>,
    ) -> Result<HttpRequest, Box<dyn Error + Send + Sync>> {
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ec2")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let signable = SignableRequest::new(
            "POST",
            self.endpoint.as_str(),
            [("content-type", content_type)].into_iter(),
            SignableBody::Bytes(form.as_bytes()),
        )?;
        let (signature, _) = sign(signable, &parameters)?.into_parts();
        let mut body = SdkBody::from(form);
        if let Some(permission) = permission {
            body = permission.guard(body);
        }
        let mut request = http::Request::post(self.endpoint.as_str())
            .header("content-type", content_type)
            .header("user-agent", concat!("fence-watcher/", env!("CARGO_PKG_VERSION")))
            .header("content-length", form.len())
            .body(body)?;
        signature.apply_to_request_http1x(&mut request);
        Ok(request.try_into()?)
    }
}

/// Credentials, region and endpoint.
async fn login(call: &Ec2Call) -> Result<(Credentials, String, String), NoSession> {
    let failed = |text| NoSession::new(Ec2Outcome::Failed, text);
    let mut loader =
        aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
    if let Some(region) = &call.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &call.profile {
        loader = loader.profile_name(profile);
    }
    let config = loader.load().await;
    let region = config.region().filter(|region| !region.as_ref().is_empty()).ok_or_else(|| {
        let text = "no region (the instance metadata, if it was asked, gave none): set 'region', \
                    or set AWS_REGION where fence-watcher is started";
        failed(text.to_owned())
    })?;
    let endpoint = endpoint(call, &config, region.as_ref()).map_err(failed)?;
    let credentials = match provider(call, &config) {
        Some(provider) => provider.provide_credentials().await,
        None => Err(CredentialsError::not_loaded_no_source()),
    };
    let credentials = credentials.map_err(|error| {
        let text = format!("there are no credentials for AWS: {}", quoted(&in_words(&error)));
        match &error {
            CredentialsError::ProviderTimedOut(_) => NoSession::new(Ec2Outcome::Unreachable, text),
            CredentialsError::ProviderError(_) if is_passing(&text) => {
                NoSession { passes: true, ..NoSession::new(Ec2Outcome::Unreachable, text) }
            }
            _ => failed(text),
        }
    })?;
    Ok((credentials, region.to_string(), endpoint))
}

/// The source of the credentials. Other credentials of the machine never replace configured ones:
/// they may belong to another account.
fn provider(call: &Ec2Call, config: &SdkConfig) -> Option<SharedCredentialsProvider> {
    if let Some((id, secret)) = &call.access_key {
        let credentials = Credentials::new(id, secret, None, None, "fence-watcher");
        return Some(SharedCredentialsProvider::new(credentials));
    }
    let Some(profile) = &call.profile else { return config.credentials_provider() };
    let provider_config = ProviderConfig::without_region()
        .with_http_client(http_client())
        .with_region(config.region().cloned());
    let provider = ProfileFileCredentialsProvider::builder()
        .configure(&provider_config)
        .profile_name(profile)
        .build();
    Some(SharedCredentialsProvider::new(provider))
}

/// The URL for all calls: the configured one, else the one of the environment or the profile, else
/// AWS's.
fn endpoint(call: &Ec2Call, config: &SdkConfig, region: &str) -> Result<String, String> {
    let key = ServiceConfigKey::builder()
        .service_id("EC2")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .map_err(|error| error.to_string())?;
    let of_environment = || {
        let of_service = config.service_config().and_then(|service| service.load_config(key));
        of_service.or_else(|| config.endpoint_url().map(str::to_owned))
    };
    if let Some(url) = call.endpoint.clone().or_else(of_environment) {
        // A signature covers a path, and a URL without the slash has none.
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        return Ok(if has_path { url } else { url + "/" });
    }
    if config.use_fips() == Some(true) || config.use_dual_stack() == Some(true) {
        return Err(
            "a FIPS or dual-stack endpoint is asked for: write its URL as 'endpoint'".into()
        );
    }
    Ok(format!("https://ec2.{region}.{}/", domain(region)))
}

/// The domain of AWS's services in a region.
fn domain(region: &str) -> &'static str {
    let of_partition = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    of_partition.map_or("amazonaws.com", |(_, domain)| domain)
}

/// The HTTP client of the credentials chain, which sets the time limits later.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut builder = Connector::builder();
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector(builder)
    })
}

fn connector(builder: ConnectorBuilder) -> Connector {
    builder
        .proxy_config(ProxyConfig::from_env())
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build()
}

/// The output of `future`, if it comes within `ms_max` milliseconds and before the limit.
async fn within<T>(limit: Limit, ms_max: u64, future: impl Future<Output = T>) -> Option<T> {
    timeout(Duration::from_millis(limit.left_ms().min(ms_max)), future).await.ok()
}

/// An error with all its causes. The caller cuts the text after it has hidden the secrets.
fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Many errors repeat the words of their cause.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

/// The time limit for region and credentials.
const LOGIN_MS_MAX: u64 = 10_000;

/// The longest line about a call, in bytes.
const CALL_BYTES_MAX: usize = 512;

/// The longest answer that this program reads.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How the names of a partition's regions start, and the partition's domain.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
];

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::path::PathBuf;
    use std::thread;

    use fence_device::Client;

    use super::*;

    /// The part of an order with this permission that arrives, and the result of sending it.
    fn arriving(permission: &Permission, limit: Limit) -> (String, Result<Reply, Lost>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let session = Session {
            credentials: Credentials::new("AKIA", "secret", None, None, "test"),
            region: "eu-central-1".to_owned(),
            endpoint: format!("http://{}/", listener.local_addr().unwrap()),
            limit,
            calls: RefCell::default(),
        };
        let service = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            connection.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            while !seen.ends_with(b"SkipOsShutdown=true")
                && let Ok(count @ 1..) = connection.read(&mut buffer)
            {
                seen.extend_from_slice(&buffer[..count]);
            }
            String::from_utf8(seen).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let order = Query::stop("i-0000000000000000a", true);
        let sent = runtime.block_on(session.send(&order, 60_000, Some(permission)));
        drop(runtime);
        (service.join().unwrap(), sent)
    }

    #[test]
    fn an_order_is_not_sent_over_a_connection_for_which_its_client_did_not_wait() {
        let limit = Limit::in_ms(60_000);
        let gone = Client::new(PathBuf::from("/nowhere/a.json"), true);
        let late = Limit { not_after_boot_ms: 0 };
        for (permission, outcome) in [
            (Permission::new(Some(gone), limit), Ec2Outcome::Withdrawn),
            (Permission::new(None, late), Ec2Outcome::TooLate),
        ] {
            let (seen, sent) = arriving(&permission, limit);

            assert!(!seen.contains("StopInstances"), "{seen}");
            assert!(sent.is_err(), "{sent:?}");
            assert_eq!(permission.found(), Some(Err(outcome)));
        }
        let permission = Permission::new(None, limit);
        let (seen, _) = arriving(&permission, limit);
        assert!(seen.contains("StopInstances"), "{seen}");
        assert_eq!(permission.found(), Some(Ok(())));
    }
}
