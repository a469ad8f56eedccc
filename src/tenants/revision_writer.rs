//! The persistent state of entries, as the reconciler needs it: the records of entries when the
//! process started, and the changes that were not written yet.
//!
//! A store that cannot be written stops nothing: the changes wait here, and every pass tries again
//! to write them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::entry::{LastGoodRevision, PersistedState};
use crate::base::digest::Digest;
use crate::spec::HeldClaim;
use crate::store::{self, AcceptedRevision, EntryChange, EntryClaims, LocalStore, StoredEntry};

/// The records that were read, and the changes to write.
pub(super) struct RevisionWriter {
    store: Option<LocalStore>,
    /// The records of entries that were not seen since the process started.
    unseen: HashMap<Arc<str>, StoredEntry>,
    pending: BTreeMap<Arc<str>, PendingChanges>,
    is_failing: bool,
}

/// The changes of one entry that are not written, in the order of writing.
#[derive(Default)]
struct PendingChanges {
    /// A new revision, or the entry's removal.
    revision: Option<Arc<EntryChange>>,
    claims: Option<Arc<EntryChange>>,
}

impl PendingChanges {
    fn changes(&self) -> impl Iterator<Item = &Arc<EntryChange>> {
        self.revision.iter().chain(&self.claims)
    }
}

impl RevisionWriter {
    pub(super) fn new(store: Option<LocalStore>, entries: Vec<StoredEntry>) -> Self {
        let unseen = entries.into_iter().map(|entry| (entry.entry_id.as_str().into(), entry)).collect();
        Self { store, unseen, pending: BTreeMap::new(), is_failing: false }
    }

    pub(super) fn store(&self) -> Option<&LocalStore> {
        self.store.as_ref()
    }

    /// Returns the claims of entries that were not seen since the process started.
    pub(super) fn unseen_claims(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<HeldClaim>)> {
        self.unseen.iter().filter_map(|(entry_id, entry)| Some((entry_id, entry.claim.as_ref()?)))
    }

    /// Returns the records of entries that were not seen since the process started.
    pub(super) fn unseen_entries(&self) -> impl Iterator<Item = &StoredEntry> {
        self.unseen.values()
    }

    /// Removes and returns the record of an entry that is seen for the first time.
    pub(super) fn take_persisted(&mut self, entry_id: &str) -> PersistedState {
        self.unseen.remove(entry_id).map(PersistedState::from_stored).unwrap_or_default()
    }

    /// Returns the last good revision of an entry that was not seen yet.
    pub(super) fn find_last_good(&self, entry_id: &str) -> Option<LastGoodRevision> {
        let entry = self.unseen.get(entry_id).filter(|entry| entry.live.is_some())?;
        Some(LastGoodRevision::new(self.store.clone()?, entry.clone()))
    }

    /// Whether every entry with a record has been seen.
    pub(super) fn has_seen_all(&self) -> bool {
        self.unseen.is_empty()
    }

    /// Forgets entries that are not in the folder: they were deleted before they were seen, so they
    /// do not come back and what they held is free. Returns their ids.
    pub(super) fn remove_absent(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let has_left = |entry: &StoredEntry| {
            !is_there(&entry.entry_id) && *entry != pause_only_entry(&entry.entry_id, true)
        };
        let removed = self.unseen.extract_if(|_, entry| has_left(entry));
        let removed: Vec<_> = removed.map(|(entry_id, entry)| (entry_id, entry.paused)).collect();
        removed.iter().for_each(|(entry_id, paused)| self.enqueue_removal(entry_id, *paused));
        removed.into_iter().map(|(entry_id, _)| entry_id).collect()
    }

    /// Queues a revision that is in force now.
    pub(super) fn enqueue_revision(&mut self, entry_id: &Arc<str>, accepted: AcceptedRevision) {
        if self.store.is_some() {
            let pending = self.pending.entry(Arc::clone(entry_id)).or_default();
            pending.revision = Some(Arc::new(EntryChange::Accept(accepted)));
        }
    }

