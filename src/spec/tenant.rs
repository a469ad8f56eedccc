//! The specification of a tenant.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AccessSpec, BackendSpec, DataFingerprint, DataFingerprints, LimitsSpec, Mount, PublicUrl, TenantClaim,
    TenantName, ToolSpec,
};

/// Everything that defines one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantSpec {
    /// The tenant's name.
    pub name: TenantName,
    /// The dataset's name, as in the vendor's export (a ZIP).
    pub dataset: Arc<str>,
    /// The name shown to people.
    pub title: Arc<str>,
    /// The description shown to people.
    pub description: Option<Arc<str>>,
    /// The operator's instructions for the model, which precede the summary of the semantic
    /// context.
    pub instructions: Option<Arc<str>>,
    /// Whether the tenant is served. A disabled tenant keeps its claims and answers as if it did
    /// not exist.
    pub enabled: bool,
    /// The base URL that clients are given.
    pub public_url: PublicUrl,
    /// Where the tenant answers. There is at least one, and the first is that of `public_url`.
    pub mounts: Vec<Mount>,
    /// Whether other tenants may use its hosts, if they let this one use theirs.
    pub shares_hosts: bool,
    /// The tools, in the order they are listed. Their names are unique.
    pub tools: Arc<[ToolSpec]>,
    /// The HTTP API behind the tools.
    pub backend: BackendSpec,
    /// Who may call.
    pub access: AccessSpec,
    /// What the tenant may use of the machine.
    pub limits: LimitsSpec,
    /// Whether what is used of it is written beside its files.
    pub usage_file: bool,
    /// How long responses may be cached.
    pub cache: CacheSpec,
    /// The longest time that a call may take.
    pub call_timeout: Duration,
    /// How clients get answers that take long.
    pub slow_answers: SlowAnswers,
    /// Questions that the vendor's export suggests, for the connector page.
    pub sample_questions: Arc<[String]>,
    /// Which of its changes wait for an operator's approval.
    pub hold_changes: HoldChanges,
    /// The tenant's own icon, an https URL, instead of the gateway's.
    pub icon_url: Option<Arc<str>>,
}

/// Which changes of a tenant wait for an operator's approval (`hold_changes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldChanges {
    /// None (`off`).
    #[default]
    Nothing,
    /// Those of what the model reads: names, texts and schemas of tools (`tools`).
    Tools,
}

impl HoldChanges {
    /// Parses the value of the setting or field.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tools" => Some(Self::Tools),
            "off" => Some(Self::Nothing),
            _ => None,
        }
    }
}

/// How clients get an answer that is not ready soon (`answers` in the tenant's file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowAnswers {
    /// As an event stream with keep-alives, if the client accepts one (`answers: auto`).
    #[default]
    Stream,
    /// As JSON, however long it takes (`answers: json`).
    Json,
}

impl TenantSpec {
    /// Returns what the tenant claims: its name, paths and hosts. It owns them while it is served.
    pub fn claim(&self) -> TenantClaim<'_> {
        TenantClaim { name: &self.name, mounts: &self.mounts, shares_hosts: self.shares_hosts }
    }

    /// Returns the listener of its own on which alone it answers, if it has one.
    pub fn listener(&self) -> Option<SocketAddr> {
        self.mounts.first().and_then(|mount| mount.listener)
    }

    /// What it gives to everybody, where nothing in its files says that this is meant.
    pub fn implicitly_open_data(&self) -> &[DataFingerprint] {
        match self.access.is_open() && !self.access.open_on_purpose {
            true => &self.backend.data.effective,
            false => &[],
        }
    }

    /// What it gives to some callers only.
    pub fn restricted_data(&self) -> Option<&DataFingerprints> {
        (!self.access.is_open()).then_some(&self.backend.data)
    }

    /// What to register with the app at the provider, where people log in.
    pub fn redirect_uri(&self) -> Option<String> {
        self.access.login.as_ref().map(|_| self.public_url.callback_url())
    }
}

/// How long responses may be cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSpec {
    /// The age at which the semantic context is fetched again.
    pub context_ttl: Duration,
    /// The lifetime of lists that clients are given (`ttlMs`).
    pub list_ttl: Duration,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self { context_ttl: Duration::from_secs(3600), list_ttl: Duration::from_secs(60) }
    }
}
