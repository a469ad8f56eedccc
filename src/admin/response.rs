//! Responses of the admin listener and the headers common to all of them.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::base::body::{self, Body};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Returns the response to an ACME order.
pub(super) fn done(outcome: Result<(), String>) -> Response<Body> {
    match outcome {
        Ok(()) => json_answer(StatusCode::OK, &json!({ "done": true })),
        Err(why) => problem(StatusCode::CONFLICT, &why),
    }
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Refused");
    json_answer(
        status,
        &json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail }),
    )
}

pub(super) fn json_answer(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("statuses are plain data");
    answer(status, JSON, text)
}

pub(super) fn answer(
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
