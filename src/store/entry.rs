//! What the store keeps of one entry of the tenants folder, its documents left out.

use std::sync::Arc;

use crate::base::digest::Digest;
use crate::spec::Holding;

/// One entry, as it was when it was last written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub stem: String,
    /// Number and digest of the last good revision.
    pub in_force: Option<(u64, Digest)>,
    /// The highest number that was given.
    pub last: u64,
    pub paused: bool,
    /// The digest of the files against which an older revision is held.
    pub held_against: Option<Digest>,
    /// What it holds, whether or not its files can be used.
    pub holding: Option<Arc<Holding>>,
    /// The digest of the files whose claim was refused.
    pub refused: Option<Digest>,
}
