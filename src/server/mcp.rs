//! Requests to a tenant's MCP endpoint: authorization, rate limit, size limit, then the tenant's
//! own server.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::body::{self, BodyFault};
use super::budgets::{self, Budgets, CALL_BYTES, Parties, Room};
use super::context::{Edge, Visit};
use super::reply::{self, Form, Problem};
use super::{cors, page, revocable};
use crate::base::body::Body;
use crate::base::budget::{Exhausted, Hold};
use crate::base::headers::retry_after;
use crate::base::reach::network;
use crate::mcp::Caller;
use crate::oauth::bearer::{Denial, Pass, Principal};
use crate::routing::Endpoint;
use crate::settings::REQUEST_FACTOR;
use crate::spec::Resource;
use crate::telemetry::audit::{Entry, Event};
use crate::tenants::rate::CallerKey;
use crate::tenants::tenant::Tenant;

/// When to try again after our own parts failed.
const RETRY: Duration = Duration::from_secs(5);

/// Why a call did not reach the tenant's server.
#[derive(Debug)]
enum Refusal {
    Denied(Denial),
    TooMany { wait: Duration },
    Body(BodyFault),
    NoRoom(Exhausted),
}

impl Edge {
    /// Answers a request to the MCP endpoint, with CORS headers if the origin is allowed.
    pub(super) async fn mcp<B>(
        &self,
        tenant: &Tenant,
        visit: &Visit<'_>,
        endpoint: Endpoint,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let origin = cors::allowed(request.headers(), tenant.spec.public_url.origin(), &self.allowed_origins);
        let asked = Asked::of(endpoint, &request);
        let mut response = match *request.method() {
            Method::OPTIONS => cors::preflight(request.headers(), origin.as_ref()),
            Method::GET if is_a_browser(request.headers()) => self.page(tenant, visit, &Method::GET),
            _ => match self.call(tenant, visit, request).await {
                Ok(response) => response,
                Err(refusal) => {
                    self.note(tenant, visit, &refusal);
                    refusal.answer(tenant, asked)
                }
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
        let Pass { principal, leave } = self.admitted(tenant, visit, request.headers()).await?;
        if principal != Principal::Anonymous {
            visit.set_credential();
        }
        let parties = visit.parties(Some(tenant));
        // Both reservations are held until the call is over: a call that waits for a backend takes
        // memory as well.
        let (request, asked) = self.read(tenant, visit, request, &parties).await?;
        let subject = subject(&principal).filter(|_| is_listen(request.headers()));
        let under_way = self.room_for_call(visit, &parties, subject)?;
        let caller = Caller {
            principal,
            request_id: visit.id.clone(),
            network: network(visit.peer.addr.ip()),
            started: visit.started,
        };
        // Dropping the call cancels it down to the backend.
        tokio::select! {
            biased;
            () = leave.revoked().cancelled() => Err(Refusal::Denied(Denial::Invalid)),
            response = tenant.mcp.handle(request, caller) => {
                Ok(revocable::response(response, &leave, [asked, under_way]))
            }
        }
    }

    async fn admitted(
        &self,
        tenant: &Tenant,
        visit: &Visit<'_>,
        headers: &HeaderMap,
    ) -> Result<Pass, Refusal> {
        let address = visit.peer.addr.ip();
        let pass = tenant
            .bearer
            .admit(headers, visit.peer.place(), self.clock.now())
            .await
            .map_err(Refusal::Denied)?;
        ration(tenant, visit, &pass.principal, address)?;
        Ok(pass)
    }

    /// Reads the request body. Returns the request and the reservation for the time until it is
    /// answered.
    async fn read<B>(
        &self,
        tenant: &Tenant,
        visit: &Visit<'_>,
        request: Request<B>,
        parties: &Parties,
    ) -> Result<(Request<Bytes>, Hold), BodyFault>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let deadline = Duration::from_secs(self.limits.body_seconds);
        let mut held = self.budgets.requests.hold(parties);
        let read = body::read(request, tenant.spec.limits.max_request_bytes, deadline, &mut held).await;
        let read = read.and_then(|request| {
            held.grow(request.body().len() as u64 * (REQUEST_FACTOR - 1))?;
            Ok(request)
        });
        if let Err(BodyFault::NoRoom(exhausted)) = read {
            self.budgets.requests.refuse(exhausted, parties, visit.started);
        }
        Ok((read?, held))
    }

    /// Reserves room for a call, if there is also room for its response.
    fn room_for_call(
        &self,
        visit: &Visit<'_>,
        parties: &Parties,
        listener: Option<&str>,
    ) -> Result<Hold, Refusal> {
        let Budgets { calls, answers, .. } = &self.budgets;
        let mut held = match listener {
            Some(subject) => calls.hold_stream(parties, subject),
            None => calls.hold(parties),
        };
        let refused = |room: &Room, exhausted| {
            room.refuse(exhausted, parties, visit.started);
            Refusal::NoRoom(exhausted)
        };
        held.grow(CALL_BYTES).map_err(|exhausted| refused(calls, exhausted))?;
        answers.hold_answer(parties, None).map_err(|exhausted| refused(answers, exhausted))?;
        Ok(held)
    }

    /// Records a refusal in the audit log. Requests without a credential are not recorded, since
    /// every client starts with one.
    fn note(&self, tenant: &Tenant, visit: &Visit<'_>, refusal: &Refusal) {
        let outcome = match refusal {
            Refusal::Denied(Denial::Missing) | Refusal::Body(_) | Refusal::NoRoom(_) => return,
            Refusal::Denied(denial) => denial.class(),
            Refusal::TooMany { .. } => "rate_limited",
        };
        self.audit.note(&Entry {
            request_id: Some(&visit.id),
            ..Entry::new(Event::Refusal, tenant.spec.name.as_str(), outcome)
        });
    }

    /// Answers with the page for people, except to callers that an open tenant does not answer at
    /// all.
    pub(super) fn page(&self, tenant: &Tenant, visit: &Visit<'_>, method: &Method) -> Response<Body> {
        match tenant.bearer.shows_page(visit.peer.place()) {
            Err(denial) => denied(tenant, denial, Form::Problem, Resource::Connector),
            Ok(()) => {
                let render = || page::render(&tenant.spec, tenant.mcp.rights(), self.open_tenants);
                let html = || tenant.page.get_or_init(render).clone();
                page::answer(html, method)
            }
        }
    }
}

fn ration(tenant: &Tenant, visit: &Visit<'_>, principal: &Principal, address: IpAddr) -> Result<(), Refusal> {
    let Some(per_minute) = tenant.spec.limits.requests_per_minute else { return Ok(()) };
    let caller = match principal {
        Principal::Key { label } => CallerKey::Label(label.clone()),
        Principal::User(user) => CallerKey::User(user.subject.clone()),
        Principal::Machine(machine) => CallerKey::User(machine.client_id.clone()),
        Principal::Anonymous => CallerKey::network(address),
    };
    tenant.slot.rate.take(caller, per_minute, visit.started).map_err(|wait| Refusal::TooMany { wait })
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

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        Self::Body(fault)
    }
}

