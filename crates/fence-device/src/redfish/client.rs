//! HTTP to one BMC: single calls, each with its own limit and its own connection.
//!
//! The library sends each request once. It follows no redirection, uses no proxy, and resolves no
//! name: the caller gives the address, so all calls of one client go to one machine.
//!
//! No connection is used twice. Many BMCs close a connection after an answer without announcing
//! this. A request that is sent into such a connection is lost, and nobody knows whether the BMC
//! received it. Without a connection, the request was certainly not sent.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::debug;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::{Method, Request, Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector,
    Transport, TransportAdapter, time,
};
use ureq::{Agent, AsSendBody as _, Body, Error, Timeout};

use super::address::bare;
use super::path::ResourcePath;
use super::pinned::Unusable;
use super::tls::TlsSettings;
use crate::pool::lock;
use crate::{Client as RequestClient, Limit, Secret, Secrets, Subject, boot_ms_now};

/// The error of a connection that is ready for an order whose client does not wait any more.
const NOBODY_WAITS: &str = "the client of the order does not wait any more";

/// A client of one service.
pub(super) struct Client {
    agent: Agent,
    /// How the URLs of the service start.
    pub(super) base: String,
    /// Where the service is.
    pub(super) address: SocketAddr,
    present: Arc<Mutex<Present>>,
    /// The header that each call sends, once there is a login.
    pub(super) login: Option<(&'static str, Secret)>,
    /// The secrets that no text may show.
    pub(super) secrets: Secrets,
}

/// The state of the present call, which the client shares with the connection.
#[derive(Clone, Debug, Default)]
struct Present {
    /// The limit, in milliseconds of `CLOCK_BOOTTIME`.
    not_after_boot_ms: u64,
    /// Whether the BMC has a short key, which needs other settings of the connection.
    has_short_key: bool,
    /// Whether there is a connection that is ready for the request.
    is_connected: bool,
    /// The client that must still wait when the connection is ready; `None` if the call is no
    /// order.
    waits: Option<RequestClient>,
}

/// A request.
struct Call<'a> {
    method: Method,
    path: &'a ResourcePath,
    body: Option<String>,
    waits: Option<&'a RequestClient>,
    limit: Limit,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) location: Option<String>,
    /// The seconds to wait before the next question, if the service gives them.
    pub(super) retry_after: Option<u64>,
    /// The token of a new session.
    pub(super) token: Option<String>,
}

/// Why there is no answer.
pub(super) enum CallError {
    /// The certificate is not the expected one.
    Untrusted(String),
    /// The certificate is the expected one, but its key cannot prove that its owner answers.
    Unusable(Unusable),
    /// There is no connection: nothing was sent.
    Unconnected(String),
    /// The connection broke off before it was ready: nothing was sent.
    BrokenOff(String),
    /// The connection was ready, but the client did not wait any more: nothing was sent.
    Withdrawn,
    /// There is no complete answer.
    Unanswered(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Untrusted(why) => write!(f, "the certificate is not trusted: {why}"),
            CallError::Unusable(why) => write!(f, "the certificate cannot be used: {why}"),
            CallError::Unconnected(why) | CallError::BrokenOff(why) => {
                write!(f, "no connection: {why}")
            }
            CallError::Withdrawn => f.write_str("not sent: the client did not wait any more"),
            CallError::Unanswered(why) => write!(f, "no whole answer: {why}"),
        }
    }
}

impl Client {
    /// A client of the service whose URLs start with `base`, at `address`.
    pub(super) fn new(base: String, address: SocketAddr, tls: Option<TlsSettings>) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .user_agent("fence-watcher")
            .accept("application/json")
            // Some BMCs compress an answer although the client cannot read that.
            .accept_encoding("identity")
            .max_idle_connections(0)
            .build();
        let present = Arc::<Mutex<Present>>::default();
        let secured = Secured { tls, present: Arc::clone(&present) };
        let connector = ().chain(TcpConnector::default()).chain(secured);
        let agent = Agent::with_parts(config, connector, Known(address));
        Client { agent, base, address, present, login: None, secrets: Secrets::default() }
    }

    /// One request and its answer. After [`CallError::Unanswered`], the service may have received
    /// the request. An order is not sent if `waits` does not wait any more when the connection is
    /// ready, which can take 20 s.
    pub(super) fn call(
        &self,
        method: Method,
        path: &ResourcePath,
        body: Option<String>,
        waits: Option<&RequestClient>,
        limit: Limit,
    ) -> Result<Reply, CallError> {
        let call = Call { method, path, body, waits, limit };
        match self.call_once(&call) {
            // The handshake broke off, so nothing was sent. From now on, each connection uses the
            // settings for a short key.
            Err(CallError::Unusable(Unusable::ShortKey))
                if !mem::replace(&mut lock(&self.present).has_short_key, true) =>
            {
                self.call_once(&call)
            }
            called => called,
        }
    }

    fn call_once(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let begin_ms = boot_ms_now();
        let called = self.exchange(call);
        let path = self.secrets.shown(&call.path.quoted());
        let shown = format!("{} {}{path}", call.method, self.base);
        let came = match &called {
            Ok(reply) => format!("status {}", reply.status),
            Err(error) => error.to_string(),
        };
        let took_ms = boot_ms_now().saturating_sub(begin_ms);
        let subject = Subject::of_this_thread();
        debug!("HTTP: {subject}{shown} at {}: {came} after {took_ms} ms", self.address);
        called
    }

    fn exchange(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let Call { method, path, body, waits, limit } = call;
        let mut present = lock(&self.present);
        (present.not_after_boot_ms, present.is_connected) = (limit.not_after_boot_ms, false);
        present.waits = waits.cloned();
        drop(present);
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method.clone()).uri(uri);
        request = request.header("OData-Version", "4.0").header("Connection", "close");
        if let Some((header, value)) = &self.login {
            request = request.header(*header, value.expose());
        }
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let (mut text, mut nothing) = (body.as_deref(), ());
        let body = text.as_mut().map_or_else(|| nothing.as_body(), |text| text.as_body());
        let timeout = Some(Duration::from_millis(limit.left_ms()));
        let response = request.body(body).map_err(Error::from).and_then(|request| {
            let request = self.agent.configure_request(request);
            self.agent.run(request.timeout_global(timeout).build())
        });
        response.and_then(read).map_err(|error| {
            let is_broken_off = is_broken_off(&error);
            let is_connected = lock(&self.present).is_connected;
            match CallError::from(error) {
                CallError::Unanswered(why) if why == NOBODY_WAITS => CallError::Withdrawn,
                CallError::Unanswered(why) if is_connected => CallError::Unanswered(why),
                CallError::Unanswered(why) if is_broken_off => CallError::BrokenOff(why),
                CallError::Unanswered(why) => CallError::Unconnected(why),
                error => error,
            }
        })
    }
}

