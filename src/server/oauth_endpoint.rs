//! Requests to a tenant's authorization server: rate limit, size limit, then the server itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use super::Server;
use super::body::{self, BodyError, BodyLimits};
use super::budgets;
use super::http_span::HttpSpan;
use super::precheck::RequestRejection;
use super::request::RequestContext;
use super::response::ErrorFormat;
use crate::base::body::Body;
use crate::base::budget::Reservation;
use crate::oauth::authorization_server::RequestMeta;
use crate::oauth::{self, endpoints};
use crate::routing::{DiscoveryDocument, OAuthEndpoint};
use crate::telemetry::otlp::in_span;
use crate::tenants::tenant::Tenant;
use crate::usage::CallerKey;
use crate::usage::rate_limit::RateShare;

/// Answers a request for a metadata document of a tenant's login.
pub(super) async fn handle_discovery<B>(
    tenant: &Tenant,
    document: DiscoveryDocument,
    request: Request<B>,
) -> Response<Body> {
    match &tenant.login {
        Some(auth_server) => {
            endpoints::handle_discovery(auth_server, document, request.map(|_| Bytes::new())).await
        }
        None => RequestRejection::NoLogin.into_response(ErrorFormat::ProblemJson, request.version()),
    }
}

/// Answers one step of a login, which has a span.
pub(super) async fn handle<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    endpoint: OAuthEndpoint,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let span = HttpSpan::start(server, context, tenant, endpoint, &request);
    let answering = Box::pin(answer(server, context, tenant, endpoint, request));
    let response = in_span(span.ids(), answering).await;
    span.end(response.status());
    response
}

async fn answer<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    endpoint: OAuthEndpoint,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let Some(auth_server) = &tenant.login else {
        return RequestRejection::NoLogin.into_response(ErrorFormat::ProblemJson, request.version());
    };
    if let Err(wait) = check_rate_limit(server, context, tenant, endpoint) {
        server.metrics.record_refusal(tenant.spec.name.as_str(), "login_rate_limited");
        return oauth::response::too_many_requests(wait);
    }
    match read_body(server, context, tenant, endpoint, request).await {
        Ok((request, _held_until_answered)) => {
            let meta = RequestMeta {
                request_id: &context.request_id,
                now: server.clock.now(),
                source: context.caller.ip(),
            };
            endpoints::handle(auth_server, endpoint, request, meta).await
        }
        Err(error @ BodyError::BudgetExhausted(_)) => {
            oauth::response::unavailable(&error.to_string(), budgets::RETRY)
        }
        Err(error) => oauth::response::error(error.status(), "invalid_request", &error.to_string()),
    }
}

/// Limits the rate per client network, since the caller is not authenticated yet. Preflights count
/// too, although they are cheap.
pub(super) fn check_rate_limit(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    endpoint: OAuthEndpoint,
) -> Result<(), Duration> {
    let (rates, live) = (&tenant.slot.login_rates, server.live.load());
    let limits = &live.limits;
    let (buckets, per_minute) = match endpoint {
        OAuthEndpoint::Authorize
        | OAuthEndpoint::Consent
        | OAuthEndpoint::Callback
        | OAuthEndpoint::Account => (&rates.logins, limits.logins_per_minute),
        OAuthEndpoint::Token | OAuthEndpoint::Revoke | OAuthEndpoint::Introspect => {
            (&rates.tokens, limits.tokens_per_minute)
        }
        OAuthEndpoint::Register => (&rates.registrations, limits.registrations_per_minute),
    };
    let rate = RateShare::among(tenant.usage.live_nodes(), per_minute);
    buckets.acquire(CallerKey::from_address(context.caller.ip()), rate, context.started)
}

/// Reads the request body. Returns the request and the reservation for the time until it is
/// answered.
async fn read_body<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    endpoint: OAuthEndpoint,
    request: Request<B>,
) -> Result<(Request<Bytes>, Reservation), BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let limits = BodyLimits {
        max_bytes: max_body_bytes(endpoint),
        read_timeout: Duration::from_secs(server.live.load().limits.body_seconds),
        factor: 1,
    };
    let attribution = context.attribution(Some(tenant));
    body::read_metered(request, limits, &server.budgets.requests, &attribution, context.started).await
}

fn max_body_bytes(endpoint: OAuthEndpoint) -> usize {
    match endpoint {
        OAuthEndpoint::Register | OAuthEndpoint::Authorize | OAuthEndpoint::Account => 16 << 10,
        OAuthEndpoint::Consent | OAuthEndpoint::Token | OAuthEndpoint::Revoke | OAuthEndpoint::Introspect => {
            32 << 10
        }
        OAuthEndpoint::Callback => 0,
    }
}
