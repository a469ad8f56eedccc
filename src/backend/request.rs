//! Renders a [`CallSpec`] and the caller's arguments into the request to send.
//!
//! No header of the MCP client is passed on, except for those listed here.

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use super::{CallContext, Error};
use crate::spec::{CallSpec, TemplateValues};

/// The longest URL that is sent. A caller's arguments may be part of it, and servers reject longer
/// ones, some by closing the connection (NGINX reads 8 KiB).
const MAX_URL_BYTES: usize = 8 << 10;
/// The longest user name that is sent. Longer ones are omitted, since a truncated name may be
/// another user's.
const MAX_USER_BYTES: usize = 256;

const TENANTD_AGENT: HeaderValue = HeaderValue::from_static(concat!("tenantd/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request that can be sent repeatedly.
#[derive(Debug)]
pub(super) struct BackendRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl BackendRequest {
    /// Renders the templates. Constants of the spec take precedence over arguments of the same
    /// name.
    pub(super) fn render(
        spec: &CallSpec,
        arguments: &TemplateValues,
        call: &CallContext,
        user_header: Option<&HeaderName>,
    ) -> Result<Self, Error> {
        let values = spec.constants.apply_to(arguments);
        let url = spec.url.render(&values).map_err(|_| Error::BadRequest)?;
        if url.len() > MAX_URL_BYTES {
            return Err(Error::UrlTooLong { limit: MAX_URL_BYTES });
        }
        let uri = url.parse::<Uri>().map_err(|_| Error::BadRequest)?;
        let body = match &spec.body {
            Some(template) => {
                serde_json::to_vec(&template.render(&values)).map_err(|_| Error::BadRequest)?.into()
            }
            None => Bytes::new(),
        };
        let mut headers = configured_headers(spec)?;
        add_call_headers(&mut headers, call, user_header);
        Ok(Self { method: spec.method.clone(), uri, headers, body })
    }

    /// Creates the HTTP request.
    pub(super) fn to_http_request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Returns the origin for logs, without path and query.
    pub(super) fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        // Credentials in a URL end at the last "@".
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{}://{host}", self.uri.scheme_str().unwrap_or("http"))
    }
}

/// Merges our headers with the operator's, which take precedence, except for message framing, which
/// hyper alone controls.
fn configured_headers(spec: &CallSpec) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(8 + spec.headers.len());
    headers.insert(USER_AGENT, TENANTD_AGENT);
    headers.insert(ACCEPT, JSON);
    if spec.body.is_some() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    for (name, value) in spec.headers.iter() {
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE].contains(name) {
            continue;
        }
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| Error::BadRequest)?;
        value.set_sensitive(true);
        headers.insert(name.clone(), value);
    }
    Ok(headers)
}

/// Adds the headers of the call. Invalid values are omitted rather than failing the call, because
/// they only serve the backend's logs.
fn add_call_headers(headers: &mut HeaderMap, call: &CallContext, user_header: Option<&HeaderName>) {
    let user = call.user.as_deref().and_then(user_value);
    let trace = call.trace.as_ref();
    let optional = [
        (Some(&REQUEST_ID), HeaderValue::from_str(&call.request_id).ok()),
        (user_header, user),
        (Some(&TRACEPARENT), trace.map(|trace| trace.parent().clone())),
        (Some(&TRACESTATE), trace.and_then(|trace| trace.state().cloned())),
    ];
    for (name, value) in optional {
        if let (Some(name), Some(value)) = (name, value) {
            headers.insert(name.clone(), value);
        }
    }
}

