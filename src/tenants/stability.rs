//! Decides which of the scanned entries to read and which are gone, by whether they have settled.
//! Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::debounce::ScanRequest;
use super::entry::EntryMap;
use super::scan::{Observation, ScannedEntry, Signature, Stability};

/// The results of a scan.
#[derive(Debug, Default)]
pub(super) struct ScanOutcome {
    /// Settled, and different from what was read last.
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

/// The earlier observations of entries that have not settled.
pub(super) type Observations = HashMap<Arc<str>, Observation>;

/// Classifies scanned entries. `cold` is the first scan of the process, in which everything counts
/// as settled.
pub(super) fn classify(
    look: &ScanRequest,
    found: Vec<ScannedEntry>,
    roster: &EntryMap,
    sightings: &mut Observations,
    now: Instant,
    cold: bool,
) -> ScanOutcome {
    let mut outcome =
        ScanOutcome { removed: find_removed(look, &found, roster, sightings, now), ..ScanOutcome::default() };
    for found in found {
        let stem: Arc<str> = found.files.id.as_str().into();
        let known = roster.get(&stem).map(|known| &known.signature);
        if known == Some(&found.signature) {
            sightings.remove(&stem);
            continue;
        }
        let sighting = Observation { signature: Some(found.signature.clone()), at: now };
        let confirmed = cold || sighting.confirms(sightings.get(&stem));
        let rest = if confirmed { Stability::Stable } else { found.classify_stability(&look.renamed, known) };
        if rest == Stability::Unstable {
            observe(sightings, stem, sighting);
            continue;
        }
        // On trial the earlier sighting stays: a zip that does not load counts as settled once a
        // later scan confirms it.
        if rest == Stability::Stable {
            sightings.remove(&stem);
        }
        outcome
            .to_load
            .push(PendingLoad { scanned: found, is_provisional: rest == Stability::StableIfReadable });
    }
    outcome
}

/// Returns the entries in the scope of the scan that are known but were missing twice.
fn find_removed(
    look: &ScanRequest,
    found: &[ScannedEntry],
    roster: &EntryMap,
    sightings: &mut Observations,
    now: Instant,
) -> Vec<Arc<str>> {
    let there: BTreeSet<&str> = found.iter().map(|found| found.files.id.as_str()).collect();
    let looked_for = |stem: &&Arc<str>| look.entry_ids.as_ref().is_none_or(|stems| stems.contains(&***stem));
    let missing: Vec<_> =
        roster.keys().filter(looked_for).filter(|stem| !there.contains(&***stem)).cloned().collect();
    // Entries that vanished before they settled are forgotten.
    sightings.retain(|stem, sighting| {
        sighting.signature.is_none() || there.contains(&**stem) || !looked_for(&stem)
    });
    missing
        .into_iter()
        .filter(|stem| {
            let sighting = Observation { signature: None, at: now };
            let confirmed = sighting.confirms(sightings.get(stem));
            if !confirmed {
                observe(sightings, Arc::clone(stem), sighting);
            }
            confirmed
        })
        .collect()
}

/// Records an entry that was read but has not settled.
pub(super) fn observe_unstable(
    sightings: &mut Observations,
    stem: Arc<str>,
    signature: Signature,
    at: Instant,
) {
    observe(sightings, stem, Observation { signature: Some(signature), at });
}

/// Records a sighting. A repeated one keeps its first time, so that frequent scans do not delay
/// settling.
fn observe(sightings: &mut Observations, stem: Arc<str>, sighting: Observation) {
    let known = sightings.entry(stem).or_insert_with(|| sighting.clone());
    if known.signature != sighting.signature {
        *known = sighting;
    }
}
