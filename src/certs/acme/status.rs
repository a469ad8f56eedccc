//! The status of an automatic certificate, for people.

use std::path::Path;

use jiff::Timestamp;

use super::attempt;
use super::set::Set;
use super::store::Store;
use crate::certs::Status;
use crate::certs::schedule::{State, Step};
use crate::settings::Ca;

/// What a status depends on besides the certificate itself.
pub(super) struct Surroundings<'a> {
    pub(super) cas: &'a [Ca],
    /// Why the folder cannot be written, if it cannot.
    pub(super) unwritable: Option<&'a String>,
    pub(super) now: Timestamp,
}

pub(super) fn of(name: &str, set: &Set, surroundings: &Surroundings<'_>) -> Status {
    let Surroundings { cas, unwritable, now } = *surroundings;
    let held = set.held.as_ref();
    let failure = set.memory.last_failure.as_ref().map(|failed| failed.text.clone());
    let next = set.next(now);
    let state = match (unwritable, set.state(now)) {
        (Some(_), State::Bootstrap | State::Backoff | State::Valid) => State::Refused,
        (_, state) => state,
    };
    Status {
        name: name.to_owned(),
        state,
        not_before: held.map(|held| held.not_before),
        not_after: held.map(|held| held.not_after),
        issuer: held.map(|held| held.issuer.clone()),
        serial: held.map(|held| held.serial.clone()),
        ca: cas.get(set.memory.ca).map(|ca| ca.directory.clone()),
        challenge: set.memory.challenge.map(|way| attempt::word(way).to_owned()),
        renew_at: held.and(set.memory.renew_at),
        next_attempt: (next.step == Step::Order).then_some(next.at),
        failures: set.memory.failures,
        trouble: unwritable.cloned().or(failure),
    }
}

/// Returns the statuses of the certificates in a folder, without changing it.
pub(in crate::certs) fn of_folder(folder: &Path, cas: &[Ca], now: Timestamp) -> Vec<Status> {
    let surroundings = Surroundings { cas, unwritable: None, now };
    let found = Store::read_only(folder).look();
    let sets = found
        .into_iter()
        .map(|(name, found)| (name, Set { held: found.material, memory: found.memory, ..Set::default() }));
    sets.map(|(name, set)| of(&name, &set, &surroundings)).collect()
}
