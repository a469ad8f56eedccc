//! Responses of the authorization server: documents, errors of RFC 6749, redirects, and the CORS
//! headers for pages of other origins (Fetch standard).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::base::body::{self, Body};
use crate::base::headers::{describe_allowed, retry_after};

/// The Retry-After for failures of this gateway.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(5);
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID",
);
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After");

/// Returns a JSON response that must not be cached (RFC 6749 section 5.1).
pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = with_content_type(status, JSON, value.to_string());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Returns an error in the form of RFC 6749 section 5.2.
pub fn error(status: StatusCode, code: &str, description: &str) -> Response<Body> {
    json(status, &json!({ "error": code, "error_description": description }))
}

/// Returns a 503 for a temporary failure of ours (with the error code of RFC 6749 section 4.1.2.1).
pub fn unavailable(description: &str, wait: Duration) -> Response<Body> {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", description);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
    response
}

/// Returns a 429 for a caller that has sent too many requests.
pub fn too_many_requests(wait: Duration) -> Response<Body> {
    let description = "too many requests from this address; wait as long as Retry-After says";
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", description);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
    response
}

/// Returns a 405 that lists the `allowed` methods.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let description = describe_allowed(allowed);
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", &description);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Redirects the browser.
pub(super) fn redirect(to: &str) -> Response<Body> {
    let mut response = body::empty_response(StatusCode::FOUND);
    let to = HeaderValue::try_from(to).expect("what is redirected to was parsed as a URI");
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, to);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns a public document that may be cached for `keep`, or a 304 if the client has it already
/// (RFC 9110 section 13.1.2).
pub(super) fn cacheable_json(text: Bytes, keep: Duration, asked: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}\"", crate::base::digest::Digest::of(&text).short());
    let held = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = match held.is_some_and(|held| held.contains(&tag) || held == "*") {
        true => body::empty_response(StatusCode::NOT_MODIFIED),
        false => with_content_type(StatusCode::OK, JSON, text),
    };
    let headers = response.headers_mut();
    let keep = format!("public, max-age={}", keep.as_secs());
    headers.insert(header::CACHE_CONTROL, HeaderValue::try_from(keep).expect("digits"));
    headers.insert(header::ETAG, HeaderValue::try_from(tag).expect("digits"));
    response
}

pub(super) fn with_content_type(
    status: StatusCode,
    kind: HeaderValue,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let text = text.into();
    let length = HeaderValue::from(text.len());
    let mut response = body::response(status, kind, text);
    // Set here, because the response to HEAD drops the body.
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// Lets pages of every origin read the response. Their requests carry no cookies, and these
/// endpoints need none.
pub(super) fn allow_all_origins(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    response
}

/// Answers a preflight request.
pub(super) fn preflight() -> Response<Body> {
    let mut response = body::empty_response(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
    allow_all_origins(response)
}