    /// Queues a change of what an entry holds, or of which of its claims was refused.
    pub(super) fn enqueue_claims(&mut self, claims: EntryClaims) {
        if self.store.is_some() {
            let pending = self.pending.entry(Arc::clone(&claims.entry_id)).or_default();
            pending.claims = Some(Arc::new(EntryChange::Claims(claims)));
        }
    }

    /// Queues the removal of an entry. Its pause is kept in case its files come back.
    pub(super) fn enqueue_removal(&mut self, entry_id: &Arc<str>, paused: bool) {
        if self.store.is_some() {
            let removal = Some(Arc::new(EntryChange::Remove(entry_id.to_string())));
            self.pending.insert(Arc::clone(entry_id), PendingChanges { revision: removal, claims: None });
        }
        if paused {
            self.unseen.insert(Arc::clone(entry_id), pause_only_entry(entry_id, paused));
        }
    }

    /// Drops everything recorded of an entry.
    pub(super) fn forget(&mut self, entry_id: &str) {
        self.unseen.remove(entry_id);
        self.pending.remove(entry_id);
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
    pub(super) fn is_revision_pending(&self, entry_id: &str) -> bool {
        self.pending
            .get(entry_id)
            .is_some_and(|pending| matches!(pending.revision.as_deref(), Some(EntryChange::Accept(_))))
    }

    /// Whether everything about this entry is persisted.
    pub(super) fn is_persisted(&self, entry_id: &str) -> bool {
        self.store.is_some() && !self.pending.contains_key(entry_id)
    }

    /// Writes all changes in one transaction. Returns the entries that were written.
    pub(super) async fn write_pending(&mut self) -> Vec<Arc<str>> {
        let Some(store) = self.store.as_ref().filter(|_| self.has_pending()) else { return Vec::new() };
        let changes = self.pending.values().flat_map(PendingChanges::changes).cloned().collect();
        match store.apply_changes(changes).await {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the store can be written again; pending changes are stored now");
                }
                std::mem::take(&mut self.pending).into_keys().collect()
            }
            Err(store::Error::Interrupted) => {
                // Changes that make the writing fail inside tenantd would do so in every pass.
                self.pending.clear();
                tracing::error!("writing the store failed inside tenantd");
                Vec::new()
            }
            Err(error) => {
                self.report_failure(&error);
                Vec::new()
            }
        }
    }

    /// Writes an operator's pause, or its end. Returns whether that succeeded.
    pub(super) async fn write_pause(&self, entry_id: &str, is_paused: bool) -> bool {
        let Some(store) = &self.store else { return false };
        is_written(entry_id, store.set_paused(entry_id, is_paused).await)
    }

    /// Writes an operator's rollback. Returns whether that succeeded.
    pub(super) async fn write_pin(&self, entry_id: &str, number: u64, against: Option<Digest>) -> bool {
        let Some(store) = &self.store else { return false };
        is_written(entry_id, store.pin_revision(entry_id, number, against).await)
    }

    /// Deletes everything that is written of an entry. Returns whether that succeeded.
    pub(super) async fn delete_entry(&self, entry_id: &str) -> bool {
        let Some(store) = &self.store else { return false };
        is_written(entry_id, store.delete_entry(entry_id).await)
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    fn report_failure(&mut self, error: &store::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(%error, waiting = self.pending.len(), "the store cannot be written: tenants continue, but changes would not survive a restart; the gateway tries again every 10 s");
        }
    }
}

/// Reports an operator's decision that was not written, and returns whether it was.
fn is_written(entry_id: &str, written: Result<(), store::Error>) -> bool {
    match written {
        Ok(()) => true,
        Err(store::Error::Interrupted) => false,
        Err(error) => {
            tracing::error!(entry = %entry_id, %error, "an operator's command is in force, but would not survive a restart");
            false
        }
    }
}

/// Returns a record that contains only whether an operator paused the entry.
fn pause_only_entry(entry_id: &str, paused: bool) -> StoredEntry {
    StoredEntry { entry_id: entry_id.to_owned(), paused, ..StoredEntry::default() }
}

#[cfg(test)]
mod tests;
