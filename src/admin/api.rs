//! The routes of the admin listener.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::json;

use super::account::Ends;
use super::request::decode_segment;
use super::response::{self, no_tenant, problem};
use super::{Admin, clients, commands, page, signing_keys, usage};
use crate::base::authority;
use crate::base::body::Body;
use crate::spec::HostName;
use crate::tenants::registry::RoutingTable;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Answers a request, unless it comes by a name that an attacker may have chosen, or from a page.
pub(super) async fn handle<B>(admin: &Admin, request: Request<B>, ends: Ends) -> Response<Body>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !is_local_name(request.headers()) {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "use an address or localhost to reach the admin listener",
        );
    }
    let uri = request.uri();
    match (request.method(), uri.path()) {
        (&Method::GET | &Method::HEAD, path) => read(admin, path, uri.query()).await,
        _ if request.headers().contains_key(header::ORIGIN) => {
            problem(StatusCode::FORBIDDEN, "web pages may not do this; use curl or tenantd")
        }
        (&Method::POST, "/-/reload") => reload(admin).await,
        _ => commands::handle(admin, request, ends).await,
    }
}

async fn read(admin: &Admin, path: &str, query: Option<&str>) -> Response<Body> {
    match path {
        "/" => response::with_content(StatusCode::OK, HTML, page::render(&admin.registry.load())),
        "/healthz" => response::json(StatusCode::OK, &json!({ "status": "ok" })),
        "/readyz" => readiness(admin),
        "/metrics" => metrics(admin),
        "/api/gateway" => response::json(StatusCode::OK, &admin.info),
        "/api/tenants" => list_tenants(admin),
        "/api/traffic" => usage::traffic(admin),
        "/api/certs" => response::json(StatusCode::OK, &admin.certificates.statuses()),
        _ => match path.strip_prefix("/api/tenants/") {
            Some(rest) => read_tenant(admin, rest, query).await,
            None => not_found(),
        },
    }
}

/// Answers `/api/tenants/NAME` and what is below it; `rest` begins with the name.
async fn read_tenant(admin: &Admin, rest: &str, query: Option<&str>) -> Response<Body> {
    let (name, what) = rest.split_once('/').unwrap_or((rest, ""));
    let name = &*decode_segment(name);
    match what {
        "" => show_tenant(admin, name),
        "clients" => clients::list(admin, name).await,
        "history" => commands::history(admin, name).await,
        "traffic" => usage::tenant_traffic(admin, name),
        "keys" => signing_keys::list(admin, name).await,
        "diff" => commands::diff(admin, name, query).await,
        _ => not_found(),
    }
}

fn not_found() -> Response<Body> {
    problem(
        StatusCode::NOT_FOUND,
        "the paths are /healthz, /readyz, /metrics, /api/gateway, /api/tenants, /api/traffic, /api/certs and /",
    )
}

fn metrics(admin: &Admin) -> Response<Body> {
    let table = admin.registry.load();
    admin.metrics.set_tenants(&table.count_current_states(), table.generation);
    for (task, health) in admin.tasks.panics().by_task() {
        admin.metrics.set_task_panics(task, health.panics);
    }
    response::with_content(StatusCode::OK, OPEN_METRICS, admin.metrics.encode())
}

/// Reports readiness: the first scan of the tenants folder is done, all supervised tasks run, and
/// the gateway is not draining. It never depends on a single tenant.
fn readiness(admin: &Admin) -> Response<Body> {
    let table = admin.registry.load();
    let is_draining = admin.tasks.shutdown_signal().is_cancelled();
    let panics = admin.tasks.panics().by_task();
    let down: Vec<_> = panics.iter().filter(|(_, health)| health.is_down).map(|(task, _)| task).collect();
    let has_tenant = !admin.is_single_tenant || serves_a_tenant(&table);
    let is_ready = table.is_initial_scan_done && !is_draining && down.is_empty() && has_tenant;
    let detail = json!({
        "ready": is_ready,
        "tenants_read": table.is_initial_scan_done,
        "draining": is_draining,
        "tasks_down": down,
        "generation": table.generation,
        "entries": table.entries.size(),
        "certificates": summarize_certificates(admin),
    });
    response::json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &detail)
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

fn list_tenants(admin: &Admin) -> Response<Body> {
    let table = admin.registry.load();
    let statuses: Vec<_> = table.entries.values().map(|entry| entry.status()).collect();
    response::json(StatusCode::OK, &statuses)
}

fn show_tenant(admin: &Admin, name: &str) -> Response<Body> {
    match admin.registry.load().find_entry(name) {
        Some(entry) => response::json(StatusCode::OK, &entry.status()),
        None => no_tenant(),
    }
}

async fn reload(admin: &Admin) -> Response<Body> {
    match admin.reconciler.reload().await {
        Some(generation) => response::json(StatusCode::OK, &json!({ "generation": generation })),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down"),
    }
}

/// Whether the Host header is an IP address or `localhost`. A DNS name could belong to an attacker.
fn is_local_name(headers: &HeaderMap) -> bool {
    let name = authority::only_host(headers).and_then(|host| HostName::parse(&host));
    name.is_some_and(|name| name.as_str() == "localhost" || name.ip_address().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, value.parse().expect("a header value"));
        is_local_name(&headers)
    }

    #[test]
    fn a_name_in_dns_does_not_reach_the_admin_listener() {
        for good in ["127.0.0.1:9900", "localhost:9900", "[::1]:9900", "10.1.2.3"] {
            assert!(host(good), "{good}");
        }
        for bad in ["evil.example:9900", "localhost.evil.example", "", "127.0.0.1.nip.example"] {
            assert!(!host(bad), "{bad}");
        }
        assert!(!is_local_name(&HeaderMap::new()));
    }
}
