//! One connection: handshake, protocol, timeouts and shutdown.
//!
//! [`serve`] performs the handshake and hands the stream to `http1` or `http2`, each of which has
//! hyper parse it and [`Connection::drive`] run it. `timeouts` bounds what the client may take its
//! time for, `activity` knows whose turn it is, `request_body` and `response_body` tell it.

mod activity;
mod http1;
mod http2;
mod request_body;
mod response_body;
mod timeouts;
mod write_batching;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

pub(super) use self::activity::Activity;
use self::http2::StreamTasks;
use self::request_body::TrackedRequestBody;
use self::response_body::InFlightBody;
use self::timeouts::TimeoutStream;
use super::budgets::Attribution;
use super::dispatch::{self, DispatchedResponse};
use super::request::{ConnInfo, ListenerInfo};
use super::tls::{self, Handshake, Protocol};
use super::{Server, proxy_protocol, response};
use crate::base::evicting_limiter::Evictable;
use crate::base::linger;

/// How long a connection that is asked to end may be silent before it does: an HTTP/1 connection
/// before any request, an HTTP/2 connection before its first.
const LAST_REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// Serves a connection until either side closes it.
pub(super) async fn serve(
    server: Arc<Server>,
    mut stream: TcpStream,
    addr: SocketAddr,
    listener: Arc<ListenerInfo>,
    activity: Arc<Activity>,
) {
    set_nodelay(&stream);
    let has_header = listener.proxy_protocol;
    let Some(info) = ConnInfo::from_stream(&stream, addr, listener, &server.live.load().trusted_proxies)
    else {
        return;
    };
    let started = server.clock.monotonic();
    let info = match has_header {
        false => info,
        // Boxed, since few connections have one.
        true => match Box::pin(read_proxy_header(&server, &mut stream, info)).await {
            Some(info) => info,
            None => return,
        },
    };
    let Some(config) = server.tls.clone() else {
        return Connection::new(server, info, activity).serve_protocol(Protocol::Http1, stream).await;
    };
    let deadline = Duration::from_secs(server.live.load().limits.handshake_seconds);
    // What the header took is not given again.
    let deadline = deadline.saturating_sub(server.clock.monotonic().saturating_duration_since(started));
    let nameless = server.certificates.as_ref().map(|all| all.resolver_for_address(info.local_ip));
    // Boxed: this frees the state of the handshake before the connection becomes idle, and a TLS
    // stream is too large to move around.
    let handshake = Box::pin(tls::handshake(stream, config, server.acme_challenge_tls.clone(), nameless));
    let error = match tokio::time::timeout(deadline, handshake).await {
        Ok(Ok(Handshake::Tls(stream))) => return serve_tls(server, stream, info, activity).await,
        Ok(Ok(Handshake::PlainHttp(stream))) => {
            Connection::new(Arc::clone(&server), info.clone(), activity).linger(stream).await;
            None
        }
        Ok(Ok(Handshake::AcmeChallenge)) => None,
        Ok(Err(error)) => Some(error),
        Err(late) => Some(late.into()),
    };
    server.metrics.record_refused_connection("handshake");
    // Rate-limited, so that a scanner cannot fill the disk.
    if let Some(suppressed) = server.handshake_log_limiter.check(server.clock.monotonic()) {
        tracing::debug!(client.addr = %info.addr, ?error, suppressed, "the TLS handshake failed");
    }
}

/// Reads the PROXY protocol header, under the deadline of the handshake. Without one that counts,
/// the connection ends (`None`).
async fn read_proxy_header(server: &Server, stream: &mut TcpStream, info: ConnInfo) -> Option<ConnInfo> {
    let deadline = Duration::from_secs(server.live.load().limits.handshake_seconds);
    let reading = async {
        match info.is_trusted_proxy {
            true => proxy_protocol::read_client(stream).await,
            false => Err(proxy_protocol::Error::NotTrusted),
        }
    };
    let read = match tokio::time::timeout(deadline, reading).await {
        Ok(read) => read,
        Err(late) => Err(std::io::Error::from(late).into()),
    };
    match read {
        Ok(Some(client)) => Some(info.relayed_for(client, &server.live.load().trusted_proxies)),
        // The proxy asks for itself: a health check.
        Ok(None) => Some(info),
        Err(error) => {
            server.metrics.record_refused_connection("proxy_header");
            if let Some(suppressed) = server.proxy_protocol_log_limiter.check(server.clock.monotonic()) {
                tracing::warn!(client.addr = %info.addr, %error, suppressed, "a connection was closed: its listener wants a PROXY protocol header");
            }
            None
        }
    }
}

