//! Requests to a tenant's MCP endpoint: authorization, rate limit, size limit, then the tenant's
//! own server.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};

use super::body::{self, BodyError, BodyLimits};
use super::budgets::Attribution;
use super::request::RequestContext;
use super::response::{self, ErrorFormat};
use super::{Server, cors, page, revocable};
use crate::base::body::Body;
use crate::base::budget::{Exhausted, Reservation};
use crate::base::headers::accepts;
use crate::mcp::Caller;
use crate::oauth::bearer::{AdmittedCaller, Denial, Principal};
use crate::routing::Endpoint;
use crate::settings::REQUEST_FACTOR;
use crate::spec::ResourceSpelling;
use crate::telemetry::audit::{AuditEvent, AuditRecord};
use crate::tenants::tenant::Tenant;
use crate::usage::rate_limit::RateShare;

/// Answers a request to the MCP endpoint, with CORS headers if the origin is allowed.
pub(super) async fn handle<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    endpoint: Endpoint,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let origin =
        cors::match_origin(request.headers(), tenant.spec.public_url.origin(), &server.allowed_origins);
    let form = RejectionForm::for_request(endpoint, &request);
    let mut response = match *request.method() {
        Method::OPTIONS => cors::preflight(request.headers(), origin.as_ref()),
        // Browsers ask for HTML, MCP clients for JSON and event streams.
        Method::GET if accepts(request.headers(), "text/html") => {
            page::handle(server, context, tenant, &request, form.format)
        }
        _ => match call(server, context, tenant, request).await {
            Ok(response) => response,
            Err(rejection) => {
                record_rejection(server, context, tenant, &rejection);
                rejection.into_response(tenant, form)
            }
        },
    };
    if let Some(origin) = origin {
        origin.apply_to(response.headers_mut());
    }
    response
}

/// Checks who calls, how often, and how much it sends; then has the tenant's server answer.
async fn call<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    request: Request<B>,
) -> Result<Response<Body>, CallRejection>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let AdmittedCaller { principal, revocation } =
        authorize(server, context, tenant, request.headers()).await?;
    check_rate_limit(context, tenant, &principal).await?;
    if principal != Principal::Anonymous {
        context.set_credential();
    }
    let attribution = context.attribution(Some(tenant));
    // Both reservations are held until the call is over: a call that waits for a backend takes
    // memory as well.
    let (request, request_reservation) = read_body(server, context, tenant, request, &attribution).await?;
    let stream_subject = subject(&principal).filter(|_| opens_stream(request.headers()));
    let call_reservation = server.budgets.reserve_call(&attribution, stream_subject, context.started)?;
    let caller = Caller {
        principal,
        request_id: context.request_id.clone(),
        address: context.caller.ip(),
        started: context.started,
    };
    // Dropping the call cancels it down to the backend.
    tokio::select! {
        biased;
        () = revocation.revoked().cancelled() => Err(CallRejection::Denied(revocation.denial())),
        response = tenant.mcp.handle(request, caller) => {
            Ok(revocable::make_revocable(response, &revocation, [request_reservation, call_reservation]))
        }
    }
}

async fn authorize(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    headers: &HeaderMap,
) -> Result<AdmittedCaller, CallRejection> {
    let admitted = tenant.bearer.authorize(headers, context.private_ip(), server.clock.now()).await;
    if matches!(admitted, Err(Denial::NotPrivate)) && tenant.slot.tells_of_stranger() {
        tracing::warn!(
            tenant = tenant.spec.name.as_str(),
            client.addr = %context.caller.ip(),
            "a caller from the internet was refused, because the tenant requires no credential; the next ones \
             are refused without a line. If anybody may call it, say public: true (run --public); if the \
             caller's network is yours, add it to private_networks; otherwise turn on login or add api_keys"
        );
    }
    admitted.map_err(CallRejection::Denied)
}

