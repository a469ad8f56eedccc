//! Requests to a tenant's MCP endpoint: authorization, rate limit, size limit, then the tenant's
//! own server.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::body::{self, BodyError};
use super::budgets::{self, Attribution, CALL_BYTES, MemoryBudgets, MeteredBudget};
use super::request::{RequestContext, Server};
use super::response::{self, ErrorFormat, Problem};
use super::{cors, page, revocable};
use crate::base::body::Body;
use crate::base::budget::{Exhausted, Reservation};
use crate::base::headers::retry_after;
use crate::base::net::client_network;
use crate::mcp::Caller;
use crate::oauth::bearer::{AdmittedCaller, Denial, Principal};
use crate::routing::Endpoint;
use crate::settings::REQUEST_FACTOR;
use crate::spec::ResourceSpelling;
use crate::telemetry::audit::{AuditEvent, AuditRecord};
use crate::tenants::rate_limit::CallerKey;
use crate::tenants::tenant::Tenant;

/// When to try again after our own parts failed.
const RETRY: Duration = Duration::from_secs(5);

/// Why a call did not reach the tenant's server.
#[derive(Debug)]
enum CallRejection {
    Denied(Denial),
    RateLimited { wait: Duration },
    Body(BodyError),
    BudgetExhausted(Exhausted),
}

impl Server {
    /// Answers a request to the MCP endpoint, with CORS headers if the origin is allowed.
    pub(super) async fn handle_mcp<B>(
        &self,
        tenant: &Tenant,
        visit: &RequestContext<'_>,
        endpoint: Endpoint,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let origin =
            cors::match_origin(request.headers(), tenant.spec.public_url.origin(), &self.allowed_origins);
        let asked = RejectionContext::of(endpoint, &request);
        let mut response = match *request.method() {
            Method::OPTIONS => cors::preflight(request.headers(), origin.as_ref()),
            Method::GET if is_a_browser(request.headers()) => self.handle_page(tenant, visit, &Method::GET),
            _ => match self.call(tenant, visit, request).await {
                Ok(response) => response,
                Err(refusal) => {
                    self.note(tenant, visit, &refusal);
                    refusal.answer(tenant, asked)
                }
            },
        };
        if let Some(origin) = origin {
            origin.apply_to(response.headers_mut());
        }
        response
    }

    async fn call<B>(
        &self,
        tenant: &Tenant,
        visit: &RequestContext<'_>,
        request: Request<B>,
    ) -> Result<Response<Body>, CallRejection>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let AdmittedCaller { principal, revocation: leave } =
            self.admitted(tenant, visit, request.headers()).await?;
        if principal != Principal::Anonymous {
            visit.set_credential();
        }
        let parties = visit.attribution(Some(tenant));
        // Both reservations are held until the call is over: a call that waits for a backend takes
        // memory as well.
        let (request, asked) = self.read(tenant, visit, request, &parties).await?;
        let subject = subject(&principal).filter(|_| is_listen(request.headers()));
        let under_way = self.room_for_call(visit, &parties, subject)?;
        let caller = Caller {
            principal,
            request_id: visit.request_id.clone(),
            network: client_network(visit.conn.addr.ip()),
            started: visit.started,
        };
        // Dropping the call cancels it down to the backend.
        tokio::select! {
            biased;
            () = leave.revoked().cancelled() => Err(CallRejection::Denied(Denial::Invalid)),
            response = tenant.mcp.handle(request, caller) => {
                Ok(revocable::make_revocable(response, &leave, [asked, under_way]))
            }
        }
    }

    async fn admitted(
        &self,
        tenant: &Tenant,
        visit: &RequestContext<'_>,
        headers: &HeaderMap,
    ) -> Result<AdmittedCaller, CallRejection> {
        let address = visit.conn.addr.ip();
        let pass = tenant
            .bearer
            .authorize(headers, visit.conn.effective_ip(), self.clock.now())
            .await
            .map_err(CallRejection::Denied)?;
        ration(tenant, visit, &pass.principal, address)?;
        Ok(pass)
    }

    /// Reads the request body. Returns the request and the reservation for the time until it is
    /// answered.
    async fn read<B>(
        &self,
        tenant: &Tenant,
        visit: &RequestContext<'_>,
        request: Request<B>,
        parties: &Attribution,
    ) -> Result<(Request<Bytes>, Reservation), BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let deadline = Duration::from_secs(self.limits.body_seconds);
        let mut held = self.budgets.requests.new_reservation(parties);
        let read = body::read(request, tenant.spec.limits.max_request_bytes, deadline, &mut held).await;
        let read = read.and_then(|request| {
            held.try_grow(request.body().len() as u64 * (REQUEST_FACTOR - 1))?;
            Ok(request)
        });
        if let Err(BodyError::BudgetExhausted(exhausted)) = read {
            self.budgets.requests.record_rejection(exhausted, parties, visit.started);
        }
        Ok((read?, held))
    }

    /// Reserves room for a call, if there is also room for its response.
    fn room_for_call(
        &self,
        visit: &RequestContext<'_>,
        parties: &Attribution,
        listener: Option<&str>,
    ) -> Result<Reservation, CallRejection> {
        let MemoryBudgets { calls, responses: answers, .. } = &self.budgets;
        let mut held = match listener {
            Some(subject) => calls.new_stream_reservation(parties, subject),
            None => calls.new_reservation(parties),
        };
        let refused = |room: &MeteredBudget, exhausted| {
            room.record_rejection(exhausted, parties, visit.started);
            CallRejection::BudgetExhausted(exhausted)
        };
        held.try_grow(CALL_BYTES).map_err(|exhausted| refused(calls, exhausted))?;
        answers.reserve_response(parties, None).map_err(|exhausted| refused(answers, exhausted))?;
        Ok(held)
    }

    /// Records a refusal in the audit log. Requests without a credential are not recorded, since
    /// every client starts with one.
    fn note(&self, tenant: &Tenant, visit: &RequestContext<'_>, refusal: &CallRejection) {
        let outcome = match refusal {
            CallRejection::Denied(Denial::Missing)
            | CallRejection::Body(_)
            | CallRejection::BudgetExhausted(_) => return,
            CallRejection::Denied(denial) => denial.audit_label(),
            CallRejection::RateLimited { .. } => "rate_limited",
        };
        self.audit.record(&AuditRecord {
            request_id: Some(&visit.request_id),
            ..AuditRecord::new(AuditEvent::Refusal, tenant.spec.name.as_str(), outcome)
        });
    }

    /// Answers with the page for people, except to callers that an open tenant does not answer at
    /// all.
    pub(super) fn handle_page(
        &self,
        tenant: &Tenant,
        visit: &RequestContext<'_>,
        method: &Method,
    ) -> Response<Body> {
        match tenant.bearer.check_page_access(visit.conn.effective_ip()) {
            Err(denial) => denied(tenant, denial, ErrorFormat::ProblemJson, ResourceSpelling::Connector),
            Ok(()) => {
                let render = || page::render(&tenant.spec, tenant.mcp.permissions(), self.open_tenants);
                let html = || tenant.page.get_or_init(render).clone();
                page::respond(html, method)
            }
        }
    }
}

