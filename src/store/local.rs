//! The local store: what belongs to this gateway's own tenants folder. Revisions and pauses of
//! entries, the names and mounts that they claim, and the last contexts of their backends.

mod contexts;
pub(super) mod entry_claims;
pub(super) mod entry_seal;
mod revisions;
mod stored_entry;
pub(super) mod tables;
mod usage;

use std::fmt;
use std::sync::Arc;

pub use self::contexts::ContextStore;
pub use self::entry_claims::EntryClaims;
pub use self::revisions::{AcceptedRevision, EntryChange, REVISIONS_KEPT, RevisionInfo};
pub use self::stored_entry::StoredEntry;
pub use self::tables::LocalTables;
use super::Error;
use super::usage::{StoredQuota, UsageBatch, UsageQuery, UsageSum};
use crate::base::digest::Digest;

/// The local store for callers that must not block. Cheap to clone. Each function is one turn on a
/// thread that may block; a write that was begun is finished even if its caller stops waiting. Any
/// function may fail with [`Error::Interrupted`].
#[derive(Clone)]
pub struct LocalStore {
    tables: Arc<LocalTables>,
}

impl LocalStore {
    pub(super) fn new(tables: LocalTables) -> Self {
        Self { tables: Arc::new(tables) }
    }

    /// Returns the functions that block, for threads that may.
    pub fn tables(&self) -> &LocalTables {
        &self.tables
    }

    /// Writes the changes of a pass in one transaction; all or nothing.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub async fn apply_changes(&self, changes: Vec<Arc<EntryChange>>) -> Result<(), Error> {
        self.run(move |tables| tables.apply_changes(changes.iter().map(|change| &**change))).await
    }

    /// Makes an older revision live for as long as the files have the digest `against`.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub async fn pin_revision(&self, entry: &str, number: u64, against: Option<Digest>) -> Result<(), Error> {
        let entry = entry.to_owned();
        self.run(move |tables| tables.pin_revision(&entry, number, against)).await
    }

    /// Pauses an entry, or resumes it.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub async fn set_paused(&self, entry: &str, paused: bool) -> Result<(), Error> {
        let entry = entry.to_owned();
        self.run(move |tables| tables.set_paused(&entry, paused)).await
    }

    /// Deletes everything about an entry, its pause included.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub async fn delete_entry(&self, entry: &str) -> Result<(), Error> {
        let entry = entry.to_owned();
        self.run(move |tables| tables.delete_entry(&entry)).await
    }

    /// Returns the revisions of an entry, newest first.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub async fn list_revisions(&self, entry: &str) -> Result<Vec<RevisionInfo>, Error> {
        let entry = entry.to_owned();
        self.run(move |tables| tables.list_revisions(&entry)).await
    }

    /// Returns the documents of a revision, if it is kept.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read, [`Error::CannotUnseal`] if they do not open.
    pub async fn load_documents(&self, entry: &str, number: u64) -> Result<Option<Vec<u8>>, Error> {
        let entry = entry.to_owned();
        self.run(move |tables| tables.load_documents(&entry, number)).await
    }

    /// Adds to the usage ledger and replaces counts of quotas, in one transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub async fn write_usage(&self, batch: Arc<UsageBatch>) -> Result<(), Error> {
        self.run(move |tables| tables.write_usage(batch)).await
    }

    /// Returns the counts of all quotas of this month, in months since the year 0.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub async fn load_quotas(&self, month: i64) -> Result<Vec<StoredQuota>, Error> {
        self.run(move |tables| tables.load_quotas(month)).await
    }

    /// Returns the sums that a report asks for.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub async fn query_usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, Error> {
        self.run(move |tables| tables.query_usage(&query)).await
    }

    /// Deletes usage that is older than it is kept, at this second and in this month.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub async fn prune_usage(&self, now: i64, month: i64) -> Result<(), Error> {
        self.run(move |tables| tables.prune_usage(now, month)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalTables) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let tables = Arc::clone(&self.tables);
        tokio::task::spawn_blocking(move || work(&tables)).await.map_err(|_| Error::Interrupted)?
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").finish_non_exhaustive()
    }
}