/// What determines the form of a refusal.
#[derive(Debug, Clone, Copy)]
struct Asked {
    form: Form,
    spelling: Resource,
}

impl Asked {
    fn of<B>(endpoint: Endpoint, request: &Request<B>) -> Self {
        let spelling = match endpoint {
            Endpoint::Page => Resource::Base,
            _ if request.uri().path().ends_with('/') => Resource::ConnectorSlash,
            _ => Resource::Connector,
        };
        let form = if request.method() == Method::POST { Form::Rpc } else { Form::Problem };
        Self { form, spelling }
    }
}

impl Refusal {
    fn answer(self, tenant: &Tenant, asked: Asked) -> Response<Body> {
        match self {
            Self::Denied(denial) => denied(tenant, denial, asked.form, asked.spelling),
            Self::TooMany { wait } => too_many(wait, asked.form),
            Self::NoRoom(exhausted) => reply::no_room(asked.form, exhausted),
            Self::Body(fault) => {
                let mut response = reply::rpc_error(fault.status(), -32600, &fault.to_string());
                if let BodyFault::NoRoom(_) = fault {
                    response.headers_mut().insert(header::RETRY_AFTER, retry_after(budgets::RETRY));
                }
                response
            }
        }
    }
}

fn denied(tenant: &Tenant, denial: Denial, form: Form, spelling: Resource) -> Response<Body> {
    let problem = Problem { status: denial.status(), found: tenant.bearer.sentence(denial), help: None };
    let mut response = reply::refusal(form, problem);
    if let Some(challenge) = tenant.bearer.challenge(denial, spelling) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if denial == Denial::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after(RETRY));
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
    response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
    response
}
