//! What the server of every tenant does, whatever its source is: both eras of the protocol, the
//! stateless revision 2026-07-28 and the ones before it (with `initialize`), over HTTP.
//!
//! A request passes through [`message`] (checks it, explains rmcp's refusals), rmcp in [`service`],
//! [`handler`] (the protocol's methods), then [`call`] (one tool call) or [`resource`] (one read).
//! [`payload_slot`] writes the bytes of the answer into rmcp's message, and [`sse_fallback`] keeps
//! the connection alive during a slow call.

mod accept;
mod call;
mod current_caller;
mod handler;
mod in_flight;
pub(crate) mod message;
mod payload_slot;
mod progress;
mod request_info;
mod request_span;
mod resource;
mod rpc_error;
mod service;
mod sse_fallback;
mod subscriptions;
mod version;

pub(super) use in_flight::InFlightCounter;
pub(super) use service::{RmcpService, build, handle};
pub(super) use sse_fallback::respond_or_stream;
