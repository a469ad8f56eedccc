//! Dispatches a request to the one tenant that owns its path, and finishes the response.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;

use super::precheck::{self, RequestRejection};
use super::request::{ConnInfo, RequestContext};
use super::response::{self, ErrorFormat};
use super::trusted_proxies::CallerAddress;
use super::{Server, health, mcp_endpoint, oauth_endpoint, page};
use crate::base::body::Body;
use crate::base::budget::Reservation;
use crate::base::headers::accepts;
use crate::base::panic::{Panicked, catch_panic};
use crate::oauth::bearer::Denial;
use crate::routing::{Endpoint, ListenerRoutes};
use crate::spec::ResourceSpelling;
use crate::telemetry::audit::{AuditEvent, AuditRecord};
use crate::tenants::tenant::Tenant;

/// A response, the reservation for its bytes, and whether the request carried a valid credential.
pub(super) struct DispatchedResponse {
    pub(super) response: Response<Body>,
    pub(super) reservation: Reservation,
    pub(super) has_credential: bool,
}

/// Why a request reaches no tenant, and the endpoint if its tenant exists but cannot answer now.
struct Unroutable {
    rejection: RequestRejection,
    endpoint: Option<Endpoint>,
}

impl From<RequestRejection> for Unroutable {
    fn from(rejection: RequestRejection) -> Self {
        Self { rejection, endpoint: None }
    }
}

/// Where a request went, for the log and the metrics, and how its errors are written.
#[derive(Default)]
struct RouteLog {
    tenant: Option<Arc<Tenant>>,
    endpoint: Option<Endpoint>,
    error_format: ErrorFormat,
}

/// Answers one request, whatever it is. A panic in a handler becomes a 500, and the process goes
/// on.
pub(super) async fn handle<B>(server: &Server, conn: &ConnInfo, request: Request<B>) -> DispatchedResponse
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if request.uri().path() == health::PATH {
        return answer_probe(server, conn, &request);
    }
    let started = server.clock.monotonic();
    let caller = find_caller(server, conn, request.headers(), started);
    let context = RequestContext::new(conn, caller, started);
    let mut route = RouteLog::default();
    let method = request.method().clone();
    let response = match catch_panic(dispatch(server, &context, request, &mut route)).await {
        Ok(response) => response,
        Err(Panicked) => {
            tracing::error!(fault = "panic", "a request handler panicked");
            response::rpc_error(StatusCode::INTERNAL_SERVER_ERROR, -32603, "internal error")
        }
    };
    let (mut response, reservation) = reserve_response(server, &context, &route, response);
    if method == Method::HEAD {
        response = response::strip_body(response);
    }
    // Under a placeholder certificate, a browser that remembers HSTS would refuse to connect
    // until there is a signed one (RFC 6797 section 8.4).
    let hsts = server.hsts.as_ref().filter(|_| !conn.has_placeholder_certificate);
    response::add_common_headers(response.headers_mut(), &context.request_id, hsts);
    record(server, &context, &route, response.status());
    DispatchedResponse { response, reservation, has_credential: context.has_credential() }
}

/// Returns where a request comes from. Forwarded headers are looked at only if a trusted proxy
/// sends them.
fn find_caller(server: &Server, conn: &ConnInfo, headers: &HeaderMap, now: Instant) -> CallerAddress {
    let peer = conn.addr.ip();
    if conn.is_trusted_proxy {
        let live = server.live.load();
        // It may have been trusted when the connection began.
        if live.trusted_proxies.contains(peer) {
            return live.trusted_proxies.find_caller(peer, headers, &server.metrics, now);
        }
    }
    CallerAddress::Known(peer)
}

