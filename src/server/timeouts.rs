//! Timeouts of a connection: a slow request head, a response that the client does not read, and an
//! idle connection.
//!
//! hyper's own header timeout also runs between requests, so it cannot tell a slow head (seconds)
//! from an idle keep-alive connection (a minute). This one starts with the first byte of a head.

mod head_timer;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use self::head_timer::HeadTimer;
use crate::base::evicting_limiter::Evictable;

/// Writes up to this size may be HTTP/2 control frames (a PING has 17 bytes), so they do not show
/// that the client reads a response.
const CONTROL_BYTES: usize = 64;

/// The requests of one connection: how many began, how many are in flight, and whether the client
/// or the server has to act next.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    under_way: AtomicUsize,
    /// Requests in flight whose next chunk is ready but not taken: an HTTP/2 client may leave its
    /// flow-control window closed.
    offered: AtomicUsize,
    /// Requests in flight whose body is awaited.
    reading: AtomicUsize,
    /// At least one request carried a valid credential.
    has_credential: AtomicBool,
    /// Counts the chunks of responses that were taken.
    taken: AtomicU64,
    /// A request head took too long.
    overdue: AtomicBool,
    /// The bytes read last arrived while nothing was in flight, and do not form a request yet.
    beginning: AtomicBool,
    /// Written bytes may still be buffered.
    unflushed: AtomicBool,
    /// A request's body was dropped before its end, so the next bytes need not be a head.
    unread: AtomicBool,
}

/// A request in flight, until the last byte of its response was handed over.
#[derive(Debug)]
pub(super) struct InFlightRequest {
    activity: Arc<Activity>,
    offered: bool,
}

