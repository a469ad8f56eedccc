//! The check in front of rmcp: accepts requests that rmcp would refuse for a formality, and turns
//! rmcp's plain-text refusals into JSON-RPC errors.
//!
//! Bodies are not parsed here, since rmcp does that once. Only large bodies are measured first; and
//! when rmcp has refused a body, it is parsed again to say what was wrong with it.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::accept::{ClientAccept, EVENT_STREAM};
use super::rpc_error::{
    INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, RpcError, UNSUPPORTED_VERSION,
};
use super::version::PROTOCOL_VERSIONS;
use crate::base::body::Body;
use crate::base::headers::media_type;
use crate::base::json::{self, JsonDocument, JsonLimits, JsonNode};

const JSON: &str = "application/json";
const VERSION_HEADER: &str = "mcp-protocol-version";
/// The maximum number of JSON values in a message: rmcp takes some hundred bytes for each.
const MAX_VALUES: usize = 10_000;
/// The maximum size of `_meta`, which clients use for a token and a trace.
const MAX_META_BYTES: usize = 32 << 10;
/// A message up to this size cannot exceed the limits above.
const SMALL_BYTES: usize = 16 << 10;

/// Accepts a POST with a JSON body, and sets its `Accept` to the value that rmcp requires.
pub(crate) fn check_request(request: &mut Request<Bytes>) -> Result<ClientAccept, Box<Response<Body>>> {
    if request.method() != Method::POST {
        return Err(Box::new(method_not_allowed()));
    }
    let headers = request.headers_mut();
    let accept = parse_accept(headers).ok_or_else(|| reject(StatusCode::NOT_ACCEPTABLE, NOT_ACCEPTABLE))?;
    if !is_json(headers) {
        return Err(reject(StatusCode::UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_MEDIA_TYPE));
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    check_bounds(request.body())?;
    if let Some(body) = replace_empty_lists(request.body()) {
        *request.body_mut() = body;
    }
    Ok(accept)
}

/// Refuses pages of foreign origins (MCP, "Security warning" of the transport). Origins are
/// compared as text, since apps and extensions have origins that are no URLs. A request that does
/// not come from a page has none.
pub(in crate::mcp) fn check_origin(
    headers: &HeaderMap,
    allowed: &[String],
) -> Result<(), Box<Response<Body>>> {
    let is_allowed = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().map(without_default_port);
        origin.is_some_and(|origin| allowed.iter().any(|known| without_default_port(known) == origin))
    };
    match headers.get_all(ORIGIN).iter().all(is_allowed) {
        true => Ok(()),
        false => Err(reject(StatusCode::FORBIDDEN, FOREIGN_ORIGIN)),
    }
}

