//! The one body type of every answer this process gives.

use std::convert::Infallible;

use bytes::Bytes;
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
