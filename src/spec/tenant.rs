//! A tenant as meant.

use std::sync::Arc;
use std::time::Duration;

use super::{
    AccessSpec, BackendSpec, LimitsSpec, Mount, PublicUrl, Reach, Reaches, Stake, TenantName, ToolSpec,
};

/// Everything one tenant is meant to be.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantSpec {
    pub name: TenantName,
    /// The dataset's name, as the export has it.
    pub dataset: Arc<str>,
    /// What people are shown.
    pub title: Arc<str>,
    pub description: Option<Arc<str>>,
    /// The operator's own instructions for the model, put before the digest of the context.
    pub instructions: Option<Arc<str>>,
    /// A disabled tenant keeps its claims and answers as if it did not exist.
    pub enabled: bool,
    /// The base URL that clients are told.
    pub public_url: PublicUrl,
    /// Where it answers; at least one, the first is that of `public_url`.
    pub mounts: Vec<Mount>,
    /// Other tenants may be on its hosts, if they let it onto theirs.
    pub shares_hosts: bool,
    /// In the order they are listed. Names are unique.
    pub tools: Arc<[ToolSpec]>,
    pub backend: BackendSpec,
    pub access: AccessSpec,
    pub limits: LimitsSpec,
    pub cache: CacheSpec,
    /// The longest a call may take.
    pub deadline: Duration,
}

impl TenantSpec {
    /// What it claims, and holds once it is in force.
    pub fn stake(&self) -> Stake<'_> {
        Stake { name: &self.name, mounts: &self.mounts, shares_hosts: self.shares_hosts }
    }

    /// What it gives to everybody, where nothing in its files says that this is meant.
    pub fn opens(&self) -> &[Reach] {
        match self.access.is_open() && !self.access.open_on_purpose {
            true => &self.backend.reaches.own,
            false => &[],
        }
    }

    /// What it gives to some callers only.
    pub fn guards(&self) -> Option<&Reaches> {
        (!self.access.is_open()).then_some(&self.backend.reaches)
    }

    /// What to register with the app in Entra, where people log in.
    pub fn redirect_uri(&self) -> Option<String> {
        self.access.login.as_ref().map(|_| self.public_url.callback())
    }
}

/// How long answers may be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSpec {
    /// After this the semantic context is fetched anew.
    pub context_ttl: Duration,
    /// What clients are told about lists (`ttlMs`).
    pub list_ttl: Duration,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self { context_ttl: Duration::from_secs(3600), list_ttl: Duration::from_secs(60) }
    }
}
