//! Floor 4: the life of tenants. Knows files and tenants, but no sockets.
//!
//! The path of a dropped file: an event ([`watch`]) → debouncing ([`debounce`]) → the scan of its
//! entry ([`scan`]) and whether that is stable ([`stability`]) → loading (`bundle`) → the
//! resolution of claims ([`claims`]) → building ([`build`]) → publishing in one step ([`registry`])
//! → announcing (log, metrics, status file, open streams). [`reconcile`] is the one task that runs
//! all of it.
//!
//! Promises: an unchanged tenant keeps its `Arc`; after a bad change the last good revision goes on
//! serving, unless the change may concern who may call; one tenant's failure affects no other.

mod announce;
mod build;
mod claim_index;
pub mod claims;
pub mod cluster_view;
mod data_index;
mod debounce;
mod drain;
mod entry;
mod entry_reporter;
mod expiry;
#[cfg(feature = "kube")]
pub mod kubernetes;
mod lookalikes;
mod published_entry;
pub mod reconcile;
pub mod registry;
mod revision_writer;
mod scan;
mod secret_findings;
mod source;
mod stability;
pub mod status;
mod status_file;
pub mod tenant;
mod tool_changes;
mod usage_file;
mod watch;

pub use build::TenantDeps;
pub use expiry::{ExpiringCredential, Expiry, expiries};
pub use published_entry::PublishedEntry;
pub use reconcile::ReconcilerHandle;
pub use source::TenantsSource;
pub use tool_changes::ToolChange;
