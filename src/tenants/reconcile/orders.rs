//! Orders that operators give at any gateway of a cluster: given through the database before they
//! are followed, and followed here wherever they were given.
//!
//! All orders are in memory. They are read before the first pass, so that nothing is served for a
//! moment that an operator shut; then whenever the database tells of one. If that fails, they are
//! read again every second. A gateway that starts without its database follows the orders that its
//! state folder knows until then.

use std::sync::Arc;

use super::commands::{CommandError, decode_snapshot};
use super::order_book::RETRY_PAUSE;
use super::reconciler::{ChangedEntries, Reconciler};
use crate::base::digest::Digest;
use crate::bundle;
use crate::store::{ChangeBatch, Replacement, TenantOrder};
use crate::tenants::entry::{Candidate, RollbackNeed};

/// Why a revision that was ordered cannot be put in force here.
struct Missing(String);

impl Reconciler {
    /// Reads all orders before the first pass, and shares what was ordered here before this gateway
    /// was one of several. Waits for the database, unless that was away at the start: what an operator
    /// shut must not be open meanwhile.
    pub(super) async fn read_first_orders(&mut self) {
        while let Some(book) = self.orders.as_mut().filter(|book| !book.unread.is_empty()) {
            book.read(self.tenant_deps.clock.monotonic()).await;
            if book.cluster.awaited().is_some() {
                return;
            }
            if !book.unread.is_empty() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        self.share_stored_orders().await;
        let Some(book) = &self.orders else { return };
        if let Err(error) = book.cluster.reseal_orders().await {
            tracing::warn!(%error, "operators' orders cannot be encrypted with the new master key; keep the line of \
                                    the old key");
        }
    }

    async fn share_stored_orders(&mut self) {
        let Some(book) = &mut self.orders else { return };
        for stored in self.revision_writer.unseen_entries() {
            let entry_id: Arc<str> = stored.entry_id.as_str().into();
            let known = book.find(&entry_id);
            let pause = (stored.paused && known.paused.is_none()).then_some(TenantOrder::Pause(true));
            let pin = stored.live.zip(stored.pinned_against).filter(|_| known.replacement.is_none());
            let rollback = pin.map(|((number, revision), files)| (number, Replacement { files, revision }));
            let documents = match (rollback, self.revision_writer.store()) {
                (Some((number, _)), Some(store)) => {
                    store.load_documents(&entry_id, number).await.ok().flatten()
                }
                _ => None,
            };
            let rollback = rollback.map(|(_, replacement)| TenantOrder::Rollback(Some(replacement)));
            for order in pause.into_iter().chain(rollback) {
                match book.cluster.adopt_order(&entry_id, order, documents.as_deref()).await {
                    Ok(true) => {
                        tracing::info!(entry = %entry_id, "an earlier order counts for all gateways from now on");
                        book.orders.entry(Arc::clone(&entry_id)).or_default().add(order);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(entry = %entry_id, %error, "an earlier order is in force on this gateway only");
                    }
                }
            }
        }
    }

    /// Waits until orders that could not be read are to be read again; forever if there are none.
    pub(super) async fn until_orders_due(&self) {
        match self.orders.as_ref().and_then(|book| book.retry_at) {
            Some(due) => self.sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Follows the orders among these changes.
    pub(super) async fn follow_changes(&mut self, batch: &ChangeBatch) {
        if let Some(book) = &mut self.orders {
            book.unread.add(batch);
        }
        self.follow_unread_orders().await;
    }

    /// Reads the orders that are unread, and follows them.
    pub(super) async fn follow_unread_orders(&mut self) {
        let now = self.now();
        let Some(book) = self.orders.as_mut().filter(|book| !book.unread.is_empty()) else { return };
        let ordered = book.read(now).await;
        let mut changed = ChangedEntries::new();
        self.follow_orders(&ordered, &mut changed).await;
        if !changed.is_empty() {
            self.decide_and_publish(changed).await;
        }
    }

    /// Decides these entries anew, persists and publishes the result.
    async fn decide_and_publish(&mut self, mut changed: ChangedEntries) {
        self.resolve_and_build(&mut changed);
        self.note_missed_rollbacks(&mut changed);
        let news = self.persist(&changed).await;
        changed.extend(news);
        self.persist_orders(&changed).await;
        self.publish(&changed).await;
    }

    /// Has these entries follow the orders about them, as far as that is possible before claims are
    /// decided. Adds to `changed` those that changed.
    pub(super) async fn follow_orders(&mut self, entry_ids: &ChangedEntries, changed: &mut ChangedEntries) {
        if self.orders.is_none() {
            return;
        }
        for entry_id in entry_ids {
            let orders = self.orders.as_ref().map(|book| book.find(entry_id)).unwrap_or_default();
            let Some(entry) = self.entries.get_mut(entry_id) else { continue };
            if entry.follow_orders(orders, self.tenant_deps.builder(entry_id)) {
                changed.insert(Arc::clone(entry_id));
            }
            if self.follow_rollback(entry_id).await {
                changed.insert(Arc::clone(entry_id));
            }
        }
    }

    /// Tries again to follow rollbacks whose revision was not to be had.
    pub(super) async fn retry_missed_rollbacks(&mut self, changed: &mut ChangedEntries) {
        if self.orders.is_none() {
            return;
        }
        let missing = self.entries.iter().filter(|(_, entry)| entry.misses_rollback());
        let missing: Vec<_> = missing.map(|(entry_id, _)| Arc::clone(entry_id)).collect();
        for entry_id in missing {
            if self.follow_rollback(&entry_id).await {
                changed.insert(entry_id);
            }
        }
    }

    /// Puts the revision in force that was ordered instead of the entry's files, or the files that
    /// it no longer replaces. Returns whether the entry changed.
    async fn follow_rollback(&mut self, entry_id: &Arc<str>) -> bool {
        let Some(entry) = self.entries.get_mut(entry_id) else { return false };
        match entry.rollback_need() {
            RollbackNeed::Nothing => false,
            RollbackNeed::Files => {
                entry.end_rollback();
                self.watch_queue.notify(entry_id.to_string());
                true
            }
            RollbackNeed::Revision(revision) => {
                let found = self.find_ordered_revision(entry_id, revision).await;
                let Some(entry) = self.entries.get_mut(entry_id) else { return false };
                match found {
                    Ok(candidate) => {
                        entry.follow_rollback(candidate);
                        true
                    }
                    Err(Missing(why)) => entry.miss_rollback(&why),
                }
            }
        }
    }

    /// Returns a revision that was ordered: from this gateway's store, or as it was shared.
    async fn find_ordered_revision(
        &mut self,
        entry_id: &Arc<str>,
        revision: Digest,
    ) -> Result<Candidate, Missing> {
        self.persist(&ChangedEntries::new()).await;
        let (documents, number) = self.find_ordered_documents(entry_id, revision).await?;
        let (folder, context) = (Arc::clone(self.folder.path()), Arc::clone(&self.context));
        let validate = move || {
            let snapshot =
                decode_snapshot(&documents, 0).map_err(|_| Missing("it cannot be read".to_owned()))?;
            let (loaded, files) =
                (bundle::load_snapshot(&snapshot, &folder, &context), snapshot.files(&folder).into());
            if loaded.digest != revision {
                return Err(Missing(
                    "it is not the same here; its files refer to what this gateway has not".to_owned(),
                ));
            }
            let candidate = match number {
                Some(number) => Candidate::stored(loaded, number, files),
                None => Candidate::received(loaded, documents, files),
            };
            candidate.ok_or_else(|| Missing("today's rules refuse it".to_owned()))
        };
        let validated = tokio::task::spawn_blocking(validate).await;
        validated.unwrap_or_else(|_| Err(Missing("reading it failed inside tenantd".to_owned())))
    }

    /// Returns the documents of a revision, with its number if this gateway's store has it.
    async fn find_ordered_documents(
        &self,
        entry_id: &str,
        revision: Digest,
    ) -> Result<(Vec<u8>, Option<u64>), Missing> {
        if let Some(store) = self.revision_writer.store() {
            let stored = store.list_revisions(entry_id).await.unwrap_or_default();
            if let Some(known) = stored.iter().find(|stored| stored.digest == revision)
                && let Ok(Some(documents)) = store.load_documents(entry_id, known.number).await
            {
                return Ok((documents, Some(known.number)));
            }
        }
        let Some(book) = &self.orders else { return Err(Missing("it is not stored".to_owned())) };
        match book.cluster.load_order_documents(entry_id).await {
            Ok(Some(documents)) => Ok((documents, None)),
            Ok(None) => Err(Missing("it is not stored here, and too large to be shared".to_owned())),
            Err(error) => Err(Missing(format!("it is not stored here, and cannot be read: {error}"))),
        }
    }

    /// Records which ordered revisions could not be put in force.
    pub(super) fn note_missed_rollbacks(&mut self, changed: &mut ChangedEntries) {
        if self.orders.is_none() {
            return;
        }
        for entry_id in changed.clone() {
            let Some(entry) = self.entries.get_mut(&entry_id) else { continue };
            if let Some(why) = entry.take_rollback_failure() {
                entry.miss_rollback(&why);
                self.resolve_and_build(changed);
            }
        }
    }

    /// Writes what was ordered to this gateway's store too, where `tenantd store` looks.
    pub(super) async fn persist_orders(&mut self, changed: &ChangedEntries) {
        for entry_id in changed {
            let Some(entry) = self.entries.get_mut(entry_id) else { continue };
            if !entry.take_unwritten_order() {
                continue;
            }
            self.revision_writer.write_pause(entry_id, entry.is_paused()).await;
            if let Some((number, _)) = entry.revision_in_force() {
                self.revision_writer.write_pin(entry_id, number, entry.pinned_digest()).await;
            }
        }
    }

    /// Gives an order to all gateways of the cluster, if this is one of several.
    pub(super) async fn give_order(
        &mut self,
        entry_id: &Arc<str>,
        order: TenantOrder,
        documents: Option<&[u8]>,
    ) -> Result<(), CommandError> {
        let Some(book) = &mut self.orders else { return Ok(()) };
        let given = book.cluster.give_order(entry_id, order, documents).await;
        given.map_err(CommandError::NotShared)?;
        book.orders.entry(Arc::clone(entry_id)).or_default().add(order);
        let orders = book.find(entry_id);
        if let Some(entry) = self.entries.get_mut(entry_id) {
            entry.remember_orders(orders);
        }
        Ok(())
    }

    /// Gives a rollback to all gateways of the cluster, with the documents of its revision. Returns
    /// the order that takes it back.
    pub(super) async fn share_rollback(
        &mut self,
        entry_id: &Arc<str>,
        (number, revision): (u64, Digest),
    ) -> Result<TenantOrder, CommandError> {
        let before = self.orders.as_ref().and_then(|book| book.find(entry_id).replacement);
        if self.orders.is_some() {
            let why = || "its files are being read again; try again in a moment".to_owned();
            let files = self.entries.get(entry_id).and_then(|entry| entry.digest_on_disk());
            let files = files.ok_or_else(|| CommandError::NotActivated { number, why: why() })?;
            let order = TenantOrder::Rollback(Some(Replacement { files, revision }));
            let documents = self.find_ordered_documents(entry_id, revision).await.ok();
            self.give_order(entry_id, order, documents.as_ref().map(|(documents, _)| &**documents)).await?;
        }
        Ok(TenantOrder::Rollback(before))
    }

    /// Takes an order back that could not be followed here, by the one before it.
    pub(super) async fn take_back(&mut self, entry_id: &Arc<str>, before: TenantOrder) {
        let documents = match before {
            TenantOrder::Rollback(Some(Replacement { revision, .. })) => {
                self.find_ordered_documents(entry_id, revision).await.ok()
            }
            _ => None,
        };
        let documents = documents.as_ref().map(|(documents, _)| &**documents);
        if let Err(error) = self.give_order(entry_id, before, documents).await {
            tracing::error!(entry = %entry_id, %error, "an order that could not be followed counts for other gateways");
        }
    }

    /// Forgets all orders about an entry that was removed, unless another gateway has it. Returns
    /// whether that succeeded.
    pub(super) async fn forget_orders(&mut self, entry_id: &str) -> bool {
        let Some(book) = &mut self.orders else { return true };
        let forgotten = book.cluster.forget_orders(entry_id).await.is_ok();
        book.unread.add_entry(entry_id);
        forgotten
    }
}
