//! The status of a certificate, as the admin listener and `tenantd certs` show it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schedule::CertificateState;
use super::server_certificate::ServerCertificate;

/// The status of one certificate. Its dates are absent while there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The name it is for; several, separated by spaces, if it was not obtained automatically.
    pub name: String,
    /// Its state.
    pub state: CertificateState,
    /// When it becomes valid.
    pub not_before: Option<Timestamp>,
    /// When it expires.
    pub not_after: Option<Timestamp>,
    /// The distinguished name of its issuer.
    pub issuer: Option<String>,
    /// Its serial number, in hexadecimal.
    pub serial: Option<String>,
    /// The directory URL of the CA that is asked.
    pub ca: Option<String>,
    /// The type of the challenge that succeeded last.
    pub challenge: Option<String>,
    /// When a renewal is planned.
    pub renew_at: Option<Timestamp>,
    /// When the next order may be placed.
    pub next_attempt: Option<Timestamp>,
    /// The gateway that orders one now, if several share their certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_by: Option<String>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Why there is no certificate or no newer one, and what to do.
    pub trouble: Option<String>,
}

impl CertificateStatus {
    /// Returns whether no operator needs to look at it.
    pub fn is_healthy(&self) -> bool {
        matches!(self.state, CertificateState::Valid | CertificateState::Ordering)
    }
}

/// Returns the statuses of certificates that are not obtained automatically.
pub(super) fn from_certificates(
    certificates: &[Arc<ServerCertificate>],
    now: Timestamp,
) -> Vec<CertificateStatus> {
    let status = |certificate: &Arc<ServerCertificate>| CertificateStatus {
        name: certificate.names.join(" "),
        state: if certificate.not_after <= now { CertificateState::Expired } else { CertificateState::Valid },
        not_before: Some(certificate.not_before),
        not_after: Some(certificate.not_after),
        issuer: Some(certificate.issuer.clone()),
        serial: Some(certificate.serial.clone()),
        ca: None,
        challenge: None,
        renew_at: None,
        next_attempt: None,
        ordered_by: None,
        failures: 0,
        trouble: (certificate.not_after <= now)
            .then(|| "it has expired and clients refuse it; replace it".to_owned()),
    };
    certificates.iter().map(status).collect()
}