/// Returns a user name as a header value, in full or not at all.
fn user_value(user: &str) -> Option<HeaderValue> {
    let user = user.trim();
    let is_sent = !user.is_empty() && user.len() <= MAX_USER_BYTES && !user.chars().any(char::is_control);
    is_sent.then(|| HeaderValue::from_bytes(user.as_bytes()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::base::clock::{Clock, SystemClock};
    use std::sync::Arc;

    use crate::backend::TraceContext;
    use crate::base::secret::Secret;
    use crate::spec::{BodyTemplate, Constants, UrlTemplate};

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn spec(headers: &[(&'static str, &str)]) -> CallSpec {
        let header =
            |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), Secret::new(*value));
        CallSpec {
            method: Method::POST,
            url: UrlTemplate::parse("http://user:pass@backend.example:8080/nlp-search?q=1")
                .expect("a template"),
            headers: headers.iter().map(header).collect(),
            body: Some(Arc::new(
                BodyTemplate::parse(r#"{"query": {{query}}, "connection_id": {{connection_id}}}"#)
                    .expect("a body"),
            )),
            constants: Constants { connection_id: Some("c-1".into()), ..Constants::default() },
        }
    }

    fn call() -> CallContext {
        CallContext {
            request_id: "r-1".into(),
            deadline: SystemClock.monotonic() + Duration::from_secs(1),
            user: Some("ann@example.com".into()),
            trace: TraceContext::parse(Some(TRACE), Some("v=1")),
            span: None,
            has_credential: true,
            network: None,
        }
    }

    fn arguments(value: serde_json::Value) -> TemplateValues {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn constants_take_precedence_over_arguments() {
        let arguments = arguments(json!({"query": "q", "connection_id": "another tenant's"}));
        let outgoing = BackendRequest::render(&spec(&[]), &arguments, &call(), None).expect("renders");
        assert_eq!(&outgoing.body[..], br#"{"query":"q","connection_id":"c-1"}"#);
    }

    #[test]
    fn the_user_is_named_only_when_a_header_is_configured() {
        let header = HeaderName::from_static("x-user");
        let rendered = |header| {
            BackendRequest::render(&spec(&[]), &TemplateValues::new(), &call(), header).expect("renders")
        };
        assert_eq!(rendered(Some(&header)).headers["x-user"], "ann@example.com");
        assert!(!format!("{:?}", rendered(None).headers).contains("ann@"));
        assert_eq!(rendered(None).headers["x-request-id"], "r-1");
        assert_eq!(rendered(None).headers["traceparent"], TRACE);
        assert_eq!(rendered(None).headers["tracestate"], "v=1");
    }

    #[test]
    fn a_users_name_is_sent_whole_or_not_at_all() {
        let header = HeaderName::from_static("x-user");
        let sent = |user: &str| {
            let call = CallContext { user: Some(user.to_owned()), ..call() };
            let outgoing = BackendRequest::render(&spec(&[]), &TemplateValues::new(), &call, Some(&header))
                .expect("renders");
            outgoing.headers.get("x-user").map(|value| value.as_bytes().to_vec())
        };
        for good in ["ann@example.com", "Jürgen", &"a".repeat(MAX_USER_BYTES)] {
            assert_eq!(sent(good).as_deref(), Some(good.as_bytes()));
        }
        assert_eq!(sent(" ann ").as_deref(), Some(&b"ann"[..]));
        for bad in ["", " ", "ann\r\nx-admin: 1", "a\u{85}b", &"a".repeat(MAX_USER_BYTES + 1)] {
            assert_eq!(sent(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_question_that_makes_the_url_too_long_is_not_asked() {
        let url = UrlTemplate::parse("http://backend.example/search?q={{query}}").expect("a template");
        let spec = CallSpec { method: Method::GET, url, body: None, ..spec(&[]) };
        let asked = |length: usize| {
            let arguments = arguments(json!({ "query": "a".repeat(length) }));
            BackendRequest::render(&spec, &arguments, &call(), None)
                .map(|outgoing| outgoing.uri.to_string().len())
        };
        assert_eq!(asked(MAX_URL_BYTES - 32).map_err(|error| error.class()), Ok(MAX_URL_BYTES));
        assert_eq!(asked(MAX_URL_BYTES - 31), Err(Error::UrlTooLong { limit: MAX_URL_BYTES }));
    }

    #[test]
    fn framing_headers_are_not_the_operators() {
        let spec =
            spec(&[("transfer-encoding", "chunked"), ("content-length", "1"), ("accept", "text/plain")]);
        let outgoing = BackendRequest::render(&spec, &TemplateValues::new(), &call(), None).expect("renders");
        assert!(!outgoing.headers.contains_key(TRANSFER_ENCODING));
        assert!(!outgoing.headers.contains_key(CONTENT_LENGTH));
        assert_eq!(outgoing.headers[ACCEPT], "text/plain");
    }

    #[test]
    fn the_key_is_never_printed() {
        let outgoing =
            BackendRequest::render(&spec(&[("x-api-key", "canary")]), &TemplateValues::new(), &call(), None)
                .expect("renders");
        assert_eq!(outgoing.headers["x-api-key"], "canary");
        assert!(!format!("{outgoing:?}").contains("canary"));
        assert_eq!(outgoing.origin(), "http://backend.example:8080");
    }
}
