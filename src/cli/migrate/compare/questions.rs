//! What every client asks a server first: its discovery documents (RFC 8414, RFC 9728, OpenID
//! Connect Discovery), `initialize` and `tools/list`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use url::Url;

use crate::backend::{self, FetchedResponse, Pool};
use crate::base::secret::Secret;

/// The version that both servers are asked for; each answers with its own.
const PROTOCOL: &str = "2025-06-18";
const SESSION: &str = "mcp-session-id";
const MAX_PAGES: usize = 20;
const DOCUMENTS: [&str; 3] =
    ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"];

/// What one server answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The discovery documents by their paths, in which `{prefix}` stands for the prefix; `None`
    /// where there is none.
    pub(super) discovery: BTreeMap<String, Option<Value>>,
    /// The status of the first POST without a token.
    pub(super) without_token: Option<StatusCode>,
    pub(super) initialize: Option<Value>,
    /// The tools by name.
    pub(super) tools: Option<BTreeMap<String, Value>>,
    /// Why the server gave no tools, in words for people.
    pub(super) refusal: Option<String>,
    /// Why it gave no answer at all.
    pub(super) unreachable: Option<String>,
}

/// Asks one server.
pub(super) struct Asker {
    pool: Pool,
    connector: Url,
    token: Option<Secret>,
    patience: Duration,
    session: Option<String>,
    protocol: Option<String>,
}

impl Asker {
    pub(super) fn new(pool: Pool, connector: Url, token: Option<Secret>, patience: Duration) -> Self {
        Self { pool, connector, token, patience, session: None, protocol: None }
    }

    /// Asks everything.
    pub(super) async fn ask(mut self) -> Answers {
        let mut answers = Answers::default();
        if let Err(why) = self.ask_into(&mut answers).await {
            answers.unreachable = Some(why);
        }
        answers
    }

