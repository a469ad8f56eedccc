//! Cross-origin access: which pages of other origins may read responses (Fetch standard, CORS
//! protocol).
//!
//! This module only tells the browser whether a page may read a response. `crate::mcp` refuses
//! calls from foreign origins, as the MCP specification requires.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::response::{self, Problem};
use crate::base::body::{self, Body};

const EXPOSED: HeaderValue = HeaderValue::from_static(
    "mcp-protocol-version, mcp-session-id, retry-after, www-authenticate, x-request-id",
);
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, DELETE");
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const VARY: HeaderValue = HeaderValue::from_static("origin");

/// The origin of a request that may read the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AllowedOrigin(HeaderValue);

/// Returns the request's origin if it is `own` or one of `others`. Requests that do not come from a
/// page have no origin.
pub(super) fn match_origin(headers: &HeaderMap, own: &str, others: &[String]) -> Option<AllowedOrigin> {
    let origin = headers.get(header::ORIGIN)?;
    let matches = |known: &str| origin.as_bytes() == known.as_bytes();
    (matches(own) || others.iter().any(|other| matches(other))).then(|| AllowedOrigin(origin.clone()))
}

impl AllowedOrigin {
    /// Adds the headers that let the page read the response.
    pub(super) fn apply_to(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(header::VARY, VARY);
    }
}

/// Answers a preflight. It allows the requested headers as they are, since `Mcp-Param-…` headers
/// can have any name.
pub(super) fn preflight(headers: &HeaderMap, allowed: Option<&AllowedOrigin>) -> Response<Body> {
    if allowed.is_none() && headers.contains_key(header::ORIGIN) {
        return response::problem(Problem {
            status: StatusCode::FORBIDDEN,
            summary: "pages of this origin may not call this address",
            help: Some("to allow them, the operator can add the origin to the setting allowed_origin"),
        });
    }
    let mut response = body::empty_response(StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(request_headers) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, request_headers.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_known_origins_may_read() {
        let others = ["https://app.example".to_owned()];
        let is_allowed =
            |origin| match_origin(&headers(&[(header::ORIGIN, origin)]), "https://own", &others).is_some();
        assert!(is_allowed("https://own") && is_allowed("https://app.example"));
        assert!(
            !is_allowed("https://evil.example") && !is_allowed("null") && !is_allowed("https://own.evil")
        );
        assert_eq!(match_origin(&HeaderMap::new(), "https://own", &others), None);
    }

    #[test]
    fn a_preflight_is_answered_for_known_origins_only() {
        let request_headers =
            [(header::ORIGIN, "https://own"), (header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization")];
        let request_headers = headers(&request_headers);
        let known = match_origin(&request_headers, "https://own", &[]);
        let granted = preflight(&request_headers, known.as_ref());
        assert_eq!(granted.status(), StatusCode::NO_CONTENT);
        assert_eq!(granted.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
        assert_eq!(preflight(&request_headers, None).status(), StatusCode::FORBIDDEN);
    }
}