fn without_default_port(origin: &str) -> &str {
    let port = match origin.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => return origin,
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

const FOREIGN_ORIGIN: &str = "Pages and apps of this origin may not call this server; to allow them, its \
                              operator can add the value of the Origin header to the setting allowed_origin";

/// Returns the message with `{}` for each `[]` where only an object is allowed, since several
/// languages serialize an empty map as `[]`. `None` if there is none, which a cheap check finds
/// out for nearly all messages.
fn replace_empty_lists(body: &Bytes) -> Option<Bytes> {
    if body.len() > SMALL_BYTES || !has_empty_list(body) {
        return None;
    }
    let mut message: Value = serde_json::from_slice(body).ok()?;
    let params = message.get_mut("params")?;
    let replaced = match is_empty_list(params) {
        true => params,
        false => params.get_mut("arguments").filter(|arguments| is_empty_list(arguments))?,
    };
    *replaced = json!({});
    serde_json::to_vec(&message).ok().map(Bytes::from)
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// Whether a text contains `[]`, be it within a string.
fn has_empty_list(body: &[u8]) -> bool {
    let after_brackets = body.split(|byte| *byte == b'[').skip(1);
    after_brackets.map(<[u8]>::trim_ascii_start).any(|rest| rest.first() == Some(&b']'))
}

/// Rejects a message with too many values or too large a `_meta`, in one pass without a tree:
/// rmcp's tree takes dozens of times the message's bytes. Invalid JSON is left to rmcp to reject.
fn check_bounds(body: &Bytes) -> Result<(), Box<Response<Body>>> {
    // A message this small has neither many values nor large metadata.
    if body.len() <= SMALL_BYTES {
        return Ok(());
    }
    let limits = JsonLimits { bytes: usize::MAX, depth: 127, values: MAX_VALUES };
    let message = match JsonDocument::parse(body.to_vec(), &limits) {
        Err(json::JsonError::TooManyValues) => {
            format!("The message has more than {MAX_VALUES} JSON values, which is the limit")
        }
        Ok(document) if count_meta_bytes(document.root()) > MAX_META_BYTES => {
            format!("The message's _meta has more than {MAX_META_BYTES} bytes, which is the limit")
        }
        Ok(_) | Err(_) => return Ok(()),
    };
    let fault = RpcError::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message);
    Err(Box::new(RpcError { id: id_without_tree(body), ..fault }.into_response()))
}

/// Returns the id of a message that is too large to build a tree of.
fn id_without_tree(body: &Bytes) -> Value {
    let limits = JsonLimits { bytes: usize::MAX, depth: 127, values: usize::MAX };
    let document = JsonDocument::parse(body.to_vec(), &limits).ok();
    let id = document.and_then(|document| serde_json::from_str(document.root().get("id")?.raw()).ok());
    valid_id(id.unwrap_or_default())
}

/// Returns the total size of all `_meta` members: readers differ on which of two equal names they
/// take.
fn count_meta_bytes(message: JsonNode<'_>) -> usize {
    let parameters = message.members().filter(|(name, _)| name.equals("params"));
    let members = parameters.flat_map(|(_, parameters)| parameters.members());
    members.filter(|(name, _)| name.equals("_meta")).map(|(_, meta)| meta.raw().len()).sum()
}

const NOT_ACCEPTABLE: &str =
    "This endpoint answers with application/json or text/event-stream, and the Accept header allows neither";
const UNSUPPORTED_MEDIA_TYPE: &str = "The Content-Type must be application/json";

fn method_not_allowed() -> Response<Body> {
    let message = "This is an MCP endpoint without sessions: send every message as a separate POST";
    let mut response =
        RpcError::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, message).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

fn reject(status: StatusCode, message: &str) -> Box<Response<Body>> {
    Box::new(RpcError::new(status, INVALID_REQUEST, message).into_response())
}

/// Parses `Accept`. Returns `None` if the client accepts nothing that this endpoint sends; without
/// the header, anything is acceptable.
fn parse_accept(headers: &HeaderMap) -> Option<ClientAccept> {
    if !headers.contains_key(ACCEPT) {
        return Some(ClientAccept { accepts_event_stream: false });
    }
    let mut known = false;
    let mut accepts_event_stream = false;
    for range in
        headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok()).flat_map(media_ranges)
    {
        accepts_event_stream |= range.eq_ignore_ascii_case(EVENT_STREAM);
        known |= [JSON, "application/*", "*/*"].iter().any(|ours| range.eq_ignore_ascii_case(ours));
    }
    (known || accepts_event_stream).then_some(ClientAccept { accepts_event_stream })
}

/// Returns the media ranges of an `Accept` value that are not excluded with `q=0` (RFC 9110 section
/// 12.5.1).
fn media_ranges(accept: &str) -> impl Iterator<Item = &str> {
    accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next()?;
        let excluded = parts.any(|parameter| {
            let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
            weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
        });
        (!excluded).then_some(essence)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case(JSON)
}

/// The parts of a request that are needed to explain a refusal.
#[derive(Debug)]
pub(crate) struct RequestSnapshot {
    body: Bytes,
    version: Option<HeaderValue>,
}

