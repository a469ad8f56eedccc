//! The consent page and its form. The page is bound to the browser that it was shown to: a cookie
//! holds a random value, the form a sealed blob with the request and the digest of that value. So
//! an attacker's form fails in another browser, and another browser's form fails in the attacker's.
//!
//! Showing a page changes no state, so it can be reloaded and prefetched, and several can be open
//! at once.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::authorize::AuthorizationRequest;
use super::client::{ClientOrigin, OAuthClient, RedirectUri, display_text};
use super::login_page::{self, ConsentPage, NoticePage, PageLink};
use super::parameters::Parameters;
use super::sealed::{self, CONSENT};
use super::server::{AuthServer, RequestMeta};
use super::{cookie, response};
use crate::base::body::Body;
use crate::base::digest::Digest;
use crate::base::random;
use crate::telemetry::audit::Actor;

/// How long a person may take to decide.
const CONSENT_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);
/// One for the host, since browsers send it to all tenants there. The seal of the form binds a
/// consent to its tenant.
const BROWSER_COOKIE: &str = "__Host-consent";
/// The cookie's lifetime; each page shown renews it.
const BROWSER_COOKIE_SECONDS: i64 = 3600;

/// The sealed contents of the form.
#[derive(Serialize, Deserialize)]
struct ConsentForm {
    ask: AuthorizationRequest,
    /// The digest of the cookie's value.
    browser: String,
    at: Timestamp,
}

impl AuthServer {
    /// Shows the consent page for a request.
    pub(super) fn show_consent(
        &self,
        ask: &AuthorizationRequest,
        client: &OAuthClient,
        headers: &HeaderMap,
        visit: &RequestMeta<'_>,
    ) -> Response<Body> {
        let browser = self.read_browser_cookie(headers).unwrap_or_else(random::token);
        let form = ConsentForm { ask: ask.clone(), browser: digest_browser_cookie(&browser), at: visit.now };
        let request =
            sealed::seal_value(&self.store, CONSENT, self.issuer().current_incarnation(), "", &form);
        let mut response = self.render_consent(ask, client, &request);
        // Removes the cookies of earlier versions, which had one per tenant.
        cookie::clear_kind(headers, response.headers_mut(), "__Host-consent.");
        let set = cookie::set(response.headers_mut(), BROWSER_COOKIE, &browser, BROWSER_COOKIE_SECONDS);
        debug_assert!(set.is_ok(), "the number is short");
        response
    }

    fn render_consent(
        &self,
        ask: &AuthorizationRequest,
        client: &OAuthClient,
        request: &str,
    ) -> Response<Body> {
        let vouched_by = match &client.origin {
            ClientOrigin::Document { host, .. } => Some(&**host),
            _ => None,
        };
        let redirect_uri = client.redirect_uris.iter().find(|uri| uri.matches_text(&ask.redirect_uri));
        let name = client.name.as_deref().or(vouched_by).unwrap_or("An application without a name");
        let place = redirect_uri.map(RedirectUri::describe_destination).unwrap_or_default();
        let consent = ConsentPage {
            title: &self.title,
            client: name,
            vouched_by,
            known: client.origin == ClientOrigin::Operator,
            may_be_mistaken: client.origin != ClientOrigin::Operator && display_text::is_confusable(name),
            place: &place,
            loopback: redirect_uri.is_some_and(RedirectUri::is_loopback),
            scheme: redirect_uri.and_then(RedirectUri::private_use_scheme),
            action: &self.url.join_path("/consent"),
            request,
            nonce: &login_page::new_nonce(),
        };
        consent.to_response()
    }

    /// Handles the submitted form.
    pub(super) fn handle_consent(&self, request: &Request<Bytes>, visit: &RequestMeta<'_>) -> Response<Body> {
        if request.method() != Method::POST {
            return response::method_not_allowed("POST");
        }
        let decided = self.read_decision(request, visit);
        match decided {
            Some((ask, true)) => self.begin_login(ask, request.headers(), visit),
            Some((ask, false)) => {
                self.record_login(&ask, "declined", Actor::default(), visit);
                let back =
                    ask.response(self.url.as_str()).error_url("access_denied", "the person chose Cancel");
                declined_page(&ask, &back)
            }
            None => expired_page(visit),
        }
    }

