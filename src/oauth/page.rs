//! The pages that people see while they log in. Plain HTML: no script, no foreign assets, nothing that a frame could hold.

use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::reply;
use crate::base::body::Body;
use crate::base::random;

/// What somebody is asked before they are sent to Microsoft.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct Consent<'a> {
    pub(super) title: &'a str,
    /// What the client calls itself.
    pub(super) client: &'a str,
    /// The host that vouches for the name; without one nobody does.
    pub(super) vouched_by: Option<&'a str>,
    /// Entered by the operator, who knows it.
    pub(super) known: bool,
    /// The name mixes letters that look alike.
    pub(super) may_be_mistaken: bool,
    /// Where it wants to be sent back to.
    pub(super) place: &'a str,
    /// That is whatever runs on the person's computer.
    pub(super) loopback: bool,
    /// That is whatever handles links of this scheme on the person's device.
    pub(super) scheme: Option<&'a str>,
    pub(super) action: &'a str,
    pub(super) request: &'a str,
    pub(super) nonce: &'a str,
}

/// Something to read, and perhaps a way on.
#[derive(Template)]
#[template(path = "notice.html")]
pub(super) struct Notice<'a> {
    pub(super) title: &'a str,
    pub(super) sentence: &'a str,
    pub(super) advice: &'a str,
    pub(super) way: Option<Way<'a>>,
    /// To find it in the log.
    pub(super) request_id: Option<&'a str>,
    pub(super) nonce: &'a str,
}

/// Where a page leads.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) to: &'a str,
    pub(super) label: &'a str,
    /// Go there by itself.
    pub(super) at_once: bool,
}

/// A value that nobody outside can name in a style of their own.
pub(super) fn nonce() -> String {
    BASE64_STANDARD.encode(random::bytes::<16>())
}

impl Consent<'_> {
    pub(super) fn answer(&self) -> Response<Body> {
        page(StatusCode::OK, self.nonce, self.render().expect("the page is written to a String"))
    }
}

/// A page that leads nowhere: what is wrong, and what to do about it.
pub(super) fn dead_end(
    status: StatusCode,
    request_id: &str,
    [title, sentence, advice]: [&str; 3],
) -> Response<Body> {
    let request_id = Some(request_id);
    Notice { title, sentence, advice, way: None, request_id, nonce: &nonce() }.answer(status)
}

impl Notice<'_> {
    pub(super) fn answer(&self, status: StatusCode) -> Response<Body> {
        page(status, self.nonce, self.render().expect("the page is written to a String"))
    }
}

fn page(status: StatusCode, nonce: &str, html: String) -> Response<Body> {
    let mut response = reply::of_type(status, HeaderValue::from_static("text/html; charset=utf-8"), html);
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

/// Whether a program asks, which cannot read pages.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}
