//! The persisted revisions of an entry: listing, and comparison line by line.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::orders::Refused;
use super::{Reconciler, Site};
use crate::bundle::{Difference, Snapshot};
use crate::store::{Mark, Store};

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
pub struct Comparison {
    /// The number of the older revision.
    pub from: u64,
    /// The number of the newer revision.
    pub to: u64,
    /// The documents that differ.
    pub documents: Vec<Difference>,
}

impl Reconciler {
    /// Returns the persisted revisions of the entry with this name or stem, the newest first.
    ///
    /// # Errors
    /// Fails if there is no such entry or no store, or if the store cannot be read.
    pub async fn history(&self, name: &str) -> Result<Vec<Revision>, Refused> {
        let (store, stem, in_force) = self.site.kept(name)?;
        let read = move || store.history(&stem);
        let marks = tokio::task::spawn_blocking(read).await.map_err(|_| Refused::Ending)??;
        let to_the_second = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
        let revision = |mark: Mark| Revision {
            number: mark.number,
            digest: mark.digest.short(),
            accepted_at: to_the_second(mark.at),
            in_force: in_force == Some(mark.number),
        };
        Ok(marks.into_iter().map(revision).collect())
    }

    /// Compares revision `from` (default: the one before `to`) with revision `to` (default: the one
    /// in force).
    ///
    /// # Errors
    /// Fails if there is no such entry, revision or store, or if the store cannot be read.
    pub async fn difference(
        &self,
        name: &str,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Comparison, Refused> {
        let (store, stem, in_force) = self.site.kept(name)?;
        let compare = move || -> Result<_, Refused> {
            let to = to.or(in_force).ok_or(Refused::NoRevision(0))?;
            let earlier = |marks: Vec<Mark>| marks.iter().map(|mark| mark.number).find(|number| *number < to);
            let from = match from {
                Some(from) => from,
                None => earlier(store.history(&stem)?).ok_or(Refused::NoRevision(to.saturating_sub(1)))?,
            };
            let (older, newer) = (snapshot(&store, &stem, from)?, snapshot(&store, &stem, to)?);
            Ok(Comparison { from, to, documents: older.difference(&newer) })
        };
        tokio::task::spawn_blocking(compare).await.map_err(|_| Refused::Ending)?
    }
}

impl Site {
    /// Returns the store, the stem of an entry, and the number of its revision in force.
    fn kept(&self, name: &str) -> Result<(Arc<Store>, String, Option<u64>), Refused> {
        let status = self.registry.load().entry(name).map(|entry| entry.status()).ok_or(Refused::NotFound)?;
        let store = self.store.clone().ok_or(Refused::NoStore)?;
        Ok((store, status.stem, status.revision))
    }
}

fn snapshot(store: &Store, stem: &str, number: u64) -> Result<Snapshot, Refused> {
    let documents = store.documents(stem, number)?.ok_or(Refused::NoRevision(number))?;
    Snapshot::decode(&documents).ok_or(Refused::NoRevision(number))
}
