//! How a certificate stands: what the admin listener and `tenantd certs` show.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::material::Material;
use super::schedule::State;

/// How the certificate for a name stands. Times without a certificate are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub state: State,
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    pub issuer: Option<String>,
    pub serial: Option<String>,
    /// The CA that is asked, and how it was last convinced.
    pub ca: Option<String>,
    pub challenge: Option<String>,
    /// When a renewal is planned, and when the next order may be placed.
    pub renew_at: Option<Timestamp>,
    pub next_attempt: Option<Timestamp>,
    /// In a row.
    pub failures: u32,
    /// Why there is none or no newer one, and what to do.
    pub trouble: Option<String>,
}

impl Status {
    /// Whether an operator should look at it.
    pub fn is_well(&self) -> bool {
        matches!(self.state, State::Valid | State::Ordering)
    }
}

/// The statuses of certificates that are not obtained automatically.
pub(super) fn of_materials(materials: &[Arc<Material>], now: Timestamp) -> Vec<Status> {
    let status = |material: &Arc<Material>| Status {
        name: material.names.join(" "),
        state: if material.not_after <= now { State::Expired } else { State::Valid },
        not_before: Some(material.not_before),
        not_after: Some(material.not_after),
        issuer: Some(material.issuer.clone()),
        serial: Some(material.serial.clone()),
        ca: None,
        challenge: None,
        renew_at: None,
        next_attempt: None,
        failures: 0,
        trouble: (material.not_after <= now)
            .then(|| "it has expired; clients refuse it: replace it".to_owned()),
    };
    materials.iter().map(status).collect()
}
