//! The persisted revisions of an entry: listing, and comparison line by line.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::commands::{CommandError, decode_snapshot, load_documents};
use super::{ReconcilerHandle, ReconcilerShared};
use crate::bundle::{self, DocumentDiff};
use crate::store::{LocalStore, RevisionInfo};
use crate::tenants::tool_changes::{self, HeldChange, ToolChange};

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
    /// The number of the newer revision; `None` for the change that waits for approval.
    pub to: Option<u64>,
    /// The first 12 digits of the digest of the change that waits for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What differs of the tools' names, texts and schemas.
    pub tools: Vec<ToolChange>,
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
    /// in force). Without both, and if a change waits for approval, compares that with the revision
    /// in force.
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
        if let (None, None, Some(in_force), Some(held)) = (from, to, in_force, self.shared.find_held(name)) {
            let older = load_documents(&store, &entry_id, in_force).await?;
            let newer = NewerRevision { number: None, digest: Some(held.revision.short()) };
            return self.shared.compare((older, in_force), (held.documents.clone(), newer)).await;
        }
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
        let newer = (newer, NewerRevision { number: Some(to), digest: None });
        self.shared.compare((older, from), newer).await
    }
}

/// Which revision is the newer one of a comparison.
struct NewerRevision {
    number: Option<u64>,
    digest: Option<String>,
}

impl ReconcilerShared {
    /// Returns the change of an entry that waits for approval.
    fn find_held(&self, name: &str) -> Option<Arc<HeldChange>> {
        self.registry.load().find_entry(name)?.held_change().cloned()
    }

    /// Compares two revisions, given as their documents, by today's rules.
    async fn compare(
        &self,
        (older, from): (Vec<u8>, u64),
        (newer, NewerRevision { number: to, digest: held }): (Vec<u8>, NewerRevision),
    ) -> Result<RevisionComparison, CommandError> {
        let (folder, context) = (self.source.folder().to_owned(), Arc::clone(&self.context.borrow()));
        let compare = move || {
            let (older, newer) =
                (decode_snapshot(&older, from)?, decode_snapshot(&newer, to.unwrap_or(from))?);
            let spec = |snapshot| bundle::load_snapshot(snapshot, &folder, &context).spec;
            let tools = match (spec(&older), spec(&newer)) {
                (Some(before), Some(after)) => tool_changes::compare(&before, &after),
                // One of them is refused today, and so has no tools.
                _ => Vec::new(),
            };
            Ok(RevisionComparison { from, to, held, tools, documents: older.diff(&newer) })
        };
        tokio::task::spawn_blocking(compare).await.map_err(|_| CommandError::ShuttingDown)?
    }

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