impl RequestSnapshot {
    pub(crate) fn from_request(request: &Request<Bytes>) -> Self {
        Self { body: request.body().clone(), version: request.headers().get(VERSION_HEADER).cloned() }
    }

    /// Turns a refusal of rmcp in plain text into a JSON-RPC error; other responses only become
    /// uncacheable.
    pub(crate) async fn explain_rejection(self, response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let mut response = if is_plain_text_error(&response) {
            let text = read_text(response).await;
            self.to_rpc_error(status, &text).into_response()
        } else {
            response
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn to_rpc_error(&self, status: StatusCode, text: &str) -> RpcError {
        match status {
            // rmcp answers 415 to a body that is not a message; the header was checked before.
            StatusCode::UNSUPPORTED_MEDIA_TYPE => parse_error(&self.body),
            StatusCode::BAD_REQUEST if self.has_unknown_version() => self.unsupported_version(),
            _ if status.is_server_error() => {
                RpcError::new(status, INTERNAL_ERROR, "The server could not answer; try again")
            }
            _ => {
                let (_, reason) = text.split_once(": ").unwrap_or(("", text));
                RpcError::new(status, INVALID_REQUEST, reason)
            }
        }
    }

    fn has_unknown_version(&self) -> bool {
        self.version.as_ref().is_some_and(|version| {
            PROTOCOL_VERSIONS.iter().all(|known| known.as_str().as_bytes() != version.as_bytes())
        })
    }

    fn unsupported_version(&self) -> RpcError {
        let requested = self.version.as_ref().map(|version| String::from_utf8_lossy(version.as_bytes()));
        let supported: Vec<&str> = PROTOCOL_VERSIONS.iter().map(|version| version.as_str()).collect();
        let message = "Unsupported protocol version";
        let mut fault = RpcError::new(StatusCode::BAD_REQUEST, UNSUPPORTED_VERSION, message);
        fault.data = Some(json!({ "supported": supported, "requested": requested }));
        fault.id = message_id(&serde_json::from_slice(&self.body).unwrap_or_default());
        fault
    }
}

fn is_plain_text_error(response: &Response<Body>) -> bool {
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    is_error
        && response
            .headers()
            .get(CONTENT_TYPE)
            .is_none_or(|kind| !kind.as_bytes().starts_with(JSON.as_bytes()))
}

async fn read_text(response: Response<Body>) -> String {
    let Ok(body) = response.into_body().collect().await;
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

/// Describes why a body is not a message (JSON-RPC 2.0 section 5.1; MCP dropped batches with
/// 2025-06-18).
fn parse_error(body: &[u8]) -> RpcError {
    let (code, message) = match serde_json::from_slice(body) {
        Err(error) => {
            (PARSE_ERROR, format!("The body is not JSON (line {}, column {})", error.line(), error.column()))
        }
        Ok(Value::Array(_)) => {
            (INVALID_REQUEST, "Batches are not supported; send one message per request".into())
        }
        Ok(Value::Object(message)) if message.get("id").is_some_and(Value::is_null) => {
            (INVALID_REQUEST, "The id must be a string or a number, not null".into())
        }
        Ok(value) => {
            let (code, message) = match value.get("params") {
                Some(params) if value["method"].is_string() && !params.is_object() && !params.is_null() => {
                    (INVALID_PARAMS, "The params must be an object, each parameter by its name")
                }
                _ => (INVALID_REQUEST, "The body is JSON, but not a JSON-RPC 2.0 message"),
            };
            let id = message_id(&value);
            return RpcError { id, ..RpcError::new(StatusCode::BAD_REQUEST, code, message) };
        }
    };
    RpcError::new(StatusCode::BAD_REQUEST, code, message)
}

/// Returns the id of a message, if it has a valid one.
fn message_id(message: &Value) -> Value {
    message.get("id").cloned().map_or(Value::Null, valid_id)
}

fn valid_id(id: Value) -> Value {
    if id.is_string() || id.is_number() { id } else { Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Option<ClientAccept> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().expect("a header value"));
        parse_accept(&headers)
    }

    #[test]
    fn only_clients_that_name_event_streams_get_one() {
        assert_eq!(
            accept("application/json, text/event-stream"),
            Some(ClientAccept { accepts_event_stream: true })
        );
        assert_eq!(accept("TEXT/Event-Stream"), Some(ClientAccept { accepts_event_stream: true }));
        assert_eq!(accept("*/*"), Some(ClientAccept { accepts_event_stream: false }));
        assert_eq!(accept("application/json;q=0.5"), Some(ClientAccept { accepts_event_stream: false }));
        assert_eq!(
            accept("application/json, text/event-stream;q=0"),
            Some(ClientAccept { accepts_event_stream: false })
        );
        assert_eq!(parse_accept(&HeaderMap::new()), Some(ClientAccept { accepts_event_stream: false }));
        assert_eq!(accept("text/plain"), None);
        assert_eq!(accept("application/json;q=0.0"), None);
    }

    #[test]
    fn origins_are_compared_as_text() {
        let known =
            ["https://app.example.com", "http://localhost:8080", "app://obsidian.md", "file://", "null"]
                .map(str::to_owned);
        let admitted = |origin: &'static str| {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            check_origin(&headers, &known).is_ok()
        };
        for ours in known.clone().map(|origin| &*origin.leak()) {
            assert!(admitted(ours), "{ours}");
        }
        assert!(admitted("https://app.example.com:443"));
        for foreign in [
            "https://evil.example",
            "http://app.example.com",
            "https://app.example.com:8443",
            "http://localhost",
            "http://localhost:80",
            "app://evil",
            "file://x",
            "",
            "NULL",
            "https://app.example.com.evil",
        ] {
            assert!(!admitted(foreign), "{foreign}");
        }
        assert!(check_origin(&HeaderMap::new(), &known).is_ok());
        let null = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("null"))]);
        assert!(check_origin(&null, &known[..4]).is_err());
    }

    #[test]
    fn a_message_that_would_take_much_memory_is_refused_before_it_does() {
        let sized =
            |body: String| check_bounds(&Bytes::from(body)).map_err(|rejection| rejection.status().as_u16());
        let message = |arguments: &str, meta: &str| {
            format!(r#"{{"id":7,"params":{{"arguments":{arguments},"_meta":{meta}}}}}"#)
        };
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert_eq!(sized(message(&zeros(9_900), "{}")), Ok(()));
        assert_eq!(sized(message(&zeros(10_001), "{}")), Err(400));
        assert_eq!(sized(message("{}", &zeros(10_001))), Err(400));
        assert_eq!(sized(message(&format!("\"{}\"", "x".repeat(100_000)), "{}")), Ok(()));
        assert_eq!(sized(message("{}", &format!("\"{}\"", "x".repeat(33_000)))), Err(400));
        let escaped = format!(r#"{{"params":{{"\u005fmeta":"{}"}}}}"#, "x".repeat(33_000));
        assert_eq!(sized(escaped), Err(400));
        assert_eq!(sized("[".repeat(100_000)), Ok(()), "rmcp says what is wrong with it");
    }

    #[test]
    fn an_unreadable_body_is_rejected_with_its_reason() {
        let told = |body: &str| {
            let fault = parse_error(body.as_bytes());
            (fault.code, fault.message, fault.id)
        };
        assert_eq!(told("{\"a\":").0, PARSE_ERROR);
        assert!(told("[]").1.contains("Batches"));
        assert!(told(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#).1.contains("not null"));
        assert_eq!(told(r#"{"id":7}"#), (INVALID_REQUEST, told(r#"{"id":7}"#).1, json!(7)));
    }
}
