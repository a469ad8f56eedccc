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

use super::authorization_server::{AuthorizationServer, Visit};
use super::authorize::Ask;
use super::client::RedirectUri;
use super::consent::leave;
use super::grants::{self, NewGrant};
use super::page::{self, Notice, Way};
use super::parameters::Parameters;
use super::sealed::{self, LOGIN};
use super::{cookie, pkce, reply};
use crate::base::body::Body;
use crate::base::random;
use crate::base::secret::Secret;
use crate::identity::{self, Kind};
use crate::telemetry::audit::{Entry, Event, Who};

/// How long a person may take to log in at Microsoft.
const LIFE: SignedDuration = SignedDuration::from_mins(10);

/// The prefix of the login cookies of all tenants.
const LOGINS: &str = "__Host-login.";

/// A login in progress, sealed in the browser's cookie.
#[derive(Serialize, Deserialize)]
struct UnderWay {
    ask: Ask,
    state: String,
    nonce: String,
    /// The verifier of our own PKCE with Entra.
    verifier: String,
    at: Timestamp,
}

/// Why a login ends without a code.
enum Failure {
    Identity(identity::Error),
    /// The grant cannot be persisted.
    Unavailable,
}

impl From<identity::Error> for Failure {
    fn from(error: identity::Error) -> Self {
        Self::Identity(error)
    }
}

impl AuthorizationServer {
    /// Redirects a person who consented to Microsoft.
    pub(super) fn begin_login(&self, ask: Ask, headers: &HeaderMap, visit: &Visit<'_>) -> Response<Body> {
        let login = UnderWay {
            ask,
            state: random::text(),
            nonce: random::text(),
            verifier: random::text(),
            at: visit.now,
        };
        let to = self.provider.authorize_url(&identity::Ask {
            state: &login.state,
            nonce: &login.nonce,
            code_challenge: &pkce::challenge(&login.verifier),
            login_hint: login.ask.login_hint.as_deref(),
        });
        let name = self.login_cookie(&login.state);
        let value = sealed::seal_value(&self.store, LOGIN, self.issuer().life(), &login.state, &login);
        let mut response =
            leave("You are going to Microsoft", "Sign in there; it brings you back.", to.as_str());
        let newest = (name.as_str(), value.as_str());
        match cookie::set_newest(headers, response.headers_mut(), LOGINS, newest, LIFE.as_secs()) {
            Ok(()) => response,
            Err(cookie::TooLong) => self.too_long(&login.ask, visit),
        }
    }

    /// Answers that the state of the login does not fit into a cookie.
    fn too_long(&self, ask: &Ask, visit: &Visit<'_>) -> Response<Body> {
        let long = "the request is too long to be kept in a cookie";
        let notice = Notice {
            title: "This login request is too long",
            sentence: "The application sent more with you than your browser can keep until you come back.",
            advice: "Its maker must make its state or its redirect URI shorter. The application can be told so:",
            way: Some(Way {
                to: &ask.back(self.url.as_str()).with_error("invalid_request", long),
                label: "Back to the application",
                at_once: false,
            }),
            request_id: Some(visit.request_id),
            nonce: &page::nonce(),
        };
        notice.answer(StatusCode::BAD_REQUEST)
    }

