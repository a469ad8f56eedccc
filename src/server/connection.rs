//! One connection: its handshake, its protocol, its patience and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::body::Tracked;
use super::context::{Edge, Peer};
use super::limits::Place;
use super::listener;
use super::patience::{Activity, Patient};
use super::tls::{self, Protocol};
use crate::base::task::Tasks;

/// Serves a connection until either side has had enough. `place` is given back at the end.
pub(super) async fn serve(edge: Arc<Edge>, stream: TcpStream, addr: SocketAddr, place: Place) {
    let _place = place;
    listener::prepare(&stream);
    let Ok(local) = stream.local_addr() else { return };
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let peer = Peer { addr, local: local.ip().to_canonical(), sni: None };
    let Some(config) = edge.tls.clone() else {
        return speak(edge, Protocol::Http1, stream, peer).await;
    };
    let deadline = seconds(edge.limits.handshake_seconds);
    let shaken = tokio::time::timeout(deadline, tls::handshake(stream, config)).await;
    if let Ok(Ok(Some(stream))) = shaken {
        let peer = Peer { sni: tls::server_name(&stream), ..peer };
        return speak(edge, tls::protocol(&stream), stream, peer).await;
    }
    edge.metrics.connection_refused("handshake");
    let error = shaken.map_or_else(|late| Some(late.into()), Result::err);
    tracing::debug!(client.addr = %addr, ?error, "no TLS handshake");
}

pub(super) async fn speak<S>(edge: Arc<Edge>, protocol: Protocol, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let (idle, head) = (seconds(edge.limits.idle_seconds), seconds(edge.limits.header_seconds));
    let line = Arc::new(Line { edge, peer, activity });
    let service = {
        let line = Arc::clone(&line);
        service_fn(move |request| Arc::clone(&line).answer(request))
    };
    match protocol {
        Protocol::Http1 => {
            let io = TokioIo::new(Patient::with_heads(stream, idle, head, Arc::clone(&line.activity)));
            line.attend(http1_settings().serve_connection(io, service)).await;
        }
        Protocol::Http2 => {
            let io = TokioIo::new(Patient::with_writes(stream, idle, Arc::clone(&line.activity)));
            line.attend(http2_settings(&line.edge.tasks).serve_connection(io, service)).await;
        }
    }
}

/// What the requests of one connection share.
struct Line {
    edge: Arc<Edge>,
    peer: Peer,
    activity: Arc<Activity>,
}

impl Line {
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Tracked>, Infallible>> + Send + 'static {
        let under_way = self.activity.begin();
        async move {
            let response = self.edge.answer(&self.peer, request).await;
            Ok(response.map(|body| Tracked::new(body, under_way)))
        }
    }

    /// Drives the connection; when it has been idle for long, or the process drains, what is under way is finished
    /// and nothing new is taken (HTTP/1: `Connection: close`; HTTP/2: GOAWAY). Who then still takes nothing is left.
    async fn attend<C>(&self, connection: C)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.over() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.activity.idle(seconds(self.edge.limits.idle_seconds)) => return self.leave(),
                }
            }
        };
        if let Err(error) = ended {
            self.report(&error);
        }
    }

    async fn over(&self) {
        tokio::select! {
            () = self.edge.tasks.soft().cancelled() => {}
            () = self.activity.idle(seconds(self.edge.limits.idle_seconds)) => {}
        }
    }

    fn leave(&self) {
        self.edge.metrics.connection_refused("stalled");
        tracing::debug!(client.addr = %self.peer.addr, "connection left: its client takes no answer");
    }

    fn report(&self, error: &hyper::Error) {
        if is_timeout(error) {
            self.edge.metrics.connection_refused("header_timeout");
        }
        tracing::debug!(client.addr = %self.peer.addr, %error, "connection broken off");
    }
}

fn is_timeout(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

/// `Patient` holds the deadlines, so hyper's own header timeout is off. The number of headers stays at hyper's default of
/// 100, which it parses without allocating; their size is what is bounded.
fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(16 << 10)
        .max_buf_size(64 << 10);
    builder
}

fn http2_settings(tasks: &Tasks) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Runs the streams of HTTP/2 connections as tasks with an owner.
#[derive(Clone)]
struct Streams(Tasks);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
