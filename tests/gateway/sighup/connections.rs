//! Limits of connections, and their deadlines, that change while the gateway runs.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};
use super::change;

/// Deadlines that no test waits for.
const LONG: [(&str, u64); 4] =
    [("body_seconds", 600), ("handshake_seconds", 600), ("header_seconds", 600), ("idle_seconds", 600)];

/// Returns settings in which all deadlines are long but one.
fn deadlines(short: Option<&str>) -> String {
    let line = |(name, seconds)| format!("  {name}: {}\n", if short == Some(name) { 1 } else { seconds });
    format!("limits:\n{}", LONG.map(line).concat())
}

/// Returns how many connections the gateway has.
async fn connection_count(gateway: &Gateway) -> usize {
    let (_, metrics) = gateway.admin("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("tenantd_connections "));
    line.and_then(|count| count.parse().ok()).expect("the metric is there")
}

#[tokio::test]
async fn the_limit_of_connections_falls_and_rises() {
    let gateway = Setup::new().settings("").flag("--tls", "off").start().await;
    let open = async || TcpStream::connect(gateway.address()).await.expect("connected");
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(open().await);
    }
    until("all are counted", async || (connection_count(&gateway).await == 6).then_some(())).await;
    change(&gateway, "limits: {connections: 3}\n");
    until("idle ones give way", async || {
        held.push(open().await);
        (connection_count(&gateway).await <= 3).then_some(())
    })
    .await;
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(metrics.contains(r#"tenantd_connections_refused_total{reason="gave_way"}"#), "{metrics}");
    change(&gateway, "limits: {connections: 100}\n");
    until("there is room again", async || {
        held.push(open().await);
        (connection_count(&gateway).await > 6).then_some(())
    })
    .await;
}

/// Returns whether a connection on which the client sends this and nothing more is cut.
async fn is_cut(gateway: &Gateway, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    stream.write_all(bytes).await.expect("sent");
    let mut rest = Vec::new();
    // A connection that began before the change has the long deadline: the next one is asked then.
    tokio::time::timeout(Duration::from_secs(6), stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn each_deadline_of_connections_is_shortened() {
    let backend = FakeBackend::start().await;
    let plain = Setup::new().settings(&deadlines(None)).flag("--tls", "off");
    let plain = plain.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let secure = Setup::new().settings(&deadlines(None)).start().await;
    let body = "POST /a/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Accept: application/json, text/event-stream\r\nContent-Length: 100\r\n\r\n{";
    for (gateway, name, bytes) in [
        (&plain, "header_seconds", &b"GET / HTTP/1.1\r\nHost: local"[..]),
        (&plain, "idle_seconds", b""),
        (&plain, "body_seconds", body.as_bytes()),
        (&secure, "handshake_seconds", b"\x16\x03\x01\x02\x00\x01"),
    ] {
        change(gateway, &deadlines(Some(name)));
        until(name, async || is_cut(gateway, bytes).await.then_some(())).await;
    }
}

#[tokio::test]
async fn the_time_to_finish_is_shortened() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().settings("limits: {drain_seconds: 600}\n");
    let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    backend.answer("/nlp-search", Reply::Hang);
    let (client, mut calls) = (gateway.client(), JoinSet::new());
    let call = client.ask(
        Era::Modern,
        "/a/mcp",
        "tools/call",
        serde_json::json!({
            "name": "search", "arguments": { "query": "q" },
        }),
    );
    calls.spawn(call.send());
    backend.until(|counts| counts.in_flight == 1).await;
    change(&gateway, "limits: {drain_seconds: 1}\n");
    until("it is in force", async || {
        gateway.output().contains("changed settings are in force").then_some(())
    })
    .await;
    gateway.signal("TERM");
    // A call that hangs would hold it up for ten minutes.
    gateway.until_ended().await;
}
