//! What a client can read of an answer.

use http::Response;
use http::header::CONTENT_TYPE;

use crate::spec::SlowAnswers;

pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// What the client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAccept {
    /// The client accepts event streams by name; `*/*` is also sent by clients that do not support
    /// them.
    pub(crate) accepts_event_stream: bool,
}

impl ClientAccept {
    /// Returns what the tenant's `answers` leaves of it: with `json`, no answer becomes a stream.
    pub(crate) fn restrict(self, slow: SlowAnswers) -> Self {
        Self { accepts_event_stream: self.accepts_event_stream && slow == SlowAnswers::Stream }
    }
}

/// Returns whether the response is an event stream.
pub(super) fn is_event_stream<B>(response: &Response<B>) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM.as_bytes()))
}
