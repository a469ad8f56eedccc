//! The consent page and its form. The page is bound to the browser that it was shown to: a cookie
//! holds a random value, the form a sealed blob with the request and the digest of that value. So
//! an attacker's form fails in another browser, and another browser's form fails in the attacker's.
//!
//! Showing a page changes no state, so it can be reloaded and prefetched, and several can be open
//! at once.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::base::body::Body;
use crate::base::digest::Digest;
use crate::base::random;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client::{ClientOrigin, OAuthClient, RedirectUri, display_text};
use crate::oauth::login_page::{self, ConsentPage, ErrorPage, NoticePage, PageLink, redirect_page};
use crate::oauth::parameters::Parameters;
use crate::oauth::sealed::{self, CONSENT};
use crate::oauth::{cookie, form_origin, login};
use crate::telemetry::audit::Actor;

/// How long a person may take to decide.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(15);
/// One for the host, since browsers send it to all tenants there. The seal of the form binds a
/// consent to its tenant.
const BROWSER_COOKIE: &str = "__Host-consent";
/// The cookie's lifetime; each page shown renews it.
const BROWSER_COOKIE_SECONDS: i64 = 3600;

/// The sealed contents of the form.
#[derive(Serialize, Deserialize)]
struct ConsentForm {
    #[serde(rename = "ask")]
    request: AuthorizationRequest,
    /// The digest of the cookie's value.
    browser: String,
    #[serde(rename = "at")]
    shown_at: Timestamp,
}

/// A person's choice on the page.
enum ConsentDecision {
    Allow,
    Deny,
}

/// Answers the submitted form, `{prefix}/consent`: begins the login, or returns to the client.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    let (asked, decision) = read_form(server, &request, meta.now)
        .ok_or_else(|| ErrorPage::expired("Start again from your application."))?;
    match decision {
        ConsentDecision::Allow => Ok(login::begin(server, Some(asked), request.headers(), meta)),
        ConsentDecision::Deny => {
            login::record(server, Some(&asked), "declined", Actor::default(), meta);
            let response = asked.response(server.url.as_str());
            Ok(declined_page(&asked, &response.error_url("access_denied", "the person chose Cancel")))
        }
    }
}

/// Shows the consent page for a request.
pub(super) fn show(
    server: &AuthServer,
    request: AuthorizationRequest,
    client: &OAuthClient,
    headers: &HeaderMap,
    meta: RequestMeta<'_>,
) -> Response<Body> {
    let browser = read_browser_cookie(headers).unwrap_or_else(random::token);
    let digest = Digest::of(browser.as_bytes()).to_string();
    let form = ConsentForm { request, browser: digest, shown_at: meta.now };
    let sealed = sealed::seal_value(&server.keyring, CONSENT, server.issuer.current_incarnation(), "", &form);
    let mut response = render(server, &form.request, client, &sealed);
    // Removes the cookies of earlier versions, which had one per tenant.
    cookie::clear_kind(headers, response.headers_mut(), "__Host-consent.");
    let set = cookie::set(response.headers_mut(), BROWSER_COOKIE, &browser, BROWSER_COOKIE_SECONDS);
    debug_assert!(set.is_ok(), "the number is short");
    response
}

fn render(
    server: &AuthServer,
    request: &AuthorizationRequest,
    client: &OAuthClient,
    sealed: &str,
) -> Response<Body> {
    let vouched_by = match &client.origin {
        ClientOrigin::Document { host, .. } => Some(&**host),
        _ => None,
    };
    let redirect_uri = client.redirect_uris.iter().find(|uri| uri.matches_text(&request.redirect_uri));
    let name = client.name.as_deref().or(vouched_by).unwrap_or("An application without a name");
    let place = redirect_uri.map(RedirectUri::describe_destination).unwrap_or_default();
    let consent = ConsentPage {
        title: &server.title,
        provider: server.provider.brand().name,
        client: name,
        vouched_by,
        known: client.origin == ClientOrigin::Operator,
        may_be_mistaken: client.origin != ClientOrigin::Operator && display_text::is_confusable(name),
        place: &place,
        loopback: redirect_uri.is_some_and(RedirectUri::is_loopback),
        scheme: redirect_uri.and_then(RedirectUri::private_use_scheme),
        action: &server.url.join_path("/consent"),
        account_url: &server.account_url(),
        request: sealed,
        nonce: &login_page::new_nonce(),
    };
    consent.to_response()
}

/// Returns the request and the decision, if the page was shown to this browser.
fn read_form(
    server: &AuthServer,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Option<(AuthorizationRequest, ConsentDecision)> {
    let headers = request.headers();
    if !form_origin::is_same_origin(&server.url, headers) {
        return None;
    }
    let parameters = Parameters::from_form(headers, request.body()).ok()?;
    let sealed = parameters.get("request").ok()??;
    let incarnation = server.issuer.current_incarnation();
    let form: ConsentForm = sealed::open_value(&server.keyring, CONSENT, incarnation, "", sealed)?;
    let browser = read_browser_cookie(headers)?;
    let is_same = Digest::parse_hex(&form.browser)?.ct_eq(&Digest::of(browser.as_bytes()));
    let is_fresh = now.duration_since(form.shown_at) <= TIMEOUT;
    match parameters.get("decision").ok()?? {
        "allow" if is_same && is_fresh => Some((form.request, ConsentDecision::Allow)),
        "deny" if is_same && is_fresh => Some((form.request, ConsentDecision::Deny)),
        _ => None,
    }
}

fn read_browser_cookie(headers: &HeaderMap) -> Option<String> {
    // A truncated or forged value is ignored; the page then sets a new one.
    cookie::read(headers, BROWSER_COOKIE).filter(|value| value.len() == 43)
}

/// Tells the client that the person declined. The browser goes there automatically only if that is
/// where the person started: at a program on the same computer, or at a client that the operator or
/// this program vouches for.
fn declined_page(request: &AuthorizationRequest, location: &str) -> Response<Body> {
    let uri = RedirectUri::parse_trusted(&request.redirect_uri).ok();
    let is_theirs = |uri: &RedirectUri| uri.is_loopback() || (uri.is_web() && request.is_vouched_for);
    if uri.as_ref().is_some_and(is_theirs) {
        return redirect_page("You chose Cancel", "The application got no access.", location);
    }
    let place = uri.as_ref().map(RedirectUri::describe_destination).unwrap_or_default();
    let notice = NoticePage {
        title: "You chose Cancel",
        sentence: "The application got no access. You can close this page.",
        advice: &format!("The link leads to {place}. Follow it only if you came from there."),
        link: Some(PageLink::back_to_application(location)),
        request_id: None,
    };
    notice.to_response(StatusCode::OK)
}
