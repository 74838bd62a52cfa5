//! HTTP to one BMC: single calls, each with its limit and over a connection of its own.
//!
//! The library sends each request once. It follows no redirection, uses no proxy, and looks no name
//! up: the one address is given, so that all calls of one client go to one machine.
//!
//! No connection is used twice. Many BMCs close theirs after an answer without saying so, and a
//! request that is sent into such a connection is lost: nobody knows whether it was taken. Without
//! a connection, on the other hand, a request was certainly not sent.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use ureq::{Agent, Body, Error, Timeout};

use super::address::bare;
use super::path::ResourcePath;
use super::pinned::Unusable;
use super::tls::TlsSettings;
use crate::{Client as RequestClient, Limit, Secret, Secrets, Subject, boot_ms_now};

/// The error of a connection that is ready for an order for which nobody waits any more.
const NOBODY_WAITS: &str = "nobody waits for the order any more";

/// A client of one service.
pub(super) struct Client {
    agent: Agent,
    base: String,
    address: SocketAddr,
    /// The limit of the present call, in milliseconds of `CLOCK_BOOTTIME`.
    limit: Arc<AtomicU64>,
    /// Whether the BMC has a short key, so that the connection must be set up for that.
    has_short_key: Arc<AtomicBool>,
    /// Whether the present call has a connection that is ready for its request.
    is_connected: Arc<AtomicBool>,
    /// Who must still wait when the present call has its connection; nobody for what is no order.
    waits: Arc<Mutex<Option<RequestClient>>>,
    login: Option<(&'static str, Secret)>,
    /// What may stand in no text.
    secrets: Secrets,
}

/// A request.
struct Call<'a> {
    method: Method,
    path: &'a ResourcePath,
    body: Option<String>,
    limit: Limit,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) location: Option<String>,
    /// After how many seconds the service wants to be asked again, where it says so.
    pub(super) retry_after: Option<u64>,
    /// The token of a new session.
    pub(super) token: Option<String>,
}

/// Why there is no answer.
pub(super) enum CallError {
    /// The one who is there is not the one who should be.
    Untrusted(String),
    /// It is the right one, and has a certificate with which nobody can see that.
    Unusable(Unusable),
    /// There is no connection: nothing was sent.
    Unconnected(String),
    /// The connection broke off before it was ready: nothing was sent.
    BrokenOff(String),
    /// The connection was ready, and nobody waited any more: nothing was sent.
    Withdrawn,
    /// There is no whole answer.
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
            CallError::Withdrawn => f.write_str("not sent: nobody waited any more"),
            CallError::Unanswered(why) => write!(f, "no whole answer: {why}"),
        }
    }
}

impl Client {
    /// A client of the service whose URLs start with `base`, at `address`.
    pub(super) fn new(base: String, address: SocketAddr, tls: Option<TlsSettings>) -> Self {
        let limit = Arc::new(AtomicU64::new(0));
        let is_connected = Arc::new(AtomicBool::new(false));
        let has_short_key = Arc::new(AtomicBool::new(false));
        let waits: Arc<Mutex<Option<RequestClient>>> = Arc::default();
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .user_agent("fence-watcher")
            .accept("application/json")
            // Some BMCs compress also what nobody can read.
            .accept_encoding("identity")
            .max_idle_connections(0)
            .build();
        let secured = Secured {
            tls,
            limit: Arc::clone(&limit),
            has_short_key: Arc::clone(&has_short_key),
            is_connected: Arc::clone(&is_connected),
            waits: Arc::clone(&waits),
        };
        let connector = ().chain(TcpConnector::default()).chain(secured);
        let agent = Agent::with_parts(config, connector, Known(address));
        Client {
            agent,
            base,
            address,
            limit,
            has_short_key,
            is_connected,
            waits,
            login: None,
            secrets: Secrets::default(),
        }
    }

    /// What the URLs of the service start with.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Where the service is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends this header with each call from now on.
    pub(super) fn log_in(&mut self, header: &'static str, value: Secret) {
        self.login = Some((header, value));
    }

    /// Shows `secret` to nobody from now on.
    pub(super) fn hide(&mut self, secret: Secret) {
        self.secrets.add(secret);
    }

    /// What may stand in no text.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// An order and its answer: like [`Client::call`], but nothing is sent if `waits` does not wait
    /// any more when the connection is ready. That can take 20 s.
    pub(super) fn call_for(
        &self,
        waits: Option<&RequestClient>,
        path: &ResourcePath,
        body: String,
        limit: Limit,
    ) -> Result<Reply, CallError> {
        let set = |waits| *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = waits;
        set(waits.cloned());
        let called = self.call(Method::POST, path, Some(body), limit);
        set(None);
        called
    }

