//! A client of the gateway with full control over its requests.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method};
use serde_json::{Value, json};

use super::PATIENCE;
use super::secret;

/// A protocol era of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25: `initialize`, then requests.
    Legacy,
    /// 2026-07-28: no handshake; routing headers and `_meta` with every request.
    Modern,
}

/// An HTTP and MCP client of one gateway.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Client {
    /// Returns a client that resolves `localhost` and the host of `base` to `address`.
    pub(crate) fn new(base: &str, address: SocketAddr, ca: Option<&Path>) -> Self {
        Self::built(base, address, ca, |builder| builder)
    }

    /// The same, with changes to the client's configuration.
    pub(crate) fn built(
        base: &str,
        address: SocketAddr,
        ca: Option<&Path>,
        wishes: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Self {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .resolve("localhost", address)
            .resolve(&host_of(base), address)
            .redirect(Policy::none());
        if let Some(ca) = ca {
            let pem = fs::read(ca).expect("the CA's certificate is there");
            builder = builder.tls_certs_only([Certificate::from_pem(&pem).expect("a certificate")]);
        }
        let http = wishes(builder).build().expect("a client");
        Self { http, base: base.to_owned(), headers: HeaderMap::new() }
    }

    /// Returns the HTTP client, for tests that bring their own MCP client.
    pub(crate) fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// Adds a header to every request.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers
            .insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// Adds a Bearer credential to every request.
    pub(crate) fn bearer(self, key: &str) -> Self {
        self.with("authorization", &format!("Bearer {key}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        read(self.request(Method::GET, path).send().await.expect("an answer")).await
    }

    /// Returns the gateway's base URL, e.g. `https://localhost:8443`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Starts a request that the test completes.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).headers(self.headers.clone())
    }

    /// Builds a JSON-RPC request in the form of an era.
    pub(crate) fn ask(&self, era: Era, path: &str, method: &str, params: Value) -> reqwest::RequestBuilder {
        let request = self
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        match era {
            // `initialize` negotiates the version, so it carries no version header.
            Era::Legacy if method == "initialize" => request.body(message(method, params)),
            Era::Legacy => request.header("mcp-protocol-version", "2025-11-25").body(message(method, params)),
            Era::Modern => {
                let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
                let request =
                    request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
                let request =
                    name.into_iter().fold(request, |request, name| request.header("mcp-name", name));
                request.body(message(method, with_meta(params)))
            }
        }
    }

    /// Sends a JSON-RPC request and reads the response.
    pub(crate) async fn rpc(&self, era: Era, path: &str, method: &str, params: Value) -> Answer {
        read(self.ask(era, path, method, params).send().await.expect("an answer")).await
    }

    /// Calls the search tool of the tenant at a prefix.
    pub(crate) async fn search(&self, era: Era, prefix: &str, query: &str) -> Answer {
        let params = json!({ "name": "search", "arguments": { "query": query } });
        self.rpc(era, &format!("{prefix}/mcp"), "tools/call", params).await
    }
}

fn message(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

fn with_meta(mut params: Value) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    match &mut params["_meta"] {
        Value::Object(own) => own.extend(meta.as_object().cloned().unwrap_or_default()),
        empty => *empty = meta,
    }
    params
}

fn host_of(base: &str) -> String {
    let url = url::Url::parse(base).expect("a base URL");
    url.host_str().expect("it has a host").to_owned()
}

/// Reads a response to its end and asserts that it contains no secret.
pub(crate) async fn read(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("the answer's end");
    secret::assert_none("an answer", &text);
    secret::assert_none("an answer's headers", &format!("{headers:?}"));
    Answer { status, headers, text }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the JSON body, or the JSON of a stream's last event.
    pub(crate) fn json(&self) -> Value {
        let last = self.text.lines().rev().find_map(|line| line.strip_prefix("data:"));
        let text = match self.header("content-type").starts_with("text/event-stream") {
            true => last.unwrap_or_else(|| panic!("a stream without an event: {}", self.text)),
            false => &self.text,
        };
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Returns the result of a JSON-RPC response.
    pub(crate) fn result(&self) -> Value {
        let json = self.json();
        assert!(self.status == 200 && json["result"].is_object(), "no result: {} {json}", self.status);
        json["result"].clone()
    }

    /// Returns the structured content of a successful tool call.
    pub(crate) fn data(&self) -> Value {
        let result = self.result();
        assert_ne!(result["isError"], true, "the tool failed: {result}");
        result["structuredContent"]["data"].clone()
    }

    /// Returns the sentence of a failed tool call.
    pub(crate) fn tool_error(&self) -> String {
        let result = self.result();
        assert_eq!(result["isError"], true, "the tool succeeded: {result}");
        result["content"][0]["text"].as_str().expect("a text").to_owned()
    }
}
