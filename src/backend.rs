//! Floor 2: a tenant's HTTP API. Calls are data ([`crate::spec::CallSpec`]); this module makes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;

use crate::base::clock::Clock;
use crate::spec::{BackendSpec, CallSpec, LimitsSpec, Values};
use crate::telemetry::metrics::Metrics;

/// The one HTTP client of the process: connections pooled by origin, forbidden addresses refused when connecting.
#[derive(Debug, Clone)]
pub struct Pool {}

impl Pool {
    /// `allow` are networks that backends may be in although they are loopback or link-local; `own` are our listeners.
    pub fn new(
        _allow: Vec<IpNet>,
        _own: Vec<std::net::SocketAddr>,
        _clock: Arc<dyn Clock>,
        _metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        unimplemented!("owner: backend")
    }
}

/// Who asks, and how long it may take.
#[derive(Debug, Clone)]
pub struct Call {
    pub request_id: String,
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

/// Why a call failed. `Display` is the outside sentence: no key, no URL with a query, no stack.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the search service cannot be reached")]
    Unreachable,
    #[error("the search service did not answer in time")]
    TimedOut,
    #[error("the search service refused this server's API key")]
    KeyRefused,
    #[error("the search service is limiting requests")]
    RateLimited { retry_after: Option<Duration> },
    #[error("the search service refused the request (HTTP {status})")]
    Refused { status: u16, detail: Option<String> },
    #[error("the search service failed (HTTP {status})")]
    Failed { status: u16 },
    #[error("the search service gave an answer that is not JSON")]
    NotJson,
    #[error("the search service gave an answer larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the search service sent a redirect to another host")]
    RedirectRefused,
    #[error("the search service's address is not allowed here")]
    AddressRefused,
    #[error("too many calls of this tenant are under way")]
    Busy,
}

impl Error {
    /// A short class for metrics and logs: `unreachable`, `timed_out`, …
    pub fn class(&self) -> &'static str {
        unimplemented!("owner: backend")
    }
    /// What to do, for the person who asked or their operator.
    pub fn advice(&self) -> &'static str {
        unimplemented!("owner: backend")
    }
}

/// What outlives a reload of a tenant: its bulkhead and its last good context.
#[derive(Debug)]
pub struct Lasting {}

impl Lasting {
    pub fn new() -> Self {
        Self {}
    }
}

impl Default for Lasting {
    fn default() -> Self {
        Self::new()
    }
}

/// One tenant's way to its backend.
#[derive(Debug)]
pub struct Client {}

impl Client {
    pub fn new(
        _pool: Pool,
        _spec: &BackendSpec,
        _limits: &LimitsSpec,
        _context_ttl: Duration,
        _lasting: Arc<Lasting>,
    ) -> Self {
        unimplemented!("owner: backend")
    }

    /// Makes one call: bulkhead, deadline, safe retry, caps. Dropping the future cancels it.
    pub async fn call(&self, _spec: &CallSpec, _arguments: &Values, _call: &Call) -> Result<Answer, Error> {
        unimplemented!("owner: backend")
    }

    /// The semantic context: cached, refreshed by single flight, the last good one while the backend is down.
    pub async fn context(&self, _call: &Call) -> Result<Arc<Value>, Error> {
        unimplemented!("owner: backend")
    }

    /// The context as it is now, without asking anybody.
    pub fn known_context(&self) -> Option<Arc<Value>> {
        unimplemented!("owner: backend")
    }

    /// Whether the last call failed for the backend's fault, and how.
    pub fn trouble(&self) -> Option<String> {
        unimplemented!("owner: backend")
    }
}
