//! Slow responses. A response that is ready soon is sent as it is; otherwise the client gets an
//! event stream whose comments keep the connection alive until the only event, rmcp's JSON, is
//! ready.
//!
//! In JSON mode nothing, not even headers, reaches a client before the response, and clients and
//! load balancers give up on silence. Dropping the stream drops the pending response, which cancels
//! the call.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::time::Sleep;

use super::accept::{ClientAccept, EVENT_STREAM, is_event_stream};
use super::in_flight::InFlightGuard;
use crate::base::body::{self, Body};
use crate::mcp::timing::Timing;

const COMMENT: &[u8] = b": waiting for the answer\n\n";

/// A response that is not ready yet.
pub(in crate::mcp) type PendingResponse = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Waits for the response for a moment, then starts a stream if the client can read one.
pub(in crate::mcp) async fn respond_or_stream(
    mut pending: PendingResponse,
    accept: ClientAccept,
    timing: &Timing,
    guard: InFlightGuard,
) -> Response<Body> {
    if !accept.accepts_event_stream {
        return count_stream(pending.await, guard);
    }
    match tokio::time::timeout(timing.stream_after, &mut pending).await {
        Ok(response) => count_stream(response, guard),
        Err(_late) => stream_response(SseFallback::new(pending, timing.keep_alive_interval).boxed(), guard),
    }
}

fn count_stream(response: Response<Body>, guard: InFlightGuard) -> Response<Body> {
    if is_event_stream(&response) { response.map(|body| body::with_guard(body, guard)) } else { response }
}

fn stream_response(body: Body, guard: InFlightGuard) -> Response<Body> {
    let mut response = Response::new(body::with_guard(body, guard));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A stream of comments that ends with the response.
struct SseFallback {
    /// Never locked: bodies must be `Sync`, and a future within a mutex is.
    state: Mutex<SseState>,
    comment: Pin<Box<Sleep>>,
    interval: Duration,
}

enum SseState {
    Waiting(PendingResponse),
    /// The response is JSON, sent as one event; the flag says whether the event has begun.
    Event(Body, bool),
    /// The response is itself a stream.
    PassThrough(Body),
    Ended,
}

impl SseFallback {
    fn new(pending: PendingResponse, interval: Duration) -> Self {
        // The first comment is due at once, since it carries the headers through buffering proxies.
        let comment = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { state: Mutex::new(SseState::Waiting(pending)), comment, interval }
    }

    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        ready!(self.comment.as_mut().poll(cx));
        self.comment = Box::pin(tokio::time::sleep(self.interval));
        // Registers the new timer with this task; otherwise nothing would wake it.
        let _not_yet = self.comment.as_mut().poll(cx);
        Poll::Ready(Bytes::from_static(COMMENT))
    }

    fn state(&mut self) -> &mut SseState {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SseState {
    /// Returns the next chunk, or `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self {
                Self::Waiting(pending) => *self = Self::from(ready!(pending.as_mut().poll(cx))),
                Self::PassThrough(body) => return poll_data(body, cx),
                Self::Event(body, has_begun) => match ready!(poll_data(body, cx)) {
                    Some(data) if *has_begun => return Poll::Ready(Some(data)),
                    Some(data) => {
                        *has_begun = true;
                        return Poll::Ready(Some(begin_event(&data)));
                    }
                    None => {
                        let end = has_begun.then(|| Bytes::from_static(b"\n\n"));
                        *self = Self::Ended;
                        return Poll::Ready(end);
                    }
                },
                Self::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl From<Response<Body>> for SseState {
    fn from(response: Response<Body>) -> Self {
        if is_event_stream(&response) {
            Self::PassThrough(response.into_body())
        } else {
            Self::Event(response.into_body(), false)
        }
    }
}

fn poll_data(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(data));
                }
            }
        }
    }
}

/// Returns the beginning of an event with JSON data. The JSON has no line breaks: rmcp writes it
/// compactly, and documents are compact.
fn begin_event(json: &[u8]) -> Bytes {
    [b"event: message\ndata: ", json].concat().into()
}

impl HttpBody for SseFallback {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let waits = match self.state().poll_piece(cx) {
            Poll::Ready(piece) => return Poll::Ready(piece.map(Frame::data).map(Ok)),
            Poll::Pending => matches!(self.state(), SseState::Waiting(_)),
        };
        if !waits {
            return Poll::Pending;
        }
        self.poll_comment(cx).map(|comment| Some(Ok(Frame::data(comment))))
    }
}
