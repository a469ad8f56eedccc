//! The requests that the admin listener answers: one row each, with the role it needs and, for a
//! change, the name under which the audit has it.
//!
//! A new request is a new row and a handler; nothing else decides who may send it.

use futures_util::future::BoxFuture;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::call::Call;
use super::response::problem;
use super::{api, audit, backup, clients, commands, console, login, logins, response, signing_keys, usage};
use crate::base::body::Body;
use crate::settings::AdminRole as Role;

/// Answers a request of one route.
type Handler = for<'a> fn(Call<'a>) -> BoxFuture<'a, Response<Body>>;

/// One row of the table.
pub(super) struct Route {
    pub(super) method: Method,
    /// The path. A segment in braces stands for any one segment, decoded: `/api/tenants/{name}`.
    pub(super) path: &'static str,
    /// The role that the caller needs; `None` is answered to everybody.
    pub(super) role: Option<Role>,
    /// What the audit calls it. The first segment in braces is the tenant, or the certificate.
    pub(super) order: Option<&'static str>,
    pub(super) handler: Handler,
}

impl Route {
    /// A request that everybody may send, like a probe.
    const fn open(path: &'static str, handler: Handler) -> Self {
        Self { method: Method::GET, path, role: None, order: None, handler }
    }

    /// A request by which somebody comes or goes, which writes its own record in the audit.
    const fn login(path: &'static str, handler: Handler) -> Self {
        Self { method: Method::POST, path, role: None, order: None, handler }
    }

    /// A request that reads.
    const fn read(path: &'static str, handler: Handler) -> Self {
        Self { method: Method::GET, path, role: Some(Role::Read), order: None, handler }
    }

    /// A request that changes something, and so is in the audit as `order`.
    const fn change(method: Method, path: &'static str, order: &'static str, handler: Handler) -> Self {
        Self { method, path, role: Some(Role::Operate), order: Some(order), handler }
    }

    /// Whether the first segment in braces is the name of a certificate.
    pub(super) fn is_about_a_certificate(&self) -> bool {
        self.path.contains("{certificate}")
    }

    /// Returns the decoded segments in braces if the path is one of this route.
    fn match_path(&self, segments: &[String]) -> Option<Vec<String>> {
        let pattern: Vec<&str> = self.path.split('/').skip(1).collect();
        if pattern.len() != segments.len() {
            return None;
        }
        let mut named = Vec::new();
        for (wanted, segment) in pattern.iter().zip(segments) {
            match wanted.starts_with('{') {
                true => named.push(segment.clone()),
                false if wanted == segment => {}
                false => return None,
            }
        }
        Some(named)
    }
}

