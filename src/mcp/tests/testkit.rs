//! A server with a backend that the test scripts, and a client that reads the responses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::backend::tests::fake::FakeBackend;
use crate::backend::{AddressRules, BackendClient, BackendState, Pool};
use crate::base::body::Body;
use crate::base::clock::{Clock, SystemClock};
use crate::base::secret::Secret;
use crate::mcp::timing::Timing;
use crate::mcp::{AuthMode, Caller, McpServer, McpServerConfig};
use crate::oauth::bearer::Principal;
use crate::spec::{
    BackendSpec, BodyTemplate, CallSpec, Family, LimitsSpec, TenantName, ToolKind, ToolSpec, UrlTemplate,
    UsageLimits,
};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::usage::Usage;

pub(super) const MODERN: &str = "2026-07-28";
pub(super) const KEY: &str = "canary-key-4711";
pub(super) const REQUEST_ID: &str = "r-4711";
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// The maximum time that a test waits for a response.
const PATIENCE: Duration = Duration::from_secs(10);

/// A backend, and the configuration of servers in front of it.
pub(super) struct McpTestkit {
    pub(super) backend: FakeBackend,
    pub(super) metrics: Arc<Metrics>,
    pool: Pool,
}

impl McpTestkit {
    pub(super) async fn new() -> Self {
        let backend = FakeBackend::start().await;
        let metrics = Arc::new(Metrics::new());
        let allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let rules = AddressRules { allow, ..AddressRules::default() };
        let pool = Pool::new(rules, SystemClock::shared(), metrics.clone()).expect("a pool");
        Self { backend, metrics, pool }
    }

    /// Returns the configuration of the tenant `acme` with both tools.
    pub(super) fn server_config(&self) -> McpServerConfig {
        McpServerConfig {
            tenant: TenantName::parse("acme").expect("a name"),
            dataset: "acme orders".into(),
            title: "Acme".into(),
            description: Some("Orders of Acme.".into()),
            instructions: None,
            tools: Arc::new([
                self.tool("search", ToolKind::Search, "/nlp-search"),
                self.tool("get_context", ToolKind::Context, "/nlp-context"),
            ]),
            backend: self.client(),
            call_timeout: Duration::from_secs(30),
            slow_answers: Default::default(),
            icon_url: "https://mcp.example.com/acme/favicon.ico".into(),
            list_ttl: Duration::from_secs(60),
            max_result_bytes: 256 << 10,
            auth_mode: AuthMode::Open,
            allowed_hosts: None,
            allowed_origins: Arc::new(["https://app.example.com".to_owned()]),
            metrics: self.metrics.clone(),
            tracer: Default::default(),
            audit: Audit::disabled(),
            usage: Usage::new(SystemClock::shared())
                .meter(&TenantName::parse("acme").expect("a name"), UsageLimits::default()),
            clock: SystemClock::shared(),
        }
    }

    /// Returns a separate backend client, so that its breaker does not see other servers' failures.
    fn client(&self) -> Arc<BackendClient> {
        let context = CallSpec { method: Method::GET, body: None, ..self.asking("/nlp-context") };
        let spec = BackendSpec {
            family: Family::Nlp,
            connection_id: None,
            context: Arc::new(context),
            user_header: Some(HeaderName::from_static("x-user")),
            http2: false,
            data: Default::default(),
        };
        let ttl = Duration::from_secs(3600);
        let state = Arc::<BackendState>::default();
        Arc::new(BackendClient::new(self.pool.clone(), &spec, &LimitsSpec::default(), ttl, state))
    }

    fn asking(&self, path: &str) -> CallSpec {
        let body = r#"{"query": {{query}}, "limit": {{limit}}}"#;
        CallSpec {
            method: Method::POST,
            url: UrlTemplate::parse(&self.backend.url(path)).expect("a template"),
            headers: [(HeaderName::from_static("x-api-key"), Secret::new(KEY))].into(),
            body: Some(Arc::new(BodyTemplate::parse(body).expect("a body"))),
            constants: Default::default(),
        }
    }

    pub(super) fn tool(&self, name: &str, kind: ToolKind, path: &str) -> ToolSpec {
        let input = json!({
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 1},
                "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
                "topic": {"type": "string"},
            },
            "required": if kind == ToolKind::Search { vec!["query"] } else { vec![] },
            "additionalProperties": false,
        });
        let object = |value: Value| Arc::new(value.as_object().expect("an object").clone());
        ToolSpec {
            name: name.into(),
            title: name.into(),
            description: format!("Does {name}.").into(),
            input_schema: object(input),
            output_schema: object(json!({"type": "object"})),
            kind,
            call: Arc::new(self.asking(path)),
        }
    }

    /// Returns a server whose timers never fire within a test.
    pub(super) fn server(&self) -> McpServer {
        build_server(self.server_config(), slow_timing())
    }

    /// Returns a server that answers with a stream whenever a response has to wait.
    pub(super) fn impatient(&self) -> McpServer {
        build_server(self.server_config(), fast_timing())
    }
}

/// Timing without streams, however busy the machine is.
pub(super) fn slow_timing() -> Timing {
    Timing { stream_after: PATIENCE * 2, keep_alive_interval: PATIENCE, progress_interval: PATIENCE }
}

/// Timing with everything at once, so that a test need not wait for it.
pub(super) fn fast_timing() -> Timing {
    let moment = Duration::from_millis(5);
    Timing { stream_after: moment, keep_alive_interval: moment, progress_interval: moment }
}

pub(super) fn build_server(config: McpServerConfig, pace: Timing) -> McpServer {
    McpServer::with_timing(config, pace).expect("schemas without faults")
}

