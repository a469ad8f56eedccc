//! What became of each entry in the folder, as people and machines are told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a tenant is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Loading,
    Serving,
    /// Serves, but its backend or the login is down.
    Degraded,
    /// Its last change was refused; the last good revision serves.
    Stale,
    Rejected,
    Disabled,
    Draining,
}

impl State {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Loading,
        Self::Serving,
        Self::Degraded,
        Self::Stale,
        Self::Rejected,
        Self::Disabled,
        Self::Draining,
    ];

    /// What metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Stale => "stale",
            Self::Rejected => "rejected",
            Self::Disabled => "disabled",
            Self::Draining => "draining",
        }
    }
}

/// The status of one entry: `/api/tenants`, `tenants show`, receipts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TenantStatus {
    /// The tenant's name; the stem while no name is known.
    pub name: String,
    pub stem: String,
    pub state: State,
    pub since: Timestamp,
    /// What people paste into a client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connector_url: Option<String>,
    /// What to register with the app in Entra, where people log in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redirect_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// How callers are let in: `open (private networks)`, `open (public)`, `api keys (2)`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<String>,
    /// First 12 digits of the digest on disk, and of the one in force.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_disk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_force: Option<String>,
    /// The number of the revision in force, see `tenants history`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u64>,
    /// An operator put an older revision in force.
    #[serde(default)]
    pub rolled_back: bool,
    /// An operator stopped it.
    #[serde(default)]
    pub paused: bool,
    /// The backend's trouble, or else the login's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// Answers 503 until repaired: the refused change may be about who may call.
    #[serde(default)]
    pub closed: bool,
    /// Findings, as `Diagnostic` serialises.
    #[serde(default)]
    pub findings: serde_json::Value,
    /// The files it was made of, relative to the folder.
    #[serde(default)]
    pub files: Vec<String>,
}
