//! The authorization endpoint, `/authorize` (RFC 6749 section 4.1.1): it checks the client, the
//! redirect URI and the remaining parameters, then shows the consent page.
//!
//! Until client and redirect URI are verified, errors become a page and the browser is redirected
//! nowhere. Afterwards they become an authorization response ([`ErrorRedirect`]).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};

use super::consent;
use super::error::{Error, ErrorRedirect};
use crate::base::body::Body;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::authorization_response::AuthorizationResponse;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client::display_text::sanitize;
use crate::oauth::client::{ClientLookupError, ClientOrigin, OAuthClient, RedirectUri, RedirectUriError};
use crate::oauth::login_page::ErrorPage;
use crate::oauth::parameters::{ParameterError, Parameters};
use crate::oauth::{pkce, scope};

const MAX_CLIENT_ID_BYTES: usize = 2048;
const MAX_STATE_BYTES: usize = 4096;
const MAX_LOGIN_HINT_CHARS: usize = 320;
/// The Retry-After if the client could not be looked up.
const LOOKUP_RETRY_AFTER: Duration = Duration::from_secs(60);
const LEAVE_CLIENT_ID_EMPTY: &str = "In your application, remove the connector and add it again with the \
                                     connector URL alone: leave client id and client secret empty. If the \
                                     application requires them, ask this server's operator, who can create \
                                     them with \"tenantd clients add\".";
const WRONG_PLACE: &str = "You would be sent to a wrong address";
const BEWARE: &str = "Somebody may be trying to misuse your access. If you trust the application, remove the \
                      connector from it and add it again.";

/// Why a request gets an error page: its client or redirect URI cannot be trusted.
enum UntrustedRequest {
    Malformed(ParameterError),
    UnknownClient,
    /// The client id is that of the tenant's app at the provider, which calls it so.
    ProviderClientId {
        app: &'static str,
    },
    MachineClient,
    /// The client cannot be looked up now.
    LookupFailed {
        wait: Duration,
    },
    UnregisteredRedirectUri,
    InvalidRedirectUri(RedirectUriError),
}

/// Why a request of a verified client is refused: the code and the description of the error.
struct InvalidRequest(&'static str, String);

/// The parameters that are checked after client and redirect URI.
struct Details {
    code_challenge: Option<String>,
    scope: String,
    login_hint: Option<String>,
}

/// Answers a request to `{prefix}/authorize` with the consent page.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    let (asked, client) = check(server, &request, meta.source).await?;
    Ok(consent::show(server, asked, &client, request.headers(), meta))
}

