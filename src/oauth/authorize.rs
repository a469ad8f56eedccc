//! The authorization endpoint, `/authorize` (RFC 6749 section 4.1.1): it checks the client, the
//! redirect URI and the remaining parameters, then shows the consent page. No request is stored: it
//! travels, sealed, in the page's form.
//!
//! Until client and redirect URI are verified, errors become a page and the browser is redirected
//! nowhere. Afterwards they become an authorization response: by a redirect for clients that the
//! operator or this program vouches for (RFC 6749 section 4.1.2.1), by a link on a page for clients
//! that introduced themselves, since otherwise anyone could use us as an open redirector (RFC 9700
//! section 4.11.2).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::authorization_server::{AuthorizationServer, Visit};
use super::back::Back;
use super::client::text::plain;
use super::client::{Client, ClientFault, Origin, RedirectFault, RedirectUri};
use super::page::{self, Notice, Way};
use super::parameters::{ParameterFault, Parameters};
use super::{pkce, reply, scope};
use crate::base::body::Body;
use crate::base::headers::retry_after;

const LONGEST_CLIENT_ID: usize = 2048;
const LONGEST_STATE: usize = 4096;
const LONGEST_HINT: usize = 320;
/// The Retry-After if the client could not be looked up.
const SOON: Duration = Duration::from_secs(60);

/// A verified authorization request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) client_id: String,
    pub(super) client_name: Option<String>,
    pub(super) redirect_uri: String,
    /// Whether the request had the parameter; if so, the token request must repeat it.
    pub(super) redirect_uri_given: bool,
    /// Whether the operator or this program vouches for the client.
    #[serde(default)]
    pub(super) is_vouched_for: bool,
    pub(super) state: Option<String>,
    pub(super) code_challenge: Option<String>,
    pub(super) scope: String,
    pub(super) login_hint: Option<String>,
}

impl Ask {
    /// Returns the authorization response to this request.
    pub(super) fn back<'a>(&'a self, issuer: &'a str) -> Back<'a> {
        Back { redirect_uri: &self.redirect_uri, state: self.state.as_deref(), issuer }
    }
}

/// Why there is no consent page.
enum Refused {
    /// An error page; the browser is redirected nowhere.
    Here(Stop),
    /// An error response to the client, by a redirect or by a link that the person can follow.
    There(Box<Told>),
}

/// An error response to a client.
struct Told {
    redirect_uri: RedirectUri,
    /// The URL of the response.
    to: String,
    /// Whether the operator or this program vouches for the client.
    is_vouched_for: bool,
    flaw: Flaw,
}

/// An error page without a way to the client.
struct Stop {
    error: &'static str,
    title: &'static str,
    sentence: String,
    advice: &'static str,
    status: StatusCode,
    /// When a retry may succeed.
    wait: Option<Duration>,
}

