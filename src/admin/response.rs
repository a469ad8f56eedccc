//! Responses of the admin listener and the headers common to all of them.

use std::fmt::Display;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::base::body::{self, Body};
use crate::base::diagnostic::Report;
use crate::oauth::error::Unavailable;

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
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}
