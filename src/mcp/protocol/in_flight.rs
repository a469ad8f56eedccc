//! Counts the requests in flight at a server, streams included.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::base::body::Body;

/// The number of requests in flight.
#[derive(Debug, Default)]
pub(in crate::mcp) struct InFlightCounter(Arc<AtomicUsize>);

/// One request in flight, until dropped.
#[derive(Debug)]
pub(in crate::mcp) struct InFlightGuard(Arc<AtomicUsize>);

impl InFlightCounter {
    pub(in crate::mcp) fn enter(&self) -> InFlightGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(Arc::clone(&self.0))
    }

    pub(in crate::mcp) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Wraps a streamed body that counts as in flight until it is dropped.
pub(super) fn count_body(body: Body, guard: InFlightGuard) -> Body {
    CountedBody { body, _guard: guard }.boxed()
}

struct CountedBody {
    body: Body,
    _guard: InFlightGuard,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
