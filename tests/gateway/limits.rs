//! Caps and deadlines of the public edge, over real connections.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::harness::client::read;
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, PATIENCE, Setup, Tenant, until};

#[tokio::test]
async fn a_body_over_the_tenants_cap_is_refused() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  max_request: 4k");
    let gateway = Setup::new().file("a.yaml", tenant.yaml()).start().await;
    let client = gateway.client();
    assert_eq!(client.search(Era::Modern, "/a", &"x".repeat(3_000)).await.status, 200);
    let refused = client.search(Era::Modern, "/a", &"x".repeat(5_000)).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    assert_eq!(refused.json()["jsonrpc"], "2.0", "{refused:?}");
}

/// Sends the head of a search request and the first `sent` bytes of its body of `length` bytes.
pub(super) async fn begin_request(address: SocketAddr, sent: usize, length: usize) -> TcpStream {
    let head = format!(
        "POST /a/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&vec![b' '; sent]).await.expect("sent");
    stream
}

/// Reads the head of the next response.
pub(super) async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 2_048];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer in time");
    String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned()
}

#[tokio::test]
async fn a_flood_of_large_requests_gets_no_more_memory_than_it_may_have() {
    const LENGTH: usize = 700_000;
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  max_request: 1m");
    let setup = Setup::new().settings("limits:\n  request_memory_mib: 8\n").flag("--tls", "off");
    let gateway = setup.file("a.yaml", tenant.yaml()).start().await;
    let refused = async || {
        let mut other = begin_request(gateway.address(), LENGTH, LENGTH).await;
        answer(&mut other).await.starts_with("HTTP/1.1 503")
    };
    // Two requests that arrive together may both be refused, each because of the other. A third
    // request then finds room.
    let mut first = until("one has the room", async || {
        let first = begin_request(gateway.address(), LENGTH - 1, LENGTH).await;
        (refused().await && refused().await && refused().await).then_some(first)
    })
    .await;
    for _ in 0..20 {
        let mut other = begin_request(gateway.address(), LENGTH, LENGTH).await;
        let refused = answer(&mut other).await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1\r\n"), "{refused}");
    }
    let small = gateway.client().search(Era::Modern, "/a", "q").await;
    assert_eq!(small.status, 200, "there is room for small ones");
    assert_eq!(gateway.output().matches("refused for lack of memory").count(), 1, "{}", gateway.output());
    first.write_all(b" ").await.expect("sent");
    assert!(answer(&mut first).await.starts_with("HTTP/1.1 400"), "blanks are no JSON");
    let mut next = begin_request(gateway.address(), LENGTH, LENGTH).await;
    assert!(answer(&mut next).await.starts_with("HTTP/1.1 400"), "there is room again");
}

