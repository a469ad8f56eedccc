//! The steps after a new table is published: log, metrics, and the retirement of old revisions.

use std::sync::Arc;

use jiff::Timestamp;

use super::drain::Drain;
use super::published::Published;
use super::registry::RoutingTable;
use super::roster::Roster;
use super::status::{State, TenantStatus};
use crate::base::diagnostic::Severity;
use crate::telemetry::metrics::Metrics;

/// Logs an entry that changed, with its findings.
pub(super) fn log(roster: &Roster, stem: &str, status: &TenantStatus, generation: u64) {
    let tenant = status.name.as_str();
    let revision = status.in_force.as_deref();
    let url = status.connector_url.as_deref();
    match status.state {
        State::Stale => {
            tracing::warn!(
                tenant,
                revision,
                closed = status.closed,
                generation,
                "the last change was refused"
            );
        }
        State::Rejected => tracing::warn!(tenant, generation, "tenant rejected"),
        _ => tracing::info!(
            tenant,
            revision,
            url,
            redirect_uri = status.redirect_uri.as_deref(),
            access = status.access.as_deref(),
            generation,
            "tenant loaded"
        ),
    }
    for finding in roster.get(stem).into_iter().flat_map(|known| known.all_findings()) {
        match finding.severity {
            Severity::Notice => tracing::debug!(tenant, code = finding.code, "{finding}"),
            Severity::Warning | Severity::Error => tracing::warn!(tenant, code = finding.code, "{finding}"),
        }
    }
}

/// Updates the metrics of tenants by state.
pub(super) fn count(table: &RoutingTable, metrics: &Metrics) {
    let by_state = State::ALL.map(|state| (state.label(), table.counts[state as usize] as i64));
    metrics.tenants(&by_state, table.generation);
}

/// Retires a revision that was replaced or removed: notifies its streams and lets its calls finish.
/// Calls by callers that the new revision does not admit are cut at once.
pub(super) fn dismiss(old: &Published, new: Option<&Published>, drain: &Drain, now: Timestamp) {
    let Some(tenant) = &old.tenant else { return };
    match new.and_then(|new| new.tenant.as_ref()) {
        Some(successor) if Arc::ptr_eq(successor, tenant) => return,
        Some(successor) => {
            tenant.slot.leaves.keep_only(&successor.bearer, now);
            tenant.mcp.superseded_by(&successor.mcp);
        }
        None => {}
    }
    drain.take(Arc::clone(tenant));
}
