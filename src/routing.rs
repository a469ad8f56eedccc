//! Floor 1: pure path logic. Which tenant a path belongs to, what of the tenant it asks for, and who may claim a prefix or host.
//!
//! Request paths are never decoded and re-interpreted: a spelling either is a tenant's path, byte for byte, or nobody's.
//! Discovery paths are those of RFC 8414 section 3.1, RFC 9728 section 3.1 and OpenID Connect Discovery section 4,
//! in front of a prefix and behind it.
//!
//! What a path owes to HTTP (method, headers, host spelling) is `server`'s; which claims are made is `tenants`'.

mod claims;
mod endpoint;
mod hosts;
mod path;
mod router;
#[cfg(test)]
mod tests;

pub use claims::{Claim, Conflict, ConflictKind, Places, against, judge};
pub use endpoint::{Document, Endpoint, Step};
pub use hosts::GatewayHosts;
pub use path::{PathFault, check_path};
pub use router::Router;
