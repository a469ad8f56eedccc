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
mod call;
mod client;
mod connector;
mod context_cache;
mod context_refresh;
mod error;
mod error_detail;
mod exchange;
mod fetch;
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

pub use address_guard::AddressRules;
pub use breaker::CircuitState;
pub use call::{BackendResponse, CallContext};
pub use client::BackendClient;
pub use context_cache::SemanticContext;
pub use context_refresh::ContextRefresher;
pub use error::Error;
pub use fetch::{FetchedResponse, fetch};
pub use pool::Pool;
pub use probe::probe;
pub use state::BackendState;
pub use trace::TraceContext;
