//! Floor 2: a tenant's HTTP API. Calls are data ([`crate::spec::CallSpec`]); this module makes them.
//!
//! It owns the one HTTP client of the process (connections pooled by origin), the check of the addresses it may
//! connect to, and what each tenant's calls are bounded by: deadline, bulkhead, breaker, response cap. It keeps the
//! semantic context of each tenant and warms it up in the background.
//!
//! A call is retried only when nothing was sent. Dropping a call's future cancels it down to the connection. No error
//! shows a key, a URL's query or a page of the backend.

mod address;
mod breaker;
mod client;
mod context;
mod error;
mod lasting;
mod pool;
mod warm_up;

use std::time::Instant;

use serde_json::Value;

pub use client::Client;
pub use error::Error;
pub use lasting::Lasting;
pub use pool::Pool;
pub use warm_up::WarmUp;

/// Who asks, and how long it may take.
#[derive(Debug, Clone)]
pub struct Call {
    /// Sent as `X-Request-Id`.
    pub request_id: String,
    /// Monotonic; the call fails with [`Error::TimedOut`] then.
    pub deadline: Instant,
    /// The signed-in user, sent if the tenant asks for it.
    pub user: Option<String>,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
}

/// What the backend said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub value: Value,
}
