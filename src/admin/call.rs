//! A request as the handler of its route gets it.

use bytes::Bytes;
use http::request::Parts;
use hyper::body::Incoming;

use super::Admin;
use super::caller::AdminCaller;
use super::request::{query_parameter, read_body};

/// A request whose caller may send it.
pub(super) struct Call<'a> {
    pub(super) admin: &'a Admin,
    /// Method, path and headers.
    pub(super) head: &'a Parts,
    /// The decoded segments in braces of the route's path.
    pub(super) segments: Vec<String>,
    pub(super) body: &'a mut Incoming,
    pub(super) caller: &'a AdminCaller,
}

impl Call<'_> {
    /// Returns a segment that the route's path has in braces, by its number.
    pub(super) fn segment(&self, number: usize) -> &str {
        &self.segments[number]
    }

    /// Returns the first query parameter of this name.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        query_parameter(self.head.uri.query(), name)
    }

    /// Reads the body of at most `max_bytes`, or returns `None` if it is larger or late.
    pub(super) async fn read_body(&mut self, max_bytes: usize) -> Option<Bytes> {
        read_body(&mut *self.body, max_bytes).await
    }
}
