//! The callback, `/auth/ms-callback`: the identity provider sends the browser back (OpenID Connect
//! Core section 3.1.2.5), and the login ends with a code for the client or with a page.

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::account;
use super::error::Error;
use crate::base::body::Body;
use crate::base::secret::Secret;
use crate::identity::{self, LoginErrorKind};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client::RedirectUri;
use crate::oauth::grants::NewGrant;
use crate::oauth::login::{self, LoginError, PendingLogin};
use crate::oauth::login_page::{self, ErrorPage, NoticePage, PageLink};
use crate::oauth::parameters::Parameters;
use crate::oauth::response;
use crate::telemetry::audit::Actor;

/// Answers the provider's redirect to `{prefix}/auth/ms-callback`.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    let (parameters, login) = find_login(server, &request, meta).ok_or_else(unknown_login_page)?;
    let finished = match &login.request {
        Some(asked) => finish(server, &login, asked, &parameters, meta).await,
        None => account::finish(server, &login, &parameters, meta).await,
    };
    let mut response =
        finished.unwrap_or_else(|error| failure_page(server, login.request.as_ref(), &error, meta));
    login.clear_cookie(server, request.headers(), response.headers_mut());
    Ok(response)
}

fn find_login<'a>(
    server: &AuthServer,
    request: &'a Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Option<(Parameters<'a>, PendingLogin)> {
    let parameters = Parameters::from_query(request.uri()).ok()?;
    let login = PendingLogin::open(server, request.headers(), parameters.get("state").ok()??, meta.now)?;
    Some((parameters, login))
}

/// Redeems the provider's code, and returns the person to the client with a code of ours.
async fn finish(
    server: &AuthServer,
    login: &PendingLogin,
    asked: &AuthorizationRequest,
    parameters: &Parameters<'_>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, LoginError> {
    let known = login.redeem(server, parameters).await?;
    let (request, account) = (asked.clone(), known.account.clone());
    let grant = NewGrant {
        client_id: request.client_id,
        client_name: request.client_name,
        redirect_uri: request.redirect_uri_given.then_some(request.redirect_uri),
        code_challenge: request.code_challenge,
        scope: request.scope,
        account: known.account,
        provider_refresh_token: known.refresh_token,
    };
    let code = server.grants.create(grant).await?;
    login::record(server, Some(asked), "ok", account.audit_identity(), meta);
    Ok(return_to_client(asked, server.url.as_str(), &code))
}

/// Returns the person to the client with the code. A link that opens a program is left for the
/// person to follow.
fn return_to_client(request: &AuthorizationRequest, issuer: &str, code: &Secret) -> Response<Body> {
    let location = request.response(issuer).code_url(code.expose());
    let uri = RedirectUri::parse_trusted(&request.redirect_uri).ok();
    let Some(application) = uri.filter(|uri| uri.private_use_scheme().is_some()) else {
        return response::redirect(&location);
    };
    let name = request.client_name.as_deref().unwrap_or("the application");
    let notice = NoticePage {
        title: "You are signed in",
        sentence: &format!("One step is left: open {}.", application.describe_destination()),
        advice: &format!(
            "Continue only if you have just started to connect {name} yourself; otherwise close this page."
        ),
        link: Some(PageLink::open_application(&location)),
        request_id: None,
    };
    notice.to_response(StatusCode::OK)
}

/// Returns a page with the reason and a link to the client, which carries the OAuth error, or to
/// the person's own page.
fn failure_page(
    server: &AuthServer,
    request: Option<&AuthorizationRequest>,
    error: &LoginError,
    meta: RequestMeta<'_>,
) -> Response<Body> {
    let (status, code, page) = match error {
        LoginError::Identity(error) => {
            error.log_login(server.tenant.as_str(), meta.request_id);
            login::record(server, request, error.class(), Actor::default(), meta);
            (status_for(error.kind()), client_error_code(error), error.page().clone())
        }
        LoginError::Blocked(account) => {
            login::record(server, request, "blocked", account.audit_identity(), meta);
            (StatusCode::FORBIDDEN, "access_denied", blocked_page_text())
        }
        LoginError::Unavailable => {
            login::record(server, request, "unavailable", Actor::default(), meta);
            let page = identity::PageText {
                title: "The login cannot be finished now".into(),
                sentence: "This server cannot use its store.".into(),
                advice: "Try again in a minute.".into(),
            };
            let code = "temporarily_unavailable";
            login_page::log_reference(server.tenant.as_str(), meta.request_id, Some(code), &page.sentence);
            (StatusCode::SERVICE_UNAVAILABLE, code, page)
        }
    };
    let location =
        request.map(|request| request.response(server.url.as_str()).error_url(code, &page.sentence));
    let account_url = server.account_url();
    let link = match &location {
        Some(location) => PageLink::back_to_application(location),
        None => PageLink::back_to_account(&account_url),
    };
    let notice = NoticePage {
        title: &page.title,
        sentence: &page.sentence,
        advice: &page.advice,
        link: Some(link),
        request_id: Some(meta.request_id),
    };
    notice.to_response(status)
}

/// Tells a person whom an operator keeps out. The reason stays with the operator.
fn blocked_page_text() -> identity::PageText {
    identity::PageText {
        title: "Your account is blocked here".into(),
        sentence: "The operator of this server has blocked your account.".into(),
        advice: "Ask them about it; signing in again does not help.".into(),
    }
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
fn unknown_login_page() -> ErrorPage {
    ErrorPage {
        status: StatusCode::BAD_REQUEST,
        code: None,
        title: "This login cannot be finished here",
        sentence: "It was started in another browser, took longer than ten minutes, or was already finished."
            .into(),
        advice: "Start again from your application, and stay in one browser.",
        retry_after: None,
    }
}
