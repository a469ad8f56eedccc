//! Requests to a tenant's authorization server: rate limit, size limit, then the server itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::body::{self, BodyError};
use super::budgets::{self, Attribution};
use super::precheck::PrecheckError;
use super::request::{RequestContext, Server};
use super::response::ErrorFormat;
use crate::base::body::Body;
use crate::oauth;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::endpoints;
use crate::routing::{DiscoveryDocument, OAuthEndpoint};
use crate::tenants::rate_limit::CallerKey;
use crate::tenants::tenant::Tenant;

impl Server {
    /// Answers a request for a metadata document of a tenant's login.
    pub(super) async fn handle_discovery<B>(
        &self,
        tenant: &Tenant,
        document: DiscoveryDocument,
        request: Request<B>,
    ) -> Response<Body> {
        match &tenant.login {
            Some(server) => {
                endpoints::handle_discovery(server, document, request.map(|_| Bytes::new())).await
            }
            None => PrecheckError::NoLogin.into_response(ErrorFormat::ProblemJson, request.version()),
        }
    }

    /// Answers one step of a login.
    pub(super) async fn handle_oauth<B>(
        &self,
        tenant: &Tenant,
        step: OAuthEndpoint,
        visit: &RequestContext<'_>,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let Some(server) = &tenant.login else {
            return PrecheckError::NoLogin.into_response(ErrorFormat::ProblemJson, request.version());
        };
        if let Err(wait) = self.check_login_rate_limit(tenant, step, visit) {
            return oauth::response::too_many_requests(wait);
        }
        let parties = visit.attribution(Some(tenant));
        match self.take(server, step, visit, request, &parties).await {
            Ok(response) => response,
            Err(fault) => {
                let sentence = fault.to_string();
                match fault {
                    BodyError::BudgetExhausted(exhausted) => {
                        self.budgets.requests.record_rejection(exhausted, &parties, visit.started);
                        oauth::response::unavailable(&sentence, budgets::RETRY)
                    }
                    _ => oauth::response::error(fault.status(), "invalid_request", &sentence),
                }
            }
        }
    }

    async fn take<B>(
        &self,
        server: &AuthServer,
        step: OAuthEndpoint,
        visit: &RequestContext<'_>,
        request: Request<B>,
        parties: &Attribution,
    ) -> Result<Response<Body>, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let deadline = Duration::from_secs(self.limits.body_seconds);
        let mut held = self.budgets.requests.new_reservation(parties);
        let request = body::read(request, largest(step), deadline, &mut held).await?;
        let meta = RequestMeta {
            request_id: &visit.request_id,
            now: self.clock.now(),
            source: visit.conn.addr.ip(),
        };
        Ok(endpoints::handle(server, step, request, meta).await)
    }

    /// Limits the rate per client network, since the caller is not authenticated yet. Preflights
    /// count too, although they are cheap.
    pub(super) fn check_login_rate_limit(
        &self,
        tenant: &Tenant,
        step: OAuthEndpoint,
        visit: &RequestContext<'_>,
    ) -> Result<(), Duration> {
        let rates = &tenant.slot.login_rates;
        let (buckets, per_minute) = match step {
            OAuthEndpoint::Authorize | OAuthEndpoint::Consent | OAuthEndpoint::Callback => {
                (&rates.logins, self.limits.logins_per_minute)
            }
            OAuthEndpoint::Token | OAuthEndpoint::Revoke | OAuthEndpoint::Introspect => {
                (&rates.tokens, self.limits.tokens_per_minute)
            }
            OAuthEndpoint::Register => (&rates.registrations, self.limits.registrations_per_minute),
        };
        buckets.acquire(CallerKey::from_address(visit.conn.addr.ip()), per_minute, visit.started)
    }
}

fn largest(step: OAuthEndpoint) -> usize {
    match step {
        OAuthEndpoint::Register | OAuthEndpoint::Authorize => 16 << 10,
        OAuthEndpoint::Consent | OAuthEndpoint::Token | OAuthEndpoint::Revoke | OAuthEndpoint::Introspect => {
            32 << 10
        }
        OAuthEndpoint::Callback => 0,
    }
}

impl BodyError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::BudgetExhausted(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