    pub(super) async fn callback(&self, request: &Request<Bytes>, visit: &Visit<'_>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET) {
            return reply::method_not_allowed("GET");
        }
        let parameters = Parameters::parse(request.uri().query().unwrap_or_default().as_bytes());
        let Some((parameters, login)) = parameters.ok().and_then(|parameters| {
            let login = self.under_way(request.headers(), parameters.one("state").ok()??, visit.now)?;
            Some((parameters, login))
        }) else {
            return nobodys(visit);
        };
        let mut response = match self.finish(&login, &parameters, visit).await {
            Ok(code) => hand_over(&login.ask, &login.ask.back(self.url.as_str()).with_code(code.expose())),
            Err(failure) => self.failed(&login.ask, &failure, visit),
        };
        cookie::clear(request.headers(), response.headers_mut(), &self.login_cookie(&login.state));
        response
    }

    /// Returns the login that this browser began with this state.
    fn under_way(&self, headers: &HeaderMap, state: &str, now: Timestamp) -> Option<UnderWay> {
        let value =
            random::is_text(state).then(|| cookie::read(headers, &self.login_cookie(state))).flatten()?;
        let login: UnderWay = sealed::open_value(&self.store, LOGIN, self.issuer().life(), state, &value)?;
        (login.state == state && now.duration_since(login.at) <= LIFE).then_some(login)
    }

    async fn finish(
        &self,
        login: &UnderWay,
        parameters: &Parameters<'_>,
        visit: &Visit<'_>,
    ) -> Result<Secret, Failure> {
        let one = |name| parameters.one(name).ok().flatten();
        let Some(code) = one("code").filter(|_| one("error").is_none()) else {
            let error = one("error").unwrap_or("invalid_request");
            return Err(self.provider.refusal(error, one("error_description")).into());
        };
        let verifier = Secret::new(login.verifier.clone());
        let known = self.provider.redeem(code, &verifier, &login.nonce).await?;
        let ask = login.ask.clone();
        let person = known.person.clone();
        let grant = NewGrant {
            client_id: ask.client_id,
            client_name: ask.client_name,
            redirect_uri: ask.redirect_uri_given.then_some(ask.redirect_uri),
            code_challenge: ask.code_challenge,
            scope: ask.scope,
            person: known.person,
            upstream: known.refresh_token,
        };
        let code = self.grants.begin(grant).await.map_err(|_| Failure::Unavailable)?;
        self.note(&login.ask, "ok", grants::who(&person), visit);
        Ok(code)
    }

    /// Returns a page with the reason and a link to the client, which carries the OAuth error.
    fn failed(&self, ask: &Ask, failure: &Failure, visit: &Visit<'_>) -> Response<Body> {
        let (status, code, page) = match failure {
            Failure::Identity(error) => {
                self.log(error, visit);
                self.note(ask, error.class(), Who::default(), visit);
                (status_of(error.kind()), client_code(error), error.page().clone())
            }
            Failure::Unavailable => {
                self.note(ask, "unavailable", Who::default(), visit);
                let page = identity::Page {
                    title: "The login cannot be finished now",
                    sentence: "This server cannot write its own records.".into(),
                    advice: "Try again in a minute.".into(),
                };
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", page)
            }
        };
        let back = ask.back(self.url.as_str()).with_error(code, &page.sentence);
        let notice = Notice {
            title: page.title,
            sentence: &page.sentence,
            advice: &page.advice,
            way: Some(Way { to: &back, label: "Back to the application", at_once: false }),
            request_id: Some(visit.request_id),
            nonce: &page::nonce(),
        };
        notice.answer(status)
    }

    pub(super) fn note(&self, ask: &Ask, outcome: &str, who: Who<'_>, visit: &Visit<'_>) {
        self.issuer().ledger.audit.note(&Entry {
            who,
            client_id: Some(&ask.client_id),
            request_id: Some(visit.request_id),
            ..Entry::new(Event::Login, self.tenant.as_str(), outcome)
        });
    }

    fn log(&self, error: &identity::Error, visit: &Visit<'_>) {
        let trace = error.trace();
        let (tenant, request_id, class) = (self.tenant.as_str(), visit.request_id, error.class());
        let (correlation_id, trace_id) = (trace.correlation_id.as_deref(), trace.trace_id.as_deref());
        let (aadsts, fault) = (&trace.codes, "login");
        match error.kind() {
            Kind::Refused | Kind::Ended => tracing::info!(
                tenant,
                request_id,
                fault,
                class,
                ?aadsts,
                correlation_id,
                trace_id,
                "a login was refused"
            ),
            Kind::Misconfigured | Kind::Down => tracing::warn!(
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

    fn login_cookie(&self, state: &str) -> String {
        format!("{LOGINS}{}.{}", self.tenant, &state[..8])
    }
}

/// Returns the person to the client. A link that opens a program is left for the person to follow.
fn hand_over(ask: &Ask, to: &str) -> Response<Body> {
    let uri = RedirectUri::parse_entered(&ask.redirect_uri).ok().filter(|uri| uri.scheme().is_some());
    let Some(application) = uri else { return reply::redirect(to) };
    let name = ask.client_name.as_deref().unwrap_or("the application");
    let notice = Notice {
        title: "You are signed in",
        sentence: &format!("One step is left: open {}.", application.place()),
        advice: &format!(
            "Go on only if you have just started to connect {name} yourself; otherwise close this page."
        ),
        way: Some(Way { to, label: "Open the application", at_once: false }),
        request_id: None,
        nonce: &page::nonce(),
    };
    notice.answer(StatusCode::OK)
}

fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Refused => StatusCode::FORBIDDEN,
        Kind::Misconfigured => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Ended => StatusCode::BAD_REQUEST,
        Kind::Down => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns the error code for the client. `invalid_grant` is no error of an authorization response
/// (RFC 6749 section 4.1.2.1); a person whose code has expired logs in again.
fn client_code(error: &identity::Error) -> &'static str {
    match error.kind() {
        Kind::Ended => "access_denied",
        _ => error.oauth_error(),
    }
}

/// Answers a callback that belongs to no login of this browser. It redirects nowhere, as the client
/// is unknown.
fn nobodys(visit: &Visit<'_>) -> Response<Body> {
    let words = [
        "This login cannot be finished here",
        "It was begun in another browser, took longer than ten minutes, or was finished before.",
        "Start again from your application, and stay in one browser.",
    ];
    page::dead_end(StatusCode::BAD_REQUEST, visit.request_id, words)
}