#[tokio::test]
async fn a_scanner_does_not_fill_the_log() {
    let gateway = Setup::new().variable("TENANTD_LOG_FILTER", "tenantd=debug").start().await;
    for _ in 0..100 {
        let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
        stream.write_all(b"\x16\x03\x01\x00\x04scan").await.expect("sent");
        let _reset = stream.read_to_end(&mut Vec::new()).await;
    }
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(metrics.contains(r#"tenantd_connections_refused_total{reason="handshake"} 100"#), "{metrics}");
    let lines = gateway.output().matches("the TLS handshake failed").count();
    assert!((1..20).contains(&lines), "{lines} lines for 100 handshakes");
}

#[tokio::test]
async fn a_caller_has_so_many_requests_a_minute_and_neighbours_others() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  requests_per_minute: 3");
    let setup = Setup::new().file("a.yaml", tenant.yaml());
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    let client = gateway.client();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(client.search(Era::Modern, "/a", "q").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = client.search(Era::Legacy, "/a", "q").await;
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    assert_eq!(client.search(Era::Modern, "/b", "q").await.status, 200);
}

#[tokio::test]
async fn a_client_that_dawdles_is_cut() {
    let settings = "limits:\n  header_seconds: 1\n  handshake_seconds: 1\n  idle_seconds: 1\n";
    let plain = Setup::new().settings(settings).flag("--tls", "off").start().await;
    let secure = Setup::new().settings(settings).start().await;
    for (what, address, bytes) in [
        ("half a header", plain.address(), &b"GET / HTTP/1.1\r\nHost: local"[..]),
        ("nothing", plain.address(), b""),
        ("no handshake", secure.address(), b""),
        ("half a handshake", secure.address(), b"\x16\x03\x01\x02\x00\x01"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "{what} is waited for without end");
    }
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let settings = "limits:\n  connections_per_ip: 3\n";
    let gateway = Setup::new().settings(settings).flag("--tls", "off").start().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(gateway.address()).await.expect("connected"));
    }
    until("all are counted", async || {
        gateway.admin("/metrics").await.1.contains("\ntenantd_connections 3\n").then_some(())
    })
    .await;
    let mut fourth = TcpStream::connect(gateway.address()).await.expect("the kernel accepts");
    let ended = tokio::time::timeout(PATIENCE, fourth.read(&mut [0])).await.expect("it is cut");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    drop(held);
    until("there is room again", async || {
        let answer = gateway.client().request(Method::GET, "/nothing").send().await;
        answer.ok().filter(|answer| answer.status() == 404)
    })
    .await;
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let gateway = Setup::new().flag("--tls", "off").start().await;
    for (what, head) in [
        ("a long header", format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(1 << 20))),
        ("many headers", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(5_000))),
    ] {
        let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
        stream.write_all(head.as_bytes()).await.expect("what is refused is taken all the same");
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_gets_a_json_rpc_error() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let post = |body: &str, version: &str| {
        gateway
            .client()
            .request(Method::POST, "/a/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", version.to_owned())
            .body(body.to_owned())
            .send()
    };
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    for (body, version) in [
        ("{", "2025-11-25"),
        ("", "2025-11-25"),
        ("[]", "2025-11-25"),
        ("null", "2025-11-25"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#, "2025-11-25"),
        (list.as_str(), "1999-01-01"),
        (list.as_str(), "2026-07-28"),
        (&"[".repeat(100_000), "2025-11-25"),
    ] {
        let answer = read(post(body, version).await.expect("an answer")).await;
        let start: String = body.chars().take(40).collect();
        assert_eq!(answer.status, 400, "{start} {version}: {answer:?}");
        assert!(answer.json()["error"]["code"].is_i64(), "{start} {version}: {answer:?}");
    }
}

/// What clients that send all of a request before they read anything find then. They send slowly, so that what was closed
/// meanwhile shows: the kernel takes 3 MB at once whoever is there.
async fn read_at_last(address: SocketAddr, head: &str, body: usize) -> String {
    let (host, length) = ("Host: localhost\r\n", format!("Content-Length: {body}\r\n"));
    let request = [format!("{head}\r\n{host}{length}\r\n").as_bytes(), &vec![b'x'; body]].concat();
    let mut stream = TcpStream::connect(address).await.expect("connected");
    for piece in request.chunks(request.len() / 4) {
        let writing = tokio::time::timeout(PATIENCE, stream.write_all(piece)).await.expect("in time");
        writing.unwrap_or_else(|error| panic!("{}: cut while sending: {error}", &head[..20]));
        // The pace of the client, which is what is tested.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    answer(&mut stream).await
}

#[tokio::test]
async fn every_refusal_is_read_by_who_is_still_sending() {
    let backend = FakeBackend::start().await;
    let keyed =
        Tenant::new("k", &backend).with(&format!("api_keys:\n  - label: ann\n    key: {}", secret("ann")));
    let plain = Setup::new().flag("--tls", "off").file("k.yaml", keyed.yaml());
    let plain = plain.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let secure = Setup::new().flag("--listen-http", "127.0.0.1:0").start().await;
    let (open, encrypted, redirect, admin) =
        (plain.address(), secure.address(), secure.plain_address(), plain.admin_address());
    let long = format!("POST /a/mcp HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let cases = [
        ("no credential", open, "POST /k/mcp HTTP/1.1", "401"),
        ("too large", open, "POST /a/mcp HTTP/1.1", "413"),
        ("nothing there", open, "POST /nobody/mcp HTTP/1.1", "404"),
        ("ambiguous", open, "POST /a/../mcp HTTP/1.1", "400"),
        ("a GET with a body", open, "GET /a/mcp HTTP/1.1", "400"),
        ("no request", open, "POST /a/mcp HTTP/7", "400"),
        ("a head that is too long", open, &long, "431"),
        ("plain HTTP to the port of TLS", encrypted, "POST /a/mcp HTTP/1.1", "400"),
        ("to the port that leads to TLS", redirect, "POST /a/mcp HTTP/1.1", "308"),
        (
            "the admin listener, by a web page",
            admin,
            "PUT /api/files/x.zip HTTP/1.1\r\nOrigin: http://x",
            "403",
        ),
        ("the admin listener, no such order", admin, "POST /api/nothing HTTP/1.1", "405"),
    ];
    let reading = cases.map(async |(what, address, head, status)| {
        let answer = read_at_last(address, head, 3_000_000).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    });
    futures_util::future::join_all(reading).await;
}

#[tokio::test]
async fn who_waits_to_be_asked_for_a_body_is_not_asked_for_one_that_is_refused() {
    let gateway = Setup::new().flag("--tls", "off").start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let head =
        "POST /nobody/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close\r\n"), "{answer}");
}

