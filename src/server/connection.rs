//! One connection: handshake, protocol, timeouts and shutdown.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::body::{InFlightBody, TrackedRequestBody};
use super::budgets::Attribution;
use super::dispatch::{self, DispatchedResponse};
use super::request::ConnInfo;
use super::timeouts::{Activity, TimeoutStream};
use super::tls::{self, Protocol, Shaken};
use super::write_batching::{BatchFlusher, BatchedStream, batch_writes};
use super::{Server, response};
use crate::base::evicting_limiter::Evictable;
use crate::base::linger;

/// An HTTP/1 connection rests once it has been idle for this long, at most twice as long.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Serves a connection until either side closes it.
pub(super) async fn serve(edge: Arc<Server>, stream: TcpStream, addr: SocketAddr, activity: Arc<Activity>) {
    set_nodelay(&stream);
    let Some(peer) = ConnInfo::from_stream(&stream, addr) else { return };
    let Some(config) = edge.tls.clone() else {
        return Connection::new(edge, peer, activity).serve_protocol(Protocol::Http1, stream).await;
    };
    let deadline = seconds(edge.limits.handshake_seconds);
    // Boxed: this frees the state of the handshake before the connection becomes idle, and a TLS
    // stream is too large to move around.
    let nameless = edge.certificates.as_ref().map(|all| all.resolver_for_address(peer.local_ip));
    let shaking = Box::pin(tls::handshake(stream, config, edge.acme_challenge_tls.clone(), nameless));
    let shaken = tokio::time::timeout(deadline, shaking).await;
    let failed = match shaken {
        Ok(Ok(Shaken::Tls(stream))) => return speak_tls(edge, stream, peer, activity).await,
        Ok(Ok(Shaken::Told(stream))) => {
            Connection::new(Arc::clone(&edge), peer.clone(), activity).linger(stream).await;
            None
        }
        Ok(Ok(Shaken::Challenged)) => None,
        Ok(Err(error)) => Some(error),
        Err(late) => Some(late.into()),
    };
    edge.metrics.record_refused_connection("handshake");
    // Rate-limited, so that a scanner cannot fill the disk.
    if let Some(unsaid) = edge.handshake_log_limiter.check(edge.clock.monotonic()) {
        tracing::debug!(client.addr = %peer.addr, error = ?failed, unsaid, "no TLS handshake");
    }
}

async fn speak_tls(
    edge: Arc<Server>,
    stream: Box<TlsStream<TcpStream>>,
    peer: ConnInfo,
    activity: Arc<Activity>,
) {
    let sni = tls::server_name(&stream);
    let stopgap =
        edge.certificates.as_ref().is_some_and(|all| all.is_placeholder(sni.as_deref(), peer.local_ip));
    let peer = ConnInfo { sni, has_placeholder_certificate: stopgap, ..peer };
    Connection::new(edge, peer, activity).serve_protocol(tls::negotiated_protocol(&stream), stream).await;
}

/// How a connection's conversation ended.
enum Ended {
    /// The connection is parked until the client sends its next request.
    Rests,
    /// One side ended it.
    Over,
    /// The client takes no response.
    Left,
}

/// The state shared by the requests of one connection.
pub(super) struct Connection {
    edge: Arc<Server>,
    peer: ConnInfo,
    activity: Arc<Activity>,
}

impl Connection {
    pub(super) fn new(edge: Arc<Server>, peer: ConnInfo, activity: Arc<Activity>) -> Arc<Self> {
        Arc::new(Self { edge, peer, activity })
    }

    /// Serves `protocol` on the stream until either side closes it.
    pub(super) async fn serve_protocol<S>(self: Arc<Self>, protocol: Protocol, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.edge.limits;
        let (idle, head) = (seconds(limits.idle_seconds), seconds(limits.header_seconds));
        let activity = Arc::clone(&self.activity);
        match protocol {
            Protocol::Http1 => self.converse(TimeoutStream::http1(stream, idle, head, activity)).await,
            Protocol::Http2 => {
                let (stream, uncork) = batch_writes(TimeoutStream::http2(stream, idle, head, activity));
                Box::pin(self.multiplex(stream, uncork)).await;
            }
        }
    }

    /// Boxed, since hyper keeps room for one answer in every connection, idle ones included.
    fn answer(self: Arc<Self>, request: Request<Incoming>, streams: Option<StreamTasks>) -> RespondFuture {
        let under_way = self.activity.begin_request();
        Box::pin(async move {
            let version = request.version();
            let (head, body) = request.into_parts();
            let mut asked = TrackedRequestBody::new(body, &head.headers, Arc::clone(&self.activity));
            let request = Request::from_parts(head, &mut asked);
            let DispatchedResponse { mut response, reservation: room, has_credential } =
                dispatch::handle(&self.edge, &self.peer, request).await;
            if has_credential {
                self.activity.set_credential();
            }
            match streams {
                _ if asked.was_read() => {}
                Some(streams) => self.let_go_on(asked, &streams),
                None if asked.pass_over().await => {}
                None => response::close_connection(&mut response, version),
            }
            let (head, body) = response.into_parts();
            let body = InFlightBody::new(body, &head.headers, under_way, room);
            Ok(Response::from_parts(head, body))
        })
    }

