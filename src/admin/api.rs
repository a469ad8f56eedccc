//! The routes of the admin listener.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::json;

use super::account::Ends;
use super::reply::{answer, json_answer, problem};
use super::request::decoded;
use super::{Admin, page};
use crate::base::body::Body;
use crate::spec::HostName;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

impl Admin {
    pub(super) async fn answer<B>(&self, request: Request<B>, ends: Ends) -> Response<Body>
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
            (&Method::GET | &Method::HEAD, path) => self.read(path, uri.query()).await,
            _ if request.headers().contains_key(header::ORIGIN) => {
                problem(StatusCode::FORBIDDEN, "web pages may not do this; use curl or tenantd")
            }
            (&Method::POST, "/-/reload") => self.reload().await,
            _ => self.change(request, ends).await,
        }
    }

    async fn read(&self, path: &str, query: Option<&str>) -> Response<Body> {
        match path {
            "/" => answer(StatusCode::OK, HTML, page::render(&self.registry.load())),
            "/healthz" => json_answer(StatusCode::OK, &json!({ "status": "ok" })),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics_text(),
            "/api/gateway" => json_answer(StatusCode::OK, &self.info),
            "/api/tenants" => self.tenants(),
            "/api/certs" => json_answer(StatusCode::OK, &self.certificates.statuses()),
            _ => match path
                .strip_prefix("/api/tenants/")
                .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            {
                Some((name, "")) => self.tenant(&decoded(name)),
                Some((name, "clients")) => self.clients(name).await,
                Some((name, "history")) => self.history(name).await,
                Some((name, "keys")) => self.keys(name).await,
                Some((name, "diff")) => self.difference(name, query).await,
                _ => problem(
                    StatusCode::NOT_FOUND,
                    "there is /healthz, /readyz, /metrics, /api/gateway, /api/tenants, /api/certs and /",
                ),
            },
        }
    }

    fn metrics_text(&self) -> Response<Body> {
        let table = self.registry.load();
        self.metrics.set_tenants(&table.count_current_states(), table.generation);
        for (task, health) in self.tasks.panics().by_task() {
            self.metrics.set_task_panics(task, health.panics);
        }
        answer(StatusCode::OK, OPEN_METRICS, self.metrics.encode())
    }

    /// Reports readiness: the first scan of the tenants folder is done, all supervised tasks run,
    /// and the gateway is not draining. It never depends on a single tenant.
    fn readiness(&self) -> Response<Body> {
        let table = self.registry.load();
        let draining = self.tasks.soft().is_cancelled();
        let panics = self.tasks.panics().by_task();
        let down: Vec<_> = panics.iter().filter(|(_, health)| health.is_down).map(|(task, _)| task).collect();
        let ready = table.is_initial_scan_done && !draining && down.is_empty();
        let detail = json!({
            "ready": ready,
            "tenants_read": table.is_initial_scan_done,
            "draining": draining,
            "tasks_down": down,
            "generation": table.generation,
            "entries": table.entries.size(),
            "certificates": self.certificates_in_words(),
        });
        json_answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &detail)
    }

    /// Summarizes the certificates that need an operator's attention. They are served all the same,
    /// so they do not affect readiness.
    fn certificates_in_words(&self) -> serde_json::Value {
        let statuses = self.certificates.statuses();
        let trouble: Vec<_> = statuses.iter().filter(|status| !status.is_healthy()).collect();
        json!({ "served": statuses.len(), "trouble": trouble })
    }

    fn tenants(&self) -> Response<Body> {
        let table = self.registry.load();
        let statuses: Vec<_> = table.entries.values().map(|entry| entry.status()).collect();
        json_answer(StatusCode::OK, &statuses)
    }

    fn tenant(&self, name: &str) -> Response<Body> {
        match self.registry.load().find_entry(name) {
            Some(entry) => json_answer(StatusCode::OK, &entry.status()),
            None => problem(StatusCode::NOT_FOUND, "no tenant of this name; /api/tenants lists them"),
        }
    }

    async fn reload(&self) -> Response<Body> {
        match self.reconciler.reload().await {
            Some(generation) => json_answer(StatusCode::OK, &json!({ "generation": generation })),
            None => problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down"),
        }
    }
}

/// Whether the Host header is an IP address or `localhost`. A DNS name could belong to an attacker.
fn is_local_name(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let name = authority.and_then(|authority| HostName::parse(authority.host()));
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
