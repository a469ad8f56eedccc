//! Floor 4: the life of tenants. Knows files and tenants, but no sockets.
//!
//! The path of a dropped file: an event ([`watch`]) → debouncing ([`pace`]) → the scan of its entry
//! and whether that has settled ([`scan`]) → loading (`bundle`) → the resolution of claims
//! ([`plan`]) → building ([`build`]) → publishing in one step ([`registry`]) → announcing (log,
//! metrics, status file, open streams). [`reconcile`] is the one task that runs all of it.
//!
//! Promises: an unchanged tenant keeps its `Arc`; after a bad change the last good revision goes on
//! serving, unless the change may concern who may call; one tenant's failure affects no other.

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
