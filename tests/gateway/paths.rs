//! Path confusion over real connections: no spelling of a path under tenant A's prefix reaches
//! tenant B.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{FakeBackend, Gateway, PATIENCE, Reply, Setup, Tenant};
use serde_json::json;

const BODY: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"q"}}}"#;

/// Request targets, and the tenants that may answer each: `a`, `b`, or none.
const TARGETS: &[(&str, &str)] = &[
    ("/a/mcp", "a"),
    ("/b/mcp", "b"),
    ("/a/mcp?x=/b/mcp", "a"),
    ("/a/b/mcp", "nested"),
    ("/A/mcp", ""),
    ("/ab/mcp", ""),
    ("/a/../b/mcp", ""),
    ("/a/./mcp", ""),
    ("/a/%2e%2e/b/mcp", ""),
    ("/a/%2E%2E/b/mcp", ""),
    ("/a/..%2fb/mcp", ""),
    ("/a%2f..%2fb/mcp", ""),
    ("/a/%252e%252e/b/mcp", ""),
    ("/%61/mcp", ""),
    ("/a//mcp", ""),
    ("//a/mcp", ""),
    ("//b/mcp", ""),
    ("/a/mcp/", "a"),
    ("/a/mcp/x/", ""),
    ("/a/mcp/../../b/mcp", ""),
    ("/a/mcp;x=/b/mcp", ""),
    ("/a;/mcp", ""),
    ("/a/;/../b/mcp", ""),
    ("/a\\..\\b\\mcp", ""),
    ("/a/%5c..%5cb/mcp", ""),
    ("/a/mcp%00", ""),
    ("/a/mcp%0d%0aHost:%20b", ""),
    ("/a/%c0%ae%c0%ae/b/mcp", ""),
    ("/a/\u{ff0e}\u{ff0e}/b/mcp", ""),
    ("/\u{ff41}/mcp", ""),
    ("http://localhost/b/mcp", ""),
    ("http://other.example/b/mcp", ""),
    ("*", ""),
    ("a/mcp", ""),
    // A fragment, which clients must not send, is cut off before routing.
    ("/a/mcp#/b", "a"),
];

async fn gateway() -> (Gateway, Vec<FakeBackend>) {
    let mut setup = Setup::new().flag("--tls", "off").settings("limits:\n  idle_seconds: 1\n");
    let mut backends = Vec::new();
    for (name, prefix) in [("a", "/a"), ("b", "/b"), ("nested", "/a/b")] {
        let backend = FakeBackend::start().await;
        backend
            .answer("/nlp-search", Reply::Json(json!({ "rows": [], "whose": format!("answer-of-{name}") })));
        let tenant = Tenant::new(name, &backend).with(&format!("path_prefix: {prefix}"));
        setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
        backends.push(backend);
    }
    (setup.start().await, backends)
}

/// Sends raw bytes and reads until the gateway closes the connection.
async fn exchange(gateway: &Gateway, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the connection ends").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(gateway: &Gateway, target: &str, host: &str) -> String {
    let length = BODY.len();
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{BODY}"
    );
    exchange(gateway, &request).await
}

#[tokio::test]
async fn every_spelling_reaches_its_own_tenant_or_nobody() {
    let (gateway, _backends) = gateway().await;
    for (target, whose) in TARGETS {
        let answer = ask(&gateway, target, "localhost").await;
        let answered: Vec<_> = ["a", "b", "nested"]
            .into_iter()
            .filter(|name| {
                answer.contains(&format!("answer-of-{name}\\\""))
                    || answer.contains(&format!("answer-of-{name}\""))
            })
            .collect();
        let expected: Vec<_> = (!whose.is_empty()).then_some(*whose).into_iter().collect();
        // An absolute-form target with the gateway's own host may be served, by the tenant that it
        // names.
        if target.starts_with("http://localhost") && answered == ["b"] {
            continue;
        }
        assert_eq!(answered, expected, "{target}: {answer}");
        if whose.is_empty() {
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(status.starts_with('4'), "{target} is refused by {status:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn requests_that_two_servers_might_read_differently_are_refused() {
    let (gateway, _backends) = gateway().await;
    let post = "POST /a/mcp HTTP/1.1\r\nContent-Type: application/json\r\n";
    let smuggled = "GET /b/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (what, request) in [
        ("two hosts", format!("{post}Host: localhost\r\nHost: b\r\nContent-Length: 0\r\n\r\n")),
        ("no host", format!("{post}Content-Length: 0\r\n\r\n")),
        ("another's host", format!("{post}Host: b.example\r\nContent-Length: 0\r\n\r\n")),
        (
            "two lengths",
            format!("{post}Host: localhost\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello"),
        ),
        (
            "length and chunks",
            format!(
                "{post}Host: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "an odd coding",
            format!("{post}Host: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a body where none belongs",
            format!(
                "GET /a/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}",
                smuggled.len()
            ),
        ),
    ] {
        let answer = exchange(&gateway, &request).await;
        let statuses = answer.matches("HTTP/1.1 ").count();
        assert_eq!(statuses, 1, "{what}: answered {statuses} times: {answer}");
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        assert!(!answer.contains("The b data"), "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_tenants_own_host_serves_it_alone() {
    let backend = FakeBackend::start().await;
    let own = Tenant::new("own", &backend).with("hosts: [own.example]");
    let setup = Setup::new().flag("--tls", "off").file("own.yaml", own.yaml());
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let data = ask(&gateway, "/mcp", "own.example").await;
    let prefixed = ask(&gateway, "/own/mcp", "own.example").await;
    assert!(data.contains("north") || prefixed.contains("north"), "{data}\n{prefixed}");
    let strange = ask(&gateway, "/a/mcp", "own.example").await;
    assert!(strange.starts_with("HTTP/1.1 4") && !strange.contains("north"), "{strange}");
    assert!(ask(&gateway, "/a/mcp", "localhost").await.contains("north"));
}

#[tokio::test]
async fn a_root_tenant_takes_what_is_left_but_nothing_reserved() {
    let backend = FakeBackend::start().await;
    let root = Tenant::new("root", &backend).with("path_prefix: /");
    let setup = Setup::new().flag("--tls", "off").file("root.yaml", root.yaml());
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    assert!(ask(&gateway, "/mcp", "localhost").await.contains("north"));
    assert!(ask(&gateway, "/a/mcp", "localhost").await.contains("north"));
    for reserved in ["/healthz/mcp", "/.well-known/mcp", "/-/reload"] {
        let answer = ask(&gateway, reserved, "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("north"), "{reserved}: {answer}");
    }
}