/// Answers a probe. No tenant is looked for, and no budget is asked: an overloaded gateway serves.
fn answer_probe<B>(server: &Server, conn: &ConnInfo, request: &Request<B>) -> DispatchedResponse
where
    B: http_body::Body,
{
    let started = server.clock.monotonic();
    let context = RequestContext::new(conn, CallerAddress::Known(conn.addr.ip()), started);
    let mut response = health::handle(server, request);
    if request.method() == Method::HEAD {
        response = response::strip_body(response);
    }
    response::add_common_headers(response.headers_mut(), &context.request_id, None);
    let elapsed = server.clock.monotonic().saturating_duration_since(started);
    server.metrics.record_response("health", response.status().as_u16(), elapsed);
    let reservation = server.budgets.responses.new_reservation(&context.attribution(None));
    DispatchedResponse { response, reservation, has_credential: false }
}

/// Finds the tenant and has the handler of its endpoint answer.
async fn dispatch<B>(
    server: &Server,
    context: &RequestContext<'_>,
    request: Request<B>,
    route: &mut RouteLog,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (tenant, endpoint) = match locate(server, context.conn, &request) {
        Ok(located) => located,
        // Browsers ask every host for it.
        Err(Unroutable { rejection: RequestRejection::NotFound, .. })
            if request.uri().path() == "/favicon.ico" =>
        {
            return page::handle_icon(request.method());
        }
        Err(Unroutable { rejection, endpoint }) => {
            route.error_format = ErrorFormat::for_request(&request, endpoint);
            return rejection.into_response(route.error_format, request.version());
        }
    };
    route.error_format = ErrorFormat::for_request(&request, Some(endpoint));
    let tenant = &**route.tenant.insert(tenant);
    route.endpoint = Some(endpoint);
    if let Err(denial) = tenant.bearer.check_network(context.caller.known()) {
        return refuse_network(server, context, tenant, denial, route.error_format);
    }
    match endpoint {
        Endpoint::Mcp => mcp_endpoint::handle(server, context, tenant, endpoint, request).await,
        // Sent by clients that were given the base URL or that drop the last path segment.
        // Boxed, since every request's future would reserve space for it.
        Endpoint::Page if is_from_mcp_client(&request) => {
            route.endpoint = Some(Endpoint::Mcp);
            Box::pin(mcp_endpoint::handle(server, context, tenant, endpoint, request)).await
        }
        Endpoint::Page => page::handle(server, context, tenant, &request, route.error_format),
        Endpoint::Icon => page::handle_icon(request.method()),
        Endpoint::Discovery(document) => oauth_endpoint::handle_discovery(tenant, document, request).await,
        // Boxed, since every request's future would reserve space for it.
        Endpoint::OAuth(step) => {
            Box::pin(oauth_endpoint::handle(server, context, tenant, step, request)).await
        }
    }
}

/// Refuses a caller on a network that the tenant does not answer, whatever it asks for.
fn refuse_network(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    denial: Denial,
    format: ErrorFormat,
) -> Response<Body> {
    let name = tenant.spec.name.as_str();
    server.metrics.record_refusal(name, denial.audit_label());
    server.audit.record(&AuditRecord {
        client_addr: Some(context.caller.ip()),
        request_id: Some(&context.request_id),
        ..AuditRecord::new(AuditEvent::Refusal, name, denial.audit_label())
    });
    response::denial(tenant, denial, format, ResourceSpelling::Connector)
}