/// The table.
pub(super) static ROUTES: &[Route] = &[
    Route::open("/healthz", |_| {
        Box::pin(async { response::json(StatusCode::OK, &json!({ "status": "ok" })) })
    }),
    Route::open("/readyz", |call| Box::pin(async move { api::readiness(call.admin) })),
    Route::open("/metrics", |call| Box::pin(async move { api::metrics(call.admin) })),
    Route::open("/console/{file}", |call| Box::pin(async move { console::show_file(call.segment(0)) })),
    Route::open("/favicon.ico", |_| Box::pin(async { console::show_file("icon.png") })),
    Route::read("/", |call| Box::pin(console::show_overview(call))),
    Route::read("/alerts", |call| Box::pin(async move { console::show_alerts(&call) })),
    Route::read("/audit", |call| Box::pin(console::show_audit(call))),
    Route::read("/certificates", |call| Box::pin(async move { console::show_certificates(&call) })),
    Route::read("/tenants/{name}", |call| Box::pin(console::show_tenant(call))),
    Route::read("/tenants/{name}/diff", |call| Box::pin(console::show_diff(call))),
    Route::read("/people", |call| Box::pin(console::show_people(call))),
    Route::read("/add", |call| Box::pin(async move { console::show_add(&call) })),
    // A form sends nothing but POST. Each of these has a row of the API do it.
    Route::change(Method::POST, "/add", "check", |call| Box::pin(console::check_file(call))),
    Route::change(Method::POST, "/add/{file}/accept", "add", |call| Box::pin(console::accept_file(call))),
    Route::change(Method::POST, "/alerts/test", "notify_test", |call| Box::pin(console::test_alerts(call))),
    Route::change(Method::POST, "/reload", "reload", |call| Box::pin(console::reload(call))),
    Route::change(Method::POST, "/certificates/{certificate}/renew", "renew", |call| {
        Box::pin(console::renew(call))
    }),
    Route::change(Method::POST, "/people/end", "end_logins", |call| Box::pin(console::end_login(call))),
    Route::change(Method::POST, "/people/block", "block", |call| Box::pin(console::block(call))),
    Route::change(Method::POST, "/people/unblock/{id}", "unblock", |call| Box::pin(console::unblock(call))),
    Route::change(Method::POST, "/tenants/{name}/pause", "pause", |call| Box::pin(console::pause(call))),
    Route::change(Method::POST, "/tenants/{name}/resume", "resume", |call| Box::pin(console::resume(call))),
    Route::change(Method::POST, "/tenants/{name}/accept", "accept", |call| Box::pin(console::accept(call))),
    Route::change(Method::POST, "/tenants/{name}/approve", "approve", |call| {
        Box::pin(console::approve(call))
    }),
    Route::change(Method::POST, "/tenants/{name}/rollback", "rollback", |call| {
        Box::pin(console::roll_back(call))
    }),
    Route::read("/events", |call| Box::pin(async move { console::open_events(call.admin) })),
    Route::open("/login", |call| Box::pin(login::show(call))),
    Route::login("/login", |call| Box::pin(login::log_in(call))),
    Route::login("/logout", |call| Box::pin(login::log_out(call))),
    Route::read("/api/gateway", |call| {
        Box::pin(async move { response::json(StatusCode::OK, &call.admin.describe_gateway()) })
    }),
    Route::read("/api/nodes", |call| Box::pin(async move { api::list_nodes(call.admin) })),
    Route::read("/api/settings", |call| Box::pin(async move { api::show_settings(call.admin) })),
    Route::read("/api/audit", |call| Box::pin(audit::list(call))),
    Route::read("/api/log", |_| Box::pin(async { api::show_log() })),
    Route::read("/api/certs", |call| {
        Box::pin(async move { response::json(StatusCode::OK, &call.admin.certificates.statuses()) })
    }),
    Route::read("/api/notify", |call| Box::pin(async move { super::notify::show(call.admin) })),
    Route::read("/api/tenants", |call| Box::pin(async move { api::list_tenants(call.admin) })),
    Route::read("/api/tenants/{name}", |call| {
        Box::pin(async move { api::show_tenant(call.admin, call.segment(0)).await })
    }),
    Route::read("/api/tenants/{name}/clients", |call| Box::pin(clients::list(call))),
    Route::read("/api/tenants/{name}/history", |call| Box::pin(commands::history(call))),
    Route::read("/api/traffic", |call| Box::pin(async move { usage::traffic(call.admin) })),
    Route::read("/api/usage", |call| Box::pin(usage::report(call))),
    Route::read("/api/tenants/{name}/traffic", |call| {
        Box::pin(async move { usage::tenant_traffic(call.admin, call.segment(0)) })
    }),
    Route::read("/api/tenants/{name}/keys", |call| Box::pin(signing_keys::list(call))),
    Route::read("/api/tenants/{name}/diff", |call| Box::pin(commands::diff(call))),
    Route::read("/api/logins", |call| Box::pin(logins::list(call))),
    Route::read("/api/logins/summary", |call| Box::pin(async move { logins::summarize(call.admin).await })),
    Route::read("/api/blocks", |call| Box::pin(async move { logins::blocks(call.admin) })),
    Route::change(Method::POST, "/api/logins/end", "end_logins", |call| Box::pin(logins::end(call))),
    Route::change(Method::POST, "/api/blocks", "block", |call| Box::pin(logins::block(call))),
    Route::change(Method::DELETE, "/api/blocks/{id}", "unblock", |call| Box::pin(logins::unblock(call))),
    Route::change(Method::POST, "/-/reload", "reload", |call| Box::pin(commands::reload(call))),
    Route::change(Method::POST, "/-/backup", "backup", |call| {
        Box::pin(async move { backup::back_up(call.admin.store.as_ref()).await })
    }),
    Route::change(Method::POST, "/-/notify/test", "notify_test", |call| Box::pin(super::notify::test(call))),
    Route::change(Method::POST, "/-/renew/{certificate}", "renew", |call| Box::pin(commands::renew(call))),
    Route::change(Method::POST, "/-/rehearse/{certificate}", "rehearse", |call| {
        Box::pin(commands::rehearse(call))
    }),
    Route::change(Method::POST, "/api/tenants/{name}/pause", "pause", |call| Box::pin(commands::pause(call))),
    Route::change(Method::POST, "/api/tenants/{name}/resume", "resume", |call| {
        Box::pin(commands::resume(call))
    }),
    Route::change(Method::POST, "/api/tenants/{name}/accept", "accept", |call| {
        Box::pin(commands::accept(call))
    }),
    Route::change(Method::POST, "/api/tenants/{name}/approve", "approve", |call| {
        Box::pin(commands::approve(call))
    }),
    Route::change(Method::POST, "/api/tenants/{name}/rollback", "rollback", |call| {
        Box::pin(commands::roll_back(call))
    }),
    Route::change(Method::POST, "/api/tenants/{name}/keys", "rotate_keys", |call| {
        Box::pin(signing_keys::rotate(call))
    }),
    Route::change(Method::POST, "/api/tenants/{name}/clients", "add_client", |call| {
        Box::pin(clients::add(call))
    }),
    Route::change(Method::DELETE, "/api/tenants/{name}/clients/{id}", "remove_client", |call| {
        Box::pin(clients::remove(call))
    }),
    Route::change(Method::DELETE, "/api/tenants/{name}", "remove", |call| Box::pin(commands::remove(call))),
    Route::change(Method::PUT, "/api/files/{file}", "add", |call| Box::pin(commands::upload(call))),
];

