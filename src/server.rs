//! Floor 5: the public edge. Bytes in, a dispatched request, bytes out.
//!
//! [`Listeners::bind`] takes the sockets, [`Edge::new`] the handles, [`Edge::serve`] starts accepting. A request's way,
//! each step in a file of its own: `listener` (permit, per-IP count) → `tls` (deadline) → `connection` (HTTP/1.1 or
//! HTTP/2 by ALPN, deadlines that fire, graceful drain) → `front` (refuses what is malformed or ambiguous) → `dispatch`
//! (the one tenant whose path it is) → `mcp`, `login` or `page` → `reply` (headers that every answer has).
//!
//! It promises that nothing a client sends ends the process, holds a connection for ever, or is answered by a tenant
//! whose path it is not; that a panic below becomes a 500; and that no answer carries a secret. What a tenant answers is
//! `crate::mcp`'s; who may call, `crate::oauth`'s; which tenants exist, `crate::tenants`'.
//!
//! HTTP: RFC 9110 (semantics), 9112 (HTTP/1.1), 9113 (HTTP/2), 9457 (problem documents), and the Fetch standard (CORS).

mod body;
mod budgets;
mod connection;
mod context;
mod cork;
mod cors;
mod dispatch;
pub(crate) mod front;
mod limits;
mod listener;
mod login;
mod mcp;
mod page;
mod patience;
mod plain;
mod reply;
mod revocable;
#[cfg(test)]
mod tests;
mod tls;

pub use context::{Edge, Handles};
pub use listener::{BindError, Listeners};
