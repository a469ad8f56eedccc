//! The pages that people see during a login: plain HTML without scripts or foreign assets, not
//! embeddable in frames.

use std::borrow::Cow;
use std::time::Duration;

use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::response;
use crate::base::body::Body;
use crate::base::headers::retry_after;
use crate::base::random;

/// The consent page, shown before a person is sent to the identity provider.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct ConsentPage<'a> {
    pub(super) title: &'a str,
    /// Whose login follows.
    pub(super) provider: &'a str,
    /// The client's own name.
    pub(super) client: &'a str,
    /// The host that vouches for the name, if one does.
    pub(super) vouched_by: Option<&'a str>,
    /// Whether the operator entered the client.
    pub(super) known: bool,
    /// Whether the name mixes similar letters of several alphabets.
    pub(super) may_be_mistaken: bool,
    /// Where the client wants the person sent back to.
    pub(super) place: &'a str,
    /// Whether that is a program on the person's own computer.
    pub(super) loopback: bool,
    /// The link scheme, if that is an application on the person's device.
    pub(super) scheme: Option<&'a str>,
    pub(super) action: &'a str,
    /// Where the person can end this.
    pub(super) account_url: &'a str,
    pub(super) request: &'a str,
    pub(super) nonce: &'a str,
}

/// A person's own page: what is connected to the account at this tenant.
#[derive(Template)]
#[template(path = "account.html")]
pub(super) struct AccountPage<'a> {
    pub(super) title: &'a str,
    /// Whose login leads here.
    pub(super) provider: &'a str,
    pub(super) action: &'a str,
    /// None before the person has logged in.
    pub(super) account: Option<AccountView<'a>>,
    pub(super) nonce: &'a str,
}

/// What a person who has logged in sees.
pub(super) struct AccountView<'a> {
    /// The person's name.
    pub(super) person: &'a str,
    pub(super) connections: Vec<ConnectedClient>,
    /// Proves that a form comes from this page in this browser.
    pub(super) token: &'a str,
}

/// An application that a person has connected.
pub(super) struct ConnectedClient {
    pub(super) id: String,
    pub(super) client: String,
    pub(super) since: String,
    pub(super) last_used: String,
    pub(super) expires: String,
}

/// A page with a message, and perhaps a link.
pub(super) struct NoticePage<'a> {
    pub(super) title: &'a str,
    pub(super) sentence: &'a str,
    pub(super) advice: &'a str,
    pub(super) link: Option<PageLink<'a>>,
    /// To find the request in the log.
    pub(super) request_id: Option<&'a str>,
}

/// The link of a page.
#[derive(Clone, Copy)]
pub(super) struct PageLink<'a> {
    to: &'a str,
    label: &'a str,
    /// Whether the browser goes there automatically.
    at_once: bool,
}

/// A page without a link that turns a request down.
pub(super) struct ErrorPage {
    pub(super) status: StatusCode,
    /// The error code for programs, which get JSON instead; none where only browsers ask.
    pub(super) code: Option<&'static str>,
    pub(super) title: &'static str,
    pub(super) sentence: Cow<'static, str>,
    pub(super) advice: &'static str,
    /// When a retry may succeed.
    pub(super) retry_after: Option<Duration>,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct NoticeTemplate<'a> {
    page: &'a NoticePage<'a>,
    nonce: &'a str,
}

/// Returns an unpredictable nonce for the page's style element.
pub(super) fn new_nonce() -> String {
    BASE64_STANDARD.encode(random::bytes::<16>())
}

impl ConsentPage<'_> {
    pub(super) fn to_response(&self) -> Response<Body> {
        html_response(StatusCode::OK, self.nonce, self.render().expect("the page is written to a String"))
    }
}

impl AccountPage<'_> {
    pub(super) fn to_response(&self) -> Response<Body> {
        html_response(StatusCode::OK, self.nonce, self.render().expect("the page is written to a String"))
    }
}

impl<'a> PageLink<'a> {
    /// Creates the link to the person's own page.
    pub(super) fn back_to_account(to: &'a str) -> Self {
        Self { to, label: "Back", at_once: false }
    }

    /// Creates the link by which the person takes an error to the client.
    pub(super) fn back_to_application(to: &'a str) -> Self {
        Self { to, label: "Back to the application", at_once: false }
    }

    /// Creates the link that opens a program on the person's device.
    pub(super) fn open_application(to: &'a str) -> Self {
        Self { to, label: "Open the application", at_once: false }
    }
}

/// Logs why a person got a page that shows the request's id as the reference for the operator.
pub(super) fn log_reference(tenant: &str, request_id: &str, error: Option<&str>, why: &str) {
    tracing::info!(tenant, request_id, error, why, "a step of a login was refused");
}

impl NoticePage<'_> {
    pub(super) fn to_response(&self, status: StatusCode) -> Response<Body> {
        let nonce = &new_nonce();
        let html = NoticeTemplate { page: self, nonce }.render().expect("the page is written to a String");
        let mut response = html_response(status, nonce, html);
        // Whatever is not available now, it is worth trying again.
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(response::RETRY_DELAY));
        }
        response
    }
}

impl ErrorPage {
    /// The page for a form that was sent too late, or not from the page that has it.
    pub(super) fn expired(advice: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: None,
            title: "This page can no longer be used",
            sentence: "It was open for too long, or it was opened in another browser or by another site."
                .into(),
            advice,
            retry_after: None,
        }
    }

    pub(super) fn to_response(&self, request_id: Option<&str>, prefers_json: bool) -> Response<Body> {
        let mut response = match self.code.filter(|_| prefers_json) {
            Some(code) => response::error(self.status, code, &self.sentence),
            None => {
                let Self { title, sentence, advice, .. } = self;
                NoticePage { title, sentence, advice, link: None, request_id }.to_response(self.status)
            }
        };
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
        }
        response
    }
}

/// Continues from a form with a page: a redirect is restricted by `form-action` of the Content
/// Security Policy, in some browsers for every hop.
pub(super) fn redirect_page(title: &str, sentence: &str, to: &str) -> Response<Body> {
    let notice = NoticePage {
        title,
        sentence,
        advice: "If nothing happens, use this link:",
        link: Some(PageLink { to, label: "Continue", at_once: true }),
        request_id: None,
    };
    notice.to_response(StatusCode::OK)
}

fn html_response(status: StatusCode, nonce: &str, html: String) -> Response<Body> {
    let mut response =
        response::with_content_type(status, HeaderValue::from_static("text/html; charset=utf-8"), html);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    let headers = response.headers_mut();
    let policy = HeaderValue::try_from(policy).expect("a nonce is ASCII");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Whether the client is a program, which needs JSON instead of a page.
pub(super) fn prefers_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}
