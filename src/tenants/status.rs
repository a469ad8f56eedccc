//! The status of each entry in the folder, for people and machines.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cluster_view::TenantOnNode;
use crate::usage::QuotaStatus;

/// The state of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantState {
    /// Not read yet.
    Loading,
    /// Serves.
    Serving,
    /// Serves, but its backend or login is down.
    Degraded,
    /// Its last change was refused; the last good revision serves.
    Stale,
    /// Its last change waits for an operator's approval; the last revision serves.
    Held,
    /// Refused; nothing of it serves.
    Rejected,
    /// Disabled by its files or paused by an operator.
    Disabled,
}

impl TenantState {
    /// All states in order.
    pub const ALL: [Self; 7] = [
        Self::Loading,
        Self::Serving,
        Self::Degraded,
        Self::Stale,
        Self::Held,
        Self::Rejected,
        Self::Disabled,
    ];

    /// Returns the state's label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Stale => "stale",
            Self::Held => "held",
            Self::Rejected => "rejected",
            Self::Disabled => "disabled",
        }
    }
}

/// The status of one entry: `/api/tenants`, `tenants show`, status files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TenantStatus {
    /// The tenant's name; the stem if the name is not known.
    pub name: String,
    /// The stem of the entry's files.
    pub stem: String,
    /// The current state.
    pub state: TenantState,
    /// When the entry entered that state.
    pub since: Timestamp,
    /// The URL that people enter in an MCP client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connector_url: Option<String>,
    /// The redirect URI to register with the app in Entra, for a tenant with a login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redirect_uri: Option<String>,
    /// The tenant's title.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// How callers authenticate: `open (private networks)`, `open (public)`, `api keys (2)`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<String>,
    /// The first 12 digits of the digest of the files on disk.
    #[serde(rename = "on_disk", skip_serializing_if = "Option::is_none", default)]
    pub digest_on_disk: Option<String>,
    /// The first 12 digits of the digest in force.
    #[serde(rename = "in_force", skip_serializing_if = "Option::is_none", default)]
    pub digest_in_force: Option<String>,
    /// The number of the revision in force, see `tenants history`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u64>,
    /// Whether an operator put an older revision in force.
    #[serde(default)]
    pub rolled_back: bool,
    /// Whether an operator paused the tenant.
    #[serde(default)]
    pub paused: bool,
    /// Why the tenant is degraded: because of its backend, or else of its login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// How much of the tenant's and its tools' quotas is used.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub quotas: Vec<QuotaStatus>,
    /// Whether the tenant answers 503 until repaired, because the refused change may concern who
    /// may call.
    #[serde(default)]
    pub closed: bool,
    /// What is in force on which gateway, if those of the cluster disagree for longer than a minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disagreement: Option<String>,
    /// The tenant as each gateway of the cluster has it; only when one tenant is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nodes: Vec<TenantOnNode>,
    /// The findings, as `Diagnostic` serializes.
    #[serde(default)]
    pub findings: serde_json::Value,
    /// The entry's files, relative to the folder.
    #[serde(default)]
    pub files: Vec<String>,
}

impl TenantStatus {
    /// Whether callers are answered by the tenant.
    pub fn is_served(&self) -> bool {
        use TenantState::{Degraded, Held, Serving, Stale};
        matches!(self.state, Serving | Degraded | Stale | Held) && !self.closed
    }

    /// Returns the message of the first finding that rejects the entry.
    pub fn first_error(&self) -> Option<String> {
        let findings = self.findings.as_array()?;
        let error = findings.iter().find(|finding| finding["severity"] == "error")?;
        error["message"].as_str().map(str::to_owned)
    }
}
