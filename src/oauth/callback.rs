//! From the consent to Microsoft and back: `/auth/ms-callback` (OpenID Connect Core section
//! 3.1.2.5).
//!
//! The state of a login lies, sealed, in a cookie of the browser that consented, one cookie per
//! login. So unfinished logins occupy no memory here, and a callback in another browser finds no
//! login. The latest two of the host are kept, however many are begun.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::authorize::AuthorizationRequest;
use super::client::RedirectUri;
use super::consent::redirect_page;
use super::grants::{self, NewGrant};
use super::login_page::{self, NoticePage, PageLink};
use super::parameters::Parameters;
use super::sealed::{self, LOGIN};
use super::server::{AuthServer, RequestMeta};
use super::{cookie, pkce, response};
use crate::base::body::Body;
use crate::base::random;
use crate::base::secret::Secret;
use crate::identity::{self, LoginErrorKind};
use crate::telemetry::audit::{Actor, AuditEvent, AuditRecord};

/// How long a person may take to log in at Microsoft.
const LOGIN_TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// The prefix of the login cookies of all tenants.
const LOGIN_COOKIE_PREFIX: &str = "__Host-login.";

/// A login in progress, sealed in the browser's cookie.
#[derive(Serialize, Deserialize)]
struct PendingLogin {
    ask: AuthorizationRequest,
    state: String,
    nonce: String,
    /// The verifier of our own PKCE with Entra.
    verifier: String,
    at: Timestamp,
}

/// Why a login ends without a code.
enum LoginError {
    Identity(identity::Error),
    /// The grant cannot be persisted.
    Unavailable,
}

impl From<identity::Error> for LoginError {
    fn from(error: identity::Error) -> Self {
        Self::Identity(error)
    }
}

impl AuthServer {
    /// Redirects a person who consented to Microsoft.
    pub(super) fn begin_login(
        &self,
        ask: AuthorizationRequest,
        headers: &HeaderMap,
        visit: &RequestMeta<'_>,
    ) -> Response<Body> {
        let login = PendingLogin {
            ask,
            state: random::token(),
            nonce: random::token(),
            verifier: random::token(),
            at: visit.now,
        };
        let to = self.provider.authorize_url(&identity::AuthRequest {
            state: &login.state,
            nonce: &login.nonce,
            code_challenge: &pkce::compute_challenge(&login.verifier),
            login_hint: login.ask.login_hint.as_deref(),
        });
        let name = self.login_cookie_name(&login.state);
        let value =
            sealed::seal_value(&self.store, LOGIN, self.issuer().current_incarnation(), &login.state, &login);
        let mut response =
            redirect_page("You are going to Microsoft", "Sign in there; it brings you back.", to.as_str());
        let newest = (name.as_str(), value.as_str());
        match cookie::set_and_evict_older(
            headers,
            response.headers_mut(),
            LOGIN_COOKIE_PREFIX,
            newest,
            LOGIN_TIMEOUT.as_secs(),
        ) {
            Ok(()) => response,
            Err(cookie::CookieTooLong) => self.cookie_too_long_page(&login.ask, visit),
        }
    }

    /// Answers that the state of the login does not fit into a cookie.
    fn cookie_too_long_page(&self, ask: &AuthorizationRequest, visit: &RequestMeta<'_>) -> Response<Body> {
        let long = "the request is too long to be kept in a cookie";
        let notice = NoticePage {
            title: "This login request is too long",
            sentence: "The application sent more with you than your browser can keep until you come back.",
            advice: "Its maker must make its state or its redirect URI shorter. The application can be told so:",
            way: Some(PageLink {
                to: &ask.response(self.url.as_str()).error_url("invalid_request", long),
                label: "Back to the application",
                at_once: false,
            }),
            request_id: Some(visit.request_id),
            nonce: &login_page::new_nonce(),
        };
        notice.to_response(StatusCode::BAD_REQUEST)
    }

    pub(super) async fn handle_callback(
        &self,
        request: &Request<Bytes>,
        visit: &RequestMeta<'_>,
    ) -> Response<Body> {
        if !matches!(*request.method(), Method::GET) {
            return response::method_not_allowed("GET");
        }
        let parameters = Parameters::parse(request.uri().query().unwrap_or_default().as_bytes());
        let Some((parameters, login)) = parameters.ok().and_then(|parameters| {
            let login =
                self.open_pending_login(request.headers(), parameters.get("state").ok()??, visit.now)?;
            Some((parameters, login))
        }) else {
            return unknown_login_page(visit);
        };
        let mut response = match self.finish_login(&login, &parameters, visit).await {
            Ok(code) => {
                return_to_client(&login.ask, &login.ask.response(self.url.as_str()).code_url(code.expose()))
            }
            Err(failure) => self.login_error_page(&login.ask, &failure, visit),
        };
        cookie::clear(request.headers(), response.headers_mut(), &self.login_cookie_name(&login.state));
        response
    }

    /// Returns the login that this browser began with this state.
    fn open_pending_login(&self, headers: &HeaderMap, state: &str, now: Timestamp) -> Option<PendingLogin> {
        let value = random::is_token(state)
            .then(|| cookie::read(headers, &self.login_cookie_name(state)))
            .flatten()?;
        let login: PendingLogin =
            sealed::open_value(&self.store, LOGIN, self.issuer().current_incarnation(), state, &value)?;
        (login.state == state && now.duration_since(login.at) <= LOGIN_TIMEOUT).then_some(login)
    }

