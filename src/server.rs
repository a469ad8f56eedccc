//! Floor 5: the public edge. Bytes in, a dispatched request, bytes out.
//!
//! [`Listeners::bind`] binds the sockets, [`Server::new`] takes the handles, [`Server::serve`]
//! starts accepting. A request passes these steps, each in a file of its own: `listener` (permit,
//! per-IP count) → `tls` (handshake deadline) → `connection` (HTTP/1.1 or HTTP/2 by ALPN,
//! deadlines, graceful drain) → `precheck` (refuses malformed and ambiguous requests) → `dispatch`
//! (finds the one tenant that owns the path) → `mcp_endpoint`, `oauth_endpoint` or `page` →
//! `response` (headers common to every response).
//!
//! The edge guarantees that no client input ends the process, holds a connection forever or reaches
//! a tenant that does not own the path; that a panic in a handler becomes a 500; and that no
//! response carries a secret. `crate::mcp` decides what a tenant answers, `crate::oauth` who may
//! call, `crate::tenants` which tenants exist.
//!
//! HTTP: RFC 9110 (semantics), 9112 (HTTP/1.1), 9113 (HTTP/2), 9457 (problem documents), and the
//! Fetch standard (CORS).

mod body;
mod budgets;
mod connection;
mod connection_limits;
mod cors;
mod dispatch;
mod http_redirect;
mod listener;
mod mcp_endpoint;
mod oauth_endpoint;
mod page;
pub(crate) mod precheck;
mod request;
mod response;
mod revocable;
#[cfg(test)]
mod tests;
mod timeouts;
mod tls;
mod write_batching;

pub use listener::{BindError, Listeners};
pub use request::{Server, ServerDeps};
