//! Dispatches a request to the one tenant that owns its path, and finishes the response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::precheck::{self, PrecheckError};
use super::request::{ConnInfo, RequestContext, Server};
use super::response::{self, ErrorFormat};
use crate::base::body::Body;
use crate::base::budget::Reservation;
use crate::base::panic::{Panicked, catch_panic};
use crate::routing::{Endpoint, Router};
use crate::tenants::tenant::Tenant;

/// A response, the reservation for its bytes, and whether the request carried a valid credential.
pub(super) struct DispatchedResponse {
    pub(super) response: Response<Body>,
    pub(super) reservation: Reservation,
    pub(super) has_credential: bool,
}

/// Why a request reaches no tenant, and the endpoint if its tenant exists but cannot answer now.
struct Refused {
    fault: PrecheckError,
    endpoint: Option<Endpoint>,
}

impl From<PrecheckError> for Refused {
    fn from(fault: PrecheckError) -> Self {
        Self { fault, endpoint: None }
    }
}

/// Where a request went: for the log and the metrics.
#[derive(Default)]
struct RouteLog {
    tenant: Option<Arc<Tenant>>,
    route: Option<Endpoint>,
}

impl Server {
    /// Answers one request, whatever it is. A panic in a handler becomes a 500, and the process
    /// goes on.
    pub(super) async fn handle<B>(&self, peer: &ConnInfo, request: Request<B>) -> DispatchedResponse
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let visit = RequestContext::new(self, peer);
        let mut trail = RouteLog::default();
        let form = ErrorFormat::for_request(&request);
        let method = request.method().clone();
        let is_head = method == Method::HEAD;
        let response = match catch_panic(self.dispatch(&visit, request, &mut trail)).await {
            Ok(response) => response,
            Err(Panicked) => {
                tracing::error!(fault = "panic", "a request handler panicked");
                response::rpc_error(StatusCode::INTERNAL_SERVER_ERROR, -32603, "internal error")
            }
        };
        let form = form.at(trail.route, &method);
        let (mut response, room) = self.weigh(&visit, &trail, response, form);
        if is_head {
            response = response::strip_body(response);
        }
        // Under a placeholder certificate, a browser that remembers HSTS would refuse to connect
        // until there is a signed one (RFC 6797 section 8.4).
        let hsts = self.hsts.as_ref().filter(|_| !peer.has_placeholder_certificate);
        response::add_common_headers(response.headers_mut(), &visit.request_id, hsts);
        self.record(&visit, &trail, response.status());
        DispatchedResponse { response, reservation: room, has_credential: visit.has_credential() }
    }

    /// Reserves room for the response until it has left. Without room, returns a refusal instead; a
    /// refusal is always sent.
    fn weigh(
        &self,
        visit: &RequestContext<'_>,
        trail: &RouteLog,
        response: Response<Body>,
        form: ErrorFormat,
    ) -> (Response<Body>, Reservation) {
        let (answers, parties) = (&self.budgets.responses, visit.attribution(trail.tenant.as_deref()));
        match answers.reserve_response(&parties, response.body().size_hint().exact()) {
            Ok(room) => (response, room),
            Err(exhausted) => {
                answers.record_rejection(exhausted, &parties, visit.started);
                (response::budget_exhausted(form, exhausted), answers.new_reservation(&parties))
            }
        }
    }

    async fn dispatch<B>(
        &self,
        visit: &RequestContext<'_>,
        request: Request<B>,
        trail: &mut RouteLog,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (tenant, endpoint) = match self.locate(visit.conn, &request) {
            Ok(located) => located,
            Err(Refused { fault, endpoint }) => {
                let form = ErrorFormat::for_request(&request).at(endpoint, request.method());
                return fault.into_response(form, request.version());
            }
        };
        let tenant = &**trail.tenant.insert(tenant);
        trail.route = Some(endpoint);
        match endpoint {
            Endpoint::Mcp => self.handle_mcp(tenant, visit, endpoint, request).await,
            // Sent by clients that were given the base URL or that drop the last path segment.
            // Boxed, since every request's future would reserve space for it.
            Endpoint::Page if is_of_a_client(&request) => {
                trail.route = Some(Endpoint::Mcp);
                Box::pin(self.handle_mcp(tenant, visit, endpoint, request)).await
            }
            Endpoint::Page => self.handle_page(tenant, visit, request.method()),
            Endpoint::Discovery(document) => self.handle_discovery(tenant, document, request).await,
            // Boxed, since every request's future would reserve space for it.
            Endpoint::OAuth(step) => Box::pin(self.handle_oauth(tenant, step, visit, request)).await,
        }
    }

    /// Finds the tenant that owns the path. The routing table is released before anything is
    /// awaited, so that a long stream does not keep an old table and all its tenants alive.
    fn locate<B>(&self, peer: &ConnInfo, request: &Request<B>) -> Result<(Arc<Tenant>, Endpoint), Refused>
    where
        B: http_body::Body,
    {
        let target = precheck::check(request)?;
        let table = self.registry.load();
        match self.check_host(&table.router, &target.host, peer) {
            Err(PrecheckError::UnknownHost) if !table.is_initial_scan_done => {
                return Err(PrecheckError::Starting.into());
            }
            checked => checked?,
        }
        match table.router.find(&target.host, target.path) {
            Some((tenant, endpoint)) if tenant.spec.enabled && tenant.slot.is_closed() => {
                Err(Refused { fault: PrecheckError::TenantClosed, endpoint: Some(endpoint) })
            }
            Some((tenant, endpoint)) if tenant.spec.enabled && tenant.is_login_unavailable() => {
                Err(Refused { fault: PrecheckError::StoreUnavailable, endpoint: Some(endpoint) })
            }
            Some((tenant, endpoint)) if tenant.spec.enabled => Ok((Arc::clone(tenant), endpoint)),
            _ if !table.is_initial_scan_done => Err(PrecheckError::Starting.into()),
            _ if Endpoint::is_missing_prefix(target.path) => Err(PrecheckError::MissingTenantPrefix.into()),
            _ => Err(PrecheckError::NotFound.into()),
        }
    }

    /// Checks that the host is served here. If the host or the SNI name belongs to a tenant, both
    /// must be equal, so that no browser reuses the connection of one tenant for another (RFC 9113
    /// section 9.1.1).
    pub(super) fn check_host<T>(
        &self,
        router: &Router<T>,
        host: &str,
        peer: &ConnInfo,
    ) -> Result<(), PrecheckError> {
        let owned = router.is_tenant_host(host);
        if !owned && !self.hosts.is_gateway_on(host, peer.local_ip) {
            return Err(PrecheckError::UnknownHost);
        }
        match peer.sni.as_deref() {
            Some(sni) if sni != host && (owned || router.is_tenant_host(sni)) => {
                Err(PrecheckError::SniMismatch)
            }
            _ => Ok(()),
        }
    }

    fn record(&self, visit: &RequestContext<'_>, trail: &RouteLog, status: StatusCode) {
        let elapsed = self.clock.monotonic().saturating_duration_since(visit.started);
        let route = trail.name(status);
        self.metrics.record_response(route, status.as_u16(), elapsed);
        tracing::debug!(
            tenant = trail.tenant.as_ref().map(|tenant| tenant.spec.name.as_str()),
            request_id = visit.request_id,
            client.addr = %visit.conn.addr,
            route,
            status = status.as_u16(),
            elapsed_ms = elapsed.as_millis() as u64,
            "answered"
        );
    }
}

/// Returns whether a request to a tenant's base URL comes from an MCP client and not from a
/// browser: clients post messages, open event streams and send preflights.
fn is_of_a_client<B>(request: &Request<B>) -> bool {
    let accepts = |kind: &str| {
        let mut accepted = request.headers().get_all(header::ACCEPT).iter();
        accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(kind)))
    };
    match *request.method() {
        Method::POST | Method::OPTIONS => true,
        Method::GET => accepts("text/event-stream") && !accepts("text/html"),
        _ => false,
    }
}

impl RouteLog {
    fn name(&self, status: StatusCode) -> &'static str {
        match self.route {
            Some(Endpoint::Mcp) => "mcp",
            Some(Endpoint::Page) => "page",
            Some(Endpoint::Discovery(_)) => "discovery",
            Some(Endpoint::OAuth(_)) => "oauth",
            None if status == StatusCode::NOT_FOUND => "none",
            None => "refused",
        }
    }
}
