//! The pages that people see during a login: plain HTML without scripts or foreign assets, not
//! embeddable in frames.

use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::response;
use crate::base::body::Body;
use crate::base::random;

/// The consent page, shown before a person is sent to Microsoft.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct ConsentPage<'a> {
    pub(super) title: &'a str,
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
    pub(super) request: &'a str,
    pub(super) nonce: &'a str,
}

/// A page with a message, and perhaps a link.
#[derive(Template)]
#[template(path = "notice.html")]
pub(super) struct NoticePage<'a> {
    pub(super) title: &'a str,
    pub(super) sentence: &'a str,
    pub(super) advice: &'a str,
    pub(super) way: Option<PageLink<'a>>,
    /// To find the request in the log.
    pub(super) request_id: Option<&'a str>,
    pub(super) nonce: &'a str,
}

/// The link of a page.
#[derive(Clone, Copy)]
pub(super) struct PageLink<'a> {
    pub(super) to: &'a str,
    pub(super) label: &'a str,
    /// Whether the browser goes there automatically.
    pub(super) at_once: bool,
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

/// Returns a page without a link: what is wrong, and what to do about it.
pub(super) fn error_page(
    status: StatusCode,
    request_id: &str,
    [title, sentence, advice]: [&str; 3],
) -> Response<Body> {
    let request_id = Some(request_id);
    NoticePage { title, sentence, advice, way: None, request_id, nonce: &new_nonce() }.to_response(status)
}

impl NoticePage<'_> {
    pub(super) fn to_response(&self, status: StatusCode) -> Response<Body> {
        html_response(status, self.nonce, self.render().expect("the page is written to a String"))
    }
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