/// The error of a request from a known client: its code and a description.
struct Flaw(&'static str, String);

impl From<ParameterFault> for Flaw {
    fn from(fault: ParameterFault) -> Self {
        Self("invalid_request", fault.to_string())
    }
}

impl From<ParameterFault> for Refused {
    fn from(fault: ParameterFault) -> Self {
        Self::Here(Stop::malformed(&fault.to_string()))
    }
}

impl AuthorizationServer {
    pub(super) async fn authorize(&self, request: &Request<Bytes>, visit: &Visit<'_>) -> Response<Body> {
        let parameters = match *request.method() {
            Method::GET | Method::HEAD => {
                Parameters::parse(request.uri().query().unwrap_or_default().as_bytes())
            }
            Method::POST => Parameters::of_form(request.headers(), request.body()),
            _ => return reply::method_not_allowed("GET, POST"),
        };
        let asked = match parameters {
            Ok(parameters) => self.asked(&parameters, visit.source).await,
            Err(fault) => Err(fault.into()),
        };
        match asked {
            Ok((ask, client)) => self.ask_consent(&ask, &client, request.headers(), visit),
            Err(Refused::There(told)) => told.answer(request.headers(), visit),
            Err(Refused::Here(stop)) => stop.answer(request, visit),
        }
    }

    async fn asked(&self, parameters: &Parameters<'_>, source: IpAddr) -> Result<(Ask, Client), Refused> {
        let client = self.client_of(parameters, source).await?;
        let (redirect_uri, redirect_uri_given) = redirect_uri(&client, parameters)?;
        let state = parameters.one("state")?.filter(|state| state.len() <= LONGEST_STATE);
        let ask = Ask {
            client_id: client.id.to_string(),
            client_name: client.name.as_deref().map(str::to_owned),
            redirect_uri: redirect_uri.as_str().to_owned(),
            redirect_uri_given,
            is_vouched_for: client.is_vouched_for(),
            state: state.map(str::to_owned),
            code_challenge: None,
            scope: String::new(),
            login_hint: None,
        };
        // Client and redirect URI are verified: from here on, errors go to the client.
        match self.completed(ask.clone(), &client, parameters) {
            Ok(ask) => Ok((ask, client)),
            Err(flaw) => {
                let to = ask.back(self.url.as_str()).with_error(flaw.0, &flaw.1);
                let is_vouched_for = client.is_vouched_for();
                Err(Refused::There(Box::new(Told { redirect_uri, to, is_vouched_for, flaw })))
            }
        }
    }

    async fn client_of(&self, parameters: &Parameters<'_>, source: IpAddr) -> Result<Client, Refused> {
        let Some(id) = parameters.one("client_id")? else {
            return Err(Refused::Here(Stop::malformed("client_id is missing")));
        };
        if id.eq_ignore_ascii_case(&self.login.identity.client_id) {
            return Err(Refused::Here(Stop::azure_id()));
        }
        if id.len() > LONGEST_CLIENT_ID {
            return Err(Refused::Here(Stop::unknown_client()));
        }
        match self.clients.find(id, source).await {
            Ok(client) if client.acts_for_people() => Ok(client),
            Ok(_) => Err(Refused::Here(Stop::machine())),
            Err(ClientFault::Unknown) => Err(Refused::Here(Stop::unknown_client())),
            Err(ClientFault::Unavailable) => Err(Refused::Here(Stop::unavailable(SOON))),
            Err(ClientFault::Busy { wait }) => Err(Refused::Here(Stop::unavailable(wait))),
        }
    }

    /// Verifies the remaining parameters and completes the request with them.
    fn completed(&self, ask: Ask, client: &Client, parameters: &Parameters<'_>) -> Result<Ask, Flaw> {
        let state = parameters.one("state")?;
        if state.is_some_and(|state| state.len() > LONGEST_STATE) {
            return Err(Flaw("invalid_request", "state is longer than 4096 bytes".into()));
        }
        check_response(parameters)?;
        self.check_resources(parameters)?;
        if parameters.one("prompt")?.is_some_and(|prompt| prompt.split(' ').any(|one| one == "none")) {
            return Err(Flaw("interaction_required", "people are always asked here".into()));
        }
        let hint = parameters.one("login_hint")?;
        Ok(Ask {
            code_challenge: code_challenge(client, parameters)?,
            scope: scope::granted(parameters.one("scope")?),
            login_hint: hint.and_then(|hint| plain(hint, LONGEST_HINT)),
            ..ask
        })
    }

    fn check_resources(&self, parameters: &Parameters<'_>) -> Result<(), Flaw> {
        match parameters.all("resource").find(|text| self.url.names_resource(text).is_none()) {
            Some(_) => Err(Flaw("invalid_target", format!("the resource here is {}", self.url.connector()))),
            None => Ok(()),
        }
    }
}

/// Returns the redirect URI, and whether the request had it. It may be omitted only if the client
/// has a single one (OAuth 2.1 section 2.3.3), which excludes loopback, where the port varies.
fn redirect_uri(client: &Client, parameters: &Parameters<'_>) -> Result<(RedirectUri, bool), Refused> {
    match parameters.one("redirect_uri")? {
        Some(text) => match read_redirect_uri(client, text) {
            Ok(uri) if client.may_return_to(&uri) => Ok((uri, true)),
            Ok(_) => Err(Refused::Here(Stop::foreign_redirect())),
            Err(fault) => Err(Refused::Here(Stop::bad_redirect(&fault.to_string()))),
        },
        None => match &*client.redirect_uris {
            [only] if !only.is_loopback() => Ok((only.clone(), false)),
            _ => Err(Refused::Here(Stop::malformed("redirect_uri is missing"))),
        },
    }
}

fn read_redirect_uri(client: &Client, text: &str) -> Result<RedirectUri, RedirectFault> {
    match client.origin {
        Origin::Operator => RedirectUri::parse_entered(text),
        _ => RedirectUri::parse(text),
    }
}

fn check_response(parameters: &Parameters<'_>) -> Result<(), Flaw> {
    match parameters.one("response_type")? {
        Some("code") => {}
        Some(_) => return Err(Flaw("unsupported_response_type", "response_type must be code".into())),
        None => return Err(Flaw("invalid_request", "response_type is missing".into())),
    }
    match parameters.one("response_mode")? {
        None | Some("query") => Ok(()),
        Some(_) => Err(Flaw("invalid_request", "response_mode must be query".into())),
    }
}

/// Returns the S256 challenge (OAuth 2.1 section 4.1.1). Only clients to which an operator gave a
/// secret may omit it.
fn code_challenge(client: &Client, parameters: &Parameters<'_>) -> Result<Option<String>, Flaw> {
    let refuse = |why: &str| Err(Flaw("invalid_request", why.to_owned()));
    let method = parameters.one("code_challenge_method")?;
    match (parameters.one("code_challenge")?, method) {
        (Some(challenge), Some("S256")) if pkce::is_challenge(challenge) => Ok(Some(challenge.to_owned())),
        (Some(_), Some("S256")) => refuse("code_challenge is not the SHA-256 of a verifier"),
        (Some(_), _) => refuse("code_challenge_method must be S256"),
        (None, None) if client.origin == Origin::Operator && !client.authentication.none => Ok(None),
        (None, _) => refuse("code_challenge is missing; PKCE is required"),
    }
}

impl Told {
    fn answer(&self, headers: &HeaderMap, visit: &Visit<'_>) -> Response<Body> {
        let Flaw(code, why) = &self.flaw;
        if self.is_vouched_for && self.redirect_uri.scheme().is_none() {
            return reply::redirect(&self.to);
        }
        if page::wants_json(headers) {
            return reply::error(StatusCode::BAD_REQUEST, code, why);
        }
        let notice = Notice {
            title: "The application asked for what it cannot have",
            sentence: &format!("Its request was refused: {why}. Nothing was allowed."),
            advice: &format!(
                "The application can be told so by this link, which leads to {}. Follow it only if you came from there; \
                 otherwise close this page.",
                self.redirect_uri.place()
            ),
            way: Some(Way { to: &self.to, label: "Back to the application", at_once: false }),
            request_id: Some(visit.request_id),
            nonce: &page::nonce(),
        };
        notice.answer(StatusCode::BAD_REQUEST)
    }
}

impl Stop {
    fn malformed(what: &str) -> Self {
        Self {
            error: "invalid_request",
            title: "This login request is not whole",
            sentence: format!("The application that sent you here made a mistake: {what}."),
            advice: "Start again from the application. If this comes again, its maker must mend it.",
            status: StatusCode::BAD_REQUEST,
            wait: None,
        }
    }

    fn unknown_client() -> Self {
        Self {
            error: "invalid_client",
            title: "This application is not known here",
            sentence:
                "The application that sent you here uses a registration that this server does not have."
                    .into(),
            advice: "Remove the connector from the application and add it again.",
            status: StatusCode::BAD_REQUEST,
            wait: None,
        }
    }

    fn azure_id() -> Self {
        Self {
            error: "invalid_client",
            title: "That is the wrong client id",
            sentence: "The client id that was entered is the one of this server's app registration in Azure. It is for the server only; your application must not use it.".into(),
            advice: "In your application, remove the connector and add it again with the connector URL alone: leave client id and client secret empty. If the application insists on them, ask this server's operator, who makes a pair with \"tenantd clients add\".",
            status: StatusCode::BAD_REQUEST,
            wait: None,
        }
    }

    fn machine() -> Self {
        Self {
            error: "unauthorized_client",
            title: "This client is for programs",
            sentence: "The client id that was entered is one for programs without a user, which get their tokens by client_credentials.".into(),
            advice: "Add the connector again with the connector URL alone, without client id and secret.",
            status: StatusCode::BAD_REQUEST,
            wait: None,
        }
    }

    fn unavailable(wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            error: "temporarily_unavailable",
            title: "The application cannot be checked now",
            sentence: "This server could not read what the application says about itself.".into(),
            advice: "Try again in a minute.",
            status: StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn foreign_redirect() -> Self {
        Self {
            error: "invalid_request",
            title: "You would be sent to a wrong place",
            sentence: "The application wants you sent back to an address that it has not registered.".into(),
            advice: "Somebody may be trying to get your access. If you trust the application, remove the connector from it and add it again.",
            status: StatusCode::BAD_REQUEST,
            wait: None,
        }
    }

    fn bad_redirect(why: &str) -> Self {
        Self {
            sentence: format!(
                "The application wants you sent back to an address that is not allowed: {why}."
            ),
            ..Self::foreign_redirect()
        }
    }

    fn answer(&self, request: &Request<Bytes>, visit: &Visit<'_>) -> Response<Body> {
        tracing::debug!(
            request_id = visit.request_id,
            error = self.error,
            why = self.title,
            "authorization refused"
        );
        let mut response = match page::wants_json(request.headers()) {
            true => reply::error(self.status, self.error, &self.sentence),
            false => page::dead_end(self.status, visit.request_id, [self.title, &self.sentence, self.advice]),
        };
        if let Some(wait) = self.wait {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
        }
        response
    }
}
