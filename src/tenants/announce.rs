//! What follows the publication of a new routing table: the log, open streams, and the retirement
//! of old revisions.

use std::sync::Arc;

use jiff::Timestamp;

use super::drain::Drain;
use super::published_entry::PublishedEntry;
use super::status::{TenantState, TenantStatus};
use crate::base::diagnostic::{Diagnostic, Severity};

/// Logs an entry of the tenants folder (a tenant's files) that changed, with its findings.
/// `generation` counts the tables published.
pub(super) fn log_change<'a>(
    status: &TenantStatus,
    findings: impl Iterator<Item = &'a Diagnostic>,
    generation: u64,
) {
    let tenant = status.name.as_str();
    let digest = status.digest_in_force.as_deref();
    let url = status.connector_url.as_deref();
    match status.state {
        TenantState::Stale => {
            tracing::warn!(tenant, digest, closed = status.closed, generation, "the last change was refused");
        }
        TenantState::Held => {
            tracing::warn!(tenant, digest, closed = status.closed, generation, "a change waits for approval");
        }
        TenantState::Rejected => tracing::warn!(tenant, generation, "tenant rejected"),
        _ => tracing::info!(
            tenant,
            digest,
            url,
            redirect_uri = status.redirect_uri.as_deref(),
            access = status.access.as_deref(),
            generation,
            "tenant loaded"
        ),
    }
    for finding in findings {
        match finding.severity {
            Severity::Notice => tracing::debug!(tenant, code = finding.code, "{finding}"),
            Severity::Warning | Severity::Error => tracing::warn!(tenant, code = finding.code, "{finding}"),
        }
    }
}

/// Retires a revision that was replaced or removed: notifies its streams and lets its calls finish.
/// Calls by callers that the new revision does not admit are cut at once.
pub(super) fn retire(old: &PublishedEntry, new: Option<&PublishedEntry>, drain: &Drain, now: Timestamp) {
    let Some(tenant) = &old.tenant else { return };
    match new.and_then(|new| new.tenant.as_ref()) {
        Some(successor) if Arc::ptr_eq(successor, tenant) => return,
        Some(successor) => {
            tenant.slot.access_revocations.retain_allowed(&successor.bearer, now);
            tenant.mcp.hand_over_to(&successor.mcp);
        }
        None => {}
    }
    drain.retire(Arc::clone(tenant));
}
