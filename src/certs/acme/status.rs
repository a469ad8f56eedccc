//! How an automatic certificate stands, for people.

use jiff::Timestamp;

use super::{Acme, Set, order};
use crate::certs::Status;
use crate::certs::schedule::{State, Step};

pub(super) fn of(name: &str, set: &Set, acme: &Acme, now: Timestamp) -> Status {
    let held = set.held.as_ref();
    let failure = set.memory.last_failure.as_ref().map(|failed| failed.text.clone());
    let next = set.next(now);
    let state = match (&acme.unwritable, set.state(now)) {
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
        ca: acme.parts.settings.cas.get(set.memory.ca).map(|ca| ca.directory.clone()),
        challenge: set.memory.challenge.map(|way| order::word(way).to_owned()),
        renew_at: held.and(set.memory.renew_at),
        next_attempt: (next.step == Step::Order).then_some(next.at),
        failures: set.memory.failures,
        trouble: acme.unwritable.clone().or(failure),
    }
}
