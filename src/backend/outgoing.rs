//! From a [`CallSpec`] and the caller's arguments to the request as it is sent. Nothing of the client's own headers
//! goes along; what does is listed here.

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use super::{Call, Error};
use crate::base::digest::{Digest, Hasher};
use crate::spec::{CallSpec, Values};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("tenantd/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request that can be sent more than once.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Outgoing {
    /// Fills in the templates. The spec's constants win over arguments of the same name.
    pub(super) fn render(
        spec: &CallSpec,
        arguments: &Values,
        call: &Call,
        user_header: Option<&HeaderName>,
    ) -> Result<Self, Error> {
        let values = spec.constants.over(arguments);
        let uri = spec.url.render(&values).parse::<Uri>().map_err(|_| Error::BadRequest)?;
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

    /// The request to send now.
    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Where it goes, as logs may show it: without path and query.
    pub(super) fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        // Credentials in a URL end at the last "@".
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{}://{host}", self.uri.scheme_str().unwrap_or("http"))
    }
}

/// Tells one backend from another: where its context comes from, and with which key.
pub(super) fn fingerprint(spec: &CallSpec) -> Digest {
    let (mut hasher, values) = (Hasher::new(), spec.constants.over(&Values::new()));
    hasher.field(spec.method.as_str().as_bytes());
    hasher.field(spec.url.render(&values).as_bytes());
    if let Some(body) = &spec.body {
        hasher.field(body.render(&values).to_string().as_bytes());
    }
    for (name, value) in spec.headers.iter() {
        hasher.field(name.as_str().as_bytes());
        hasher.field(value.expose().as_bytes());
    }
    hasher.finish()
}

/// Ours first, so that the operator's win; but the framing of the message is hyper's alone.
fn configured_headers(spec: &CallSpec) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(8 + spec.headers.len());
    headers.insert(USER_AGENT, AGENT);
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

/// What cannot be a header value is left out rather than fail the call: it is for the backend's logs only.
fn add_call_headers(headers: &mut HeaderMap, call: &Call, user_header: Option<&HeaderName>) {
    let optional = [
        (Some(&REQUEST_ID), Some(&call.request_id)),
        (user_header, call.user.as_ref()),
        (Some(&TRACEPARENT), call.traceparent.as_ref()),
        (Some(&TRACESTATE), call.traceparent.as_ref().and(call.tracestate.as_ref())),
    ];
    for (name, text) in optional {
        let (Some(name), Some(text)) = (name, text) else { continue };
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.insert(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::base::clock::{Clock, SystemClock};
    use std::sync::Arc;

    use crate::base::secret::Secret;
    use crate::spec::{BodyTemplate, Constants, UrlTemplate};

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

    fn call() -> Call {
        Call {
            request_id: "r-1".into(),
            deadline: SystemClock.monotonic() + Duration::from_secs(1),
            user: Some("ann@example.com".into()),
            traceparent: Some("00-a-b-01".into()),
            tracestate: Some("v=1".into()),
        }
    }

    fn arguments(value: serde_json::Value) -> Values {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn constants_win_over_what_the_caller_says() {
        let arguments = arguments(json!({"query": "q", "connection_id": "another tenant's"}));
        let outgoing = Outgoing::render(&spec(&[]), &arguments, &call(), None).expect("renders");
        assert_eq!(&outgoing.body[..], br#"{"query":"q","connection_id":"c-1"}"#);
    }

    #[test]
    fn the_user_is_named_only_when_a_header_is_configured() {
        let header = HeaderName::from_static("x-user");
        let rendered =
            |header| Outgoing::render(&spec(&[]), &Values::new(), &call(), header).expect("renders");
        assert_eq!(rendered(Some(&header)).headers["x-user"], "ann@example.com");
        assert!(!format!("{:?}", rendered(None).headers).contains("ann@"));
        assert_eq!(rendered(None).headers["x-request-id"], "r-1");
        assert_eq!(rendered(None).headers["traceparent"], "00-a-b-01");
        assert_eq!(rendered(None).headers["tracestate"], "v=1");
    }

    #[test]
    fn framing_headers_are_not_the_operators() {
        let spec =
            spec(&[("transfer-encoding", "chunked"), ("content-length", "1"), ("accept", "text/plain")]);
        let outgoing = Outgoing::render(&spec, &Values::new(), &call(), None).expect("renders");
        assert!(!outgoing.headers.contains_key(TRANSFER_ENCODING));
        assert!(!outgoing.headers.contains_key(CONTENT_LENGTH));
        assert_eq!(outgoing.headers[ACCEPT], "text/plain");
    }

    #[test]
    fn the_key_is_never_printed() {
        let outgoing = Outgoing::render(&spec(&[("x-api-key", "canary")]), &Values::new(), &call(), None)
            .expect("renders");
        assert_eq!(outgoing.headers["x-api-key"], "canary");
        assert!(!format!("{outgoing:?}").contains("canary"));
        assert_eq!(outgoing.origin(), "http://backend.example:8080");
    }

    #[test]
    fn another_key_is_another_backend() {
        let print = |key| fingerprint(&spec(&[("x-api-key", key)]));
        assert_eq!(print("a"), print("a"));
        assert_ne!(print("a"), print("b"));
    }
}
