//! Decides which of the scanned entries to read and which are gone, by whether they are stable.
//! Pure.
//!
//! A half-written YAML is often valid without its last lines, so an unstable entry must never open
//! a tenant: an entry is accepted only if all its files were renamed into place, or were the same
//! in two scans half a second apart, or (a zip) could be read completely. A new zip without other
//! files that is open to everybody takes two scans, so that it never serves without the overlay
//! that is copied after it. A missing file takes two scans as well, since an editor may be about to
//! write it anew. Modification times are compared with those of the previous scan, never with a
//! clock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::EntryMap;
use super::scan::{FileStamp, FileStamps, ScanRequest, ScannedEntry, SecretFiles};

/// The time between two scans that must agree.
const STABLE_AFTER: Duration = Duration::from_millis(500);

/// Whether an entry has stopped changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stability {
    /// All its files are complete.
    Stable,
    /// Its zip is new. If it reads completely it is complete; if not, another scan must confirm it.
    /// So must one of a new entry that is open to everybody: the overlay that restricts it may
    /// still be coming.
    StableIfReadable,
    /// Another scan must confirm this one.
    Unstable,
}

/// A scan, and what was known before it.
pub(super) struct ScanContext<'a> {
    pub(super) request: &'a ScanRequest,
    pub(super) entries: &'a EntryMap,
    pub(super) now: Instant,
    /// Whether it is the first scan of the process, in which everything counts as stable.
    pub(super) is_first: bool,
}

/// What a scan leads to.
#[derive(Debug, Default)]
pub(super) struct ScanOutcome {
    /// Stable, and different from what was read last.
    pub(super) to_load: Vec<PendingLoad>,
    /// Missing in two scans.
    pub(super) removed: Vec<Arc<str>>,
}

/// An entry to read.
#[derive(Debug)]
pub(super) struct PendingLoad {
    pub(super) scanned: ScannedEntry,
    /// Whether the entry may still be incomplete: it is accepted only if it loads without errors.
    pub(super) is_provisional: bool,
}

/// The entries that are not stable, as they were observed.
#[derive(Debug, Default)]
pub(super) struct Observations(HashMap<Arc<str>, Observation>);

/// An observation that a later scan must confirm.
#[derive(Debug)]
struct Observation {
    /// `None` if the entry was gone.
    stamps: Option<FileStamps>,
    /// When the entry was first seen like this.
    at: Instant,
}

impl Observations {
    /// Records what was seen of an entry that is not stable; `None`: it was gone. A repeated
    /// observation keeps its first time, so that frequent scans delay nothing.
    pub(super) fn observe(&mut self, entry_id: &Arc<str>, stamps: Option<FileStamps>, now: Instant) {
        if self.0.get(entry_id).is_none_or(|earlier| earlier.stamps != stamps) {
            self.0.insert(Arc::clone(entry_id), Observation { stamps, at: now });
        }
    }

    /// Whether an entry was seen like this before, long enough ago.
    fn is_confirmed(&self, entry_id: &str, stamps: Option<&FileStamps>, now: Instant) -> bool {
        self.0.get(entry_id).is_some_and(|earlier| {
            earlier.stamps.as_ref() == stamps && now.duration_since(earlier.at) >= STABLE_AFTER
        })
    }

    /// Forgets an entry: it is stable, or removed.
    pub(super) fn remove(&mut self, entry_id: &str) {
        self.0.remove(entry_id);
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns when the first of them can be confirmed; `None` if there are none.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|observation| observation.at + STABLE_AFTER).min()
    }

    /// Whether the entry was missing when it was last seen.
    pub(super) fn is_absent(&self, entry_id: &str) -> bool {
        self.0.get(entry_id).is_some_and(|observation| observation.stamps.is_none())
    }

    /// Whether the entry is not stable.
    pub(super) fn contains(&self, entry_id: &str) -> bool {
        self.0.contains_key(entry_id)
    }

    /// Returns the number of entries that are not stable.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the entries that are not stable.
    pub(super) fn entry_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Returns the files that the entries' files name, as last seen.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = (&Arc<str>, &SecretFiles)> {
        self.0.iter().filter_map(|(id, observation)| Some((id, observation.stamps.as_ref()?.secret_files())))
    }
}

impl ScanContext<'_> {
    /// Decides about scanned entries.
    pub(super) fn classify(
        &self,
        scanned: Vec<ScannedEntry>,
        observations: &mut Observations,
    ) -> ScanOutcome {
        let removed = self.find_removed(&scanned, observations);
        let mut to_load = Vec::new();
        for scanned in scanned {
            let entry_id: Arc<str> = scanned.files.id.as_str().into();
            let known = self.entries.get(&entry_id).map(|entry| &entry.stamps);
            if known == Some(&scanned.stamps) {
                observations.remove(&entry_id);
                continue;
            }
            let is_confirmed =
                self.is_first || observations.is_confirmed(&entry_id, Some(&scanned.stamps), self.now);
            let stability = match is_confirmed {
                true => Stability::Stable,
                false => Stability::judge(&scanned.stamps, &self.request.renamed, known),
            };
            match stability {
                Stability::Stable => observations.remove(&entry_id),
                // The earlier observation stays: a zip that does not load counts as stable once a
                // later scan confirms it.
                Stability::StableIfReadable => {}
                Stability::Unstable => {
                    observations.observe(&entry_id, Some(scanned.stamps), self.now);
                    continue;
                }
            }
            to_load.push(PendingLoad { scanned, is_provisional: stability == Stability::StableIfReadable });
        }
        ScanOutcome { to_load, removed }
    }

    /// Returns the entries in the scope of the scan that are known but were missing twice.
    fn find_removed(&self, scanned: &[ScannedEntry], observations: &mut Observations) -> Vec<Arc<str>> {
        let present: BTreeSet<&str> = scanned.iter().map(|scanned| scanned.files.id.as_str()).collect();
        let is_missing = |entry_id: &str| self.request.includes(entry_id) && !present.contains(entry_id);
        // Entries that vanished before they were stable are forgotten.
        observations.0.retain(|entry_id, observation| observation.stamps.is_none() || !is_missing(entry_id));
        let mut removed = Vec::new();
        for entry_id in self.entries.keys().filter(|entry_id| is_missing(entry_id)) {
            match observations.is_confirmed(entry_id, None, self.now) {
                true => removed.push(Arc::clone(entry_id)),
                false => observations.observe(entry_id, None, self.now),
            }
        }
        removed
    }
}

impl Stability {
    /// Judges an entry by one scan: all files were renamed into place or are as they were when last
    /// read (`known`), or all others are zips, or neither. A new entry that is only a zip may be
    /// the first of several files, however it arrived.
    fn judge(stamps: &FileStamps, renamed: &HashSet<PathBuf>, known: Option<&FileStamps>) -> Self {
        let files = stamps.files();
        if known.is_none() && !files.is_empty() && files.iter().all(FileStamp::is_zip) {
            return Self::StableIfReadable;
        }
        if files.is_empty() || known.is_some_and(|known| stamps.differs_beyond_its_files(known)) {
            return Self::Unstable;
        }
        let is_sure = |stamp: &FileStamp| {
            renamed.contains(&stamp.path) || known.is_some_and(|known| known.files().contains(stamp))
        };
        let mut unsure = files.iter().filter(|stamp| !is_sure(stamp));
        match unsure.clone().next() {
            None => Self::Stable,
            Some(_) if unsure.all(FileStamp::is_zip) => Self::StableIfReadable,
            Some(_) => Self::Unstable,
        }
    }
}

#[cfg(test)]
mod tests;