/// Finds the tenant that owns the path. The routing table is released before anything is awaited,
/// so that a long stream does not keep an old table and all its tenants alive.
fn locate<B>(
    server: &Server,
    conn: &ConnInfo,
    request: &Request<B>,
) -> Result<(Arc<Tenant>, Endpoint), Unroutable>
where
    B: http_body::Body,
{
    let target = precheck::check(request)?;
    let table = server.registry.load();
    let routes = table.router.on(conn.listener.tenants).ok_or(match table.is_initial_scan_done {
        true => RequestRejection::NotFound,
        false => RequestRejection::Starting,
    })?;
    match check_host(server, routes, &target.host, conn) {
        Err(RequestRejection::UnknownHost) if !table.is_initial_scan_done => {
            return Err(RequestRejection::Starting.into());
        }
        checked => checked?,
    }
    let found = routes.find(&target.host, target.path).filter(|(tenant, _)| tenant.spec.enabled);
    let unavailable = |rejection, endpoint| Err(Unroutable { rejection, endpoint: Some(endpoint) });
    match found {
        Some((tenant, endpoint)) if tenant.slot.is_closed() => {
            server.metrics.record_refusal(tenant.spec.name.as_str(), "closed");
            unavailable(RequestRejection::TenantClosed, endpoint)
        }
        Some((tenant, endpoint)) if tenant.is_login_unavailable() => {
            server.metrics.record_refusal(tenant.spec.name.as_str(), "no_store");
            unavailable(RequestRejection::StoreUnavailable, endpoint)
        }
        Some((tenant, endpoint)) => Ok((Arc::clone(tenant), endpoint)),
        None if !table.is_initial_scan_done => Err(RequestRejection::Starting.into()),
        None if Endpoint::is_missing_prefix(target.path) => Err(RequestRejection::MissingTenantPrefix.into()),
        None => Err(RequestRejection::NotFound.into()),
    }
}

/// Checks that the host is served here. If the host or the SNI name belongs to a tenant, both must
/// be equal, so that no browser reuses the connection of one tenant for another (RFC 9113 section
/// 9.1.1).
pub(super) fn check_host<T>(
    server: &Server,
    routes: &ListenerRoutes<T>,
    host: &str,
    conn: &ConnInfo,
) -> Result<(), RequestRejection> {
    let is_tenants = routes.is_tenant_host(host);
    if !is_tenants && !server.live.load().hosts.is_gateway_on(host, conn.local_ip) {
        return Err(RequestRejection::UnknownHost);
    }
    match conn.sni.as_deref() {
        Some(sni) if sni != host && (is_tenants || routes.is_tenant_host(sni)) => {
            Err(RequestRejection::SniMismatch)
        }
        _ => Ok(()),
    }
}

/// Reserves room for the response until it has left. Without room, returns a refusal instead; a
/// refusal is always sent.
fn reserve_response(
    server: &Server,
    context: &RequestContext<'_>,
    route: &RouteLog,
    response: Response<Body>,
) -> (Response<Body>, Reservation) {
    let budgets = &server.budgets;
    let attribution = context.attribution(route.tenant.as_deref());
    let size = response.body().size_hint().exact();
    match budgets.reserve_response(&attribution, size, context.started) {
        Ok(reservation) => (response, reservation),
        Err(exhausted) => (
            response::budget_exhausted(route.error_format, exhausted),
            budgets.responses.new_reservation(&attribution),
        ),
    }
}

/// Counts and logs the response.
fn record(server: &Server, context: &RequestContext<'_>, route: &RouteLog, status: StatusCode) {
    let elapsed = server.clock.monotonic().saturating_duration_since(context.started);
    let route_label = route.label(status);
    server.metrics.record_response(route_label, status.as_u16(), elapsed);
    tracing::debug!(
        tenant = route.tenant.as_ref().map(|tenant| tenant.spec.name.as_str()),
        request_id = context.request_id,
        client.addr = %context.caller,
        route = route_label,
        status = status.as_u16(),
        elapsed_ms = elapsed.as_millis() as u64,
        "answered"
    );
}

/// Returns whether a request to a tenant's base URL comes from an MCP client and not from a
/// browser: clients post messages, open event streams and send preflights.
fn is_from_mcp_client<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    match *request.method() {
        Method::POST | Method::OPTIONS => true,
        Method::GET => accepts(headers, "text/event-stream") && !accepts(headers, "text/html"),
        _ => false,
    }
}

impl RouteLog {
    /// Returns the label of the endpoint in log and metrics.
    fn label(&self, status: StatusCode) -> &'static str {
        match self.endpoint {
            Some(Endpoint::Mcp) => "mcp",
            Some(Endpoint::Page | Endpoint::Icon) => "page",
            Some(Endpoint::Discovery(_)) => "discovery",
            Some(Endpoint::OAuth(_)) => "oauth",
            None if status == StatusCode::NOT_FOUND => "none",
            None => "refused",
        }
    }
}
