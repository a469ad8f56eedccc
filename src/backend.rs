//! Floor 2: a tenant's HTTP API. Calls are data ([`CallSpec`](crate::spec::CallSpec)); this module makes them.
//!
//! It owns the connection pool of the process ([`Pool`]), a tenant's way through it ([`Client`]), what of a tenant
//! outlives its reloads ([`Lasting`]), and the scheduler that fetches contexts in the background ([`WarmUp`]).
//!
//! It promises that every call ends by its deadline; that a dropped call is cancelled on the wire; that a call is sent
//! again only if it surely was not processed; that no connection carries calls of two tenants at once; that an API key reaches only the origin it is for, and no log, error or Debug
//! output; that one tenant's slow backend takes no more than its bulkhead; and that nobody reaches an address that the
//! settings don't allow. What an answer *means* it leaves to `mcp`.
//!
//! Only this module opens HTTP connections.

mod answer;
mod body;
mod breaker;
mod bulkhead;
mod client;
mod connector;
mod context_store;
mod error;
mod exchange;
mod guard;
mod lasting;
mod meter;
mod outgoing;
mod pool;
mod probe;
mod proxies;
mod room;
mod scrub;
mod trace;
mod warm_up;
mod workbench;

#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::time::Instant;

use crate::base::budget::Hold;
use crate::base::json::Document;

pub use client::Client;
pub use context_store::ContextStore;
pub use error::Error;
pub use guard::AddressRules;
pub use lasting::Lasting;
pub use pool::Pool;
pub use probe::probe;
pub use trace::TraceContext;
pub use warm_up::WarmUp;

/// Who asks, and how long it may take.
#[derive(Debug, Clone)]
pub struct Call {
    pub request_id: String,
    pub deadline: Instant,
    /// The signed-in user, sent if the tenant asks for it.
    pub user: Option<String>,
    /// The caller's trace, to pass on.
    pub trace: Option<TraceContext>,
    /// The caller showed a credential that was found good: the last part of the memory for answers is kept for those.
    pub has_credential: bool,
    /// Where the caller is, as [`network`](crate::base::reach::network) gives it: its share of that memory.
    pub network: Option<IpAddr>,
}

impl Call {
    /// A call that the gateway makes for itself.
    pub(crate) fn of_our_own(deadline: Instant) -> Self {
        let request_id = crate::base::random::hex::<16>();
        Self { request_id, deadline, user: None, trace: None, has_credential: true, network: None }
    }
}

/// What the backend said, and the memory that this takes.
#[derive(Debug)]
pub struct Answer {
    pub document: Document,
    pub hold: Hold,
}
