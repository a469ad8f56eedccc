//! What the store keeps of one entry of the tenants folder, without its documents.

use std::sync::Arc;

use crate::base::digest::Digest;
use crate::spec::HeldClaim;

/// One entry, as it was last written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredEntry {
    /// The name of the entry's file or folder, without its extension.
    pub entry_id: String,
    /// Number and digest of the revision in force.
    pub live: Option<(u64, Digest)>,
    /// The highest revision number given so far.
    pub last_number: u64,
    /// Whether an operator has paused the entry.
    pub paused: bool,
    /// The digest of the files that an operator rolled back; the older revision stays in force
    /// until they change.
    pub pinned_against: Option<Digest>,
    /// The name and mounts it holds, whether or not its files are usable.
    pub claim: Option<Arc<HeldClaim>>,
    /// The digest of the files whose claim was refused.
    pub rejected_claim: Option<Digest>,
}
