//! The one body type of every answer this process gives, and the answers that are nothing more.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};

/// An answer's body. Errors cannot happen: whatever may fail has failed before the answer began.
pub type Body = BoxBody<Bytes, Infallible>;

/// A body that is wholly there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body of no bytes.
pub fn empty() -> Body {
    Empty::new().boxed()
}

/// An answer with a body of this type, and no further headers.
pub fn answer(status: StatusCode, content_type: HeaderValue, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An answer without a body.
pub fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}
