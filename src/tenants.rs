//! Floor 4: the life of tenants. Sees files and tenants, but no socket.
//!
//! A dropped file's way: a tick ([`watch`]) → quiet ([`pace`]) → what lies there and whether it is settled ([`scan`]) →
//! read and judged (`bundle`) → who may answer where ([`plan`]) → built ([`build`]) → published in one step
//! ([`registry`]) → announced (log, metrics, receipt, open streams). [`reconcile`] is the one task that walks it.
//!
//! Promises: an unchanged tenant keeps its very `Arc`; a bad change leaves the last good revision serving, unless it
//! might concern who may call; one tenant's failure reaches no other.

pub mod adding;
mod announce;
mod build;
mod companions;
mod drain;
mod holdings;
mod keeper;
mod kindred;
mod look;
mod pace;
pub mod plan;
mod published;
pub mod rate;
mod receipt;
pub mod reconcile;
pub mod registry;
mod roster;
mod scan;
pub mod status;
pub mod tenant;
mod watch;

pub use build::Parts;
pub use published::Published;
pub use reconcile::Reconciler;