async fn serve_tls(
    server: Arc<Server>,
    stream: Box<TlsStream<TcpStream>>,
    info: ConnInfo,
    activity: Arc<Activity>,
) {
    let sni = tls::server_name(&stream);
    let is_placeholder =
        server.certificates.as_ref().is_some_and(|all| all.is_placeholder(sni.as_deref(), info.local_ip));
    let info = ConnInfo { sni, has_placeholder_certificate: is_placeholder, ..info };
    let protocol = tls::negotiated_protocol(&stream);
    Connection::new(server, info, activity).serve_protocol(protocol, stream).await;
}

/// Sets `TCP_NODELAY`, so that small responses leave at once.
fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}

/// What the requests of one connection share.
pub(super) struct Connection {
    server: Arc<Server>,
    info: ConnInfo,
    activity: Arc<Activity>,
    /// Asks this connection to end.
    closing: Arc<CancellationToken>,
}

/// How hyper's part of a connection ended.
enum DriveEnd {
    /// The connection is parked until the client sends its next request.
    Parked,
    /// One side ended it.
    Closed,
    /// The client takes no response.
    Abandoned,
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<InFlightBody>, Infallible>> + Send>>;

impl Connection {
    pub(super) fn new(server: Arc<Server>, info: ConnInfo, activity: Arc<Activity>) -> Arc<Self> {
        let closing = server.closing.load_full();
        Arc::new(Self { server, info, activity, closing })
    }

    /// Serves `protocol` on the stream until either side closes it.
    pub(super) async fn serve_protocol<S>(self: Arc<Self>, protocol: Protocol, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let live = self.server.live.load_full();
        let write_timeout = Duration::from_secs(live.limits.idle_seconds);
        let head_timeout = Duration::from_secs(live.limits.header_seconds);
        drop(live);
        let activity = Arc::clone(&self.activity);
        match protocol {
            Protocol::Http1 => {
                http1::serve(self, TimeoutStream::http1(stream, write_timeout, head_timeout, activity)).await;
            }
            Protocol::Http2 => {
                let stream = TimeoutStream::http2(stream, write_timeout, head_timeout, activity);
                Box::pin(http2::serve(self, stream)).await;
            }
        }
    }

    /// Returns the service that hyper calls with each request. Only HTTP/2 has `streams`.
    fn service(
        self: &Arc<Self>,
        streams: Option<StreamTasks>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<InFlightBody>,
        Error = Infallible,
        Future = ResponseFuture,
    > + use<> {
        let connection = Arc::clone(self);
        service_fn(move |request| Arc::clone(&connection).respond(request, streams.clone()))
    }

    /// Boxed, since hyper keeps room for one answer in every connection, idle ones included.
    fn respond(self: Arc<Self>, request: Request<Incoming>, streams: Option<StreamTasks>) -> ResponseFuture {
        let in_flight = self.activity.begin_request();
        Box::pin(async move {
            let version = request.version();
            let (head, body) = request.into_parts();
            let mut body = TrackedRequestBody::new(body, &head.headers, Arc::clone(&self.activity));
            let request = Request::from_parts(head, &mut body);
            let DispatchedResponse { mut response, reservation, has_credential } =
                dispatch::handle(&self.server, &self.info, request).await;
            if has_credential {
                self.activity.set_credential();
            }
            match streams {
                _ if body.was_read() => {}
                Some(streams) => self.linger_over_body(body, &streams),
                None if body.discard_rest().await => {}
                None => response::close_connection(&mut response, version),
            }
            if self.is_closing() {
                response::close_connection(&mut response, version);
            }
            let (head, body) = response.into_parts();
            let body = InFlightBody::new(body, &head.headers, in_flight, reservation);
            Ok(Response::from_parts(head, body))
        })
    }

    /// Reads and drops the rest of a stream's body while its response is sent, if a lingering slot
    /// is free. Otherwise the stream is reset.
    fn linger_over_body(&self, body: TrackedRequestBody<Incoming>, streams: &StreamTasks) {
        let Some(lingerer) = self.server.budgets.linger(&self.attribution()) else { return };
        streams.push(async move {
            linger::over_body(body, || lingerer.count_in_network()).await;
        });
    }

    /// Lingers, so that a refused client that is still sending can read the refusal.
    async fn linger<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        if let Some(lingerer) = self.server.budgets.linger(&self.attribution()) {
            linger::over(stream, || lingerer.count_in_network()).await;
        }
    }

