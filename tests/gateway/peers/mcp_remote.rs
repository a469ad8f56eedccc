//! `mcp-remote`, a proxy that logs in on behalf of programs that cannot, as Claude Desktop runs it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::cache;
use super::login::Stage;
use crate::harness::backend::rows;
use crate::harness::secret::{self, secret};
use crate::harness::{FakeBackend, Gateway, PATIENCE, Setup, Tenant};

/// The running proxy. Its output contains no secret.
struct Proxy {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<tokio::process::ChildStderr>>,
    _child: Child,
}

impl Proxy {
    fn start(gateway: &Gateway, tenant: &str, home: &std::path::Path, further: &[&str]) -> Self {
        let url = format!("{}/{tenant}/mcp", gateway.base());
        let mut child = Command::new(cache::node())
            .arg(cache::package("mcp-remote/dist/proxy.js"))
            .args([&url, "--transport", "http-only"])
            .args(further)
            .env_clear()
            .env("HOME", home)
            .env("MCP_REMOTE_CONFIG_DIR", home)
            .env("NODE_EXTRA_CA_CERTS", gateway.ca().expect("a CA of its own"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        Self {
            requests: child.stdin.take().expect("it is piped"),
            answers: BufReader::new(child.stdout.take().expect("it is piped")).lines(),
            complaints: BufReader::new(child.stderr.take().expect("it is piped")).lines(),
            _child: child,
        }
    }

    /// Returns the URL that it would open in a browser.
    async fn asks_for_a_login(&mut self) -> String {
        self.complains_of("/authorize?").await
    }

    /// The next line of its complaints that has these words in it.
    async fn complains_of(&mut self, words: &str) -> String {
        loop {
            let line = next(&mut self.complaints, words).await;
            if line.contains(words) {
                return line;
            }
        }
    }

    async fn tell(&mut self, message: Value) {
        self.requests.write_all(format!("{message}\n").as_bytes()).await.expect("it reads");
    }

    /// Sends a request and returns its result.
    async fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.tell(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        loop {
            let line = next(&mut self.answers, method).await;
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if answer["id"] == id {
                return answer["result"].clone();
            }
        }
    }
}

async fn next(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>, what: &str) -> String {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.unwrap_or_else(|_| panic!("mcp-remote does not come to {what}"));
    let line = line.expect("text").unwrap_or_else(|| panic!("mcp-remote ended before {what}"));
    secret::assert_none("mcp-remote", &line);
    line
}

#[tokio::test]
async fn mcp_remote_logs_in_for_a_program_that_cannot() {
    let stage = Stage::start(&["acme"], "").await;
    let home = tempfile::tempdir().expect("a folder");
    let mut proxy = Proxy::start(&stage.gateway, "acme", home.path(), &[]);
    let authorize = proxy.asks_for_a_login().await;
    // It requests scopes that have no meaning here, and is served.
    let callback = stage.log_in(&authorize).await;
    assert!(callback.starts_with("http://localhost:"), "{callback}");
    let told = reqwest::Client::builder().no_proxy().build().expect("a client").get(callback).send().await;
    assert_eq!(told.expect("it listens").status(), 200);
    let hello = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    });
    let hello = proxy.ask(1, "initialize", hello).await;
    assert_eq!(hello["protocolVersion"], "2025-11-25", "{hello}");
    proxy.tell(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    let call = json!({ "name": "search", "arguments": { "query": "q" } });
    let answer = proxy.ask(2, "tools/call", call).await;
    assert_eq!(answer["structuredContent"]["data"], rows(), "{answer}");
}

/// It takes a 401 for a login that is needed, and its last words are about a registration that nobody offers.
#[tokio::test]
async fn mcp_remote_with_a_wrong_key_ends_with_words_about_the_key() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("acme", &backend)
        .with(&format!("api_keys:\n  - label: peers\n    key: {}", secret("caller")));
    let gateway = Setup::new().file("acme.yaml", tenant.yaml()).start().await;
    gateway.until_state("acme", "serving").await;
    let home = tempfile::tempdir().expect("a folder");
    let mut proxy = Proxy::start(&gateway, "acme", home.path(), &["--header", "Authorization:Bearer wrong"]);
    proxy.complains_of("this means that the key is missing or wrong").await;
}