    /// Reads and drops the rest of a stream's body while its response is sent, if a lingering slot
    /// is free. Otherwise the stream is reset.
    fn let_go_on(&self, asked: TrackedRequestBody<Incoming>, streams: &StreamTasks) {
        let Some(place) = self.edge.budgets.linger(&self.parties()) else { return };
        streams.push(async move {
            linger::over_body(asked, || place.of_its_network()).await;
        });
    }

    fn parties(&self) -> Attribution {
        Attribution::new(self.peer.addr.ip(), None).with_credential(self.activity.has_credential())
    }

    fn service(
        self: &Arc<Self>,
        streams: Option<StreamTasks>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<InFlightBody>,
        Error = Infallible,
        Future = RespondFuture,
    > + use<> {
        let line = Arc::clone(self);
        service_fn(move |request| Arc::clone(&line).answer(request, streams.clone()))
    }

    /// Serves HTTP/1.1. Between requests it drops hyper's connection state, which is most of the
    /// memory that a connection takes.
    async fn converse<S>(self: Arc<Self>, mut stream: TimeoutStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        while let Some(resting) = Box::pin(self.exchange(stream)).await {
            stream = resting;
            let awake = tokio::select! {
                biased;
                awake = stream.wait_for_request() => matches!(awake, Ok(true)),
                () = self.over() => false,
            };
            if !awake {
                // The client may have disconnected already, so an error here is expected.
                let _gone = stream.shutdown().await;
                return;
            }
        }
    }

    /// Answers requests until the connection ends (`None`) or rests (the stream, with unparsed
    /// bytes put back).
    async fn exchange<S>(self: &Arc<Self>, stream: TimeoutStream<S>) -> Option<TimeoutStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connection = http1_settings().serve_connection(TokioIo::new(stream), self.service(None));
        let rest = self.activity.wait_until_parkable(REST_AFTER);
        let ended = self.attend(Pin::new(&mut connection), std::future::pending(), rest).await;
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        let is_unread = self.activity.is_unread() || !parts.read_buf.is_empty();
        match ended {
            Ended::Rests => {
                stream.push_prefix(&parts.read_buf);
                return Some(stream);
            }
            Ended::Over if is_unread => self.linger(stream.into_inner()).await,
            Ended::Over | Ended::Left => {}
        }
        None
    }

    /// Lingers, so that a refused client that is still sending can read the refusal.
    async fn linger<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        if let Some(place) = self.edge.budgets.linger(&self.parties()) {
            linger::over(stream, || place.of_its_network()).await;
        }
    }

    /// Serves HTTP/2, with its streams and its buffered writes driven in the same task.
    async fn multiplex<S>(self: Arc<Self>, stream: BatchedStream<S>, uncork: BatchFlusher<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let streams = StreamTasks::default();
        let connection = http2_settings(streams.clone())
            .serve_connection(TokioIo::new(stream), self.service(Some(streams.clone())));
        let beside = async {
            tokio::select! {
                biased;
                never = streams.run() => match never {},
                error = uncork.run() => error,
            }
        };
        self.attend(pin!(connection), beside, std::future::pending()).await;
    }

    /// Drives the connection and its companion future. After long idleness, or when the process
    /// drains, requests in flight are finished and no new ones accepted (HTTP/1: `Connection:
    /// close`; HTTP/2: GOAWAY). A client that then still takes no response is disconnected.
    async fn attend<C>(
        &self,
        mut connection: Pin<&mut C>,
        beside: impl Future<Output = io::Error>,
        rest: impl Future<Output = ()>,
    ) -> Ended
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut beside = pin!(beside);
        // In this order: requests that the connection has read start at once, then its writes are
        // flushed.
        tokio::select! {
            biased;
            ended = connection.as_mut() => self.report_end(ended),
            error = beside.as_mut() => self.report(Some(error)),
            () = rest => return Ended::Rests,
            () = self.over() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => self.report_end(ended),
                    error = beside => self.report(Some(error)),
                    () = self.idle() => {
                        self.leave();
                        return Ended::Left;
                    }
                }
            }
        }
        Ended::Over
    }

    /// Returns once the connection should shut down: the process drains, or the connection is idle.
    async fn over(&self) {
        tokio::select! {
            () = self.edge.tasks.soft().cancelled() => {}
            () = self.idle() => {}
        }
    }

    async fn idle(&self) {
        let is_scarce = || self.edge.budgets.responses.is_under_pressure_from(self.peer.addr.ip());
        self.activity.wait_until_idle(seconds(self.edge.limits.idle_seconds), is_scarce).await;
    }

    fn leave(&self) {
        self.edge.metrics.record_refused_connection("stalled");
        tracing::debug!(client.addr = %self.peer.addr, "connection left: its client takes no answer");
    }

    fn report_end(&self, ended: Result<(), hyper::Error>) {
        if ended.as_ref().is_err_and(hyper::Error::is_parse) {
            // hyper has answered a malformed head itself.
            self.activity.mark_unread();
        }
        self.report(ended.err());
    }

    fn report<E: std::error::Error>(&self, broken: Option<E>) {
        let Some(error) = broken else { return };
        if self.activity.is_head_timed_out() {
            self.edge.metrics.record_refused_connection("header_timeout");
        }
        tracing::debug!(client.addr = %self.peer.addr, %error, "connection broken off");
    }
}