    fn attribution(&self) -> Attribution {
        Attribution::new(self.info.addr.ip(), None).with_credential(self.activity.has_credential())
    }

    /// Drives the connection and its companion future. After long idleness, or when the process
    /// drains or the listener closes, requests in flight are finished and no new ones accepted
    /// (HTTP/1: `Connection: close`; HTTP/2: GOAWAY). A client that then still takes no response is
    /// disconnected.
    async fn drive<C>(
        &self,
        mut connection: Pin<&mut C>,
        beside: impl Future<Output = io::Error>,
        parkable: impl Future<Output = ()>,
        shutdown: impl Future<Output = ()>,
    ) -> DriveEnd
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut beside = pin!(beside);
        // In this order: requests that the connection has read start at once, then its writes are
        // flushed.
        tokio::select! {
            biased;
            ended = connection.as_mut() => self.record_end(ended),
            error = beside.as_mut() => self.record_error(&error),
            () = parkable => return DriveEnd::Parked,
            () = shutdown => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => self.record_end(ended),
                    error = beside => self.record_error(&error),
                    () = self.wait_until_idle() => {
                        self.record_abandoned();
                        return DriveEnd::Abandoned;
                    }
                }
            }
        }
        DriveEnd::Closed
    }

    /// Returns once an HTTP/2 connection should shut down: it is asked to end, or is idle.
    ///
    /// A new connection that is asked to end first gets a moment for its first request: clients
    /// send a request again that met the end of a connection they used before, but not one that
    /// met the end of a connection they had just opened.
    async fn wait_for_shutdown(&self) {
        let asked = async {
            self.wait_until_closing().await;
            self.activity.wait_for_first_request(LAST_REQUEST_WITHIN).await;
        };
        tokio::select! {
            () = asked => {}
            () = self.wait_until_idle() => {}
        }
    }

    /// The same for HTTP/1, where a client that is sending its next request cannot be told apart
    /// from one that is silent: a connection that is asked to end ends after its next response,
    /// which says so, or once it was silent for a moment.
    async fn wait_for_quiet_shutdown(&self) {
        let quiet = async {
            self.wait_until_closing().await;
            let drain = Duration::from_secs(self.server.live.load().limits.drain_seconds);
            self.activity.wait_until_idle(LAST_REQUEST_WITHIN.min(drain / 3), || false).await;
        };
        tokio::select! {
            () = quiet => {}
            () = self.wait_until_idle() => {}
        }
    }

    /// Returns once the process drains or the listener closes.
    async fn wait_until_closing(&self) {
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = self.wait_until_listener_closes() => {}
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
            || self.info.listener.tenants.is_some() && self.info.listener.closed.is_cancelled()
    }

    /// Returns once the listener closes. The gateway's own are open until the process drains, so
    /// their connections register nowhere.
    async fn wait_until_listener_closes(&self) {
        match self.info.listener.tenants {
            Some(_) => self.info.listener.closed.cancelled().await,
            None => std::future::pending().await,
        }
    }

    async fn wait_until_idle(&self) {
        let idle_after = Duration::from_secs(self.server.live.load().limits.idle_seconds);
        let is_scarce = || self.server.budgets.responses.is_under_pressure_from(self.info.addr.ip());
        self.activity.wait_until_idle(idle_after, is_scarce).await;
    }

    fn record_abandoned(&self) {
        self.server.metrics.record_refused_connection("stalled");
        tracing::debug!(client.addr = %self.info.addr, "the connection was closed: its client does not read the answer");
    }

    fn record_end(&self, ended: Result<(), hyper::Error>) {
        let Err(error) = ended else { return };
        if error.is_parse() {
            // hyper has answered a malformed head itself.
            self.activity.mark_unread();
        }
        self.record_error(&error);
    }

    fn record_error(&self, error: &dyn std::error::Error) {
        if self.activity.is_head_timed_out() {
            self.server.metrics.record_refused_connection("header_timeout");
        }
        tracing::debug!(client.addr = %self.info.addr, %error, "the connection ended early");
    }
}
