//! The body of a request, as the connection sees it: whether it waits for the client, and whether
//! it was read to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};

use super::activity::{Activity, BodyReadGuard};
use crate::server::body::next_data;

/// How much of a refused request's body is read before the response, so that its connection can be
/// reused.
const MAX_DISCARDED_BYTES: usize = 64 << 10;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// A request body that reports when the server waits for it, and when it is dropped before its end.
pub(super) struct TrackedRequestBody<B: http_body::Body> {
    body: B,
    has_ended: bool,
    is_broken: bool,
    /// The client sends it only when asked to (RFC 9110 section 10.1.1).
    is_withheld: bool,
    reading: BodyReadGuard,
}

impl<B: http_body::Body> TrackedRequestBody<B> {
    /// Creates the body that belongs to this request head.
    pub(super) fn new(body: B, head: &HeaderMap, activity: Arc<Activity>) -> Self {
        let is_withheld = head.contains_key(header::EXPECT);
        Self {
            has_ended: body.is_end_stream(),
            is_broken: false,
            is_withheld,
            body,
            reading: BodyReadGuard::new(activity),
        }
    }

    /// Whether the whole body was read.
    pub(super) fn was_read(&self) -> bool {
        self.has_ended && !self.is_broken
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> TrackedRequestBody<B> {
    /// Reads on for a moment, so that a small refused request does not end its connection. Returns
    /// whether the body ended; if not, an HTTP/1 connection cannot be reused.
    pub(super) async fn discard_rest(&mut self) -> bool {
        // A client that waits for `100 Continue` is not asked for a body that will be dropped.
        let is_hopeless =
            self.is_broken || self.is_withheld || self.size_hint().lower() > MAX_DISCARDED_BYTES as u64;
        if !is_hopeless && !self.has_ended {
            let discarding = async {
                let mut discarded = 0;
                while let Ok(Some(more)) = next_data(self).await {
                    discarded += more.len();
                    if discarded > MAX_DISCARDED_BYTES {
                        break;
                    }
                }
            };
            // On a timeout the rest stays unread, which `was_read` reports.
            _ = tokio::time::timeout(DISCARD_TIMEOUT, discarding).await;
        }
        self.was_read()
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for TrackedRequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        this.has_ended |= matches!(polled, Poll::Ready(None)) || this.body.is_end_stream();
        this.is_broken |= matches!(polled, Poll::Ready(Some(Err(_))));
        // Polling asks the client for the body (`100 Continue`).
        this.is_withheld = false;
        this.reading.set_waiting(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: http_body::Body> Drop for TrackedRequestBody<B> {
    fn drop(&mut self) {
        if !self.was_read() {
            self.reading.mark_unread();
        }
    }
}
