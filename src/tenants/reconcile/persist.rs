//! Persists what a pass put in force before it is published, so that nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pass::{BATCH_SIZE, ChangedEntries, EMPTY_FOLDER_GRACE, Reconciler};
use crate::tenants::debounce::ScanRequest;
use crate::tenants::scan::ScannedEntry;

impl Reconciler {
    /// Forgets entries that are missing in the first full scan, since they were deleted before it,
    /// and those that vanished before they could be read. An empty folder may be a volume that is
    /// not mounted yet, so it counts only after a grace period.
    pub(super) fn remove_absent(&mut self, found: &[ScannedEntry], look: &ScanRequest) {
        let for_good = self.now().duration_since(self.started) >= EMPTY_FOLDER_GRACE;
        let is_unknown = !self.is_folder_confirmed && found.is_empty() && !for_good;
        if look.entry_ids.is_some()
            || is_unknown
            || (self.is_folder_confirmed && self.revision_writer.has_seen_all())
        {
            return;
        }
        self.is_folder_confirmed = true;
        let there: BTreeSet<&str> = found.iter().map(|found| found.files.id.as_str()).collect();
        let is_there = |stem: &str| there.contains(stem) || self.observations.contains_key(stem);
        for stem in self.revision_writer.remove_absent(is_there) {
            self.claims.update(&stem, None);
        }
    }

    /// Persists what was put in force. Returns the entries for which it changed whether they are
    /// persisted.
    pub(super) async fn persist(&mut self, changed: &ChangedEntries) -> ChangedEntries {
        let mut news = ChangedEntries::new();
        for (number, stem) in changed.iter().enumerate() {
            self.enqueue_changes(stem);
            // Ten thousand entries of a cold start are written in batches: changes are in memory
            // twice while they are written.
            if number % BATCH_SIZE == BATCH_SIZE - 1 && !self.revision_writer.is_failing() {
                news.extend(self.write_pending().await);
            }
        }
        news.extend(self.write_pending().await);
        news
    }

    /// Passes the changes of an entry to the keeper.
    fn enqueue_changes(&mut self, stem: &Arc<str>) {
        let now = self.tenant_deps.clock.now();
        let accepted = self.entries.get_mut(stem).and_then(|known| known.take_unwritten_revision(stem, now));
        if let Some(accepted) = accepted {
            self.revision_writer.enqueue_revision(stem, accepted);
        }
        if let Some(claims) = self.entries.get_mut(stem).and_then(|known| known.take_claims_change(stem)) {
            self.revision_writer.enqueue_claims(claims);
        }
    }

    async fn write_pending(&mut self) -> ChangedEntries {
        if !self.revision_writer.has_pending() {
            return ChangedEntries::new();
        }
        let written = self.revision_writer.write_pending().await;
        let concerned: Vec<_> = written.into_iter().chain(self.revision_writer.pending_entries()).collect();
        concerned.into_iter().filter(|stem| self.update_unpersisted(stem)).collect()
    }

    fn update_unpersisted(&mut self, stem: &str) -> bool {
        let unkept = self.revision_writer.is_revision_pending(stem);
        self.entries.get_mut(stem).is_some_and(|known| known.set_unpersisted(unkept))
    }
}
