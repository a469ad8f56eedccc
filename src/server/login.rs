//! Requests to a tenant's authorization server: rate limit, size limit, then the server itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::body::{self, BodyFault};
use super::budgets::{self, Parties};
use super::context::{Edge, Visit};
use super::front::Fault;
use super::reply::Form;
use crate::base::body::Body;
use crate::oauth;
use crate::oauth::authorization_server::AuthorizationServer;
use crate::routing::{Document, Step};
use crate::tenants::rate::CallerKey;
use crate::tenants::tenant::Tenant;

impl Edge {
    /// Answers a request for a metadata document of a tenant's login.
    pub(super) async fn describe<B>(
        &self,
        tenant: &Tenant,
        document: Document,
        request: Request<B>,
    ) -> Response<Body> {
        match &tenant.login {
            Some(server) => server.describe(document, &request.map(|_| Bytes::new())).await,
            None => Fault::NoLogin.answer(Form::Problem, request.version()),
        }
    }

    /// Answers one step of a login.
    pub(super) async fn step<B>(
        &self,
        tenant: &Tenant,
        step: Step,
        visit: &Visit<'_>,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let Some(server) = &tenant.login else {
            return Fault::NoLogin.answer(Form::Problem, request.version());
        };
        if let Err(wait) = self.ration(tenant, step, visit) {
            return oauth::reply::too_many(wait);
        }
        let parties = visit.parties(Some(tenant));
        match self.take(server, step, visit, request, &parties).await {
            Ok(response) => response,
            Err(fault) => {
                let sentence = fault.to_string();
                match fault {
                    BodyFault::NoRoom(exhausted) => {
                        self.budgets.requests.refuse(exhausted, &parties, visit.started);
                        oauth::reply::unavailable(&sentence, budgets::RETRY)
                    }
                    _ => oauth::reply::error(fault.status(), "invalid_request", &sentence),
                }
            }
        }
    }

    async fn take<B>(
        &self,
        server: &AuthorizationServer,
        step: Step,
        visit: &Visit<'_>,
        request: Request<B>,
        parties: &Parties,
    ) -> Result<Response<Body>, BodyFault>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let deadline = Duration::from_secs(self.limits.body_seconds);
        let mut held = self.budgets.requests.hold(parties);
        let request = body::read(request, largest(step), deadline, &mut held).await?;
        let facts = oauth::authorization_server::Visit {
            request_id: &visit.id,
            now: self.clock.now(),
            source: visit.peer.addr.ip(),
        };
        Ok(server.step(step, request, facts).await)
    }

    /// Limits the rate per client network, since the caller is not authenticated yet. Preflights
    /// count too, although they are cheap.
    pub(super) fn ration(&self, tenant: &Tenant, step: Step, visit: &Visit<'_>) -> Result<(), Duration> {
        let rates = &tenant.slot.login_rates;
        let (buckets, per_minute) = match step {
            Step::Authorize | Step::Consent | Step::Callback => {
                (&rates.logins, self.limits.logins_per_minute)
            }
            Step::Token | Step::Revoke | Step::Introspect => (&rates.tokens, self.limits.tokens_per_minute),
            Step::Register => (&rates.registrations, self.limits.registrations_per_minute),
        };
        buckets.take(CallerKey::network(visit.peer.addr.ip()), per_minute, visit.started)
    }
}

fn largest(step: Step) -> usize {
    match step {
        Step::Register | Step::Authorize => 16 << 10,
        Step::Consent | Step::Token | Step::Revoke | Step::Introspect => 32 << 10,
        Step::Callback => 0,
    }
}

impl BodyFault {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
