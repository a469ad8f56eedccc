//! The persisted revisions of an entry: listing, and comparison line by line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::commands::{CommandError, decode_snapshot, load_documents};
use super::{ReconcilerHandle, ReconcilerShared};
use crate::bundle::DocumentDiff;
use crate::store::{LocalStore, RevisionInfo};

/// A persisted revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, which counts up for each entry.
    pub number: u64,
    /// The first 12 digits of its digest.
    pub digest: String,
    /// When it was put in force, to the second.
    pub accepted_at: Timestamp,
    /// Whether it is in force now.
    pub in_force: bool,
}

/// A comparison of two revisions, with secrets hidden.
#[derive(Debug, Clone, Serialize)]
pub struct RevisionComparison {
    /// The number of the older revision.
    pub from: u64,
    /// The number of the newer revision.
    pub to: u64,
    /// The documents that differ.
    pub documents: Vec<DocumentDiff>,
}

impl ReconcilerHandle {
    /// Returns the persisted revisions of the entry with this name or id, the newest first.
    ///
    /// # Errors
    /// Fails if there is no such entry or no store, or if the store cannot be read.
    pub async fn history(&self, name: &str) -> Result<Vec<Revision>, CommandError> {
        let (store, entry_id, in_force) = self.shared.find_stored(name)?;
        let revisions = store.list_revisions(&entry_id).await?;
        let to_the_second = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
        let revision = |revision: RevisionInfo| Revision {
            number: revision.number,
            digest: revision.digest.short(),
            accepted_at: to_the_second(revision.accepted_at),
            in_force: in_force == Some(revision.number),
        };
        Ok(revisions.into_iter().map(revision).collect())
    }

    /// Compares revision `from` (default: the one before `to`) with revision `to` (default: the one
    /// in force).
    ///
    /// # Errors
    /// Fails if there is no such entry, revision or store, or if the store cannot be read.
    pub async fn diff(
        &self,
        name: &str,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<RevisionComparison, CommandError> {
        let (store, entry_id, in_force) = self.shared.find_stored(name)?;
        let to = to.or(in_force).ok_or(CommandError::NoRevision(0))?;
        let from = match from {
            Some(from) => from,
            None => {
                let revisions = store.list_revisions(&entry_id).await?;
                let earlier = revisions.iter().map(|revision| revision.number).find(|number| *number < to);
                earlier.ok_or(CommandError::NoRevision(to.saturating_sub(1)))?
            }
        };
        let older = load_documents(&store, &entry_id, from).await?;
        let newer = load_documents(&store, &entry_id, to).await?;
        let compare = move || {
            let (older, newer) = (decode_snapshot(&older, from)?, decode_snapshot(&newer, to)?);
            Ok(RevisionComparison { from, to, documents: older.diff(&newer) })
        };
        tokio::task::spawn_blocking(compare).await.map_err(|_| CommandError::ShuttingDown)?
    }
}

impl ReconcilerShared {
    /// Returns the store, the id of an entry, and the number of its revision in force.
    fn find_stored(&self, name: &str) -> Result<(LocalStore, String, Option<u64>), CommandError> {
        let status = self
            .registry
            .load()
            .find_entry(name)
            .map(|entry| entry.status())
            .ok_or(CommandError::NotFound)?;
        let store = self.store.clone().ok_or(CommandError::NoStore)?;
        Ok((store, status.stem, status.revision))
    }
}
