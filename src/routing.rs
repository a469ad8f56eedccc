//! Floor 1: pure path logic. Decides which tenant and endpoint a path belongs to, and which tenant
//! may claim a prefix or host.
//!
//! Request paths are never decoded and interpreted again: a path either is a tenant's path, byte
//! for byte, or belongs to no tenant. Discovery paths are those of RFC 8414 section 3.1, RFC 9728
//! section 3.1 and OpenID Connect Discovery section 4, both in front of a prefix and behind it.
//!
//! The HTTP side of a path (method, headers, spelling of the host) belongs to `server`; the claims
//! come from `tenants`.

mod conflicts;
mod endpoint;
mod hosts;
mod mount_index;
mod mount_key;
mod path;
mod router;
#[cfg(test)]
mod tests;

pub use conflicts::{ConflictKind, MountClaim, MountConflict, check_against, find_conflicts};
pub use endpoint::{DiscoveryDocument, Endpoint, OAuthEndpoint};
pub use hosts::GatewayHosts;
pub use mount_index::MountIndex;
pub use path::{PathError, check_path};
pub use router::{ListenerRoutes, Router};