    /// One request and its answer. With [`CallError::Unanswered`], the request may have been sent
    /// all the same.
    pub(super) fn call(
        &self,
        method: Method,
        path: &ResourcePath,
        body: Option<String>,
        limit: Limit,
    ) -> Result<Reply, CallError> {
        let call = Call { method, path, body, limit };
        match self.call_once(&call) {
            // The handshake was broken off, so nothing was sent. From now on the connections are
            // set up for such a key.
            Err(CallError::Unusable(Unusable::ShortKey))
                if !self.has_short_key.swap(true, Ordering::Relaxed) =>
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

    fn exchange(&self, Call { method, path, body, limit }: &Call<'_>) -> Result<Reply, CallError> {
        self.limit.store(limit.not_after_boot_ms, Ordering::Relaxed);
        self.is_connected.store(false, Ordering::Relaxed);
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method.clone()).uri(uri);
        request = request.header("OData-Version", "4.0").header("Connection", "close");
        if let Some((header, value)) = &self.login {
            request = request.header(*header, value.expose());
        }
        let timeout = Some(Duration::from_millis(limit.left_ms()));
        let response = match body {
            None => request.body(()).map_err(Error::from).and_then(|request| {
                let request = self.agent.configure_request(request);
                self.agent.run(request.timeout_global(timeout).build())
            }),
            Some(body) => {
                let request = request.header("Content-Type", "application/json");
                let request = request.body(body.as_str());
                request.map_err(Error::from).and_then(|request| {
                    let request = self.agent.configure_request(request);
                    self.agent.run(request.timeout_global(timeout).build())
                })
            }
        };
        response.and_then(read).map_err(|error| {
            let is_broken_off = is_broken_off(&error);
            match CallError::from(error) {
                CallError::Unanswered(why) if why == NOBODY_WAITS => CallError::Withdrawn,
                CallError::Unanswered(why) if !self.is_connected.load(Ordering::Relaxed) => {
                    let kind =
                        if is_broken_off { CallError::BrokenOff } else { CallError::Unconnected };
                    kind(why)
                }
                error => error,
            }
        })
    }
}

/// Whether the other side ended a connection that was there.
fn is_broken_off(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    matches!(error, Error::Io(error) if kinds.contains(&error.kind()))
}

fn read(mut response: Response<Body>) -> Result<Reply, Error> {
    let header = |name| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let (location, token) = (header("Location"), header("X-Auth-Token"));
    // A date is possible as well, and nobody knows the clock of a BMC.
    let retry_after = header("Retry-After").and_then(|text| text.trim().parse().ok());
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
    Ok(Reply { status: response.status().as_u16(), body, location, retry_after, token })
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match error {
            Error::Timeout(Timeout::Connect) => {
                CallError::Unanswered("no connection in time".to_owned())
            }
            Error::Timeout(_) => CallError::Unanswered("no answer in time".to_owned()),
            Error::Io(error) => {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
                match cause {
                    Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) => {
                        match why.0.downcast_ref::<Unusable>() {
                            Some(unusable) => CallError::Unusable(unusable.clone()),
                            None => CallError::Untrusted(why.to_string()),
                        }
                    }
                    Some(rustls::Error::InvalidCertificate(why)) => {
                        CallError::Untrusted(why.to_string())
                    }
                    Some(rustls::Error::AlertReceived(
                        AlertDescription::HandshakeFailure
                        | AlertDescription::ProtocolVersion
                        | AlertDescription::InsufficientSecurity,
                    )) => CallError::Unanswered(format!("{error}; {TLS_NEEDED}")),
                    _ => CallError::Unanswered(error.to_string()),
                }
            }
            error => CallError::Unanswered(error.to_string()),
        }
    }
}

/// The address, which is known.
#[derive(Debug)]
struct Known(SocketAddr);

impl Resolver for Known {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// Makes a connection ready: encrypted where that is configured, and never after the limit.
#[derive(Debug)]
struct Secured {
    tls: Option<TlsSettings>,
    limit: Arc<AtomicU64>,
    has_short_key: Arc<AtomicBool>,
    is_connected: Arc<AtomicBool>,
    waits: Arc<Mutex<Option<RequestClient>>>,
}

impl<In: Transport> Connector<In> for Secured {
    type Out = Either<In, TlsTransport<In>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(tcp) = chained else { return Ok(None) };
        let limit = Limit { not_after_boot_ms: self.limit.load(Ordering::Relaxed) };
        let transport = match &self.tls {
            None => Either::A(tcp),
            Some(settings) => {
                let for_short_key = settings
                    .for_short_key
                    .as_ref()
                    .filter(|_| self.has_short_key.load(Ordering::Relaxed));
                let config = for_short_key.unwrap_or(&settings.usual);
                Either::B(TlsTransport::connect(config, details, tcp, limit)?)
            }
        };
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if waits.is_some_and(|client| !client.is_waiting(limit)) {
            return Err(Error::Io(io::Error::other(NOBODY_WAITS)));
        }
        // Time that the machine slept through counts for the limit, and not for the library.
        if limit.has_passed() {
            return Err(Error::Timeout(Timeout::Global));
        }
        self.is_connected.store(true, Ordering::Relaxed);
        Ok(Some(transport))
    }
}

/// An encrypted connection.
struct TlsTransport<In: Transport> {
    stream: StreamOwned<ClientConnection, TransportAdapter<In>>,
    buffers: LazyBuffers,
}

impl<In: Transport> TlsTransport<In> {
    /// Shakes hands over `tcp`. A BMC that hangs still accepts connections, and is silent from here
    /// on.
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
            // Many a BMC closes without the farewell of TLS. What is cut off shows in the content.
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

/// What a BMC has to offer.
const TLS_NEEDED: &str = "TLS 1.2 with ECDHE or 1.3 is needed, and a key that is RSA (2048 bits), \
                          ECDSA P-256 or P-384, or Ed25519";

/// How long a connection may take, and as long again the handshake of TLS: a BMC that is slow needs
/// a second or two, and one that needs more is not there.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How much of an answer is read. A large one has 100 KiB.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
