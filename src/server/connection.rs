//! One connection: its handshake, its protocol, its patience and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
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
use super::listener;
use super::patience::{Activity, Patient};
use super::tls::{self, Protocol};

/// Serves a connection until either side has had enough.
pub(super) async fn serve(edge: Arc<Edge>, stream: TcpStream, addr: SocketAddr) {
    listener::prepare(&stream);
    let Some(peer) = Peer::of(&stream, addr) else { return };
    let Some(config) = edge.tls.clone() else {
        return speak(edge, Protocol::Http1, stream, peer).await;
    };
    let deadline = seconds(edge.limits.handshake_seconds);
    // What a handshake needs is let go before a connection begins to wait; and a TLS stream is too large to be moved about.
    let nameless = edge.certificates.as_ref().map(|all| all.resolver_at(peer.local));
    let shaking = Box::pin(tls::handshake(stream, config, edge.challenges.clone(), nameless));
    let shaken = tokio::time::timeout(deadline, shaking).await;
    if let Ok(Ok(Some(stream))) = shaken {
        let sni = tls::server_name(&stream);
        let stopgap =
            edge.certificates.as_ref().is_some_and(|all| all.is_stopgap(sni.as_deref(), peer.local));
        let peer = Peer { sni, stopgap, ..peer };
        return speak(edge, tls::protocol(&stream), Box::new(stream), peer).await;
    }
    edge.metrics.connection_refused("handshake");
    // A scanner must not fill the disk.
    if let Some(unsaid) = edge.no_handshake.occasion(edge.clock.monotonic()) {
        let error = shaken.map_or_else(|late| Some(late.into()), Result::err);
        tracing::debug!(client.addr = %peer.addr, ?error, unsaid, "no TLS handshake");
    }
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
            let io = TokioIo::new(Patient::http1(stream, idle, head, Arc::clone(&line.activity)));
            let connection = http1_settings().serve_connection(io, service);
            Box::pin(line.attend(connection, std::future::pending())).await;
        }
        Protocol::Http2 => {
            let io = TokioIo::new(Patient::http2(stream, idle, head, Arc::clone(&line.activity)));
            let streams = Streams::default();
            let connection = http2_settings(streams.clone()).serve_connection(io, service);
            Box::pin(line.attend(connection, streams.run())).await;
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
    /// Boxed, since hyper keeps room for one answer in every connection, idle ones included.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let under_way = self.activity.begin();
        Box::pin(async move {
            let response = self.edge.answer(&self.peer, request).await;
            Ok(response.map(|body| Tracked::new(body, under_way)))
        })
    }

    /// Drives the connection and what goes with it; when it has been idle for long, or the process drains, what is under way is finished
    /// and nothing new is taken (HTTP/1: `Connection: close`; HTTP/2: GOAWAY). Who then still takes nothing is left.
    async fn attend<C>(&self, connection: C, streams: impl Future<Output = Infallible>)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let (mut connection, mut streams) = (pin!(connection), pin!(streams));
        // In this order: what the connection reads is begun at once.
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            never = streams.as_mut() => match never {},
            () = self.over() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    never = streams => match never {},
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
        if self.activity.is_overdue() {
            self.edge.metrics.connection_refused("header_timeout");
        }
        tracing::debug!(client.addr = %self.peer.addr, %error, "connection broken off");
    }
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

fn http2_settings(streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
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

type Answer = Pin<Box<dyn Future<Output = Result<Response<Tracked>, Infallible>> + Send>>;
type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of one HTTP/2 connection, run in its own task: each as a task of its own would cost more than most answers
/// do, in allocations and in wake-ups across threads. They end with their connection.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Vec<Stream>>>);

impl Streams {
    /// Runs what is there and what comes.
    async fn run(self) -> Infallible {
        let mut running = FuturesUnordered::new();
        std::future::poll_fn(move |context| {
            running.extend(self.begun());
            while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
            Poll::Pending
        })
        .await
    }

    fn begun(&self) -> Vec<Stream> {
        // Nobody panics while holding it.
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
