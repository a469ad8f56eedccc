//! Responses of the admin listener and the headers common to all of them.

use std::fmt::Display;

use askama::Template;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::base::body::{self, Body};
use crate::base::diagnostic::Report;
use crate::oauth::error::Unavailable;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request is refused. Its text becomes the detail of the problem document.
pub(super) trait Refusal: Display {
    fn status(&self) -> StatusCode;

    /// Returns the findings about a tenant's files that led to it.
    fn findings(&self) -> Option<&Report> {
        None
    }
}

impl Refusal for Unavailable {
    fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// The tenant that an order was about, where the path does not say it; empty for the whole gateway.
/// A handler leaves it in its response for the audit.
#[derive(Debug, Clone)]
pub(super) struct OrderTenant(pub(super) String);

/// The status that the audit takes for an order whose response says something else: a redirect to
/// the page that shows what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderStatus(pub(super) StatusCode);

/// Returns what a handler came to: its value, or its refusal as a problem document.
pub(super) fn from_result(result: Result<impl Serialize, impl Refusal>) -> Response<Body> {
    match result {
        Ok(value) => json(StatusCode::OK, &value),
        Err(refusal) => {
            let mut document = problem_document(refusal.status(), &refusal.to_string());
            if let Some(findings) = refusal.findings() {
                document["findings"] = json!(findings);
            }
            json(refusal.status(), &document)
        }
    }
}

/// Builds a problem document (RFC 9457).
pub(super) fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    json(status, &problem_document(status, detail))
}

fn problem_document(status: StatusCode, detail: &str) -> serde_json::Value {
    let title = status.canonical_reason().unwrap_or("Refused");
    json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail })
}

/// Builds the 404 for a name that no tenant has.
pub(super) fn no_tenant() -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "there is no tenant with this name; /api/tenants lists all of them")
}

/// Builds a response with a value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("statuses are plain data");
    with_content(status, JSON, text)
}

/// Builds a response with this content.
pub(super) fn with_content(
    status: StatusCode,
    content_type: HeaderValue,
    content: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = body::response(status, content_type, content);
    protect(response.headers_mut());
    response
}

/// Adds the headers that keep other pages from framing, embedding or keeping a response.
pub(super) fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; \
             base-uri 'none'",
        ),
    );
    // Not `no-referrer`, with which browsers say `Origin: null` even of our own forms.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
}

#[derive(Template)]
#[template(path = "admin/refusal.html")]
struct RefusalPage<'a> {
    title: &'a str,
    detail: &'a str,
}

/// Refuses a request in a page for people, and in a problem document for programs.
pub(super) fn refusal(head: &Parts, status: StatusCode, detail: &str) -> Response<Body> {
    if !wants_page(head) {
        return problem(status, detail);
    }
    let title = status.canonical_reason().unwrap_or("Refused");
    page(status, RefusalPage { title, detail }.render().expect("the template writes into a String"))
}

/// Whether the answer is for the window of a browser.
pub(super) fn wants_page(head: &Parts) -> bool {
    let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Builds a response with a page.
pub(super) fn page(status: StatusCode, text: String) -> Response<Body> {
    with_content(status, HTML, text)
}