    async fn ask_into(&mut self, answers: &mut Answers) -> Result<(), String> {
        for (pattern, path) in discovery_paths(self.prefix()) {
            let document = self.document(&path).await?;
            answers.discovery.insert(pattern, document);
        }
        let initialize = json!({
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": {"name": "tenantd migrate", "version": env!("CARGO_PKG_VERSION")},
        });
        let token = self.token.take();
        let response = self.post("initialize", Some(1), &initialize).await?;
        answers.without_token = Some(response.status);
        self.token = token;
        let response = match self.token.is_some() {
            true => self.post("initialize", Some(1), &initialize).await?,
            false => response,
        };
        let result = match read_result(&response) {
            Ok(result) => result,
            Err(why) => {
                answers.refusal = Some(why);
                return Ok(());
            }
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.session = response.headers.get(SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
        self.protocol = result.get("protocolVersion").and_then(text);
        answers.initialize = Some(result);
        self.post("notifications/initialized", None, &json!({})).await?;
        match self.tools().await? {
            Ok(tools) => answers.tools = Some(tools),
            Err(why) => answers.refusal = Some(why),
        }
        Ok(())
    }

    fn prefix(&self) -> &str {
        self.connector.path().trim_end_matches("/mcp")
    }

    /// Fetches a discovery document; `None` if there is none.
    async fn document(&self, path: &str) -> Result<Option<Value>, String> {
        let mut url = self.connector.clone();
        url.set_path(path);
        let request = Request::builder().uri(url.as_str()).header(header::ACCEPT, "application/json");
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let response = self.send(request).await?;
        Ok(serde_json::from_slice(&response.body).ok().filter(|_| response.status == StatusCode::OK))
    }

    async fn tools(&self) -> Result<Result<BTreeMap<String, Value>, String>, String> {
        let (mut tools, mut cursor) = (BTreeMap::new(), None);
        for page in 0..MAX_PAGES {
            let parameters = cursor.map_or(json!({}), |cursor: Value| json!({ "cursor": cursor }));
            let response = self.post("tools/list", Some(2 + page), &parameters).await?;
            let result = match read_result(&response) {
                Ok(result) => result,
                Err(why) => return Ok(Err(why)),
            };
            for tool in result.get("tools").and_then(Value::as_array).into_iter().flatten() {
                let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
                tools.insert(name.to_owned(), tool.clone());
            }
            cursor = result.get("nextCursor").filter(|cursor| cursor.is_string()).cloned();
            if cursor.is_none() {
                break;
            }
        }
        Ok(Ok(tools))
    }

    async fn post(
        &self,
        method: &str,
        id: Option<usize>,
        parameters: &Value,
    ) -> Result<FetchedResponse, String> {
        let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": parameters });
        if let Some(id) = id {
            message["id"] = json!(id);
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.connector.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if let Some(session) = &self.session {
            request = request.header(SESSION, session);
        }
        if let Some(protocol) = &self.protocol {
            request = request.header("mcp-protocol-version", protocol);
        }
        let request = request.body(Full::new(Bytes::from(message.to_string())));
        self.send(request.map_err(|_| "the token has characters that no header can have".to_owned())?).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<FetchedResponse, String> {
        let is_enough =
            |headers: &HeaderMap, body: &[u8]| is_stream(headers) && response_in_stream(body).is_some();
        let fetched = backend::fetch(&self.pool, request, self.patience, is_enough).await;
        fetched.map_err(|error| match error {
            backend::Error::Untrusted => {
                "its certificate is not trusted here (SSL_CERT_FILE=certs/local-ca.pem names another CA)"
                    .to_owned()
            }
            backend::Error::TimedOut => "no answer in time".to_owned(),
            other => other.class().replace('_', " "),
        })
    }
}

/// Returns the paths at which clients look for a server's documents, behind and before its prefix,
/// each with what it is called for any prefix.
fn discovery_paths(prefix: &str) -> Vec<(String, String)> {
    let mut patterns = Vec::new();
    for name in DOCUMENTS {
        patterns.push(format!("/.well-known/{name}{{prefix}}"));
        if name == DOCUMENTS[0] {
            patterns.push(format!("/.well-known/{name}{{prefix}}/mcp"));
        }
        if !prefix.is_empty() {
            patterns.push(format!("{{prefix}}/.well-known/{name}"));
        }
    }
    let path = |pattern: &String| pattern.replace("{prefix}", prefix);
    patterns.iter().map(|pattern| (pattern.clone(), path(pattern))).collect()
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Returns the response among the complete events of a stream.
fn response_in_stream(body: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n");
    let (complete, _) = text.rsplit_once("\n\n")?;
    complete.split("\n\n").find_map(|event| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        let message: Value = serde_json::from_str(&data.join("\n")).ok()?;
        (message.get("result").is_some() || message.get("error").is_some()).then_some(message)
    })
}

fn read_result(response: &FetchedResponse) -> Result<Value, String> {
    if response.status == StatusCode::UNAUTHORIZED {
        return Err("it requires a credential (401)".to_owned());
    }
    if !response.status.is_success() {
        return Err(format!("it answered {}", response.status));
    }
    let message = match is_stream(&response.headers) {
        true => response_in_stream(&response.body),
        false => serde_json::from_slice(&response.body).ok(),
    };
    let message = message.ok_or("its answer is not one of MCP")?;
    let error = message.get("error").and_then(|error| error.get("message")).and_then(Value::as_str);
    match (message.get("result"), error) {
        (Some(result), _) => Ok(result.clone()),
        (None, error) => Err(format!("it answered: {}", error.unwrap_or("no result"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_asked_for_where_clients_look() {
        let paths = discovery_paths("/a");
        assert_eq!(paths.len(), 7);
        let is_asked = |path: &str| paths.iter().any(|(_, asked)| asked == path);
        assert!(is_asked("/.well-known/oauth-protected-resource/a/mcp"));
        assert!(is_asked("/a/.well-known/openid-configuration"));
        assert_eq!(discovery_paths("").len(), 4);
    }

    #[test]
    fn the_response_is_found_among_other_events() {
        let stream = b": x\n\nevent: message\ndata: {\"method\": \"a\"}\n\ndata: {\"result\":\ndata: \
                       {\"b\": 1}}\n\ndata: {";
        assert_eq!(response_in_stream(stream).expect("a response")["result"], json!({"b": 1}));
        assert!(response_in_stream(b"data: {\"result\": {}}\n").is_none(), "the event is not complete");
    }
}
