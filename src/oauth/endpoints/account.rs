//! A person's own page, `/auth/account`: the person logs in at the identity provider as for a
//! client, sees which applications are connected to the account at this tenant, and ends what
//! should not be. No client and no consent are involved.
//!
//! A form changes something only if it comes from our page (its origin), from the browser that
//! logged in (the cookie) and from a page of this visit (its token).

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;

use super::error::Error;
use crate::base::body::Body;
use crate::oauth::account_session::AccountSession;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::error::Unavailable;
use crate::oauth::form_origin;
use crate::oauth::grants::GrantRejection;
use crate::oauth::login::{self, LoginError, PendingLogin};
use crate::oauth::login_page::{self, AccountPage, AccountView, ConnectedClient, ErrorPage};
use crate::oauth::logins::{EndError, Initiator, Login, LoginFilter, Logins};
use crate::oauth::parameters::Parameters;
use crate::oauth::response;
use crate::store::GrantId;

/// The most applications that the page shows.
const MAX_CONNECTIONS: usize = 200;

/// What a form of the page asks for.
enum Action {
    SignIn,
    SignOut,
    /// Ends one login, or all of them.
    End(AccountSession, Option<GrantId>),
}

/// Answers a request to `{prefix}/auth/account`.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    if *request.method() != Method::POST {
        return match AccountSession::open(server, request.headers(), meta.now) {
            Some(session) => show(server, &session).await,
            None => Ok(page(server, None)),
        };
    }
    match read_form(server, &request, meta.now)
        .ok_or_else(|| ErrorPage::expired("Open it again and sign in."))?
    {
        Action::SignIn => Ok(login::begin(server, None, request.headers(), meta)),
        Action::SignOut => {
            let mut response = response::redirect(&server.account_url());
            AccountSession::clear_cookie(request.headers(), response.headers_mut());
            Ok(response)
        }
        Action::End(session, id) => {
            check_block(server, &session)?;
            let filter = LoginFilter { id, ..own_logins(server, &session) };
            let by = Initiator::Person { source: meta.source, request_id: meta.request_id };
            logins(server).end(&filter, by).await.map_err(not_ended)?;
            Ok(response::redirect(&server.account_url()))
        }
    }
}

/// Finishes a login that leads to the page.
pub(super) async fn finish(
    server: &AuthServer,
    login: &PendingLogin,
    parameters: &Parameters<'_>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, LoginError> {
    let account = login.redeem(server, parameters).await?.account;
    let mut response = response::redirect(&server.account_url());
    let session = AccountSession::begin(&account, meta.now);
    session.set_cookie(server, response.headers_mut()).map_err(|_| LoginError::Unavailable)?;
    login::record(server, None, "ok", account.audit_identity(), meta);
    Ok(response)
}

/// Shows what the person has connected.
async fn show(server: &AuthServer, session: &AccountSession) -> Result<Response<Body>, Error> {
    check_block(server, session)?;
    let found = logins(server).list(&own_logins(server, session), None, MAX_CONNECTIONS).await?;
    let mut found = found.logins;
    found.sort_by_key(|login| Reverse(login.last_used));
    let connections = found.iter().map(describe).collect();
    let view =
        AccountView { person: session.display_name(), connections, token: &session.form_token(server) };
    Ok(page(server, Some(view)))
}

fn page(server: &AuthServer, account: Option<AccountView<'_>>) -> Response<Body> {
    let page = AccountPage {
        title: &server.title,
        provider: server.provider.brand().name,
        action: &server.account_url(),
        account,
        nonce: &login_page::new_nonce(),
    };
    page.to_response()
}

fn describe(login: &Login) -> ConnectedClient {
    let client = login.client_name.clone().unwrap_or_else(|| name_from_id(&login.client_id));
    let [since, last_used, expires] = [login.since, login.last_used, login.expires_at].map(format_time);
    ConnectedClient { id: login.id.clone(), client, since, last_used, expires }
}

/// Returns what a client is called that has no name: the host of its document, if it has one.
fn name_from_id(client_id: &str) -> String {
    let url = url::Url::parse(client_id).ok();
    let host = url.as_ref().and_then(url::Url::host_str);
    host.unwrap_or("An application without a name").to_owned()
}

fn format_time(time: Timestamp) -> String {
    time.strftime("%-d %B %Y, %H:%M UTC").to_string()
}

fn logins(server: &AuthServer) -> Logins {
    Logins::new(Arc::clone(&server.context))
}

fn own_logins(server: &AuthServer, session: &AccountSession) -> LoginFilter {
    let tenant = Arc::clone(server.tenant.as_arc());
    LoginFilter { tenant: Some(tenant), account: Some(session.person()), ..LoginFilter::default() }
}

fn check_block(server: &AuthServer, session: &AccountSession) -> Result<(), Error> {
    match server.grants.check_block(&session.account()) {
        Ok(()) => Ok(()),
        Err(GrantRejection::Unavailable) => Err(Unavailable.into()),
        Err(_) => Err(ErrorPage {
            status: StatusCode::FORBIDDEN,
            code: None,
            title: "Your account is blocked here",
            sentence: "The operator of this server has blocked your account.".into(),
            advice: "Ask them about it.",
            retry_after: None,
        }
        .into()),
    }
}

/// Returns what the form asks for, if it is one of our page in this browser.
fn read_form(server: &AuthServer, request: &Request<Bytes>, now: Timestamp) -> Option<Action> {
    let headers = request.headers();
    if !form_origin::is_same_origin(&server.url, headers) {
        return None;
    }
    let parameters = Parameters::from_form(headers, request.body()).ok()?;
    let one = |name| parameters.get(name).ok().flatten();
    let action = one("action")?;
    if action == "sign_in" {
        return Some(Action::SignIn);
    }
    let session = AccountSession::open(server, headers, now)?;
    if !session.accepts(server, one("token")?) {
        return None;
    }
    match action {
        "sign_out" => Some(Action::SignOut),
        "end_all" => Some(Action::End(session, None)),
        "end" => Some(Action::End(session, Some(GrantId::parse(one("id")?)?))),
        _ => None,
    }
}

fn not_ended(error: EndError) -> Error {
    let sentence = match error {
        EndError::Unavailable => "This server cannot use its store now, so nothing has ended.",
        EndError::NotStored { .. } => {
            "It has ended, but this server cannot write that down yet; it tries again by itself."
        }
    };
    ErrorPage {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: None,
        title: "This cannot be finished now",
        sentence: sentence.into(),
        advice: "Look again in a minute.",
        retry_after: Some(response::RETRY_DELAY),
    }
    .into()
}
