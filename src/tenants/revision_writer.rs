//! The persistent state of entries, as the reconciler needs it: the records of entries when the
//! process started, and the changes that were not written yet.
//!
//! A store that cannot be written stops nothing: the changes wait here, and every pass tries again
//! to write them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::PersistedState;
use crate::bundle::{self, LoadOutcome, Named, Presence, Snapshot};
use crate::spec::HeldClaim;
use crate::store::{AcceptedRevision, EntryChange, EntryClaims, Store, StoredEntry};

/// The records that were read, and the changes to write.
pub(super) struct RevisionWriter {
    store: Option<Arc<Store>>,
    /// The records of entries that were not seen since the process started.
    unseen: HashMap<Arc<str>, StoredEntry>,
    pending: BTreeMap<Arc<str>, PendingChanges>,
    is_failing: bool,
}

/// The changes of one entry that are not written, in the order of writing.
#[derive(Default)]
struct PendingChanges {
    /// A new revision, or the entry's removal.
    revision: Option<EntryChange>,
    claims: Option<EntryChange>,
}

impl PendingChanges {
    fn changes(&self) -> impl Iterator<Item = &EntryChange> {
        self.revision.iter().chain(&self.claims)
    }
}

/// The last good revision of an entry, to be restored if its files differ from it.
pub(super) struct LastGoodRevision {
    store: Arc<Store>,
    entry: StoredEntry,
}

/// The last good revision, restored and validated by today's rules.
pub(super) struct RestoredRevision {
    pub(super) number: u64,
    pub(super) loaded: LoadOutcome,
    pub(super) files: Arc<[PathBuf]>,
}

impl RevisionWriter {
    pub(super) fn new(store: Option<Arc<Store>>, entries: Vec<StoredEntry>) -> Self {
        let kept = entries.into_iter().map(|entry| (entry.entry_id.as_str().into(), entry)).collect();
        Self { store, unseen: kept, pending: BTreeMap::new(), is_failing: false }
    }

    pub(super) fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// Returns the claims of entries that were not seen since the process started.
    pub(super) fn unseen_claims(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<HeldClaim>)> {
        self.unseen.iter().filter_map(|(stem, entry)| Some((stem, entry.claim.as_ref()?)))
    }

    /// Removes and returns the record of an entry that is seen for the first time.
    pub(super) fn take_persisted(&mut self, stem: &str) -> PersistedState {
        self.unseen.remove(stem).map(PersistedState::from_stored).unwrap_or_default()
    }

    /// Returns the last good revision of an entry that was not seen yet.
    pub(super) fn find_last_good(&self, stem: &str) -> Option<LastGoodRevision> {
        let entry = self.unseen.get(stem).filter(|entry| entry.live.is_some())?;
        Some(LastGoodRevision { store: Arc::clone(self.store.as_ref()?), entry: entry.clone() })
    }

    /// Whether every entry with a record has been seen.
    pub(super) fn has_seen_all(&self) -> bool {
        self.unseen.is_empty()
    }

    /// Forgets entries that are not in the folder: they were deleted before they were seen, so they
    /// do not come back and what they held is free. Returns their stems.
    pub(super) fn remove_absent(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let has_left = |entry: &StoredEntry| {
            !is_there(&entry.entry_id) && *entry != pause_only_entry(&entry.entry_id, true)
        };
        let left = self.unseen.extract_if(|_, entry| has_left(entry));
        let left: Vec<_> = left.map(|(stem, entry)| (stem, entry.paused)).collect();
        left.iter().for_each(|(stem, paused)| self.enqueue_removal(stem, *paused));
        left.into_iter().map(|(stem, _)| stem).collect()
    }

    /// Queues a revision that is in force now.
    pub(super) fn enqueue_revision(&mut self, stem: &Arc<str>, accepted: AcceptedRevision) {
        if self.store.is_some() {
            self.pending.entry(Arc::clone(stem)).or_default().revision = Some(EntryChange::Accept(accepted));
        }
    }

    /// Queues a change of what an entry holds, or of which of its claims was refused.
    pub(super) fn enqueue_claims(&mut self, claims: EntryClaims) {
        if self.store.is_some() {
            let waiting = self.pending.entry(Arc::clone(&claims.entry_id)).or_default();
            waiting.claims = Some(EntryChange::Claims(claims));
        }
    }

