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
    pub(super) unwritable_reason: Option<&'a String>,
    /// Why what gateways share cannot be read, if it cannot.
    pub(super) sharing_trouble: Option<&'a String>,
    /// The name of this gateway, if several could order.
    pub(super) node: Option<&'a str>,
    pub(super) now: Timestamp,
}

pub(super) fn certificate_status(
    name: &str,
    managed: &ManagedCertificate,
    context: &StatusContext<'_>,
) -> CertificateStatus {
    let StatusContext { cas, unwritable_reason, sharing_trouble, node, now } = *context;
    let held = managed.current.as_ref();
    let failure = managed.renewal.last_failure.as_ref().map(|failed| failed.text.clone());
    let next = managed.next_step(now);
    let state = match (unwritable_reason, managed.state(now)) {
        (Some(_), CertificateState::Placeholder | CertificateState::Backoff | CertificateState::Valid) => {
            CertificateState::Refused
        }
        (None, CertificateState::Placeholder | CertificateState::Backoff | CertificateState::Valid)
            if managed.shared.problem.is_some() =>
        {
            CertificateState::Refused
        }
        (_, state) => state,
    };
    let is_due = next.at <= now;
    let sharing_trouble = sharing_trouble
        .filter(|_| is_due || held.is_none())
        .map(|trouble| format!("{trouble}. Nothing is ordered until gateways can agree there who orders"));
    CertificateStatus {
        name: name.to_owned(),
        state,
        not_before: held.map(|held| held.not_before),
        not_after: held.map(|held| held.not_after),
        issuer: held.map(|held| held.issuer.clone()),
        serial: held.map(|held| held.serial.clone()),
        ca: cas.get(managed.renewal.ca).map(|ca| ca.directory.clone()),
        challenge: managed.renewal.challenge.map(|way| way.as_str().to_owned()),
        renew_at: held.and(managed.renewal.renew_at),
        next_attempt: (next.step == RenewalStep::Order).then_some(next.at),
        failures: managed.renewal.failures,
        ordered_by: managed.orderer().or(node.filter(|_| managed.is_ordering())).map(str::to_owned),
        trouble: unwritable_reason
            .cloned()
            .or_else(|| managed.shared.problem.clone())
            .or(sharing_trouble)
            .or(failure),
    }
}

/// Returns the statuses of the certificates in a folder, without changing it.
pub(in crate::certs) fn folder_statuses(folder: &Path, cas: &[Ca], now: Timestamp) -> Vec<CertificateStatus> {
    let context = StatusContext { cas, unwritable_reason: None, sharing_trouble: None, node: None, now };
    let found = CertsFolder::read_only(folder).scan();
    let managed = found.into_iter().map(|(name, found)| {
        (
            name,
            ManagedCertificate {
                current: found.certificate,
                renewal: found.renewal,
                ..ManagedCertificate::default()
            },
        )
    });
    managed.map(|(name, managed)| certificate_status(&name, &managed, &context)).collect()
}
