//! A login at the identity provider: it begins with the consent and ends with the callback.
//!
//! Its state lies, sealed, in a cookie of the browser that consented, one cookie per login. So
//! unfinished logins occupy no memory here, and a callback in another browser finds no login. The
//! latest two of the host are kept, however many are begun.

use http::{HeaderMap, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::authorization_request::AuthorizationRequest;
use super::authorization_server::{AuthServer, RequestMeta};
use super::error::Unavailable;
use super::grants::GrantRejection;
use super::login_page::{self, NoticePage, PageLink, redirect_page};
use super::parameters::Parameters;
use super::sealed::{self, LOGIN};
use super::{cookie, pkce};
use crate::base::body::Body;
use crate::base::random;
use crate::base::secret::Secret;
use crate::identity::{self, Account, ProviderLogin};
use crate::telemetry::audit::{Actor, AuditEvent, AuditRecord};

/// How long a person may take to log in at the provider.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// The prefix of the login cookies of all tenants.
const COOKIE_PREFIX: &str = "__Host-login.";

/// A login in progress, sealed in the browser's cookie.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingLogin {
    /// The client's request; none if the person logs in to see what is connected.
    #[serde(rename = "ask", default, skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<AuthorizationRequest>,
    state: String,
    nonce: String,
    /// The verifier of our own PKCE with the provider.
    verifier: String,
    #[serde(rename = "at")]
    begun_at: Timestamp,
}

/// Why a login ends without success.
pub(super) enum LoginError {
    Identity(identity::Error),
    /// An operator keeps the person out.
    Blocked(Account),
    /// The grant cannot be persisted, or it is unknown whether the person may log in.
    Unavailable,
}

impl From<identity::Error> for LoginError {
    fn from(error: identity::Error) -> Self {
        Self::Identity(error)
    }
}

impl From<Unavailable> for LoginError {
    fn from(Unavailable: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl PendingLogin {
    fn new(request: Option<AuthorizationRequest>, now: Timestamp) -> Self {
        let [state, nonce, verifier] = [(); 3].map(|()| random::token());
        Self { request, state, nonce, verifier, begun_at: now }
    }

    /// Returns the login that this browser began with this state.
    pub(super) fn open(
        server: &AuthServer,
        headers: &HeaderMap,
        state: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let value =
            random::is_token(state).then(|| cookie::read(headers, &cookie_name(server, state))).flatten()?;
        let incarnation = server.issuer.current_incarnation();
        let login: Self = sealed::open_value(&server.keyring, LOGIN, incarnation, state, &value)?;
        (login.state == state && now.duration_since(login.begun_at) <= TIMEOUT).then_some(login)
    }

    /// Returns the sealed login, for the cookie.
    fn seal(&self, server: &AuthServer) -> String {
        let incarnation = server.issuer.current_incarnation();
        sealed::seal_value(&server.keyring, LOGIN, incarnation, &self.state, self)
    }

    /// Returns the provider's URL where the person logs in.
    fn provider_url(&self, server: &AuthServer) -> String {
        let url = server.provider.authorize_url(&identity::AuthRequest {
            state: &self.state,
            nonce: &self.nonce,
            code_challenge: &pkce::compute_challenge(&self.verifier),
            login_hint: self.request.as_ref().and_then(|request| request.login_hint.as_deref()),
        });
        url.into()
    }

    /// Redeems the provider's code, unless an operator keeps the person out.
    pub(super) async fn redeem(
        &self,
        server: &AuthServer,
        parameters: &Parameters<'_>,
    ) -> Result<ProviderLogin, LoginError> {
        let one = |name| parameters.get(name).ok().flatten();
        let Some(code) = one("code").filter(|_| one("error").is_none()) else {
            let error = one("error").unwrap_or("invalid_request");
            return Err(server.provider.redirect_error(error, one("error_description")).into());
        };
        let known =
            server.provider.redeem_code(code, &Secret::new(self.verifier.clone()), &self.nonce).await?;
        match server.grants.check_block(&known.account) {
            Ok(()) => Ok(known),
            Err(GrantRejection::Blocked) => Err(LoginError::Blocked(known.account)),
            Err(_) => Err(LoginError::Unavailable),
        }
    }

    /// Removes the login from the browser, once it has ended.
    pub(super) fn clear_cookie(&self, server: &AuthServer, asked: &HeaderMap, headers: &mut HeaderMap) {
        cookie::clear(asked, headers, &cookie_name(server, &self.state));
    }
}

fn cookie_name(server: &AuthServer, state: &str) -> String {
    format!("{COOKIE_PREFIX}{}.{}", server.tenant, &state[..8])
}

/// Sends a person to the identity provider: one who consented to a client's request, or, without a
/// request, one who wants to see what is connected.
pub(super) fn begin(
    server: &AuthServer,
    request: Option<AuthorizationRequest>,
    headers: &HeaderMap,
    meta: RequestMeta<'_>,
) -> Response<Body> {
    let login = PendingLogin::new(request, meta.now);
    let mut response = redirect_page(
        &format!("You are going to {}", server.provider.brand().name),
        "Sign in there; the login page then sends you back.",
        &login.provider_url(server),
    );
    let (name, value) = (cookie_name(server, &login.state), login.seal(server));
    let newest = (name.as_str(), value.as_str());
    let set = cookie::set_and_evict_older(
        headers,
        response.headers_mut(),
        COOKIE_PREFIX,
        newest,
        TIMEOUT.as_secs(),
    );
    match set {
        Ok(()) => response,
        Err(cookie::CookieTooLong) => cookie_too_long_page(server, login.request.as_ref(), meta),
    }
}

fn cookie_too_long_page(
    server: &AuthServer,
    request: Option<&AuthorizationRequest>,
    meta: RequestMeta<'_>,
) -> Response<Body> {
    let description = "the request is too long for a cookie";
    let code = "invalid_request";
    login_page::log_reference(server.tenant.as_str(), meta.request_id, Some(code), description);
    let location = request.map(|request| request.response(server.url.as_str()).error_url(code, description));
    let notice = NoticePage {
        title: "This login request is too long",
        sentence: "The application's request is too large for your browser to keep until you come back.",
        advice: "Its maker must make its state or its redirect URI shorter. This link reports the error to \
                 the application:",
        link: location.as_deref().map(PageLink::back_to_application),
        request_id: Some(meta.request_id),
    };
    notice.to_response(StatusCode::BAD_REQUEST)
}

/// Counts a login, and records in the audit how it ended.
pub(super) fn record(
    server: &AuthServer,
    request: Option<&AuthorizationRequest>,
    outcome: &'static str,
    who: Actor<'_>,
    meta: RequestMeta<'_>,
) {
    server.context.metrics.record_login(server.tenant.as_str(), outcome);
    server.context.login_counts.record(outcome == "ok", server.context.now());
    server.context.audit.record(&AuditRecord {
        who,
        client_addr: Some(meta.source),
        client: request.and_then(|request| request.client_name.as_deref()),
        client_id: request.map(|request| &*request.client_id),
        request_id: Some(meta.request_id),
        ..AuditRecord::new(AuditEvent::Login, server.tenant.as_str(), outcome)
    });
}
