//! From what a look found to what is to be read and what is gone: settling, applied. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::pace::Look;
use super::roster::Roster;
use super::scan::{Found, Rest, Sighting, Signature};

/// What a look leads to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Settled and other than what was read last.
    pub(super) to_read: Vec<Due>,
    /// Gone at the second look.
    pub(super) gone: Vec<Arc<str>>,
}

/// An entry to read.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) found: Found,
    /// It counts only if it reads without errors; else it may still be written.
    pub(super) on_trial: bool,
}

/// What earlier looks saw of entries that have not settled yet.
pub(super) type Sightings = HashMap<Arc<str>, Sighting>;

/// Sorts what was found. `cold` is the first look of the process: what lies there is taken as it is.
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
        // On trial the earlier sighting stays: a zip that does not read is settled by the look that confirms it.
        if rest == Rest::Sure {
            sightings.remove(&stem);
        }
        outcome.to_read.push(Due { found, on_trial: rest == Rest::IfItReads });
    }
    outcome
}

/// Entries that were looked for, are known and not there, at the second look.
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
    // What never settled and went away is forgotten.
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

/// Takes note of how an entry looked that could not be taken yet.
pub(super) fn unsettled(sightings: &mut Sightings, stem: Arc<str>, signature: Signature, at: Instant) {
    remember(sightings, stem, Sighting { signature: Some(signature), at });
}

/// A repeated sighting keeps its first moment, so that looking often does not put settling off.
fn remember(sightings: &mut Sightings, stem: Arc<str>, sighting: Sighting) {
    let known = sightings.entry(stem).or_insert_with(|| sighting.clone());
    if known.signature != sighting.signature {
        *known = sighting;
    }
}
