//! Floor 2: the client for a tenant's HTTP API. A call is described by data
//! ([`CallSpec`](crate::spec::CallSpec)); this module executes it.
//!
//! It owns the connection pool of the process ([`Pool`]), the client of each tenant
//! ([`BackendClient`]), the state of a tenant that outlives reloads ([`BackendState`]), the kept
//! contexts of all tenants ([`SemanticContext`]), and the scheduler that fetches contexts in the
//! background ([`ContextRefresher`]).
//!
//! It guarantees that
//!
//! - every call ends by its deadline, and dropping a call cancels it on the wire;
//! - a request is resent only if it certainly was not processed;
//! - no connection carries calls of two tenants at once;
//! - an API key reaches only its own origin, and no log, error or `Debug` output;
//! - a slow backend takes up no more than its tenant's bulkhead;
//! - no connection goes to an address that the settings forbid.
//!
//! Interpreting responses is left to `mcp`. Only this module opens HTTP connections to backends.

mod address_guard;
mod answer;
mod body;
mod body_encoding;
mod breaker;
mod bulkhead;
mod client;
mod connector;
mod context_cache;
mod context_refresh;
mod error;
mod error_detail;
mod exchange;
mod meter;
mod offload;
mod pool;
mod probe;
mod proxies;
mod request;
mod response_budget;
mod state;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::time::Instant;

use crate::base::budget::Reservation;
use crate::base::json::JsonDocument;

pub use address_guard::AddressRules;
pub use client::BackendClient;
pub use context_cache::SemanticContext;
pub use context_refresh::ContextRefresher;
pub use error::Error;
pub use pool::Pool;
pub use probe::probe;
pub use state::BackendState;
pub use trace::TraceContext;

/// The caller of a request to a backend, and its deadline.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The id sent to the backend as `X-Request-Id`.
    pub request_id: String,
    /// The time at which the call fails with [`Error::TimedOut`].
    pub deadline: Instant,
    /// The signed-in user, sent if the tenant's configuration asks for it.
    pub user: Option<String>,
    /// The caller's trace context, to pass on.
    pub trace: Option<TraceContext>,
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
        let request_id = crate::base::random::hex::<16>();
        Self { request_id, deadline, user: None, trace: None, has_credential: true, network: None }
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
