//! The persistent state of entries, as the reconciler needs it: the records of entries when the
//! process started, and the changes that were not written yet.
//!
//! A store that cannot be written stops nothing: the changes wait here, and every pass tries again
//! to write them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::roster::Memory;
use crate::bundle::{self, Loaded, Named, Presence, Snapshot};
use crate::spec::Holding;
use crate::store::{Accepted, Change, Claims, Entry, Store};

/// The records that were read, and the changes to write.
pub(super) struct Keeper {
    store: Option<Arc<Store>>,
    /// The records of entries that were not seen since the process started.
    kept: HashMap<Arc<str>, Entry>,
    waiting: BTreeMap<Arc<str>, Unwritten>,
    refuses: bool,
}

/// The changes of one entry that are not written, in the order of writing.
#[derive(Default)]
struct Unwritten {
    /// A new revision, or the entry's removal.
    life: Option<Change>,
    claims: Option<Change>,
}

impl Unwritten {
    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.life.iter().chain(&self.claims)
    }
}

/// The last good revision of an entry, to be restored if its files differ from it.
pub(super) struct LastGood {
    store: Arc<Store>,
    entry: Entry,
}

/// The last good revision, restored and validated by today's rules.
pub(super) struct Revived {
    pub(super) number: u64,
    pub(super) loaded: Loaded,
    pub(super) files: Arc<[PathBuf]>,
}

impl Keeper {
    pub(super) fn new(store: Option<Arc<Store>>, entries: Vec<Entry>) -> Self {
        let kept = entries.into_iter().map(|entry| (entry.stem.as_str().into(), entry)).collect();
        Self { store, kept, waiting: BTreeMap::new(), refuses: false }
    }

    pub(super) fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// Returns the claims of entries that were not seen since the process started.
    pub(super) fn holdings(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Holding>)> {
        self.kept.iter().filter_map(|(stem, entry)| Some((stem, entry.holding.as_ref()?)))
    }

    /// Removes and returns the record of an entry that is seen for the first time.
    pub(super) fn remember(&mut self, stem: &str) -> Memory {
        self.kept.remove(stem).map(Memory::of).unwrap_or_default()
    }

    /// Returns the last good revision of an entry that was not seen yet.
    pub(super) fn last_good(&self, stem: &str) -> Option<LastGood> {
        let entry = self.kept.get(stem).filter(|entry| entry.in_force.is_some())?;
        Some(LastGood { store: Arc::clone(self.store.as_ref()?), entry: entry.clone() })
    }

    /// Whether every entry with a record has been seen.
    pub(super) fn has_seen_all(&self) -> bool {
        self.kept.is_empty()
    }

    /// Forgets entries that are not in the folder: they were deleted before they were seen, so they
    /// do not come back and what they held is free. Returns their stems.
    pub(super) fn drop_absent(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let has_left = |entry: &Entry| !is_there(&entry.stem) && *entry != only_paused(&entry.stem, true);
        let left = self.kept.extract_if(|_, entry| has_left(entry));
        let left: Vec<_> = left.map(|(stem, entry)| (stem, entry.paused)).collect();
        left.iter().for_each(|(stem, paused)| self.gone(stem, *paused));
        left.into_iter().map(|(stem, _)| stem).collect()
    }

    /// Queues a revision that is in force now.
    pub(super) fn accept(&mut self, stem: &Arc<str>, accepted: Accepted) {
        if self.store.is_some() {
            self.waiting.entry(Arc::clone(stem)).or_default().life = Some(Change::Accept(accepted));
        }
    }

    /// Queues a change of what an entry holds, or of which of its claims was refused.
    pub(super) fn claim(&mut self, claims: Claims) {
        if self.store.is_some() {
            let waiting = self.waiting.entry(Arc::clone(&claims.stem)).or_default();
            waiting.claims = Some(Change::Claims(claims));
        }
    }

