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

use super::authorization_response::AuthorizationResponse;
use super::client::display_text::sanitize;
use super::client::{ClientLookupError, ClientOrigin, OAuthClient, RedirectUri, RedirectUriError};
use super::login_page::{self, NoticePage, PageLink};
use super::parameters::{ParameterError, Parameters};
use super::server::{AuthServer, RequestMeta};
use super::{pkce, response, scope};
use crate::base::body::Body;
use crate::base::headers::retry_after;

const MAX_CLIENT_ID_BYTES: usize = 2048;
const MAX_STATE_BYTES: usize = 4096;
const MAX_LOGIN_HINT_CHARS: usize = 320;
/// The Retry-After if the client could not be looked up.
const LOOKUP_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A verified authorization request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuthorizationRequest {
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

impl AuthorizationRequest {
    /// Returns the authorization response to this request.
    pub(super) fn response<'a>(&'a self, issuer: &'a str) -> AuthorizationResponse<'a> {
        AuthorizationResponse { redirect_uri: &self.redirect_uri, state: self.state.as_deref(), issuer }
    }
}

/// Why there is no consent page.
enum AuthorizeError {
    /// An error page; the browser is redirected nowhere.
    Page(ErrorPage),
    /// An error response to the client, by a redirect or by a link that the person can follow.
    Redirect(Box<ErrorRedirect>),
}

/// An error response to a client.
struct ErrorRedirect {
    redirect_uri: RedirectUri,
    /// The URL of the response.
    location: String,
    /// Whether the operator or this program vouches for the client.
    is_vouched_for: bool,
    error: ErrorParams,
}

/// An error page without a way to the client.
struct ErrorPage {
    error: &'static str,
    title: &'static str,
    sentence: String,
    advice: &'static str,
    status: StatusCode,
    /// When a retry may succeed.
    retry_after: Option<Duration>,
}

/// The error of a request from a known client: its code and a description.
struct ErrorParams(&'static str, String);

impl From<ParameterError> for ErrorParams {
    fn from(fault: ParameterError) -> Self {
        Self("invalid_request", fault.to_string())
    }
}

impl From<ParameterError> for AuthorizeError {
    fn from(fault: ParameterError) -> Self {
        Self::Page(ErrorPage::malformed(&fault.to_string()))
    }
}

impl AuthServer {
    pub(super) async fn handle_authorize(
        &self,
        request: &Request<Bytes>,
        visit: &RequestMeta<'_>,
    ) -> Response<Body> {
        let parameters = match *request.method() {
            Method::GET | Method::HEAD => {
                Parameters::parse(request.uri().query().unwrap_or_default().as_bytes())
            }
            Method::POST => Parameters::from_form(request.headers(), request.body()),
            _ => return response::method_not_allowed("GET, POST"),
        };
        let asked = match parameters {
            Ok(parameters) => self.parse_request(&parameters, visit.source).await,
            Err(fault) => Err(fault.into()),
        };
        match asked {
            Ok((ask, client)) => self.show_consent(&ask, &client, request.headers(), visit),
            Err(AuthorizeError::Redirect(told)) => told.to_response(request.headers(), visit),
            Err(AuthorizeError::Page(stop)) => stop.to_response(request, visit),
        }
    }

    async fn parse_request(
        &self,
        parameters: &Parameters<'_>,
        source: IpAddr,
    ) -> Result<(AuthorizationRequest, OAuthClient), AuthorizeError> {
        let client = self.find_client(parameters, source).await?;
        let (redirect_uri, redirect_uri_given) = select_redirect_uri(&client, parameters)?;
        let state = parameters.get("state")?.filter(|state| state.len() <= MAX_STATE_BYTES);
        let ask = AuthorizationRequest {
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
        match self.complete_request(ask.clone(), &client, parameters) {
            Ok(ask) => Ok((ask, client)),
            Err(flaw) => {
                let to = ask.response(self.url.as_str()).error_url(flaw.0, &flaw.1);
                let is_vouched_for = client.is_vouched_for();
                Err(AuthorizeError::Redirect(Box::new(ErrorRedirect {
                    redirect_uri,
                    location: to,
                    is_vouched_for,
                    error: flaw,
                })))
            }
        }
    }

    async fn find_client(
        &self,
        parameters: &Parameters<'_>,
        source: IpAddr,
    ) -> Result<OAuthClient, AuthorizeError> {
        let Some(id) = parameters.get("client_id")? else {
            return Err(AuthorizeError::Page(ErrorPage::malformed("client_id is missing")));
        };
        if id.eq_ignore_ascii_case(&self.login.identity.client_id) {
            return Err(AuthorizeError::Page(ErrorPage::provider_client_id()));
        }
        if id.len() > MAX_CLIENT_ID_BYTES {
            return Err(AuthorizeError::Page(ErrorPage::unknown_client()));
        }
        match self.clients.find(id, source).await {
            Ok(client) if client.acts_for_people() => Ok(client),
            Ok(_) => Err(AuthorizeError::Page(ErrorPage::machine_client())),
            Err(ClientLookupError::Unknown) => Err(AuthorizeError::Page(ErrorPage::unknown_client())),
            Err(ClientLookupError::Unavailable) => {
                Err(AuthorizeError::Page(ErrorPage::unavailable(LOOKUP_RETRY_AFTER)))
            }
            Err(ClientLookupError::Busy { wait }) => Err(AuthorizeError::Page(ErrorPage::unavailable(wait))),
        }
    }

    /// Verifies the remaining parameters and completes the request with them.
    fn complete_request(
        &self,
        ask: AuthorizationRequest,
        client: &OAuthClient,
        parameters: &Parameters<'_>,
    ) -> Result<AuthorizationRequest, ErrorParams> {
        let state = parameters.get("state")?;
        if state.is_some_and(|state| state.len() > MAX_STATE_BYTES) {
            return Err(ErrorParams("invalid_request", "state is longer than 4096 bytes".into()));
        }
        check_response_type(parameters)?;
        self.check_resources(parameters)?;
        if parameters.get("prompt")?.is_some_and(|prompt| prompt.split(' ').any(|one| one == "none")) {
            return Err(ErrorParams("interaction_required", "people are always asked here".into()));
        }
        let hint = parameters.get("login_hint")?;
        Ok(AuthorizationRequest {
            code_challenge: check_code_challenge(client, parameters)?,
            scope: scope::select_supported(parameters.get("scope")?),
            login_hint: hint.and_then(|hint| sanitize(hint, MAX_LOGIN_HINT_CHARS)),
            ..ask
        })
    }

    fn check_resources(&self, parameters: &Parameters<'_>) -> Result<(), ErrorParams> {
        match parameters.get_all("resource").find(|text| self.url.match_resource(text).is_none()) {
            Some(_) => Err(ErrorParams(
                "invalid_target",
                format!("the resource here is {}", self.url.connector_url()),
            )),
            None => Ok(()),
        }
    }
}

/// Returns the redirect URI, and whether the request had it. It may be omitted only if the client
/// has a single one (OAuth 2.1 section 2.3.3), which excludes loopback, where the port varies.
fn select_redirect_uri(
    client: &OAuthClient,
    parameters: &Parameters<'_>,
) -> Result<(RedirectUri, bool), AuthorizeError> {
    match parameters.get("redirect_uri")? {
        Some(text) => match parse_redirect_uri(client, text) {
            Ok(uri) if client.allows_redirect_to(&uri) => Ok((uri, true)),
            Ok(_) => Err(AuthorizeError::Page(ErrorPage::unregistered_redirect())),
            Err(fault) => Err(AuthorizeError::Page(ErrorPage::invalid_redirect(&fault.to_string()))),
        },
        None => match &*client.redirect_uris {
            [only] if !only.is_loopback() => Ok((only.clone(), false)),
            _ => Err(AuthorizeError::Page(ErrorPage::malformed("redirect_uri is missing"))),
        },
    }
}

fn parse_redirect_uri(client: &OAuthClient, text: &str) -> Result<RedirectUri, RedirectUriError> {
    match client.origin {
        ClientOrigin::Operator => RedirectUri::parse_trusted(text),
        _ => RedirectUri::parse(text),
    }
}

fn check_response_type(parameters: &Parameters<'_>) -> Result<(), ErrorParams> {
    match parameters.get("response_type")? {
        Some("code") => {}
        Some(_) => return Err(ErrorParams("unsupported_response_type", "response_type must be code".into())),
        None => return Err(ErrorParams("invalid_request", "response_type is missing".into())),
    }
    match parameters.get("response_mode")? {
        None | Some("query") => Ok(()),
        Some(_) => Err(ErrorParams("invalid_request", "response_mode must be query".into())),
    }
}

/// Returns the S256 challenge (OAuth 2.1 section 4.1.1). Only clients to which an operator gave a
/// secret may omit it.
fn check_code_challenge(
    client: &OAuthClient,
    parameters: &Parameters<'_>,
) -> Result<Option<String>, ErrorParams> {
    let refuse = |why: &str| Err(ErrorParams("invalid_request", why.to_owned()));
    let method = parameters.get("code_challenge_method")?;
    match (parameters.get("code_challenge")?, method) {
        (Some(challenge), Some("S256")) if pkce::is_valid_challenge(challenge) => {
            Ok(Some(challenge.to_owned()))
        }
        (Some(_), Some("S256")) => refuse("code_challenge is not the SHA-256 of a verifier"),
        (Some(_), _) => refuse("code_challenge_method must be S256"),
        (None, None) if client.origin == ClientOrigin::Operator && !client.authentication.none => Ok(None),
        (None, _) => refuse("code_challenge is missing; PKCE is required"),
    }
}

impl ErrorRedirect {
    fn to_response(&self, headers: &HeaderMap, visit: &RequestMeta<'_>) -> Response<Body> {
        let ErrorParams(code, why) = &self.error;
        if self.is_vouched_for && self.redirect_uri.private_use_scheme().is_none() {
            return response::redirect(&self.location);
        }
        if login_page::prefers_json(headers) {
            return response::error(StatusCode::BAD_REQUEST, code, why);
        }
        let notice = NoticePage {
            title: "The application asked for what it cannot have",
            sentence: &format!("Its request was refused: {why}. Nothing was allowed."),
            advice: &format!(
                "The application can be told so by this link, which leads to {}. Follow it only if you came from there; \
                 otherwise close this page.",
                self.redirect_uri.describe_destination()
            ),
            way: Some(PageLink { to: &self.location, label: "Back to the application", at_once: false }),
            request_id: Some(visit.request_id),
            nonce: &login_page::new_nonce(),
        };
        notice.to_response(StatusCode::BAD_REQUEST)
    }
}

impl ErrorPage {
    fn malformed(what: &str) -> Self {
        Self {
            error: "invalid_request",
            title: "This login request is not whole",
            sentence: format!("The application that sent you here made a mistake: {what}."),
            advice: "Start again from the application. If this comes again, its maker must mend it.",
            status: StatusCode::BAD_REQUEST,
            retry_after: None,
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
            retry_after: None,
        }
    }

    fn provider_client_id() -> Self {
        Self {
            error: "invalid_client",
            title: "That is the wrong client id",
            sentence: "The client id that was entered is the one of this server's app registration in Azure. It is for the server only; your application must not use it.".into(),
            advice: "In your application, remove the connector and add it again with the connector URL alone: leave client id and client secret empty. If the application insists on them, ask this server's operator, who makes a pair with \"tenantd clients add\".",
            status: StatusCode::BAD_REQUEST,
            retry_after: None,
        }
    }

    fn machine_client() -> Self {
        Self {
            error: "unauthorized_client",
            title: "This client is for programs",
            sentence: "The client id that was entered is one for programs without a user, which get their tokens by client_credentials.".into(),
            advice: "Add the connector again with the connector URL alone, without client id and secret.",
            status: StatusCode::BAD_REQUEST,
            retry_after: None,
        }
    }

    fn unavailable(wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            error: "temporarily_unavailable",
            title: "The application cannot be checked now",
            sentence: "This server could not read what the application says about itself.".into(),
            advice: "Try again in a minute.",
            status: StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn unregistered_redirect() -> Self {
        Self {
            error: "invalid_request",
            title: "You would be sent to a wrong place",
            sentence: "The application wants you sent back to an address that it has not registered.".into(),
            advice: "Somebody may be trying to get your access. If you trust the application, remove the connector from it and add it again.",
            status: StatusCode::BAD_REQUEST,
            retry_after: None,
        }
    }

    fn invalid_redirect(why: &str) -> Self {
        Self {
            sentence: format!(
                "The application wants you sent back to an address that is not allowed: {why}."
            ),
            ..Self::unregistered_redirect()
        }
    }

    fn to_response(&self, request: &Request<Bytes>, visit: &RequestMeta<'_>) -> Response<Body> {
        tracing::debug!(
            request_id = visit.request_id,
            error = self.error,
            why = self.title,
            "authorization refused"
        );
        let mut response = match login_page::prefers_json(request.headers()) {
            true => response::error(self.status, self.error, &self.sentence),
            false => login_page::error_page(
                self.status,
                visit.request_id,
                [self.title, &self.sentence, self.advice],
            ),
        };
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
        }
        response
    }
}