    /// Returns the request and the decision, if the page was shown to this browser.
    fn read_decision(
        &self,
        request: &Request<Bytes>,
        visit: &RequestMeta<'_>,
    ) -> Option<(AuthorizationRequest, bool)> {
        let headers = request.headers();
        if !self.is_same_origin(headers) {
            return None;
        }
        let parameters = Parameters::from_form(headers, request.body()).ok()?;
        let blob = parameters.get("request").ok()??;
        let form: ConsentForm =
            sealed::open_value(&self.store, CONSENT, self.issuer().current_incarnation(), "", blob)?;
        let browser = self.read_browser_cookie(headers)?;
        let is_same = Digest::parse_hex(&form.browser)?.ct_eq(&Digest::of(browser.as_bytes()));
        let is_fresh = visit.now.duration_since(form.at) <= CONSENT_TIMEOUT;
        match parameters.get("decision").ok()?? {
            "allow" if is_same && is_fresh => Some((form.ask, true)),
            "deny" if is_same && is_fresh => Some((form.ask, false)),
            _ => None,
        }
    }

    /// Whether the form was submitted from our page. Browsers send the origin of the page, which is
    /// `null` with `no-referrer`. Old browsers send nothing; for them the cookie is the check.
    fn is_same_origin(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let site = text("sec-fetch-site");
        match (site, text(header::ORIGIN.as_str())) {
            (Some(site), _) if site != "same-origin" => false,
            (_, None) => true,
            (_, Some(origin)) => origin == self.url.origin() || origin == "null",
        }
    }

    fn read_browser_cookie(&self, headers: &HeaderMap) -> Option<String> {
        // A truncated or forged value is ignored; the page then sets a new one.
        cookie::read(headers, BROWSER_COOKIE).filter(|value| value.len() == 43)
    }
}

fn digest_browser_cookie(browser: &str) -> String {
    Digest::of(browser.as_bytes()).to_string()
}

/// Continues from the form with a page: a redirect is restricted by `form-action` of the Content
/// Security Policy, in some browsers for every hop.
pub(super) fn redirect_page(title: &str, sentence: &str, to: &str) -> Response<Body> {
    let notice = NoticePage {
        title,
        sentence,
        advice: "If nothing happens, go on yourself:",
        way: Some(PageLink { to, label: "Continue", at_once: true }),
        request_id: None,
        nonce: &login_page::new_nonce(),
    };
    notice.to_response(StatusCode::OK)
}

/// Tells the client that the person declined. The browser goes there automatically only if that is
/// where the person started: at a program on the same computer, or at a client that the operator or
/// this program vouches for.
fn declined_page(ask: &AuthorizationRequest, back: &str) -> Response<Body> {
    let uri = RedirectUri::parse_trusted(&ask.redirect_uri).ok();
    let is_theirs = |uri: &RedirectUri| uri.is_loopback() || (uri.is_web() && ask.is_vouched_for);
    if uri.as_ref().is_some_and(is_theirs) {
        return redirect_page("You chose Cancel", "Nothing was allowed.", back);
    }
    let place = uri.as_ref().map(RedirectUri::describe_destination).unwrap_or_default();
    let notice = NoticePage {
        title: "You chose Cancel",
        sentence: "Nothing was allowed. You may close this page.",
        advice: &format!("The link leads to {place}. Follow it only if you came from there."),
        way: Some(PageLink { to: back, label: "Back to the application", at_once: false }),
        request_id: None,
        nonce: &login_page::new_nonce(),
    };
    notice.to_response(StatusCode::OK)
}

fn expired_page(visit: &RequestMeta<'_>) -> Response<Body> {
    let words = [
        "This page can no longer be used",
        "It was open for too long, or it was opened in another browser or by another site.",
        "Start again from your application.",
    ];
    login_page::error_page(StatusCode::BAD_REQUEST, visit.request_id, words)
}