/// Builds a request of a client of 2026-07-28.
pub(super) fn modern(method: &str, params: Value) -> Request<Bytes> {
    let mut params = params;
    let meta = params.as_object_mut().expect("an object").entry("_meta").or_insert_with(|| json!({}));
    meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let name = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(str::to_owned);
    let mut request = post(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}));
    let headers = request.headers_mut();
    set(headers, "mcp-protocol-version", MODERN);
    set(headers, "mcp-method", method);
    if let Some(name) = name {
        set(headers, "mcp-name", &name);
    }
    request
}

/// Builds a request of a client of an era with a handshake.
pub(super) fn legacy(version: &str, method: &str, params: Value) -> Request<Bytes> {
    let mut request = post(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}));
    set(request.headers_mut(), "mcp-protocol-version", version);
    request
}

/// Builds a search of the modern era.
pub(super) fn search(query: &str) -> Request<Bytes> {
    call("search", json!({"query": query}))
}

pub(super) fn call(tool: &str, arguments: Value) -> Request<Bytes> {
    modern("tools/call", json!({"name": tool, "arguments": arguments}))
}

/// Builds a search whose client wants progress notifications.
pub(super) fn search_with_progress() -> Request<Bytes> {
    let params =
        json!({"name": "search", "arguments": {"query": "orders"}, "_meta": {"progressToken": "p-1"}});
    modern("tools/call", params)
}

pub(super) fn post(body: &Value) -> Request<Bytes> {
    post_text(&body.to_string())
}

pub(super) fn post_text(body: &str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from(body.to_owned()));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(HOST, HeaderValue::from_static("mcp.example.com"));
    request
}

pub(super) fn with(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    set(request.headers_mut(), name, value);
    request
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, value.parse().expect("a header value"));
}

pub(super) fn caller() -> Caller {
    Caller {
        principal: Principal::Anonymous,
        request_id: REQUEST_ID.to_owned(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        started: SystemClock.monotonic(),
    }
}

/// A response that is one JSON text.
#[derive(Debug)]
pub(super) struct RpcAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl RpcAnswer {
    pub(super) fn result(&self) -> &Value {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.body["id"], 7, "{}", self.body);
        self.body.get("result").unwrap_or_else(|| panic!("no result: {}", self.body))
    }

    /// Returns status and JSON-RPC code of an error.
    pub(super) fn error(&self) -> (u16, i64) {
        let code = self.body["error"]["code"].as_i64();
        (self.status.as_u16(), code.unwrap_or_else(|| panic!("no error: {}", self.body)))
    }

    pub(super) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    /// Returns the text of a tool result, and whether it is an error.
    pub(super) fn text_and_error_flag(&self) -> (String, bool) {
        text_and_error_flag(self.result())
    }

    pub(super) fn signed_by(&self) -> &Value {
        &self.result()["_meta"][SERVER_INFO]["name"]
    }
}

pub(super) fn text_and_error_flag(result: &Value) -> (String, bool) {
    let blocks = result["content"].as_array().expect("content");
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    (texts.join("\n"), result["isError"] == true)
}

/// Sends a request and reads a JSON response.
pub(super) async fn ask(server: &McpServer, request: Request<Bytes>) -> RpcAnswer {
    ask_as(server, request, caller()).await
}

pub(super) async fn ask_as(server: &McpServer, request: Request<Bytes>, caller: Caller) -> RpcAnswer {
    let response = in_time(server.handle(request, caller)).await;
    let (parts, body) = response.into_parts();
    let bytes = in_time(body.collect()).await.expect("infallible").to_bytes();
    let kind = parts.headers.get(CONTENT_TYPE);
    let body = match kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        true => serde_json::from_slice(&bytes).expect("JSON"),
        false => panic!("{} {kind:?}, not JSON: {:?}", parts.status, bytes),
    };
    RpcAnswer { status: parts.status, headers: parts.headers, body }
}

/// Sends a request and reads the beginning of a stream.
pub(super) async fn open(server: &McpServer, request: Request<Bytes>) -> SseStream {
    open_as(server, request, caller()).await
}

pub(super) async fn open_as(server: &McpServer, request: Request<Bytes>, caller: Caller) -> SseStream {
    let response = in_time(server.handle(request, caller)).await;
    SseStream::of(response)
}

pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("waited in vain")
}

/// An event stream as a client sees it.
#[derive(Debug)]
pub(super) struct SseStream {
    pub(super) headers: HeaderMap,
    body: Body,
    unread: String,
}

/// One item of a stream.
#[derive(Debug, PartialEq)]
pub(super) enum SseItem {
    Comment,
    Message(Value),
}

impl SseStream {
    fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers[CONTENT_TYPE], "text/event-stream");
        Self { headers: parts.headers, body, unread: String::new() }
    }

    /// Returns the next item, or `None` at the end.
    pub(super) async fn next(&mut self) -> Option<SseItem> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let item = item(block);
                self.unread = rest.to_owned();
                match item {
                    Some(item) => return Some(item),
                    None => continue,
                }
            }
            let frame = in_time(self.body.frame()).await?.expect("infallible");
            let data = frame.into_data().expect("data");
            self.unread.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// Returns the next message, or `None` if the stream ends first.
    pub(super) async fn message(&mut self) -> Option<Value> {
        loop {
            if let SseItem::Message(message) = self.next().await? {
                return Some(message);
            }
        }
    }

    /// Returns all messages until the end.
    pub(super) async fn rest(mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
            assert!(messages.len() < 1000, "a stream without end");
        }
        messages
    }
}

fn item(block: &str) -> Option<SseItem> {
    let data = block.lines().filter_map(|line| line.strip_prefix("data:")).collect::<String>();
    match data.trim() {
        "" => block.starts_with(':').then_some(SseItem::Comment),
        data => Some(SseItem::Message(serde_json::from_str(data).expect("a JSON event"))),
    }
}