impl Activity {
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlightRequest {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.beginning.store(false, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        InFlightRequest { activity: Arc::clone(self), offered: false }
    }

    fn wrote(&self, bytes: usize) {
        if bytes > CONTROL_BYTES {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn moves(&self) -> (u64, u64) {
        (self.begun(), self.taken.load(Ordering::Relaxed))
    }

    /// Returns whether the server is working on a response, so that the client is not to blame for
    /// the silence.
    fn is_at_work(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > self.offered.load(Ordering::Relaxed)
    }

    /// Records that a request carried a valid credential.
    pub(super) fn set_credential(&self) {
        self.has_credential.store(true, Ordering::Relaxed);
    }

    /// Returns once a keep-alive connection has been between two requests, with all responses sent,
    /// for `pause` to twice that.
    pub(super) async fn wait_until_parkable(&self, pause: Duration) {
        let mut seen = None;
        loop {
            tokio::time::sleep(pause).await;
            let now = self.is_between_requests().then(|| self.begun());
            if now.is_some() && now == seen {
                return;
            }
            seen = now;
        }
    }

    fn is_between_requests(&self) -> bool {
        let none = |flag: &AtomicBool| !flag.load(Ordering::Relaxed);
        self.begun() > 0
            && !self.is_busy()
            && none(&self.beginning)
            && none(&self.unflushed)
            && none(&self.unread)
    }

    /// Whether more may come that belongs to no request that is answered.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// What was read last is no request, so what comes next need not be a head.
    pub(super) fn mark_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was cut since a head took too long.
    pub(super) fn is_head_timed_out(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Returns once there was no new request, no work and no chunk taken for `patience`, give or
    /// take an eighth. Returns after an eighth if responses wait to be taken and room for them is
    /// scarce.
    pub(super) async fn wait_until_idle(&self, patience: Duration, is_scarce: impl Fn() -> bool) {
        const PARTS: u32 = 8;
        let (mut seen, mut quiet) = (self.moves(), 0);
        while quiet <= PARTS {
            tokio::time::sleep(patience / PARTS).await;
            let moves = self.moves();
            let is_still = moves == seen;
            if is_still && self.offered.load(Ordering::Relaxed) > 0 && is_scarce() {
                return;
            }
            quiet = if self.is_at_work() || !is_still { 0 } else { quiet + 1 };
            seen = moves;
        }
    }
}

impl Evictable for Activity {
    fn waits(&self) -> bool {
        let clients = self.offered.load(Ordering::Relaxed) + self.reading.load(Ordering::Relaxed);
        self.under_way.load(Ordering::Relaxed) <= clients
    }

    fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }
}

/// A request body being read, until dropped.
#[derive(Debug)]
pub(super) struct BodyReadGuard {
    activity: Arc<Activity>,
    waits: bool,
}

impl BodyReadGuard {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        Self { activity, waits: false }
    }

    /// Sets whether the next chunk has to come from the client.
    pub(super) fn set_waiting(&mut self, waits: bool) {
        match (std::mem::replace(&mut self.waits, waits), waits) {
            (false, true) => _ = self.activity.reading.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.activity.reading.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Records that the body was dropped before its end.
    pub(super) fn mark_unread(&self) {
        self.activity.mark_unread();
    }
}

impl Drop for BodyReadGuard {
    fn drop(&mut self) {
        self.set_waiting(false);
    }
}

impl InFlightRequest {
    /// The next chunk is ready for the client to take.
    pub(super) fn mark_chunk_ready(&mut self) {
        if !self.offered {
            self.offered = true;
            self.activity.offered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The client took the chunk; the server has to produce the next one.
    pub(super) fn mark_chunk_taken(&mut self) {
        self.activity.taken.fetch_add(1, Ordering::Relaxed);
        self.withdraw();
    }

    fn withdraw(&mut self) {
        if self.offered {
            self.offered = false;
            self.activity.offered.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.withdraw();
        self.activity.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose reads and writes fail with [`io::ErrorKind::TimedOut`] when the other side is too
/// slow.
pub(super) struct TimeoutStream<S> {
    stream: S,
    head: HeadTimer,
    stall: LazyDeadline,
    activity: Arc<Activity>,
    /// Bytes that were read from `stream` and are to be read again.
    early: Vec<u8>,
}

impl<S> TimeoutStream<S> {
    /// Wraps an HTTP/1 stream: a head may take `head`, a write may block for `stall`.
    pub(super) fn http1(stream: S, stall: Duration, head: Duration, activity: Arc<Activity>) -> Self {
        let head = HeadTimer::http1(head, Arc::clone(&activity));
        Self { stream, head, stall: LazyDeadline::after(stall), activity, early: Vec::new() }
    }

    /// Wraps an HTTP/2 stream: the same for its preface and heads. Pings and the idle timeout cover
    /// the rest.
    pub(super) fn http2(stream: S, stall: Duration, head: Duration, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            head: HeadTimer::http2(head),
            stall: LazyDeadline::after(stall),
            activity,
            early: Vec::new(),
        }
    }
}

impl<S> TimeoutStream<S> {
    fn note(&self, written: &Poll<io::Result<usize>>) {
        self.activity.unflushed.store(true, Ordering::Relaxed);
        if let Poll::Ready(Ok(bytes)) = written {
            self.activity.wrote(*bytes);
        }
    }

    /// The stream that others wait for by deadlines of their own.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Has bytes read again.
    pub(super) fn push_prefix(&mut self, bytes: &[u8]) {
        self.early.extend_from_slice(bytes);
    }
}

impl<S: AsyncRead + Unpin> TimeoutStream<S> {
    /// Waits until a request begins, using almost no memory. Returns `false` if the other side
    /// closes instead.
    pub(super) async fn wait_for_request(&mut self) -> io::Result<bool> {
        if self.early.is_empty() {
            let mut first = [0; 16];
            let read = self.stream.read(&mut first).await?;
            self.push_prefix(&first[..read]);
        }
        Ok(!self.early.is_empty())
    }
}

/// A deadline without a timer until something waits for it.
struct LazyDeadline {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl LazyDeadline {
    fn after(after: Duration) -> Self {
        Self { after, sleep: None }
    }

    fn disarm(&mut self) {
        self.sleep = None;
    }

    /// Returns whether the deadline has passed; starts it if it isn't running.
    fn has_passed(&mut self, context: &mut Context<'_>) -> bool {
        let after = self.after;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        sleep.as_mut().poll(context).is_ready()
    }

    /// Returns a ready result as it is; turns a pending one into an error when the deadline has
    /// passed.
    fn bound<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.disarm();
            return polled;
        }
        if self.has_passed(context) {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        } else {
            Poll::Pending
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = match this.early.len().min(buffer.remaining()) {
            0 => Pin::new(&mut this.stream).poll_read(context, buffer),
            early => {
                buffer.put_slice(&this.early[..early]);
                this.early.drain(..early);
                Poll::Ready(Ok(()))
            }
        };
        if polled.is_ready() {
            this.head.on_read(&buffer.filled()[before..]);
            return polled;
        }
        if this.head.poll_expired(context) {
            this.activity.overdue.store(true, Ordering::Relaxed);
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        } else {
            Poll::Pending
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note(&polled);
        this.stall.bound(polled, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        if matches!(polled, Poll::Ready(Ok(()))) {
            this.activity.unflushed.store(false, Ordering::Relaxed);
        }
        this.stall.bound(polled, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(context);
        this.stall.bound(polled, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.note(&polled);
        this.stall.bound(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const STALL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_dribbling_head_is_cut_and_an_idle_connection_is_not() {
        let (mut client, server) = duplex(64);
        let activity = Arc::new(Activity::default());
        let mut server = TimeoutStream::http1(server, STALL, HEAD, Arc::clone(&activity));
        let mut byte = [0];
        client.write_all(b"G").await.expect("a byte");
        server.read_exact(&mut byte).await.expect("a byte");
        drop(activity.begin_request());
        let idle = tokio::time::timeout(HEAD * 5, server.read(&mut byte)).await;
        assert!(idle.is_err(), "an idle connection is not cut by the head's deadline");
        client.write_all(b"G").await.expect("a byte");
        server.read_exact(&mut byte).await.expect("a byte");
        #[expect(clippy::disallowed_methods, reason = "the test's clock is Tokio's, and stands still")]
        let started = Instant::now();
        let cut = server.read(&mut byte).await.expect_err("the head took too long");
        assert_eq!((cut.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, HEAD.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_longer_than_a_head() {
        let (mut client, server) = duplex(64);
        let activity = Arc::new(Activity::default());
        let mut server = TimeoutStream::http1(server, STALL, HEAD, Arc::clone(&activity));
        let under_way = activity.begin_request();
        let mut byte = [0];
        assert!(tokio::time::timeout(HEAD * 3, server.read(&mut byte)).await.is_err());
        client.write_all(b"x").await.expect("a byte");
        server.read_exact(&mut byte).await.expect("the body goes on");
        drop(under_way);
        assert!(
            tokio::time::timeout(HEAD * 3, server.read(&mut byte)).await.is_err(),
            "body bytes are no head"
        );
    }

    #[test]
    fn a_connection_waits_while_all_its_requests_are_the_clients_turn() {
        let activity = Arc::new(Activity::default());
        assert!(activity.waits());
        let (mut answered, asking) = (activity.begin_request(), activity.begin_request());
        let mut body = BodyReadGuard::new(Arc::clone(&activity));
        assert!(!activity.waits());
        answered.mark_chunk_ready();
        assert!(!activity.waits());
        body.set_waiting(true);
        assert!(activity.waits());
        answered.mark_chunk_taken();
        assert!(!activity.waits());
        drop((body, answered, asking));
        assert!(activity.waits());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up() {
        let (_client, server) = duplex(4);
        let mut server = TimeoutStream::http2(server, STALL, HEAD, Arc::default());
        let cut = server.write_all(b"too much").await.expect_err("nobody reads");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_is_not_idleness() {
        let activity = Arc::new(Activity::default());
        let under_way = activity.begin_request();
        assert!(tokio::time::timeout(STALL * 10, activity.wait_until_idle(STALL, || false)).await.is_err());
        drop(under_way);
        assert!(tokio::time::timeout(STALL / 2, activity.wait_until_idle(STALL, || false)).await.is_err());
        tokio::time::timeout(STALL * 5 / 4, activity.wait_until_idle(STALL, || false))
            .await
            .expect("idle is noticed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_offered_and_not_taken_is_idleness() {
        let activity = Arc::new(Activity::default());
        let (mut stuck, working) = (activity.begin_request(), activity.begin_request());
        stuck.mark_chunk_ready();
        assert!(
            tokio::time::timeout(STALL * 10, activity.wait_until_idle(STALL, || false)).await.is_err(),
            "one is worked on"
        );
        drop(working);
        tokio::time::timeout(STALL * 5 / 4, activity.wait_until_idle(STALL, || false))
            .await
            .expect("nothing moves");
        tokio::time::timeout(STALL / 6, activity.wait_until_idle(STALL, || true))
            .await
            .expect("room is scarce");
        stuck.mark_chunk_taken();
        assert!(
            tokio::time::timeout(STALL * 10, activity.wait_until_idle(STALL, || false)).await.is_err(),
            "it is our turn again"
        );
    }
}
