//! A call of a backend as its caller sees it: who calls, and what comes back.

use std::net::IpAddr;
use std::time::Instant;

use super::trace::TraceContext;
use crate::base::budget::Reservation;
use crate::base::json::JsonDocument;
use crate::base::random;
use crate::telemetry::otlp::SpanParent;

/// The caller of a request to a backend, and its deadline.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The id sent to the backend as `X-Request-Id`.
    pub request_id: String,
    /// The time at which the call fails with [`Error::TimedOut`](super::Error::TimedOut).
    pub deadline: Instant,
    /// The signed-in user, sent if the tenant's configuration asks for it.
    pub user: Option<String>,
    /// The caller's trace context, to pass on.
    pub trace: Option<TraceContext>,
    /// The span of the request that the call is made for, if it is traced.
    pub span: Option<SpanParent>,
    /// Whether the caller presented a valid credential, which opens the reserve of the response
    /// memory.
    pub has_credential: bool,
    /// The caller's network, as [`client_network`](crate::base::net::client_network) returns it;
    /// its share of the response memory is used.
    pub network: Option<IpAddr>,
}

impl CallContext {
    /// Creates a call on behalf of the gateway itself.
    pub(crate) fn internal(deadline: Instant) -> Self {
        let request_id = random::hex::<16>();
        Self {
            request_id,
            deadline,
            user: None,
            trace: None,
            span: None,
            has_credential: true,
            network: None,
        }
    }
}

/// A backend's response together with its memory reservation.
#[derive(Debug)]
pub struct BackendResponse {
    /// The body of the response.
    pub document: JsonDocument,
    /// The memory that the response occupies, released when dropped.
    pub reservation: Reservation,
}
