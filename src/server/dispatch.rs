//! Dispatches a request to the one tenant that owns its path, and finishes the response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::context::{Edge, Peer, Visit};
use super::front::{self, Fault};
use super::reply::{self, Form};
use crate::base::body::Body;
use crate::base::budget::Hold;
use crate::base::panic::{Panicked, caught};
use crate::routing::{Endpoint, Router};
use crate::tenants::tenant::Tenant;

/// A response, the reservation for its bytes, and whether the request carried a valid credential.
pub(super) struct Answered {
    pub(super) response: Response<Body>,
    pub(super) room: Hold,
    pub(super) has_credential: bool,
}

/// Why a request reaches no tenant, and what it would have asked for of one that cannot answer now.
struct Refused {
    fault: Fault,
    endpoint: Option<Endpoint>,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, endpoint: None }
    }
}

/// Where a request went: for the log and the metrics.
#[derive(Default)]
struct Trail {
    tenant: Option<Arc<Tenant>>,
    route: Option<Endpoint>,
}

impl Edge {
    /// Answers one request, whatever it is. A panic in a handler becomes a 500, and the process
    /// goes on.
    pub(super) async fn answer<B>(&self, peer: &Peer, request: Request<B>) -> Answered
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let visit = Visit::begin(self, peer);
        let mut trail = Trail::default();
        let form = Form::of(&request);
        let method = request.method().clone();
        let is_head = method == Method::HEAD;
        let response = match caught(self.dispatch(&visit, request, &mut trail)).await {
            Ok(response) => response,
            Err(Panicked) => {
                tracing::error!(fault = "panic", "a request handler panicked");
                reply::rpc_error(StatusCode::INTERNAL_SERVER_ERROR, -32603, "internal error")
            }
        };
        let form = form.at(trail.route, &method);
        let (mut response, room) = self.weigh(&visit, &trail, response, form);
        if is_head {
            response = reply::without_content(response);
        }
        // Under a placeholder certificate, a browser that remembers HSTS would refuse to connect
        // until there is a signed one (RFC 6797 section 8.4).
        let hsts = self.hsts.as_ref().filter(|_| !peer.stopgap);
        reply::seal(response.headers_mut(), &visit.id, hsts);
        self.record(&visit, &trail, response.status());
        Answered { response, room, has_credential: visit.has_credential() }
    }

    /// Reserves room for the response until it has left. Without room, returns a refusal instead; a
    /// refusal is always sent.
    fn weigh(
        &self,
        visit: &Visit<'_>,
        trail: &Trail,
        response: Response<Body>,
        form: Form,
    ) -> (Response<Body>, Hold) {
        let (answers, parties) = (&self.budgets.answers, visit.parties(trail.tenant.as_deref()));
        match answers.hold_answer(&parties, response.body().size_hint().exact()) {
            Ok(room) => (response, room),
            Err(exhausted) => {
                answers.refuse(exhausted, &parties, visit.started);
                (reply::no_room(form, exhausted), answers.hold(&parties))
            }
        }
    }

    async fn dispatch<B>(&self, visit: &Visit<'_>, request: Request<B>, trail: &mut Trail) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (tenant, endpoint) = match self.locate(visit.peer, &request) {
            Ok(located) => located,
            Err(Refused { fault, endpoint }) => {
                let form = Form::of(&request).at(endpoint, request.method());
                return fault.answer(form, request.version());
            }
        };
        let tenant = &**trail.tenant.insert(tenant);
        trail.route = Some(endpoint);
        match endpoint {
            Endpoint::Mcp => self.mcp(tenant, visit, endpoint, request).await,
            // Sent by clients that were given the base URL or that drop the last path segment.
            // Boxed, since every request's future would reserve space for it.
            Endpoint::Page if is_of_a_client(&request) => {
                trail.route = Some(Endpoint::Mcp);
                Box::pin(self.mcp(tenant, visit, endpoint, request)).await
            }
            Endpoint::Page => self.page(tenant, visit, request.method()),
            Endpoint::Discovery(document) => self.describe(tenant, document, request).await,
            // Boxed, since every request's future would reserve space for it.
            Endpoint::OAuth(step) => Box::pin(self.step(tenant, step, visit, request)).await,
        }
    }

    /// The tenant whose path this is. The routing table is let go before anything is awaited: a long stream must not
    /// keep a whole old world alive.
    fn locate<B>(&self, peer: &Peer, request: &Request<B>) -> Result<(Arc<Tenant>, Endpoint), Refused>
    where
        B: http_body::Body,
    {
        let target = front::check(request)?;
        let table = self.registry.load();
        match self.check_host(&table.router, &target.host, peer) {
            Err(Fault::NotOurs) if !table.settled => return Err(Fault::Starting.into()),
            checked => checked?,
        }
        match table.router.find(&target.host, target.path) {
            Some((tenant, endpoint)) if tenant.spec.enabled && tenant.slot.is_closed() => {
                Err(Refused { fault: Fault::Closed, endpoint: Some(endpoint) })
            }
            Some((tenant, endpoint)) if tenant.spec.enabled && tenant.lacks_its_login() => {
                Err(Refused { fault: Fault::NoStore, endpoint: Some(endpoint) })
            }
            Some((tenant, endpoint)) if tenant.spec.enabled => Ok((Arc::clone(tenant), endpoint)),
            _ if !table.settled => Err(Fault::Starting.into()),
            _ if Endpoint::is_missing_its_prefix(target.path) => Err(Fault::NoPrefix.into()),
            _ => Err(Fault::Nothing.into()),
        }
    }

    /// Checks that the host is served here. If the host or the SNI name belongs to a tenant, both
    /// must be equal, so that no browser reuses the connection of one tenant for another (RFC 9113
    /// section 9.1.1).
    pub(super) fn check_host<T>(&self, router: &Router<T>, host: &str, peer: &Peer) -> Result<(), Fault> {
        let owned = router.owns_host(host);
        if !owned && !self.hosts.answer_to(host, peer.local) {
            return Err(Fault::NotOurs);
        }
        match peer.sni.as_deref() {
            Some(sni) if sni != host && (owned || router.owns_host(sni)) => Err(Fault::OtherConnection),
            _ => Ok(()),
        }
    }

    fn record(&self, visit: &Visit<'_>, trail: &Trail, status: StatusCode) {
        let elapsed = self.clock.monotonic().saturating_duration_since(visit.started);
        let route = trail.name(status);
        self.metrics.answered(route, status.as_u16(), elapsed);
        tracing::debug!(
            tenant = trail.tenant.as_ref().map(|tenant| tenant.spec.name.as_str()),
            request_id = visit.id,
            client.addr = %visit.peer.addr,
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

impl Trail {
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