/// What a route is, for tests and documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method.
    pub method: Method,
    /// The path, with `{name}` for any segment.
    pub path: &'static str,
    /// The role that the caller needs; `None` is answered to everybody.
    pub role: Option<Role>,
    /// What the audit calls it, if it changes something.
    pub order: Option<&'static str>,
}

/// Lists all that the admin listener answers.
pub fn list_routes() -> Vec<RouteInfo> {
    let info = |route: &Route| RouteInfo {
        method: route.method.clone(),
        path: route.path,
        role: route.role,
        order: route.order,
    };
    ROUTES.iter().map(info).collect()
}

/// A route, and the decoded segments in braces of a request's path.
pub(super) struct Found {
    pub(super) route: &'static Route,
    pub(super) segments: Vec<String>,
}

/// Finds the route of a request. HEAD is answered as GET.
///
/// # Errors
/// The refusal: no route has the path (404), or none with the method (405).
pub(super) fn find(method: &Method, path: &str) -> Result<Found, Box<Response<Body>>> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let segments: Vec<String> = path.split('/').skip(1).map(super::request::decode_segment).collect();
    let found = ROUTES
        .iter()
        .filter(|route| route.method == *method)
        .find_map(|route| route.match_path(&segments).map(|segments| Found { route, segments }));
    found.ok_or_else(|| Box::new(refuse(method)))
}

fn refuse(method: &Method) -> Response<Body> {
    match *method {
        Method::GET => problem(
            StatusCode::NOT_FOUND,
            "the paths are /healthz, /readyz, /metrics, /api/gateway, /api/nodes, /api/tenants, /api/logins, \
             /api/blocks, /api/traffic, /api/usage, /api/notify, /api/certs and /",
        ),
        _ => problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "use GET, or a request that docs/admin.md lists for changes",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<(&'static str, Vec<String>)> {
        find(&method, path).ok().map(|found| (found.route.path, found.segments))
    }

    #[test]
    fn a_path_is_that_of_one_route_and_its_segments_are_decoded() {
        assert_eq!(found(Method::GET, "/"), Some(("/", vec![])));
        assert_eq!(found(Method::HEAD, "/healthz"), Some(("/healthz", vec![])));
        let named = found(Method::POST, "/api/tenants/a%20b/pause");
        assert_eq!(named, Some(("/api/tenants/{name}/pause", vec!["a b".to_owned()])));
        let slash = found(Method::PUT, "/api/files/..%2Fx");
        assert_eq!(slash, Some(("/api/files/{file}", vec!["../x".to_owned()])));
        for (method, path) in
            [(Method::GET, "/nothing"), (Method::POST, "/healthz"), (Method::GET, "//"), (Method::PATCH, "/")]
        {
            assert_eq!(found(method.clone(), path), None, "{method} {path}");
        }
    }

    #[test]
    fn whatever_changes_something_needs_the_role_and_is_in_the_audit() {
        for route in ROUTES.iter().filter(|route| !route.path.starts_with("/log")) {
            let changes = route.method != Method::GET;
            assert_eq!(route.role == Some(Role::Operate), changes, "{} {}", route.method, route.path);
            assert_eq!(route.order.is_some(), changes, "{} {}", route.method, route.path);
        }
        let mut all: Vec<_> = ROUTES.iter().map(|route| (route.method.as_str(), route.path)).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count, "a route is in the table twice");
    }
}