fn ration(
    tenant: &Tenant,
    visit: &RequestContext<'_>,
    principal: &Principal,
    address: IpAddr,
) -> Result<(), CallRejection> {
    let Some(per_minute) = tenant.spec.limits.requests_per_minute else { return Ok(()) };
    let caller = match principal {
        Principal::Key { label } => CallerKey::Label(label.clone()),
        Principal::User(user) => CallerKey::User(user.subject.clone()),
        Principal::Machine(machine) => CallerKey::User(machine.client_id.clone()),
        Principal::Anonymous => CallerKey::from_address(address),
    };
    tenant
        .slot
        .rate_limit
        .acquire(caller, per_minute, visit.started)
        .map_err(|wait| CallRejection::RateLimited { wait })
}

/// Returns the subject, if the caller is one person or service client. A key may be shared by many
/// people.
fn subject(principal: &Principal) -> Option<&str> {
    match principal {
        Principal::User(user) => Some(&user.subject),
        Principal::Machine(machine) => Some(&machine.client_id),
        Principal::Key { .. } | Principal::Anonymous => None,
    }
}

/// Returns whether a request opens a long-lived stream, from its `Mcp-Method` header (2026-07-28,
/// "Standard headers"); rmcp refuses a request whose body differs from that header.
fn is_listen(headers: &HeaderMap) -> bool {
    headers.get("mcp-method").is_some_and(|method| method == "subscriptions/listen")
}

/// Returns whether the request comes from a browser, which asks for HTML. MCP clients ask for JSON
/// and event streams.
fn is_a_browser(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

impl From<BodyError> for CallRejection {
    fn from(fault: BodyError) -> Self {
        Self::Body(fault)
    }
}

/// What determines the form of a refusal.
#[derive(Debug, Clone, Copy)]
struct RejectionContext {
    form: ErrorFormat,
    spelling: ResourceSpelling,
}

impl RejectionContext {
    fn of<B>(endpoint: Endpoint, request: &Request<B>) -> Self {
        let spelling = match endpoint {
            Endpoint::Page => ResourceSpelling::Base,
            _ if request.uri().path().ends_with('/') => ResourceSpelling::ConnectorSlash,
            _ => ResourceSpelling::Connector,
        };
        let form =
            if request.method() == Method::POST { ErrorFormat::JsonRpc } else { ErrorFormat::ProblemJson };
        Self { form, spelling }
    }
}

impl CallRejection {
    fn answer(self, tenant: &Tenant, asked: RejectionContext) -> Response<Body> {
        match self {
            Self::Denied(denial) => denied(tenant, denial, asked.form, asked.spelling),
            Self::RateLimited { wait } => too_many(wait, asked.form),
            Self::BudgetExhausted(exhausted) => response::budget_exhausted(asked.form, exhausted),
            Self::Body(fault) => {
                let mut response = response::rpc_error(fault.status(), -32600, &fault.to_string());
                if let BodyError::BudgetExhausted(_) = fault {
                    response.headers_mut().insert(header::RETRY_AFTER, retry_after(budgets::RETRY));
                }
                response
            }
        }
    }
}

fn denied(tenant: &Tenant, denial: Denial, form: ErrorFormat, spelling: ResourceSpelling) -> Response<Body> {
    let problem = Problem { status: denial.status(), summary: tenant.bearer.message(denial), help: None };
    let mut response = response::rejection(form, problem);
    if let Some(challenge) = tenant.bearer.challenge(denial, spelling) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if denial == Denial::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after(RETRY));
    }
    response
}

fn too_many(wait: Duration, form: ErrorFormat) -> Response<Body> {
    let problem = Problem {
        status: StatusCode::TOO_MANY_REQUESTS,
        summary: "this caller has used up its requests per minute",
        help: Some("wait as long as Retry-After says"),
    };
    let mut response = response::rejection(form, problem);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
    response
}
