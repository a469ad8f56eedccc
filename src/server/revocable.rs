//! Response streams that end as soon as the caller's authorization is revoked, and release their
//! reservations when they end.

use futures_util::StreamExt;
use http::Response;
use http_body::Body as _;
use http_body_util::{BodyExt, BodyStream, StreamBody};

use crate::base::body::{self, Body};
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
        let revoked = revocation.revoked().clone().cancelled_owned();
        let until_revoked = BodyExt::boxed(StreamBody::new(BodyStream::new(body).take_until(revoked)));
        body::with_guard(until_revoked, (revocation.clone(), reservations))
    })
}