/// Whether the peer ended an open connection.
fn is_broken_off(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    matches!(error, Error::Io(error) if kinds.contains(&error.kind()))
}

fn read(mut response: Response<Body>) -> Result<Reply, Error> {
    let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (location, token) = (header("Location"), header("X-Auth-Token"));
    // The header may also contain a date, which is useless: the clock of the BMC is unknown.
    let retry_after = header("Retry-After").and_then(|text| text.trim().parse().ok());
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
    Ok(Reply { status: response.status().as_u16(), body, location, retry_after, token })
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        let error = match error {
            Error::Io(error) => error,
            Error::Timeout(Timeout::Connect) => {
                return CallError::Unanswered("no connection in time".to_owned());
            }
            Error::Timeout(_) => return CallError::Unanswered("no answer in time".to_owned()),
            error => return CallError::Unanswered(error.to_string()),
        };
        match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) => {
                match why.0.downcast_ref::<Unusable>() {
                    Some(unusable) => CallError::Unusable(unusable.clone()),
                    None => CallError::Untrusted(why.to_string()),
                }
            }
            Some(rustls::Error::InvalidCertificate(why)) => CallError::Untrusted(why.to_string()),
            Some(rustls::Error::AlertReceived(
                AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity,
            )) => CallError::Unanswered(format!("{error}; {TLS_NEEDED}")),
            _ => CallError::Unanswered(error.to_string()),
        }
    }
}

/// Resolves every name to the one address.
#[derive(Debug)]
struct Known(SocketAddr);

impl Resolver for Known {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// Makes a connection ready: encrypted if this is configured, and never after the limit.
#[derive(Debug)]
struct Secured {
    tls: Option<TlsSettings>,
    present: Arc<Mutex<Present>>,
}

impl<In: Transport> Connector<In> for Secured {
    type Out = Either<In, TlsTransport<In>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(tcp) = chained else { return Ok(None) };
        let Present { not_after_boot_ms, has_short_key, waits, .. } = lock(&self.present).clone();
        let limit = Limit { not_after_boot_ms };
        let transport = match &self.tls {
            None => Either::A(tcp),
            Some(TlsSettings { usual, for_short_key }) => {
                let config = if has_short_key { for_short_key } else { usual };
                Either::B(TlsTransport::connect(config, details, tcp, limit)?)
            }
        };
        if waits.is_some_and(|client| !client.is_waiting(limit)) {
            return Err(Error::Io(io::Error::other(NOBODY_WAITS)));
        }
        // The limit counts the time for which the machine slept; the library does not.
        if limit.has_passed() {
            return Err(Error::Timeout(Timeout::Global));
        }
        lock(&self.present).is_connected = true;
        Ok(Some(transport))
    }
}

/// An encrypted connection.
struct TlsTransport<In: Transport> {
    stream: StreamOwned<ClientConnection, TransportAdapter<In>>,
    buffers: LazyBuffers,
}

impl<In: Transport> TlsTransport<In> {
    /// Makes the TLS handshake over `tcp`. A BMC that hangs still accepts connections, but does not
    /// answer the handshake.
    fn connect(
        config: &Arc<ClientConfig>,
        details: &ConnectionDetails,
        tcp: In,
        limit: Limit,
    ) -> Result<Self, Error> {
        let host = bare(details.uri.host().unwrap_or_default()).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let mut conn = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut sock = TransportAdapter::new(tcp, Arc::clone(&details.current_time));
        let after = Duration::from_millis(limit.left_ms()).min(CONNECT_TIME_MAX);
        sock.set_timeout(NextTimeout {
            after: time::Duration::Exact(after),
            reason: Timeout::Connect,
            ..NextTimeout::default()
        });
        conn.complete_io(&mut sock)?;
        let sizes = (details.config.input_buffer_size(), details.config.output_buffer_size());
        let buffers = LazyBuffers::new(sizes.0, sizes.1);
        Ok(TlsTransport { stream: StreamOwned::new(conn, sock), buffers })
    }
}

impl<In: Transport> fmt::Debug for TlsTransport<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

impl<In: Transport> Transport for TlsTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = match self.stream.read(self.buffers.input_append_buf()) {
            // Many BMCs close without TLS's `close_notify`. The content shows a truncation.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read?,
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// What the TLS of a BMC must support.
const TLS_NEEDED: &str = "TLS 1.2 with ECDHE or 1.3 is needed, and a key that is RSA (2048 bits), \
                          ECDSA P-256 or P-384, or Ed25519";

/// The time limit for a connection, and again for the TLS handshake. A slow BMC needs a second or
/// two.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// The longest answer that is read. A large answer has 100 KiB.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
