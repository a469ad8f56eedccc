//! The status of an automatic certificate, for people.

use std::path::Path;

use jiff::Timestamp;

use super::certs_folder::CertsFolder;
use super::managed_certificate::ManagedCertificate;
use crate::certs::CertificateStatus;
use crate::certs::schedule::{CertificateState, RenewalStep};
use crate::settings::Ca;

/// What a status depends on besides the certificate itself.
pub(super) struct StatusContext<'a> {
    pub(super) cas: &'a [Ca],
    /// Why the folder cannot be written, if it cannot.
    pub(super) unwritable: Option<&'a String>,
    pub(super) now: Timestamp,
}

pub(super) fn certificate_status(
    name: &str,
    set: &ManagedCertificate,
    surroundings: &StatusContext<'_>,
) -> CertificateStatus {
    let StatusContext { cas, unwritable, now } = *surroundings;
    let held = set.current.as_ref();
    let failure = set.renewal.last_failure.as_ref().map(|failed| failed.text.clone());
    let next = set.next_step(now);
    let state = match (unwritable, set.state(now)) {
        (Some(_), CertificateState::Bootstrap | CertificateState::Backoff | CertificateState::Valid) => {
            CertificateState::Refused
        }
        (_, state) => state,
    };
    CertificateStatus {
        name: name.to_owned(),
        state,
        not_before: held.map(|held| held.not_before),
        not_after: held.map(|held| held.not_after),
        issuer: held.map(|held| held.issuer.clone()),
        serial: held.map(|held| held.serial.clone()),
        ca: cas.get(set.renewal.ca).map(|ca| ca.directory.clone()),
        challenge: set.renewal.challenge.map(|way| way.as_str().to_owned()),
        renew_at: held.and(set.renewal.renew_at),
        next_attempt: (next.step == RenewalStep::Order).then_some(next.at),
        failures: set.renewal.failures,
        trouble: unwritable.cloned().or(failure),
    }
}

/// Returns the statuses of the certificates in a folder, without changing it.
pub(in crate::certs) fn folder_statuses(folder: &Path, cas: &[Ca], now: Timestamp) -> Vec<CertificateStatus> {
    let surroundings = StatusContext { cas, unwritable: None, now };
    let found = CertsFolder::read_only(folder).scan();
    let sets = found.into_iter().map(|(name, found)| {
        (
            name,
            ManagedCertificate {
                current: found.certificate,
                renewal: found.renewal,
                ..ManagedCertificate::default()
            },
        )
    });
    sets.map(|(name, set)| certificate_status(&name, &set, &surroundings)).collect()
}