async fn check_rate_limit(
    context: &RequestContext<'_>,
    tenant: &Tenant,
    principal: &Principal,
) -> Result<(), CallRejection> {
    let Some(per_minute) = tenant.spec.limits.requests_per_minute else { return Ok(()) };
    let rate = RateShare::among(tenant.usage.live_nodes(), per_minute);
    let caller = principal.usage_key(context.caller.ip());
    let acquired = tenant.slot.rate_limit.acquire(caller.clone(), rate, context.started);
    match acquired {
        Ok(()) => Ok(()),
        Err(wait) => {
            tenant.usage.pace_refusal(caller).await;
            Err(CallRejection::RateLimited { wait })
        }
    }
}

/// Reads the request body. Returns the request and the reservation for the time until it is
/// answered.
async fn read_body<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    request: Request<B>,
    attribution: &Attribution,
) -> Result<(Request<Bytes>, Reservation), BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let limits = BodyLimits {
        max_bytes: tenant.spec.limits.max_request_bytes,
        read_timeout: Duration::from_secs(server.live.load().limits.body_seconds),
        factor: REQUEST_FACTOR,
    };
    body::read_metered(request, limits, &server.budgets.requests, attribution, context.started).await
}

/// Counts a refusal, and records it in the audit log. Requests without a credential are not
/// recorded, since every client starts with one.
fn record_rejection(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    rejection: &CallRejection,
) {
    if !matches!(rejection, CallRejection::Denied(Denial::Missing) | CallRejection::Body(_)) {
        tenant.usage.record_refusal();
    }
    let (tenant, reason) = (tenant.spec.name.as_str(), rejection.reason());
    server.metrics.record_refusal(tenant, reason);
    if let CallRejection::Denied(Denial::Missing)
    | CallRejection::Body(_)
    | CallRejection::BudgetExhausted(_) = rejection
    {
        return;
    }
    server.audit.record(&AuditRecord {
        client_addr: Some(context.caller.ip()),
        request_id: Some(&context.request_id),
        ..AuditRecord::new(AuditEvent::Refusal, tenant, reason)
    });
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
fn opens_stream(headers: &HeaderMap) -> bool {
    headers.get("mcp-method").is_some_and(|method| method == "subscriptions/listen")
}

/// Why a call did not reach the tenant's server.
#[derive(Debug)]
enum CallRejection {
    Denied(Denial),
    RateLimited { wait: Duration },
    Body(BodyError),
    BudgetExhausted(Exhausted),
}

impl From<BodyError> for CallRejection {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<Exhausted> for CallRejection {
    fn from(exhausted: Exhausted) -> Self {
        Self::BudgetExhausted(exhausted)
    }
}

impl CallRejection {
    /// Returns the word for metrics and the audit.
    fn reason(&self) -> &'static str {
        match self {
            Self::Denied(denial) => denial.audit_label(),
            Self::RateLimited { .. } => "rate_limited",
            Self::Body(error) => error.reason(),
            Self::BudgetExhausted(_) => "memory",
        }
    }

    fn into_response(self, tenant: &Tenant, form: RejectionForm) -> Response<Body> {
        match self {
            Self::Denied(denial) => response::denial(tenant, denial, form.format, form.spelling),
            Self::RateLimited { wait } => response::too_many_requests(form.format, wait),
            Self::BudgetExhausted(exhausted) => response::budget_exhausted(form.format, exhausted),
            // What is wrong with a message is always said in JSON-RPC.
            Self::Body(BodyError::BudgetExhausted(exhausted)) => {
                response::budget_exhausted(ErrorFormat::JsonRpc, exhausted)
            }
            Self::Body(error) => response::rpc_error(error.status(), -32600, &error.to_string()),
        }
    }
}

/// What determines the form of a rejection: its format, and the spelling of the endpoint in the
/// challenge.
#[derive(Debug, Clone, Copy)]
struct RejectionForm {
    format: ErrorFormat,
    spelling: ResourceSpelling,
}

impl RejectionForm {
    fn for_request<B>(endpoint: Endpoint, request: &Request<B>) -> Self {
        let spelling = match endpoint {
            Endpoint::Page => ResourceSpelling::Base,
            _ if request.uri().path().ends_with('/') => ResourceSpelling::ConnectorSlash,
            _ => ResourceSpelling::Connector,
        };
        Self { format: ErrorFormat::for_request(request, Some(endpoint)), spelling }
    }
}
