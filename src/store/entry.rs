//! What the store keeps of one entry of the tenants folder, without its documents.

use std::sync::Arc;

use crate::base::digest::Digest;
use crate::spec::Holding;

/// One entry, as it was last written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The name of the entry's file or folder, without its extension.
    pub stem: String,
    /// Number and digest of the revision in force.
    pub in_force: Option<(u64, Digest)>,
    /// The highest revision number given so far.
    pub last: u64,
    /// Whether an operator has paused the entry.
    pub paused: bool,
    /// The digest of the files that an operator rolled back; the older revision stays in force
    /// until they change.
    pub held_against: Option<Digest>,
    /// The name and mounts it holds, whether or not its files are usable.
    pub holding: Option<Arc<Holding>>,
    /// The digest of the files whose claim was refused.
    pub refused: Option<Digest>,
}
