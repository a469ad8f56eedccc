//! What is remembered of an entry across restarts, and how its last good revision comes back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::base::digest::Digest;
use crate::bundle::{self, LoadOutcome, Presence, SecretFile, Snapshot};
use crate::spec::HeldClaim;
use crate::store::{LocalStore, StoredEntry};

/// The state of an entry that survives restarts.
#[derive(Default)]
pub(in crate::tenants) struct PersistedState {
    /// The number and digest of the revision that is, or was, in force.
    pub(super) in_force: Option<(u64, Digest)>,
    /// The highest number assigned so far.
    pub(super) last_number: u64,
    /// Whether an operator paused it.
    pub(super) is_paused: bool,
    /// An operator put an older revision in force, for as long as the files have this digest.
    pub(super) pinned_digest: Option<Digest>,
    /// The claim that it held when it was last in force. It stays reserved while the files exist,
    /// even if they cannot be used.
    pub(super) last_held: Option<Arc<HeldClaim>>,
    /// Since when it holds its claim.
    pub(super) held_since: Option<Timestamp>,
    /// The digest of the files whose claim was rejected. The claim stays rejected until they change
    /// or an operator accepts it.
    pub(super) rejected_digest: Option<Digest>,
}

/// The last good revision of an entry, to be restored if its files differ from it.
pub(in crate::tenants) struct LastGoodRevision {
    store: LocalStore,
    entry: StoredEntry,
}

/// The last good revision, restored and validated by today's rules.
pub(in crate::tenants) struct RestoredRevision {
    pub(super) number: u64,
    pub(super) loaded: LoadOutcome,
    pub(super) files: Arc<[PathBuf]>,
}

impl PersistedState {
    pub(in crate::tenants) fn from_stored(entry: StoredEntry) -> Self {
        let StoredEntry { live, last_number, paused, pinned_against, claim, rejected_claim, entry_id: _ } =
            entry;
        Self {
            in_force: live,
            last_number,
            is_paused: paused,
            pinned_digest: pinned_against,
            held_since: claim.as_ref().map(|claim| claim.since),
            last_held: claim,
            rejected_digest: rejected_claim,
        }
    }

    /// Whether an operator put an older revision in force instead of these files.
    pub(super) fn is_pinned(&self, on_disk: Option<Digest>) -> bool {
        self.pinned_digest.is_some() && self.pinned_digest == on_disk
    }
}

impl LastGoodRevision {
    pub(in crate::tenants) fn new(store: LocalStore, entry: StoredEntry) -> Self {
        Self { store, entry }
    }

    /// Restores the revision if the current files differ from it and none of its own files,
    /// including those with secrets, was deleted. Blocking.
    pub(in crate::tenants) fn restore(
        self,
        now: &LoadOutcome,
        files: &[PathBuf],
        root: &Path,
        context: &bundle::LoadContext,
    ) -> Option<RestoredRevision> {
        let (number, digest) = self.entry.live.filter(|(_, digest)| *digest != now.digest)?;
        let documents = match self.store.tables().load_documents(&self.entry.entry_id, number) {
            Ok(documents) => documents?,
            Err(error) => {
                tracing::error!(entry = self.entry.entry_id, %error, "the last good revision cannot be read");
                return None;
            }
        };
        let snapshot = Snapshot::decode(&documents)?;
        let (its_files, loaded) = (snapshot.files(root), bundle::load_snapshot(&snapshot, root, context));
        let is_pinned = self.entry.pinned_against == Some(now.digest);
        let was_deleted = |file: &SecretFile| {
            file.presence == Presence::Absent && loaded.secret_files.iter().any(|its| its.path == file.path)
        };
        let is_whole =
            its_files.iter().all(|file| files.contains(file)) && !now.secret_files.iter().any(was_deleted);
        let comes_back = (is_pinned || is_whole) && loaded.digest == digest && loaded.spec.is_some();
        comes_back.then_some(RestoredRevision { number, loaded, files: its_files.into() })
    }
}
