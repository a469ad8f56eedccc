//! Timeouts of a connection: a slow request head, a response that the client does not read, and an
//! idle connection.
//!
//! hyper's own header timeout also runs between requests, so it cannot tell a slow head (seconds)
//! from an idle keep-alive connection (a minute). This one starts with the first byte of a head.

mod head_timer;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use self::head_timer::HeadTimer;
use super::activity::Activity;

/// A stream whose reads and writes fail with [`io::ErrorKind::TimedOut`] when the other side is too
/// slow.
pub(super) struct TimeoutStream<S> {
    stream: S,
    head_timer: HeadTimer,
    write_deadline: LazyDeadline,
    activity: Arc<Activity>,
    /// Bytes that were read from `stream` and are to be read again.
    prefix: Vec<u8>,
}

impl<S> TimeoutStream<S> {
    /// Wraps an HTTP/1 stream: a head may take `head_timeout`, a write may block for
    /// `write_timeout`.
    pub(super) fn http1(
        stream: S,
        write_timeout: Duration,
        head_timeout: Duration,
        activity: Arc<Activity>,
    ) -> Self {
        let head_timer = HeadTimer::http1(head_timeout, Arc::clone(&activity));
        Self::new(stream, head_timer, write_timeout, activity)
    }

    /// Wraps an HTTP/2 stream: the same for its preface and heads. Pings and the idle timeout cover
    /// the rest.
    pub(super) fn http2(
        stream: S,
        write_timeout: Duration,
        head_timeout: Duration,
        activity: Arc<Activity>,
    ) -> Self {
        Self::new(stream, HeadTimer::http2(head_timeout), write_timeout, activity)
    }

    fn new(stream: S, head_timer: HeadTimer, write_timeout: Duration, activity: Arc<Activity>) -> Self {
        let write_deadline = LazyDeadline::after(write_timeout);
        Self { stream, head_timer, write_deadline, activity, prefix: Vec::new() }
    }

    fn record_write(&self, written: &Poll<io::Result<usize>>) {
        self.activity.set_unflushed(true);
        if let Poll::Ready(Ok(bytes)) = written {
            self.activity.record_written(*bytes);
        }
    }

    /// Returns the stream without its timeouts.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Has bytes read again.
    pub(super) fn push_prefix(&mut self, bytes: &[u8]) {
        self.prefix.extend_from_slice(bytes);
    }
}

impl<S: AsyncRead + Unpin> TimeoutStream<S> {
    /// Waits until a request begins, using almost no memory. Returns `false` if the other side
    /// closes instead.
    pub(super) async fn wait_for_request(&mut self) -> io::Result<bool> {
        if self.prefix.is_empty() {
            let mut first = [0; 16];
            let read = self.stream.read(&mut first).await?;
            self.push_prefix(&first[..read]);
        }
        Ok(!self.prefix.is_empty())
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
        let polled = match this.prefix.len().min(buffer.remaining()) {
            0 => Pin::new(&mut this.stream).poll_read(context, buffer),
            length => {
                buffer.put_slice(&this.prefix[..length]);
                this.prefix.drain(..length);
                Poll::Ready(Ok(()))
            }
        };
        if polled.is_ready() {
            this.head_timer.on_read(&buffer.filled()[before..]);
            return polled;
        }
        if this.head_timer.poll_expired(context) {
            this.activity.mark_head_timed_out();
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
        this.record_write(&polled);
        this.write_deadline.bound(polled, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        if matches!(polled, Poll::Ready(Ok(()))) {
            this.activity.set_unflushed(false);
        }
        this.write_deadline.bound(polled, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(context);
        this.write_deadline.bound(polled, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.record_write(&polled);
        this.write_deadline.bound(polled, context)
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

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_not_read_times_out() {
        let (_client, server) = duplex(4);
        let mut server = TimeoutStream::http2(server, STALL, HEAD, Arc::default());
        let cut = server.write_all(b"too much").await.expect_err("nobody reads");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }
}
