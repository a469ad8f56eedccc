//! Response streams that end as soon as the caller's authorization is revoked, and release their
//! reservations when they end.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::base::body::Body;
use crate::base::budget::Reservation;
use crate::oauth::bearer::CallRevocation;

/// Returns the response with a stream that ends when `revocation` is revoked and holds the call's
/// reservations until then. A response with a complete body is returned unchanged: its call is
/// over.
pub(super) fn make_revocable(
    response: Response<Body>,
    revocation: &CallRevocation,
    reservations: [Reservation; 2],
) -> Response<Body> {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let revoked = Box::pin(revocation.revoked().clone().cancelled_owned());
        RevocableBody { body, revoked, _revocation: revocation.clone(), _reservations: reservations }.boxed()
    })
}

struct RevocableBody {
    body: Body,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    _revocation: CallRevocation,
    _reservations: [Reservation; 2],
}

impl HttpBody for RevocableBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.revoked.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