    async fn finish_login(
        &self,
        login: &PendingLogin,
        parameters: &Parameters<'_>,
        visit: &RequestMeta<'_>,
    ) -> Result<Secret, LoginError> {
        let one = |name| parameters.get(name).ok().flatten();
        let Some(code) = one("code").filter(|_| one("error").is_none()) else {
            let error = one("error").unwrap_or("invalid_request");
            return Err(self.provider.redirect_error(error, one("error_description")).into());
        };
        let verifier = Secret::new(login.verifier.clone());
        let known = self.provider.redeem_code(code, &verifier, &login.nonce).await?;
        let ask = login.ask.clone();
        let person = known.person.clone();
        let grant = NewGrant {
            client_id: ask.client_id,
            client_name: ask.client_name,
            redirect_uri: ask.redirect_uri_given.then_some(ask.redirect_uri),
            code_challenge: ask.code_challenge,
            scope: ask.scope,
            person: known.person,
            provider_refresh_token: known.refresh_token,
        };
        let code = self.grants.create(grant).await.map_err(|_| LoginError::Unavailable)?;
        self.record_login(&login.ask, "ok", grants::audit_identity(&person), visit);
        Ok(code)
    }

    /// Returns a page with the reason and a link to the client, which carries the OAuth error.
    fn login_error_page(
        &self,
        ask: &AuthorizationRequest,
        failure: &LoginError,
        visit: &RequestMeta<'_>,
    ) -> Response<Body> {
        let (status, code, page) = match failure {
            LoginError::Identity(error) => {
                self.log_identity_error(error, visit);
                self.record_login(ask, error.class(), Actor::default(), visit);
                (status_for(error.kind()), client_error_code(error), error.page().clone())
            }
            LoginError::Unavailable => {
                self.record_login(ask, "unavailable", Actor::default(), visit);
                let page = identity::PageText {
                    title: "The login cannot be finished now",
                    sentence: "This server cannot write its own records.".into(),
                    advice: "Try again in a minute.".into(),
                };
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", page)
            }
        };
        let back = ask.response(self.url.as_str()).error_url(code, &page.sentence);
        let notice = NoticePage {
            title: page.title,
            sentence: &page.sentence,
            advice: &page.advice,
            way: Some(PageLink { to: &back, label: "Back to the application", at_once: false }),
            request_id: Some(visit.request_id),
            nonce: &login_page::new_nonce(),
        };
        notice.to_response(status)
    }

    pub(super) fn record_login(
        &self,
        ask: &AuthorizationRequest,
        outcome: &str,
        who: Actor<'_>,
        visit: &RequestMeta<'_>,
    ) {
        self.issuer().context.audit.record(&AuditRecord {
            who,
            client_id: Some(&ask.client_id),
            request_id: Some(visit.request_id),
            ..AuditRecord::new(AuditEvent::Login, self.tenant.as_str(), outcome)
        });
    }

    fn log_identity_error(&self, error: &identity::Error, visit: &RequestMeta<'_>) {
        let trace = error.trace();
        let (tenant, request_id, class) = (self.tenant.as_str(), visit.request_id, error.class());
        let (correlation_id, trace_id) = (trace.correlation_id.as_deref(), trace.trace_id.as_deref());
        let (aadsts, fault) = (&trace.codes, "login");
        match error.kind() {
            LoginErrorKind::Refused | LoginErrorKind::Ended => tracing::info!(
                tenant,
                request_id,
                fault,
                class,
                ?aadsts,
                correlation_id,
                trace_id,
                "a login was refused"
            ),
            LoginErrorKind::Misconfigured | LoginErrorKind::Down => tracing::warn!(
                tenant,
                request_id,
                fault,
                class,
                ?aadsts,
                correlation_id,
                trace_id,
                "a login failed"
            ),
        }
    }

    fn login_cookie_name(&self, state: &str) -> String {
        format!("{LOGIN_COOKIE_PREFIX}{}.{}", self.tenant, &state[..8])
    }
}

/// Returns the person to the client. A link that opens a program is left for the person to follow.
fn return_to_client(ask: &AuthorizationRequest, to: &str) -> Response<Body> {
    let uri =
        RedirectUri::parse_trusted(&ask.redirect_uri).ok().filter(|uri| uri.private_use_scheme().is_some());
    let Some(application) = uri else { return response::redirect(to) };
    let name = ask.client_name.as_deref().unwrap_or("the application");
    let notice = NoticePage {
        title: "You are signed in",
        sentence: &format!("One step is left: open {}.", application.describe_destination()),
        advice: &format!(
            "Go on only if you have just started to connect {name} yourself; otherwise close this page."
        ),
        way: Some(PageLink { to, label: "Open the application", at_once: false }),
        request_id: None,
        nonce: &login_page::new_nonce(),
    };
    notice.to_response(StatusCode::OK)
}

fn status_for(kind: LoginErrorKind) -> StatusCode {
    match kind {
        LoginErrorKind::Refused => StatusCode::FORBIDDEN,
        LoginErrorKind::Misconfigured => StatusCode::INTERNAL_SERVER_ERROR,
        LoginErrorKind::Ended => StatusCode::BAD_REQUEST,
        LoginErrorKind::Down => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns the error code for the client. `invalid_grant` is no error of an authorization response
/// (RFC 6749 section 4.1.2.1); a person whose code has expired logs in again.
fn client_error_code(error: &identity::Error) -> &'static str {
    match error.kind() {
        LoginErrorKind::Ended => "access_denied",
        _ => error.oauth_error(),
    }
}

/// Answers a callback that belongs to no login of this browser. It redirects nowhere, as the client
/// is unknown.
fn unknown_login_page(visit: &RequestMeta<'_>) -> Response<Body> {
    let words = [
        "This login cannot be finished here",
        "It was begun in another browser, took longer than ten minutes, or was finished before.",
        "Start again from your application, and stay in one browser.",
    ];
    login_page::error_page(StatusCode::BAD_REQUEST, visit.request_id, words)
}