    /// Queues the removal of an entry. Its pause is kept in case its files come back.
    pub(super) fn gone(&mut self, stem: &Arc<str>, paused: bool) {
        if self.store.is_some() {
            let life = Some(Change::Gone(stem.to_string()));
            self.waiting.insert(Arc::clone(stem), Unwritten { life, claims: None });
        }
        if paused {
            self.kept.insert(Arc::clone(stem), only_paused(stem, paused));
        }
    }

    /// Drops everything recorded of an entry.
    pub(super) fn forget(&mut self, stem: &str) {
        self.kept.remove(stem);
        self.waiting.remove(stem);
    }

    /// Whether changes wait to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the entries with changes to write.
    pub(super) fn waiting(&self) -> Vec<Arc<str>> {
        self.waiting.keys().cloned().collect()
    }

    /// Whether the revision in force of this entry is not persisted yet.
    pub(super) fn waits(&self, stem: &str) -> bool {
        self.waiting.get(stem).is_some_and(|waiting| matches!(waiting.life, Some(Change::Accept(_))))
    }

    /// Whether everything about this entry is persisted.
    pub(super) fn has_kept(&self, stem: &str) -> bool {
        self.store.is_some() && !self.waiting.contains_key(stem)
    }

    /// Writes all changes in one transaction. Returns the entries that were written.
    pub(super) async fn write(&mut self) -> Vec<Arc<str>> {
        let Some(store) = self.store.clone().filter(|_| self.is_behind()) else { return Vec::new() };
        let waiting = std::mem::take(&mut self.waiting);
        let writing = tokio::task::spawn_blocking(move || {
            let written = store.write(waiting.values().flat_map(Unwritten::changes));
            (written, waiting)
        });
        match writing.await {
            Ok((Ok(()), waiting)) => {
                if std::mem::take(&mut self.refuses) {
                    tracing::info!("the store can be written again; what waited is kept");
                }
                waiting.into_keys().collect()
            }
            Ok((Err(error), waiting)) => {
                self.waiting = waiting;
                self.complain(&error);
                Vec::new()
            }
            Err(_) => {
                tracing::error!("writing the store failed inside tenantd");
                Vec::new()
            }
        }
    }

    /// Whether the last attempt to write failed.
    pub(super) fn refuses(&self) -> bool {
        self.refuses
    }

    fn complain(&mut self, error: &crate::store::Error) {
        if !std::mem::replace(&mut self.refuses, true) {
            tracing::error!(%error, waiting = self.waiting.len(), "the store cannot be written: tenants go on, but what changes now would not survive a restart; it is tried again every 10 s");
        }
    }
}

/// Returns a record that contains only whether an operator paused the entry.
fn only_paused(stem: &str, paused: bool) -> Entry {
    Entry { stem: stem.to_owned(), paused, ..Entry::default() }
}

impl LastGood {
    /// Restores the revision if the current files differ from it and none of its own files,
    /// including those with secrets, was deleted. Blocking.
    pub(super) fn revive(
        self,
        now: &Loaded,
        files: &[PathBuf],
        root: &Path,
        context: &bundle::Context,
    ) -> Option<Revived> {
        let (number, digest) = self.entry.in_force.filter(|(_, digest)| *digest != now.digest)?;
        let documents = match self.store.documents(&self.entry.stem, number) {
            Ok(documents) => documents?,
            Err(error) => {
                tracing::error!(entry = self.entry.stem, %error, "the last good revision cannot be read");
                return None;
            }
        };
        let snapshot = Snapshot::decode(&documents)?;
        let (its_files, loaded) = (snapshot.files(root), bundle::reload(&snapshot, root, context));
        let is_held = self.entry.held_against == Some(now.digest);
        let was_deleted = |named: &Named| {
            named.presence == Presence::Gone && loaded.named.iter().any(|its| its.path == named.path)
        };
        let is_there =
            its_files.iter().all(|file| files.contains(file)) && !now.named.iter().any(was_deleted);
        let is_whole = is_held || is_there;
        let comes_back = is_whole && loaded.digest == digest && loaded.spec.is_some();
        comes_back.then_some(Revived { number, loaded, files: its_files.into() })
    }
}
