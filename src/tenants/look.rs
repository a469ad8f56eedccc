//! Decides which of the scanned entries to read and which are gone, by whether they have settled.
//! Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::pace::Look;
use super::roster::Roster;
use super::scan::{Found, Rest, Sighting, Signature};

/// The results of a scan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Settled, and different from what was read last.
    pub(super) to_read: Vec<Due>,
    /// Missing in two scans.
    pub(super) gone: Vec<Arc<str>>,
}

/// An entry to read.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) found: Found,
    /// Whether the entry may still be incomplete: it is accepted only if it loads without errors.
    pub(super) on_trial: bool,
}

/// The earlier observations of entries that have not settled.
pub(super) type Sightings = HashMap<Arc<str>, Sighting>;

/// Classifies scanned entries. `cold` is the first scan of the process, in which everything counts
/// as settled.
pub(super) fn sort(
    look: &Look,
    found: Vec<Found>,
    roster: &Roster,
    sightings: &mut Sightings,
    now: Instant,
    cold: bool,
) -> Outcome {
    let mut outcome = Outcome { gone: gone(look, &found, roster, sightings, now), ..Outcome::default() };
    for found in found {
        let stem: Arc<str> = found.entry.stem.as_str().into();
        let known = roster.get(&stem).map(|known| &known.signature);
        if known == Some(&found.signature) {
            sightings.remove(&stem);
            continue;
        }
        let sighting = Sighting { signature: Some(found.signature.clone()), at: now };
        let confirmed = cold || sighting.confirms(sightings.get(&stem));
        let rest = if confirmed { Rest::Sure } else { found.rest(&look.renamed, known) };
        if rest == Rest::Unknown {
            remember(sightings, stem, sighting);
            continue;
        }
        // On trial the earlier sighting stays: a zip that does not load counts as settled once a
        // later scan confirms it.
        if rest == Rest::Sure {
            sightings.remove(&stem);
        }
        outcome.to_read.push(Due { found, on_trial: rest == Rest::IfItReads });
    }
    outcome
}

/// Returns the entries in the scope of the scan that are known but were missing twice.
fn gone(
    look: &Look,
    found: &[Found],
    roster: &Roster,
    sightings: &mut Sightings,
    now: Instant,
) -> Vec<Arc<str>> {
    let there: BTreeSet<&str> = found.iter().map(|found| found.entry.stem.as_str()).collect();
    let looked_for = |stem: &&Arc<str>| look.stems.as_ref().is_none_or(|stems| stems.contains(&***stem));
    let missing: Vec<_> =
        roster.keys().filter(looked_for).filter(|stem| !there.contains(&***stem)).cloned().collect();
    // Entries that vanished before they settled are forgotten.
    sightings.retain(|stem, sighting| {
        sighting.signature.is_none() || there.contains(&**stem) || !looked_for(&stem)
    });
    missing
        .into_iter()
        .filter(|stem| {
            let sighting = Sighting { signature: None, at: now };
            let confirmed = sighting.confirms(sightings.get(stem));
            if !confirmed {
                remember(sightings, Arc::clone(stem), sighting);
            }
            confirmed
        })
        .collect()
}

/// Records an entry that was read but has not settled.
pub(super) fn unsettled(sightings: &mut Sightings, stem: Arc<str>, signature: Signature, at: Instant) {
    remember(sightings, stem, Sighting { signature: Some(signature), at });
}

/// Records a sighting. A repeated one keeps its first time, so that frequent scans do not delay
/// settling.
fn remember(sightings: &mut Sightings, stem: Arc<str>, sighting: Sighting) {
    let known = sightings.entry(stem).or_insert_with(|| sighting.clone());
    if known.signature != sighting.signature {
        *known = sighting;
    }
}