/// hyper's own header timeout is off because `TimeoutStream` holds the deadlines. The number of
/// headers stays at hyper's default of 100, which hyper parses without allocating; their size is
/// bounded here.
fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(16 << 10)
        .max_buf_size(64 << 10);
    builder
}

fn http2_settings(streams: StreamTasks) -> http2::Builder<StreamTasks> {
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

type RespondFuture = Pin<Box<dyn Future<Output = Result<Response<InFlightBody>, Infallible>> + Send>>;
type StreamTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of one HTTP/2 connection, run in its own task: a task for each would cost more than
/// most responses do, in allocations and in wake-ups across threads. They end with their
/// connection.
#[derive(Clone, Default)]
struct StreamTasks(Arc<Mutex<Vec<StreamTask>>>);

impl StreamTasks {
    /// Runs the queued streams, and those that are added while it is polled.
    async fn run(self) -> Infallible {
        let mut running = FuturesUnordered::new();
        std::future::poll_fn(move |context| {
            loop {
                running.extend(self.begun());
                while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
                // What ran may have begun more.
                if self.is_empty() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn push(&self, stream: impl Future<Output = ()> + Send + 'static) {
        self.lock().push(Box::pin(stream));
    }

    fn begun(&self) -> Vec<StreamTask> {
        std::mem::take(&mut *self.lock())
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StreamTask>> {
        // No code panics while holding this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.push(stream);
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Sets `TCP_NODELAY`, so that small responses leave at once.
fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::server::tests::{TestServer, get, post, start};
    use crate::settings::Limits;

    /// A connection in memory; the test's clock is paused.
    fn connected(gateway: &TestServer) -> (Arc<Connection>, TimeoutStream<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        let activity = Arc::new(Activity::default());
        let peer = ConnInfo {
            addr: gateway.addr,
            local_ip: gateway.addr.ip(),
            sni: None,
            has_placeholder_certificate: false,
        };
        let stream = TimeoutStream::http1(far, seconds(60), seconds(10), Arc::clone(&activity));
        (Arc::new(Connection { edge: Arc::clone(&gateway.edge), peer, activity }), stream, near)
    }

    /// Returns whether a request begins, rather than the stream ending.
    async fn wakes(stream: &mut TimeoutStream<DuplexStream>) -> bool {
        let woken = tokio::time::timeout(seconds(10), stream.wait_for_request()).await;
        woken.expect("bytes or an end come").expect("an end is no error")
    }

    /// Counts the responses that have arrived, once no more follow.
    async fn answers(near: &mut DuplexStream) -> usize {
        let mut all = Vec::new();
        let reading = near.read_to_end(&mut all);
        let _nothing_more = tokio::time::timeout(Duration::from_millis(100), reading).await;
        String::from_utf8_lossy(&all).matches("HTTP/1.1 404").count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_between_requests_and_goes_on() {
        let gateway = start(Limits::default());
        let (line, mut stream, mut near) = connected(&gateway);
        for request in [get("/a"), post("content-length: 0\r\n", ""), get("/b")] {
            near.write_all(request.as_bytes()).await.expect("sent");
            assert!(wakes(&mut stream).await);
            stream = line.exchange(stream).await.expect("it rests");
            assert_eq!(answers(&mut near).await, 1, "{request}");
        }
        drop(near);
        assert!(!wakes(&mut stream).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_came_with_the_last_one_is_not_lost() {
        let gateway = start(Limits::default());
        let (line, stream, mut near) = connected(&gateway);
        let (whole, half) = (get("/a"), &get("/b")[..10]);
        near.write_all([&whole, half].concat().as_bytes()).await.expect("sent");
        let mut stream = line.exchange(stream).await.expect("it rests");
        assert_eq!(answers(&mut near).await, 1);
        assert!(wakes(&mut stream).await);
        near.write_all(&get("/b").as_bytes()[10..]).await.expect("sent");
        line.exchange(stream).await.expect("it rests");
        assert_eq!(answers(&mut near).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_does_not_rest_within_a_request_or_on_a_body_that_was_not_read() {
        let gateway = start(Limits::default());
        for begun in [
            "GET /a".to_owned(),
            post("content-length: 99\r\n", "{}"),
            post("transfer-encoding: chunked\r\n", "2\r\n{}\r\n"),
        ] {
            let (line, stream, mut near) = connected(&gateway);
            near.write_all(get("/first").as_bytes()).await.expect("sent");
            let sending = async {
                tokio::time::sleep(REST_AFTER / 2).await;
                near.write_all(begun.as_bytes()).await.expect("sent");
            };
            let resting = tokio::time::timeout(seconds(300), line.exchange(stream));
            let (rests, ()) = tokio::join!(resting, sending);
            assert!(matches!(rests, Ok(None)), "{begun}");
        }
    }
}