/// What a listener says that has no room, once a minute.
const NO_ROOM: &str = "connections cannot be accepted";

/// Limits a process to `more` file descriptors above those it has open now.
fn leave_files(pid: u32, more: usize) {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count();
    let status =
        Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={}:", open + more)]).status();
    assert!(status.expect("prlimit (util-linux) is installed").success());
}

/// A connection to the admin listener that was opened while there were file descriptors left.
struct MetricsConnection {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    _connection: JoinSet<Result<(), hyper::Error>>,
}

impl MetricsConnection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let mut running = JoinSet::new();
        running.spawn(connection);
        let mut connection = Self { sender, host: address.to_string(), _connection: running };
        connection.accept_errors().await;
        connection
    }

    /// Returns how many connections could not be accepted.
    async fn accept_errors(&mut self) -> u64 {
        let request = http::Request::get("/metrics").header(http::header::HOST, &self.host);
        let request = request.body(Empty::new()).expect("a request");
        self.sender.ready().await.expect("the connection is kept alive");
        let response = self.sender.send_request(request).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("text");
        let count = text.lines().find_map(|line| {
            line.strip_prefix(r#"tenantd_connections_refused_total{reason="accept_error"} "#)?.parse().ok()
        });
        count.unwrap_or(0)
    }

    async fn until_accept_errors(&mut self, count: u64) {
        until("connections cannot be accepted", async || (self.accept_errors().await >= count).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn a_gateway_without_a_file_descriptor_left_waits_and_recovers() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().flag("--tls", "off");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.status, 200);
    let mut metrics_connection = MetricsConnection::open(gateway.admin_address()).await;
    leave_files(gateway.pid(), 8);
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(gateway.address()).await.expect("the kernel accepts"));
    }
    until("it complains", async || gateway.output().contains(NO_ROOM).then_some(())).await;
    gateway.put("b.yaml", Tenant::new("b", &backend).yaml());
    metrics_connection.until_accept_errors(2).await;
    assert_eq!(gateway.output().matches(NO_ROOM).count(), 1, "one line, not one a failure");
    drop(held);
    let client = gateway.client();
    for tenant in ["/a", "/b"] {
        until("it is served", async || {
            (client.search(Era::Modern, tenant, "q").await.status == 200).then_some(())
        })
        .await;
    }
    let (_, metrics) = gateway.admin("/metrics").await;
    let failures = metrics.lines().find_map(|line| {
        line.strip_prefix(r#"tenantd_connections_refused_total{reason="accept_error"} "#)?.parse::<u64>().ok()
    });
    assert!(failures.is_some_and(|count| count > 1), "{metrics}");
    assert!(!gateway.output().contains("tenant removed"), "{}", gateway.output());
}

#[tokio::test]
async fn each_listener_says_once_that_there_is_no_room() {
    let gateway = Setup::new().flag("--listen-http", "127.0.0.1:0").start().await;
    let listeners = [gateway.address(), gateway.plain_address(), gateway.admin_address()];
    let mut metrics_connection = MetricsConnection::open(gateway.admin_address()).await;
    leave_files(gateway.pid(), 0);
    let mut held = Vec::new();
    for address in listeners {
        held.push(TcpStream::connect(address).await.expect("the kernel accepts"));
    }
    let complaints = || gateway.output().matches(NO_ROOM).count();
    until("all complain", async || (complaints() == 3).then_some(())).await;
    // Each listener fails about as often as the others.
    metrics_connection.until_accept_errors(9).await;
    assert_eq!(complaints(), 3, "{}", gateway.output());
    for address in listeners {
        assert!(gateway.output().contains(&format!(r#""listener":"{address}""#)), "{}", gateway.output());
    }
}

#[tokio::test]
async fn few_open_files_mean_few_connections_and_are_said() {
    let gateway = Setup::new().open_files(264).start().await;
    assert!(gateway.output().contains(r#""connections":160"#), "{}", gateway.output());
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).expect("its limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(files.split_whitespace().nth(3), Some("264"), "the soft limit is raised: {files}");
}
