//! Responses that the edge itself gives, and the headers common to every response.

use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use serde_json::json;

use super::{budgets, html};
use crate::base::body::{self, Body};
use crate::base::budget::Exhausted;
use crate::base::headers::{accepts, describe_allowed, retry_after};
use crate::oauth::bearer::Denial;
use crate::routing::Endpoint;
use crate::spec::ResourceSpelling;
use crate::tenants::tenant::Tenant;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
/// When to try again after our own parts failed.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The content of a problem document (RFC 9457).
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) status: StatusCode,
    /// What was found: one sentence, lower case, no full stop.
    pub(super) summary: &'a str,
    /// What to do about it, unless `summary` already says so.
    pub(super) help: Option<&'a str>,
}

impl Problem<'_> {
    fn detail(&self) -> String {
        match self.help {
            Some(help) => format!("{}; {help}", self.summary),
            None => self.summary.to_owned(),
        }
    }
}

/// The format of an error response.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// A problem document (RFC 9457).
    #[default]
    ProblemJson,
    /// A JSON-RPC error: the only part of a refused MCP message that clients show to people.
    JsonRpc,
    /// A page, for browsers.
    Html,
}

impl ErrorFormat {
    /// Returns the format of errors for a request, and for its endpoint if that is known. An MCP
    /// message is a POST to a tenant's base or connector URL; without a tenant, one to a path that
    /// looks like a connector URL, or by a client that accepts event streams. Browsers ask for HTML
    /// by name, and get a page where people go: not from endpoints that programs call.
    pub(super) fn for_request<B>(request: &Request<B>, endpoint: Option<Endpoint>) -> Self {
        let is_mcp_message = request.method() == Method::POST
            && (matches!(endpoint, Some(Endpoint::Page | Endpoint::Mcp))
                || is_connector_path(request.uri().path())
                || accepts(request.headers(), "text/event-stream"));
        let is_page = matches!(*request.method(), Method::GET | Method::HEAD)
            && matches!(endpoint, None | Some(Endpoint::Page | Endpoint::Mcp))
            && accepts(request.headers(), "text/html");
        match (is_mcp_message, is_page) {
            (true, _) => Self::JsonRpc,
            (_, true) => Self::Html,
            _ => Self::ProblemJson,
        }
    }
}

fn is_connector_path(path: &str) -> bool {
    path.strip_suffix('/').unwrap_or(path).ends_with("/mcp")
}

/// Builds a refusal in the given format.
pub(super) fn rejection(format: ErrorFormat, refused: Problem<'_>) -> Response<Body> {
    match format {
        ErrorFormat::ProblemJson => problem(refused),
        ErrorFormat::JsonRpc => rpc_error(refused.status, -32600, &refused.detail()),
        ErrorFormat::Html => html::problem(refused.status, refused.summary, refused.help),
    }
}

/// Builds the refusal of a request that a budget has no room for, with `Retry-After`.
pub(super) fn budget_exhausted(format: ErrorFormat, exhausted: Exhausted) -> Response<Body> {
    let problem = Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        summary: &exhausted.to_string(),
        help: Some("try again in a moment"),
    };
    let mut response = rejection(format, problem);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after(budgets::RETRY));
    response
}

/// Builds the refusal of a caller that the bearer check does not admit, with its challenge if the
/// denial has one (RFC 6750 section 3). `spelling`: which of the tenant's URLs the client used.
pub(super) fn denial(
    tenant: &Tenant,
    denial: Denial,
    format: ErrorFormat,
    spelling: ResourceSpelling,
) -> Response<Body> {
    let summary = &tenant.bearer.message(denial);
    let problem = Problem { status: denial.status(), summary, help: None };
    let mut response = rejection(format, problem);
    if let Some(challenge) = tenant.bearer.challenge(denial, spelling) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if denial == Denial::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after(RETRY_AFTER_FAILURE));
    }
    response
}

/// Builds the 429 of a caller that has used up its requests per minute.
pub(super) fn too_many_requests(format: ErrorFormat, wait: Duration) -> Response<Body> {
    let problem = Problem {
        status: StatusCode::TOO_MANY_REQUESTS,
        summary: "this caller has exceeded its requests per minute",
        help: Some("wait as long as Retry-After says"),
    };
    let mut response = rejection(format, problem);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
    response
}

/// Builds a problem document. `detail` repeats everything, since clients show nothing else.
pub(super) fn problem(problem: Problem<'_>) -> Response<Body> {
    let (status, detail) = (problem.status, problem.detail());
    let title = status.canonical_reason().unwrap_or("Refused");
    let mut document =
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    if status == StatusCode::NOT_FOUND {
        // OAuth clients read this member in any error response (RFC 6749 section 5.2).
        document["error"] = "not_found".into();
    }
    body::response(status, HeaderValue::from_static("application/problem+json"), document.to_string())
}

/// Builds a JSON-RPC error without a request id.
pub(super) fn rpc_error(status: StatusCode, code: i32, message: &str) -> Response<Body> {
    let document = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
    body::response(status, HeaderValue::from_static("application/json"), document.to_string())
}

/// Builds a 405 whose `Allow` header lists the methods in `allowed`.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let help = describe_allowed(allowed);
    let found = "this address does not support the method";
    let mut response =
        problem(Problem { status: StatusCode::METHOD_NOT_ALLOWED, summary: found, help: Some(&help) });
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Closes an HTTP/1 connection after this response. HTTP/2 has no such header, and needs none: its
/// frames delimit bodies reliably.
pub(super) fn close_connection(response: &mut Response<Body>, version: Version) {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Returns `Strict-Transport-Security` (RFC 6797) for the given period. It omits
/// `includeSubDomains`, since subdomains may belong to others.
pub(super) fn strict_transport_security(period: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={}", period.as_secs())).expect("digits are a header value")
}

/// Turns a response into the answer to HEAD: the headers of a GET, no content (RFC 9110 section
/// 9.3.2). In HTTP/2 content would break the stream.
pub(super) fn strip_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, content) = response.into_parts();
    if let Some(length) = content.size_hint().exact().filter(|length| *length > 0) {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(parts, body::empty())
}

/// Adds the headers common to every response. Shared caches store nothing unless the response
/// allows it.
pub(super) fn add_common_headers(headers: &mut HeaderMap, request_id: &str, hsts: Option<&HeaderValue>) {
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    if let Ok(mut id) = HeaderValue::from_str(request_id) {
        // HTTP/2 need not add it to its header table, since no later response has the same value
        // (RFC 7541 section 6.2.3).
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(header::REFERRER_POLICY, NO_REFERRER);
    headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
}
