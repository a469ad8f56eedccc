//! The published state of one entry. Kept small: the texts of a status are made on request, not in
//! advance for ten thousand tenants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::status::{TenantState, TenantStatus};
use super::tenant::Tenant;
use super::tool_changes::HeldChange;
use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::digest::Digest;
use crate::spec::TenantName;
use crate::store::NodeEntry;

/// The published state of one entry.
#[derive(Clone)]
pub struct PublishedEntry {
    details: Arc<EntryDetails>,
    /// The revision in force, if any.
    pub tenant: Option<Arc<Tenant>>,
}

/// The results of a pass about an entry; the tenant knows everything else.
pub(super) struct EntryDetails {
    pub(super) entry_id: Arc<str>,
    /// `None` if the name is not known.
    pub(super) name: Option<TenantName>,
    pub(super) state: TenantState,
    pub(super) since: Timestamp,
    pub(super) on_disk: Option<Digest>,
    pub(super) revision: Option<u64>,
    pub(super) rolled_back: bool,
    pub(super) paused: bool,
    pub(super) closed: bool,
    /// The change that waits for approval, if one does.
    pub(super) held: Option<Arc<HeldChange>>,
    pub(super) findings: Box<[Diagnostic]>,
    pub(super) files: Arc<[PathBuf]>,
    /// The tenants folder.
    pub(super) folder: Arc<Path>,
}

impl PublishedEntry {
    pub(super) fn new(details: EntryDetails, tenant: Option<Arc<Tenant>>) -> Self {
        Self { details: Arc::new(details), tenant }
    }

    /// Returns the tenant's name, or the entry id if the name is not known.
    pub fn name(&self) -> &str {
        self.details.name.as_ref().map_or(&self.details.entry_id, TenantName::as_str)
    }

    /// Returns the first finding that refuses the entry's files.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        self.details.findings.iter().find(|finding| finding.severity == Severity::Error)
    }

    /// Returns the change that waits for an operator's approval.
    pub(super) fn held_change(&self) -> Option<&Arc<HeldChange>> {
        self.details.held.as_ref()
    }

    /// Returns what the change that waits for an operator's approval is.
    pub fn held_finding(&self) -> Option<&Diagnostic> {
        self.details.held.as_ref().map(|held| &held.finding)
    }

    /// Returns the state after the last pass.
    pub(super) fn last_state(&self) -> TenantState {
        self.details.state
    }

    /// Whether the tenant serves although its backend or login is down.
    fn is_degraded(&self) -> bool {
        let is_degraded = |tenant: &Arc<Tenant>| tenant.degradation().is_some();
        self.details.state == TenantState::Serving && self.tenant.as_ref().is_some_and(is_degraded)
    }

    /// Returns the current state; what degrades the tenant may have changed since the last pass.
    pub fn current_state(&self) -> TenantState {
        if self.is_degraded() { TenantState::Degraded } else { self.details.state }
    }

    /// Returns when the entry entered its current state.
    pub fn since(&self) -> Timestamp {
        let degradation = self.tenant.as_deref().and_then(Tenant::degradation);
        let is_serving = self.details.state == TenantState::Serving;
        degradation.filter(|_| is_serving).map_or(self.details.since, |degradation| degradation.since)
    }

    /// Returns the id of the entry.
    pub fn entry_id(&self) -> &Arc<str> {
        &self.details.entry_id
    }

    /// Whether an operator paused the tenant.
    pub fn is_paused(&self) -> bool {
        self.details.paused
    }

    /// Whether the tenant answers 503 until repaired.
    pub fn is_closed(&self) -> bool {
        self.details.closed
    }

    /// Returns the findings of the last pass.
    pub fn findings(&self) -> &[Diagnostic] {
        &self.details.findings
    }

    /// Whether both are the results of the same pass.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.details, &other.details)
    }

    /// Returns what other gateways are told of the entry.
    pub(super) fn to_node_entry(&self) -> NodeEntry {
        let details = &*self.details;
        NodeEntry {
            entry_id: details.entry_id.to_string(),
            name: self.name().to_owned(),
            state: details.state.as_str().to_owned(),
            since: Timestamp::from_second(details.since.as_second()).unwrap_or(details.since),
            on_disk: details.on_disk,
            in_force: self.tenant.as_ref().map(|tenant| tenant.revision),
        }
    }

    /// Returns the current status; what degrades the tenant may have changed since the last pass.
    pub fn status(&self) -> TenantStatus {
        let (details, tenant) = (&*self.details, self.tenant.as_deref());
        let degradation = tenant.and_then(Tenant::degradation);
        let is_degraded = details.state == TenantState::Serving && degradation.is_some();
        TenantStatus {
            name: self.name().to_owned(),
            stem: details.entry_id.to_string(),
            state: if is_degraded { TenantState::Degraded } else { details.state },
            since: self.since(),
            connector_url: tenant.map(|tenant| tenant.spec.public_url.connector_url()),
            redirect_uri: tenant.and_then(|tenant| tenant.spec.redirect_uri()),
            title: tenant.map(|tenant| tenant.spec.title.to_string()),
            access: tenant.map(|tenant| tenant.bearer.describe()),
            digest_on_disk: details.on_disk.map(|digest| digest.short()),
            digest_in_force: tenant.map(|tenant| tenant.revision.short()),
            revision: details.revision,
            rolled_back: details.rolled_back,
            paused: details.paused,
            trouble: degradation.map(|degradation| degradation.reason),
            quotas: tenant.map(|tenant| tenant.usage.quotas()).unwrap_or_default(),
            closed: details.closed,
            disagreement: None,
            nodes: Vec::new(),
            findings: serde_json::to_value(&details.findings).expect("findings are plain data"),
            files: details.files.iter().map(|file| details.relative_path(file)).collect(),
        }
    }
}

impl EntryDetails {
    fn relative_path(&self, file: &Path) -> String {
        file.strip_prefix(&self.folder).unwrap_or(file).display().to_string()
    }
}
