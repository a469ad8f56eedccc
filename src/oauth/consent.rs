//! The consent page and its answer. The page is bound to the browser that it was shown to: a cookie holds a number, the
//! form a sealed blob with the request and the number's digest. Somebody else's form comes with the wrong number, and a
//! form of one's own is of no use in another's browser.
//!
//! Showing a page changes nothing, so it may be reloaded and fetched ahead, and several may be open at once.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::authorization_server::{AuthorizationServer, Visit};
use super::authorize::Ask;
use super::client::{Client, Origin, RedirectUri, text};
use super::page::{self, Consent, Notice, Way};
use super::parameters::Parameters;
use super::sealed::{self, CONSENT};
use super::{cookie, reply};
use crate::base::body::Body;
use crate::base::digest::Digest;
use crate::base::random;
use crate::telemetry::audit::Who;

/// How long somebody may think about it.
const LIFE: SignedDuration = SignedDuration::from_mins(15);
/// One for the host, since a browser sends it everywhere there. What it says is bound to a tenant by the form's seal.
const BROWSER_COOKIE: &str = "__Host-consent";
/// How long a browser keeps its number; each page shown renews it.
const BROWSER_SECONDS: i64 = 3600;

/// What is in the form, sealed.
#[derive(Serialize, Deserialize)]
struct Form {
    ask: Ask,
    /// Digest of the browser's number.
    browser: String,
    at: Timestamp,
}

impl AuthorizationServer {
    /// Shows what the client asks for.
    pub(super) fn ask_consent(
        &self,
        ask: &Ask,
        client: &Client,
        headers: &HeaderMap,
        visit: &Visit<'_>,
    ) -> Response<Body> {
        let browser = self.browser(headers).unwrap_or_else(random::text);
        let form = Form { ask: ask.clone(), browser: digest(&browser), at: visit.now };
        let request = sealed::seal_value(&self.store, CONSENT, self.issuer().life(), "", &form);
        let mut response = self.consent_page(ask, client, &request);
        // Those that each tenant had of its own.
        cookie::clear_kind(headers, response.headers_mut(), "__Host-consent.");
        let set = cookie::set(response.headers_mut(), BROWSER_COOKIE, &browser, BROWSER_SECONDS);
        debug_assert!(set.is_ok(), "the number is short");
        response
    }

    fn consent_page(&self, ask: &Ask, client: &Client, request: &str) -> Response<Body> {
        let vouched_by = match &client.origin {
            Origin::Document { host, .. } => Some(&**host),
            _ => None,
        };
        let redirect_uri = client.redirect_uris.iter().find(|uri| uri.admits_text(&ask.redirect_uri));
        let name = client.name.as_deref().or(vouched_by).unwrap_or("An application without a name");
        let place = redirect_uri.map(RedirectUri::place).unwrap_or_default();
        let consent = Consent {
            title: &self.title,
            client: name,
            vouched_by,
            known: client.origin == Origin::Operator,
            may_be_mistaken: client.origin != Origin::Operator && text::may_be_mistaken(name),
            place: &place,
            loopback: redirect_uri.is_some_and(RedirectUri::is_loopback),
            scheme: redirect_uri.and_then(RedirectUri::scheme),
            action: &self.url.at("/consent"),
            request,
            nonce: &page::nonce(),
        };
        consent.answer()
    }

    /// Takes the decision.
    pub(super) fn consent(&self, request: &Request<Bytes>, visit: &Visit<'_>) -> Response<Body> {
        if request.method() != Method::POST {
            return reply::method_not_allowed("POST");
        }
        let decided = self.decided(request, visit);
        match decided {
            Some((ask, true)) => self.begin_login(ask, request.headers(), visit),
            Some((ask, false)) => {
                self.note(&ask, "declined", Who::default(), visit);
                let back = ask.back(self.url.as_str()).with_error("access_denied", "the person chose Cancel");
                declined(&ask, &back)
            }
            None => expired(visit),
        }
    }

    /// What was asked and whether it is allowed, if this very browser was shown the page.
    fn decided(&self, request: &Request<Bytes>, visit: &Visit<'_>) -> Option<(Ask, bool)> {
        let headers = request.headers();
        if !self.is_from_our_page(headers) {
            return None;
        }
        let parameters = Parameters::of_form(headers, request.body()).ok()?;
        let blob = parameters.one("request").ok()??;
        let form: Form = sealed::open_value(&self.store, CONSENT, self.issuer().life(), "", blob)?;
        let browser = self.browser(headers)?;
        let is_same =
            Digest::parse_hex(&form.browser)?.same_in_constant_time(&Digest::of(browser.as_bytes()));
        let is_fresh = visit.now.duration_since(form.at) <= LIFE;
        match parameters.one("decision").ok()?? {
            "allow" if is_same && is_fresh => Some((form.ask, true)),
            "deny" if is_same && is_fresh => Some((form.ask, false)),
            _ => None,
        }
    }

    /// Browsers say which page a form was on; `no-referrer` makes its origin `null`. Those that say nothing are old, and
    /// the cookie speaks for them.
    fn is_from_our_page(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let site = text("sec-fetch-site");
        match (site, text(header::ORIGIN.as_str())) {
            (Some(site), _) if site != "same-origin" => false,
            (_, None) => true,
            (_, Some(origin)) => origin == self.url.origin() || origin == "null",
        }
    }

    fn browser(&self, headers: &HeaderMap) -> Option<String> {
        // One that was cut or made up is no number; the page gets a new one then.
        cookie::read(headers, BROWSER_COOKIE).filter(|value| value.len() == 43)
    }
}

fn digest(browser: &str) -> String {
    Digest::of(browser.as_bytes()).to_string()
}

/// Sends somebody on from the form by a page: a redirect would have to be among the places that the form may lead to, in
/// some browsers all along the way (Content Security Policy, `form-action`).
pub(super) fn leave(title: &str, sentence: &str, to: &str) -> Response<Body> {
    let notice = Notice {
        title,
        sentence,
        advice: "If nothing happens, go on yourself:",
        way: Some(Way { to, label: "Continue", at_once: true }),
        request_id: None,
        nonce: &page::nonce(),
    };
    notice.answer(StatusCode::OK)
}

/// The client is told that the person would not. A browser goes there by itself only where the person began: to a
/// program on their own computer, or to a client that the operator or this program knows.
fn declined(ask: &Ask, back: &str) -> Response<Body> {
    let uri = RedirectUri::parse_entered(&ask.redirect_uri).ok();
    let is_theirs = |uri: &RedirectUri| uri.is_loopback() || (uri.is_web() && ask.is_vouched_for);
    if uri.as_ref().is_some_and(is_theirs) {
        return leave("You chose Cancel", "Nothing was allowed.", back);
    }
    let place = uri.as_ref().map(RedirectUri::place).unwrap_or_default();
    let notice = Notice {
        title: "You chose Cancel",
        sentence: "Nothing was allowed. You may close this page.",
        advice: &format!("The link leads to {place}. Follow it only if you came from there."),
        way: Some(Way { to: back, label: "Back to the application", at_once: false }),
        request_id: None,
        nonce: &page::nonce(),
    };
    notice.answer(StatusCode::OK)
}

fn expired(visit: &Visit<'_>) -> Response<Body> {
    let words = [
        "This page can no longer be used",
        "It was open for too long, or it was opened in another browser or by another site.",
        "Start again from your application.",
    ];
    page::dead_end(StatusCode::BAD_REQUEST, visit.request_id, words)
}