    /// Queues the removal of an entry. Its pause is kept in case its files come back.
    pub(super) fn enqueue_removal(&mut self, stem: &Arc<str>, paused: bool) {
        if self.store.is_some() {
            let life = Some(EntryChange::Remove(stem.to_string()));
            self.pending.insert(Arc::clone(stem), PendingChanges { revision: life, claims: None });
        }
        if paused {
            self.unseen.insert(Arc::clone(stem), pause_only_entry(stem, paused));
        }
    }

    /// Drops everything recorded of an entry.
    pub(super) fn forget(&mut self, stem: &str) {
        self.unseen.remove(stem);
        self.pending.remove(stem);
    }

    /// Whether changes wait to be written.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns the entries with changes to write.
    pub(super) fn pending_entries(&self) -> Vec<Arc<str>> {
        self.pending.keys().cloned().collect()
    }

    /// Whether the revision in force of this entry is not persisted yet.
    pub(super) fn is_revision_pending(&self, stem: &str) -> bool {
        self.pending.get(stem).is_some_and(|waiting| matches!(waiting.revision, Some(EntryChange::Accept(_))))
    }

    /// Whether everything about this entry is persisted.
    pub(super) fn is_persisted(&self, stem: &str) -> bool {
        self.store.is_some() && !self.pending.contains_key(stem)
    }

    /// Writes all changes in one transaction. Returns the entries that were written.
    pub(super) async fn write_pending(&mut self) -> Vec<Arc<str>> {
        let Some(store) = self.store.clone().filter(|_| self.has_pending()) else { return Vec::new() };
        let waiting = std::mem::take(&mut self.pending);
        let writing = tokio::task::spawn_blocking(move || {
            let written = store.apply_changes(waiting.values().flat_map(PendingChanges::changes));
            (written, waiting)
        });
        match writing.await {
            Ok((Ok(()), waiting)) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the store can be written again; what waited is kept");
                }
                waiting.into_keys().collect()
            }
            Ok((Err(error), waiting)) => {
                self.pending = waiting;
                self.report_failure(&error);
                Vec::new()
            }
            Err(_) => {
                tracing::error!("writing the store failed inside tenantd");
                Vec::new()
            }
        }
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    fn report_failure(&mut self, error: &crate::store::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(%error, waiting = self.pending.len(), "the store cannot be written: tenants go on, but what changes now would not survive a restart; it is tried again every 10 s");
        }
    }
}

/// Returns a record that contains only whether an operator paused the entry.
fn pause_only_entry(stem: &str, paused: bool) -> StoredEntry {
    StoredEntry { entry_id: stem.to_owned(), paused, ..StoredEntry::default() }
}

impl LastGoodRevision {
    /// Restores the revision if the current files differ from it and none of its own files,
    /// including those with secrets, was deleted. Blocking.
    pub(super) fn restore(
        self,
        now: &LoadOutcome,
        files: &[PathBuf],
        root: &Path,
        context: &bundle::LoadContext,
    ) -> Option<RestoredRevision> {
        let (number, digest) = self.entry.live.filter(|(_, digest)| *digest != now.digest)?;
        let documents = match self.store.load_documents(&self.entry.entry_id, number) {
            Ok(documents) => documents?,
            Err(error) => {
                tracing::error!(entry = self.entry.entry_id, %error, "the last good revision cannot be read");
                return None;
            }
        };
        let snapshot = Snapshot::decode(&documents)?;
        let (its_files, loaded) = (snapshot.files(root), bundle::load_snapshot(&snapshot, root, context));
        let is_held = self.entry.pinned_against == Some(now.digest);
        let was_deleted = |named: &Named| {
            named.presence == Presence::Gone && loaded.named.iter().any(|its| its.path == named.path)
        };
        let is_there =
            its_files.iter().all(|file| files.contains(file)) && !now.named.iter().any(was_deleted);
        let is_whole = is_held || is_there;
        let comes_back = is_whole && loaded.digest == digest && loaded.spec.is_some();
        comes_back.then_some(RestoredRevision { number, loaded, files: its_files.into() })
    }
}
