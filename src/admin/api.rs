//! The answers about the gateway and its tenants.

use std::collections::HashMap;
use std::time::Instant;

use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::Admin;
use super::response::{self, no_tenant};
use crate::base::body::Body;
use crate::settings::live_settings;
use crate::store::{ClusterStore, Store};
use crate::telemetry::log;
use crate::tenants::PublishedEntry;
use crate::tenants::cluster_view::Disagreement;
use crate::tenants::registry::RoutingTable;
use crate::tenants::status::TenantStatus;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub(super) fn metrics(admin: &Admin) -> Response<Body> {
    response::with_content(StatusCode::OK, OPEN_METRICS, admin.metrics.encode())
}

/// Reports readiness: the first scan of the tenants folder is done, all supervised tasks run, and
/// the gateway is not draining. It never depends on a single tenant.
pub(super) fn readiness(admin: &Admin) -> Response<Body> {
    let settings = admin.settings.load();
    let table = admin.registry.load();
    let is_draining = admin.tasks.shutdown_signal().is_cancelled();
    let panics = admin.tasks.panics().by_task();
    let down: Vec<_> = panics.iter().filter(|(_, health)| health.is_down).map(|(task, _)| task).collect();
    let has_tenant = !admin.is_single_tenant || serves_a_tenant(&table);
    let cluster = admin.store.as_ref().and_then(Store::cluster);
    let awaited = cluster.as_ref().and_then(ClusterStore::awaited);
    let is_ready =
        table.is_initial_scan_done && !is_draining && down.is_empty() && has_tenant && awaited.is_none();
    let detail = json!({
        "ready": is_ready,
        "tenants_read": table.is_initial_scan_done,
        "draining": is_draining,
        "tasks_down": down,
        "generation": table.generation,
        "entries": table.entries.size(),
        "admin_auth": admin.auth.state(),
        "certificates": summarize_certificates(admin),
        "cluster": cluster.map(|cluster| describe_cluster(&cluster, admin.clock.monotonic(), awaited.as_deref().map(String::as_str))),
        // What waits does not keep the gateway from serving.
        "settings": { "waiting": settings.waiting, "refusal": settings.refusal },
    });
    response::json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &detail)
}

/// Describes this gateway's place among those that share a database. A gateway that has not heard of
/// it is ready all the same: it would be so on all of them at once. One that started without it is
/// not, so that a balancer prefers the others.
fn describe_cluster(cluster: &ClusterStore, now: Instant, awaited: Option<&str>) -> serde_json::Value {
    let freshness = cluster.freshness();
    json!({
        "node": cluster.node_name(),
        "silence_seconds": freshness.silence(now).as_secs(),
        "stale": freshness.is_stale(now),
        "awaited": awaited,
    })
}

/// Whether some tenant answers callers.
fn serves_a_tenant(table: &RoutingTable) -> bool {
    let tenants = table.entries.values().filter_map(|entry| entry.tenant.as_ref());
    tenants.into_iter().any(|tenant| tenant.spec.enabled && !tenant.slot.is_closed())
}

/// Summarizes the certificates that need an operator's attention. They are served all the same, so
/// they do not affect readiness.
fn summarize_certificates(admin: &Admin) -> serde_json::Value {
    let statuses = admin.certificates.statuses();
    let unhealthy: Vec<_> = statuses.iter().filter(|status| !status.is_healthy()).collect();
    json!({ "served": statuses.len(), "trouble": unhealthy })
}

/// Shows the settings in force by their names in the file, and those that wait for a restart.
pub(super) fn show_settings(admin: &Admin) -> Response<Body> {
    let in_force = admin.settings.load();
    let shown = json!({
        "settings": in_force.settings.to_json(),
        "live": live_settings().collect::<Vec<_>>(),
        "waiting": in_force.waiting,
        "refusal": in_force.refusal,
    });
    response::json(StatusCode::OK, &shown)
}

/// Shows the last lines of the log.
pub(super) fn show_log() -> Response<Body> {
    response::with_content(StatusCode::OK, TEXT, log::last_lines())
}

pub(super) fn list_tenants(admin: &Admin) -> Response<Body> {
    let table = admin.registry.load();
    let cluster = admin.cluster.as_ref().map(|cluster| cluster.state());
    let disagreements = cluster.iter().flat_map(|cluster| &cluster.disagreements);
    let disagreements: HashMap<&str, &Disagreement> =
        disagreements.map(|it| (it.entry.as_str(), it)).collect();
    let status = |entry: &PublishedEntry| {
        let disagreement = disagreements.get(&**entry.entry_id()).map(|it| it.summary.clone());
        TenantStatus { disagreement, ..entry.status() }
    };
    let statuses: Vec<_> = table.entries.values().map(status).collect();
    response::json(StatusCode::OK, &statuses)
}

pub(super) async fn show_tenant(admin: &Admin, name: &str) -> Response<Body> {
    let status = admin.registry.load().find_entry(name).map(|entry| entry.status());
    let Some(mut status) = status else { return no_tenant() };
    if let Some(cluster) = &admin.cluster {
        let state = cluster.state();
        let disagreement = state.disagreements.iter().find(|it| it.entry == status.stem);
        status.disagreement = disagreement.map(|it| it.summary.clone());
        // A database that is away must not hide what is so here.
        status.nodes = cluster.find_tenant(&status.stem).await.unwrap_or_default();
    }
    response::json(StatusCode::OK, &status)
}

/// Lists the gateways of the cluster, and what they disagree on.
pub(super) fn list_nodes(admin: &Admin) -> Response<Body> {
    let state = admin.cluster.as_ref().map(|cluster| cluster.state()).unwrap_or_default();
    response::json(StatusCode::OK, &json!({ "nodes": state.nodes, "disagreements": state.disagreements }))
}
