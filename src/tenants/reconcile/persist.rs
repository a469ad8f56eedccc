//! Persists what a pass put in force before it is published, so that nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::reconciler::{ChangedEntries, Reconciler};
use crate::tenants::scan::{ScanRequest, ScannedEntry};

/// The number of entries that are persisted in one batch: changes are in memory twice while they
/// are written.
const BATCH_SIZE: usize = 256;

impl Reconciler {
    /// Forgets entries that are missing in the first full scan, since they were deleted before it,
    /// and those that vanished before they could be read.
    pub(super) fn forget_absent(&mut self, scanned: &[ScannedEntry], request: &ScanRequest) {
        let is_full = request.entry_ids.is_none();
        if !is_full || !self.folder.may_remove_missing(scanned.is_empty(), self.tenant_deps.clock.monotonic())
        {
            return;
        }
        if self.revision_writer.has_seen_all() {
            return;
        }
        let present: BTreeSet<&str> = scanned.iter().map(|scanned| scanned.files.id.as_str()).collect();
        let is_present = |entry_id: &str| present.contains(entry_id) || self.observations.contains(entry_id);
        for entry_id in self.revision_writer.remove_absent(is_present) {
            self.claims.update(&entry_id, None);
        }
    }

    /// Persists what was put in force. Returns the entries for which it changed whether they are
    /// persisted.
    pub(super) async fn persist(&mut self, changed: &ChangedEntries) -> ChangedEntries {
        let mut news = ChangedEntries::new();
        for (number, entry_id) in changed.iter().enumerate() {
            self.enqueue_changes(entry_id);
            if number % BATCH_SIZE == BATCH_SIZE - 1 && !self.revision_writer.is_failing() {
                news.extend(self.write_pending().await);
            }
        }
        news.extend(self.write_pending().await);
        news
    }

    fn enqueue_changes(&mut self, entry_id: &Arc<str>) {
        let Some(entry) = self.entries.get_mut(entry_id) else { return };
        let now = self.tenant_deps.clock.now();
        if let Some(revision) = entry.take_unwritten_revision(entry_id, now) {
            self.revision_writer.enqueue_revision(entry_id, revision);
        }
        if let Some(claims) = entry.take_claims_change(entry_id) {
            self.revision_writer.enqueue_claims(claims);
        }
    }

    async fn write_pending(&mut self) -> ChangedEntries {
        if !self.revision_writer.has_pending() {
            return ChangedEntries::new();
        }
        let written = self.revision_writer.write_pending().await;
        let concerned: Vec<_> = written.into_iter().chain(self.revision_writer.pending_entries()).collect();
        let is_news = |entry_id: &Arc<str>| {
            let is_unpersisted = self.revision_writer.is_revision_pending(entry_id);
            self.entries.get_mut(entry_id).is_some_and(|entry| entry.set_unpersisted(is_unpersisted))
        };
        concerned.into_iter().filter(is_news).collect()
    }
}
