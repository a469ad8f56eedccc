//! A request to a tenant's MCP endpoint: who calls, how often, how much; then the tenant's own server.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::body::{self, BodyFault};
use super::context::{Edge, Visit};
use super::memory::Held;
use super::reply::{self, Form, Problem};
use super::{cors, page, revocable};
use crate::base::body::Body;
use crate::mcp::Caller;
use crate::oauth::bearer::{Denial, Principal};
use crate::tenants::rate::CallerKey;
use crate::tenants::tenant::Tenant;

/// Why a call was not handed to the tenant's server.
#[derive(Debug)]
enum Refusal {
    Denied(Denial),
    TooMany { wait: Duration },
    Body(BodyFault),
}

impl Edge {
    pub(super) async fn mcp<B>(
        &self,
        tenant: &Tenant,
        visit: &Visit<'_>,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let origin = cors::allowed(request.headers(), tenant.spec.public_url.origin(), &self.allowed_origins);
        let (form, version) = (Form::of(&request), request.version());
        let mut response = match *request.method() {
            Method::OPTIONS => cors::preflight(request.headers(), origin.as_ref()),
            Method::GET if is_a_browser(request.headers()) => self.page(tenant, visit, &Method::GET),
            _ => match self.call(tenant, visit, request).await {
                Ok(response) => response,
                Err(refusal) => refusal.answer(form, version),
            },
        };
        if let Some(origin) = origin {
            origin.stamp(response.headers_mut());
        }
        response
    }

    async fn call<B>(
        &self,
        tenant: &Tenant,
        visit: &Visit<'_>,
        request: Request<B>,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let address = visit.peer.addr.ip();
        let principal = self.authenticate(tenant, request.headers(), address)?;
        ration(tenant, visit, &principal, address)?;
        // Held until the call is answered: what waits for a backend takes room as well.
        let mut held = self.memory.hold();
        let request = self.read(tenant, request, &mut held).await?;
        let revoked = tenant.bearer.revocation(&principal).clone();
        let caller = Caller { principal, request_id: visit.id.clone(), started: visit.started };
        // Dropping the call cancels it down to the backend.
        tokio::select! {
            biased;
            () = revoked.cancelled() => Err(Refusal::Denied(Denial::Invalid)),
            response = tenant.mcp.handle(request, caller) => Ok(revocable::response(response, revoked.clone())),
        }
    }

    async fn read<B>(
        &self,
        tenant: &Tenant,
        request: Request<B>,
        held: &mut Held,
    ) -> Result<Request<Bytes>, BodyFault>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let deadline = Duration::from_secs(self.limits.body_seconds);
        let read = body::read(request, tenant.spec.limits.max_request_bytes, deadline, held).await;
        if matches!(read, Err(BodyFault::NoRoom))
            && let Some(unsaid) = self.no_memory.occasion(self.clock.monotonic())
        {
            let mib = self.limits.request_memory_mib;
            tracing::warn!(
                mib,
                unsaid,
                "requests are refused: those under way take all of limits.request_memory_mib"
            );
        }
        read
    }

    /// The page is for everybody but those whom an open tenant does not answer at all.
    pub(super) fn page(&self, tenant: &Tenant, visit: &Visit<'_>, method: &Method) -> Response<Body> {
        match self.authenticate(tenant, &HeaderMap::new(), visit.peer.addr.ip()) {
            Err(Refusal::Denied(denial @ Denial::NotPrivate)) => denied(denial, Form::Problem),
            _ => page::answer(&tenant.spec, self.open_tenants, method),
        }
    }

    /// Before the body is read: who may not call costs us no memory.
    fn authenticate(
        &self,
        tenant: &Tenant,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<Principal, Refusal> {
        tenant.bearer.check(headers, address, self.clock.now()).map_err(Refusal::Denied)
    }
}

fn ration(tenant: &Tenant, visit: &Visit<'_>, principal: &Principal, address: IpAddr) -> Result<(), Refusal> {
    let Some(per_minute) = tenant.spec.limits.requests_per_minute else { return Ok(()) };
    let caller = match principal {
        Principal::Key { label } => CallerKey::Label(label.clone()),
        Principal::Anonymous => CallerKey::network(address),
    };
    tenant.slot.rate.take(caller, per_minute, visit.started).map_err(|wait| Refusal::TooMany { wait })
}

/// MCP clients ask for JSON and event streams, people's browsers for HTML.
fn is_a_browser(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        Self::Body(fault)
    }
}

impl Refusal {
    fn answer(self, form: Form, version: http::Version) -> Response<Body> {
        match self {
            Self::Denied(denial) => denied(denial, form),
            Self::TooMany { wait } => too_many(wait, form),
            Self::Body(fault) => {
                let mut response = reply::rpc_error(fault.status(), -32600, &fault.to_string());
                if fault == BodyFault::NoRoom {
                    reply::retry_after(response.headers_mut(), Duration::from_secs(1));
                }
                reply::close(&mut response, version);
                response
            }
        }
    }
}

fn denied(denial: Denial, form: Form) -> Response<Body> {
    let problem = Problem { status: denial.status(), found: denial.sentence(), help: None };
    let mut response = reply::refusal(form, problem);
    if let Some(challenge) = denial.challenge() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn too_many(wait: Duration, form: Form) -> Response<Body> {
    let problem = Problem {
        status: StatusCode::TOO_MANY_REQUESTS,
        found: "this caller has used up its requests per minute",
        help: Some("wait as long as Retry-After says"),
    };
    let mut response = reply::refusal(form, problem);
    reply::retry_after(response.headers_mut(), wait);
    response
}