async fn check(
    server: &AuthServer,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Result<(AuthorizationRequest, OAuthClient), Error> {
    let parameters = match *request.method() {
        Method::POST => Parameters::from_form(request.headers(), request.body()),
        _ => Parameters::from_query(request.uri()),
    };
    let parameters = &parameters.map_err(UntrustedRequest::Malformed)?;
    let client = find_client(server, parameters, source).await?;
    let (redirect_uri, redirect_uri_given) = select_redirect_uri(&client, parameters)?;
    let state = parameters.get("state").map_err(UntrustedRequest::Malformed)?;
    // Client and redirect URI are verified: from here on, errors go to the client, with its state
    // unless that is too long.
    let (state, details) = match state {
        Some(state) if state.len() > MAX_STATE_BYTES => {
            (None, Err(InvalidRequest("invalid_request", "state is longer than 4096 bytes".into())))
        }
        state => (state, Details::parse(server, &client, parameters)),
    };
    match details {
        Ok(Details { code_challenge, scope, login_hint }) => {
            let request = AuthorizationRequest {
                client_id: client.id.to_string(),
                client_name: client.name.as_deref().map(str::to_owned),
                redirect_uri: redirect_uri.as_str().to_owned(),
                redirect_uri_given,
                is_vouched_for: client.is_vouched_for(),
                state: state.map(str::to_owned),
                code_challenge,
                scope,
                login_hint,
            };
            Ok((request, client))
        }
        Err(InvalidRequest(code, description)) => {
            let issuer = server.url.as_str();
            let response = AuthorizationResponse { redirect_uri: redirect_uri.as_str(), state, issuer };
            let location = response.error_url(code, &description);
            let is_vouched_for = client.is_vouched_for();
            let redirect = ErrorRedirect { redirect_uri, location, is_vouched_for, code, description };
            Err(Error::Redirect(Box::new(redirect)))
        }
    }
}

async fn find_client(
    server: &AuthServer,
    parameters: &Parameters<'_>,
    source: IpAddr,
) -> Result<OAuthClient, UntrustedRequest> {
    let id = parameters.require("client_id")?;
    if id.eq_ignore_ascii_case(server.login.provider.client_id()) {
        return Err(UntrustedRequest::ProviderClientId { app: server.provider.brand().app });
    }
    if id.len() > MAX_CLIENT_ID_BYTES {
        return Err(UntrustedRequest::UnknownClient);
    }
    match server.clients.find(id, source).await {
        Ok(client) if client.acts_for_people() => Ok(client),
        Ok(_) => Err(UntrustedRequest::MachineClient),
        Err(ClientLookupError::Unknown) => Err(UntrustedRequest::UnknownClient),
        Err(ClientLookupError::Unavailable) => {
            Err(UntrustedRequest::LookupFailed { wait: LOOKUP_RETRY_AFTER })
        }
        Err(ClientLookupError::Busy { wait }) => Err(UntrustedRequest::LookupFailed { wait }),
    }
}

/// Returns the redirect URI, and whether the request had it. It may be omitted only if the client
/// has a single one (OAuth 2.1 section 2.3.3), which excludes loopback, where the port varies.
fn select_redirect_uri(
    client: &OAuthClient,
    parameters: &Parameters<'_>,
) -> Result<(RedirectUri, bool), UntrustedRequest> {
    match (parameters.get("redirect_uri")?, &*client.redirect_uris) {
        (Some(text), _) => match parse_redirect_uri(client, text) {
            Ok(uri) if client.allows_redirect_to(&uri) => Ok((uri, true)),
            Ok(_) => Err(UntrustedRequest::UnregisteredRedirectUri),
            Err(error) => Err(UntrustedRequest::InvalidRedirectUri(error)),
        },
        (None, [only]) if !only.is_loopback() => Ok((only.clone(), false)),
        (None, _) => Err(ParameterError::Missing("redirect_uri").into()),
    }
}

fn parse_redirect_uri(client: &OAuthClient, text: &str) -> Result<RedirectUri, RedirectUriError> {
    match client.origin {
        ClientOrigin::Operator => RedirectUri::parse_trusted(text),
        _ => RedirectUri::parse(text),
    }
}

impl Details {
    fn parse(
        server: &AuthServer,
        client: &OAuthClient,
        parameters: &Parameters<'_>,
    ) -> Result<Self, InvalidRequest> {
        check_response_type(parameters)?;
        check_resources(server, parameters)?;
        if parameters.get("prompt")?.is_some_and(|prompt| prompt.split(' ').any(|one| one == "none")) {
            return Err(InvalidRequest("interaction_required", "this server always asks the person".into()));
        }
        let login_hint = parameters.get("login_hint")?;
        Ok(Self {
            code_challenge: check_code_challenge(client, parameters)?,
            scope: scope::select_supported(parameters.get("scope")?),
            login_hint: login_hint.and_then(|hint| sanitize(hint, MAX_LOGIN_HINT_CHARS)),
        })
    }
}

fn check_response_type(parameters: &Parameters<'_>) -> Result<(), InvalidRequest> {
    if parameters.require("response_type")? != "code" {
        return Err(InvalidRequest("unsupported_response_type", "response_type must be code".into()));
    }
    match parameters.get("response_mode")? {
        None | Some("query") => Ok(()),
        Some(_) => Err(InvalidRequest("invalid_request", "response_mode must be query".into())),
    }
}

fn check_resources(server: &AuthServer, parameters: &Parameters<'_>) -> Result<(), InvalidRequest> {
    match parameters.get_all("resource").all(|text| server.url.match_resource(text).is_some()) {
        true => Ok(()),
        false => {
            let description = format!("the resource here is {}", server.url.connector_url());
            Err(InvalidRequest("invalid_target", description))
        }
    }
}

/// Returns the S256 challenge (OAuth 2.1 section 4.1.1). Only clients to which an operator gave a
/// secret may omit it.
fn check_code_challenge(
    client: &OAuthClient,
    parameters: &Parameters<'_>,
) -> Result<Option<String>, InvalidRequest> {
    let refuse = |why: &str| Err(InvalidRequest("invalid_request", why.to_owned()));
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

impl From<ParameterError> for InvalidRequest {
    fn from(error: ParameterError) -> Self {
        Self("invalid_request", error.to_string())
    }
}

impl From<ParameterError> for UntrustedRequest {
    fn from(error: ParameterError) -> Self {
        Self::Malformed(error)
    }
}

impl From<UntrustedRequest> for Error {
    fn from(reason: UntrustedRequest) -> Self {
        reason.into_page().into()
    }
}

impl UntrustedRequest {
    fn into_page(self) -> ErrorPage {
        let page = |code, title, sentence: &'static str, advice| ErrorPage {
            status: StatusCode::BAD_REQUEST,
            code: Some(code),
            title,
            sentence: sentence.into(),
            advice,
            retry_after: None,
        };
        match self {
            Self::Malformed(what) => ErrorPage {
                sentence: format!("The application that sent you here made a mistake: {what}.").into(),
                ..page(
                    "invalid_request",
                    "This login request is incomplete",
                    "",
                    "Start again from the application. If this happens again, its maker must fix it.",
                )
            },
            Self::UnknownClient => page(
                "invalid_client",
                "This server does not know this application",
                "The application that sent you here uses a registration that does not exist on this server.",
                "Remove the connector from the application and add it again.",
            ),
            Self::ProviderClientId { app } => ErrorPage {
                sentence: format!(
                    "The client id is that of this server's {app}. Only the server uses it; your application \
                     must not use it."
                )
                .into(),
                ..page("invalid_client", "That is the wrong client id", "", LEAVE_CLIENT_ID_EMPTY)
            },
            Self::MachineClient => page(
                "unauthorized_client",
                "This client is for programs",
                "The client id belongs to a program without a user, which gets its tokens by \
                 client_credentials.",
                "Add the connector again with the connector URL alone, without client id and secret.",
            ),
            Self::LookupFailed { wait } => ErrorPage {
                status: StatusCode::SERVICE_UNAVAILABLE,
                retry_after: Some(wait),
                ..page(
                    "temporarily_unavailable",
                    "The application cannot be checked now",
                    "This server could not read the application's metadata.",
                    "Try again in a minute.",
                )
            },
            Self::UnregisteredRedirectUri => page(
                "invalid_request",
                WRONG_PLACE,
                "The application wants to send you back to an address that it has not registered.",
                BEWARE,
            ),
            Self::InvalidRedirectUri(why) => ErrorPage {
                sentence: format!(
                    "The application wants to send you back to an address that is not allowed: {why}."
                )
                .into(),
                ..page("invalid_request", WRONG_PLACE, "", BEWARE)
            },
        }
    }
}
