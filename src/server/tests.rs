//! The edge over real sockets, without tenants: what it refuses, closes, counts and drains.

mod http2;
mod tenant;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Activity;
use super::precheck::RequestRejection;
use super::request::ConnInfo;
use super::tls::Protocol;
use super::{Listeners, Server, ServerDeps, connection};
use crate::base::clock::SystemClock;
use crate::base::task::Tasks;
use crate::routing::Router;
use crate::settings::{ExtraHosts, Limits, OpenTenants, Settings, TlsMode, WatchMode, ZipHosts};
use crate::spec::{HostName, Mount, Prefix};
use crate::telemetry::audit::Audit;
use crate::telemetry::log::LogFormat;
use crate::telemetry::metrics::Metrics;
use crate::tenants::registry::{RoutingTable, TablePublisher};

fn settings(limits: Limits) -> Settings {
    Settings {
        otlp: Default::default(),
        tenants: "tenants.d".into(),
        tenants_from: Default::default(),
        state: "state".into(),
        certs: "certs".into(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        tenant_listeners: crate::spec::TenantListeners::default(),
        admin: None,
        admin_access: crate::settings::AdminAccess::default(),
        is_admin_optional: false,
        hosts: vec![HostName::parse("mcp.example.com").expect("a host")],
        public_base: None,
        acme: crate::settings::AcmeSettings::default(),
        listen_http: Vec::new(),
        tls: TlsMode::Off,
        watch: WatchMode::Auto,
        log: LogFormat::Text,
        open_tenants: OpenTenants::Private,
        private_networks: vec![],
        log_filter: None,
        trusted_proxies: vec![],
        trusted_proxy_hops: None,
        zip_hosts: ZipHosts::Refuse,
        hold_changes: crate::spec::HoldChanges::default(),
        backend_allow: vec![],
        backend_only: crate::spec::BackendOnly::default(),
        secret_roots: vec![],
        confine_tenants: false,
        ready_file: None,
        master_key_file: None,
        store: Default::default(),
        node_name: None,
        entra_authority: Settings::default().entra_authority,
        limits,
        extra_hosts: ExtraHosts::These(vec![]),
        allowed_origins: vec![],
        hsts: None,
        audit: None,
        audit_files: 1,
        audit_sinks: Vec::new(),
        notify: vec![],
    }
}

pub(super) struct TestServer {
    pub(super) server: Arc<Server>,
    publisher: TablePublisher,
    tasks: Tasks,
    pub(super) addr: SocketAddr,
}

pub(super) fn start(limits: Limits) -> TestServer {
    start_with(limits, None)
}

fn start_with(limits: Limits, tls: Option<Arc<rustls::ServerConfig>>) -> TestServer {
    let settings = settings(limits);
    let (publisher, tasks) = (TablePublisher::default(), Tasks::new());
    publisher.publish(RoutingTable { is_initial_scan_done: true, generation: 1, ..RoutingTable::default() });
    let handles = ServerDeps {
        registry: publisher.registry().clone(),
        metrics: Arc::new(Metrics::new()),
        clock: SystemClock::shared(),
        tasks: tasks.clone(),
        audit: Audit::disabled(),
        tracer: Default::default(),
        certificates: None,
        sockets: Arc::default(),
    };
    let listeners = Listeners::bind(&settings.listen).expect("a free port");
    let addr = listeners.local_addrs()[0];
    let mut server = Server::new(&settings, handles);
    Arc::get_mut(&mut server).expect("nobody else has it yet").tls = tls;
    server.serve(listeners);
    TestServer { server, publisher, tasks, addr }
}

/// Limits with one second for every timeout that a test waits for.
fn impatient() -> Limits {
    Limits { header_seconds: 1, idle_seconds: 1, handshake_seconds: 1, body_seconds: 1, ..Limits::default() }
}

struct RawClient(TcpStream);

impl RawClient {
    async fn connect(gateway: &TestServer) -> Self {
        Self(TcpStream::connect(gateway.addr).await.expect("the gateway listens"))
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has refused the request may not read the rest.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads one response: its status, and head and body as text.
    async fn answer(&mut self) -> (u16, String) {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            let read = tokio::time::timeout(Duration::from_secs(5), self.0.read(&mut byte)).await;
            match read.expect("an answer comes") {
                Ok(1) => text.push(byte[0]),
                _ => panic!("the connection ended within a head: {:?}", String::from_utf8_lossy(&text)),
            }
        }
        let head = String::from_utf8(text).expect("a head is ASCII");
        let status = head[9..12].parse().expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        if self.0.read_exact(&mut body).await.is_err() {
            // The response to HEAD has a Content-Length but no body.
            body.clear();
        }
        (status, head + &String::from_utf8_lossy(&body))
    }

    /// Returns whether the server closes the connection within five seconds.
    async fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), self.0.read_to_end(&mut rest)).await.is_ok()
    }
}

#[tokio::test]
async fn rejected_posts_of_messages_are_answered_in_json_rpc() {
    let gateway = start(impatient());
    let post = |path: &str, headers: &str| {
        format!("POST {path} HTTP/1.1\r\n{HOST}{headers}Content-Length: 0\r\n\r\n")
    };
    let accept = "Accept: application/json, text/event-stream\r\n";
    for (path, headers, is_rpc) in
        [("/acme/mcp", "", true), ("/acme", accept, true), ("/", accept, true), ("/acme", "", false)]
    {
        let (status, answer) = ask(&gateway, post(path, headers)).await;
        assert_eq!(
            (status, answer.contains("\"jsonrpc\":\"2.0\"")),
            (404, is_rpc),
            "{path} {headers}: {answer}"
        );
    }
    gateway.publisher.publish(RoutingTable::default());
    let (status, answer) = ask(&gateway, post("/acme", accept)).await;
    assert!(status == 503 && answer.contains("\"jsonrpc\""), "{answer}");
}

async fn ask(gateway: &TestServer, request: impl AsRef<[u8]>) -> (u16, String) {
    let mut client = RawClient::connect(gateway).await;
    client.send(request).await;
    client.answer().await
}

const HOST: &str = "Host: mcp.example.com\r\n";

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{HOST}\r\n")
}

pub(super) fn post(headers: &str, body: &str) -> String {
    format!("POST /a/mcp HTTP/1.1\r\n{HOST}{headers}\r\n{body}")
}

/// Raw requests with the status that each must get. A valid request without a tenant gets 404.
fn requests() -> Vec<(String, u16)> {
    let head = |head: &str| format!("{head}\r\n\r\n");
    let many_headers: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    vec![
        (get("/a/mcp"), 404),
        (get("/"), 404),
        (get("/a/mcp?x=/../%2f"), 404),
        (post("Content-Length: 2\r\n", "{}"), 404),
        (post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 404),
        (head(&format!("GET http://mcp.example.com/a HTTP/1.1\r\n{}", HOST.trim_end())), 404),
        (head("GET /a HTTP/1.1\r\nHost: MCP.EXAMPLE.COM:8443"), 404),
        (head("GET /a HTTP/1.1\r\nHost: 127.0.0.1"), 404),
        (head("GET /a HTTP/1.1\r\nHost: localhost:1"), 404),
        (head("GET /a HTTP/1.1\r\nHost: evil.example"), 421),
        (head("GET /a HTTP/1.1\r\nHost: 10.1.2.3"), 421),
        (head("GET /a HTTP/1.1\r\nHost: mcp.example.com.evil.example"), 421),
        (head("GET /a HTTP/1.1"), 400),
        (head("GET /a HTTP/1.0"), 400),
        (head("GET /a HTTP/1.1\r\nHost:"), 400),
        (head("GET /a HTTP/1.1\r\nHost: a@mcp.example.com"), 400),
        (head("GET /a HTTP/1.1\r\nHost: mcp.example.com\r\nHost: mcp.example.com"), 400),
        (head("GET /a HTTP/1.1\r\nHost: mcp.example.com\r\nHost: evil.example"), 400),
        (head(&format!("GET http://evil.example/a HTTP/1.1\r\n{}", HOST.trim_end())), 400),
        (head(&format!("CONNECT mcp.example.com:443 HTTP/1.1\r\n{}", HOST.trim_end())), 400),
        (head(&format!("OPTIONS * HTTP/1.1\r\n{}", HOST.trim_end())), 400),
        (get("/a/../b/mcp"), 400),
        (get("/a/%2e%2e/b/mcp"), 400),
        (get("/a%2fmcp"), 400),
        (get("/a\\mcp"), 400),
        (get("//a/mcp"), 400),
        (get("/\u{e4}/mcp"), 400),
        (get("/a\u{0}/mcp"), 400),
        (get(&format!("/{}", "a".repeat(9000))), 414),
        (format!("GET /a HTTP/1.1\r\n{HOST}Content-Length: 1\r\n\r\nx"), 400),
        (format!("HEAD /a HTTP/1.1\r\n{HOST}Content-Length: 1\r\n\r\nx"), 400),
        (format!("GET /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 1\r\nContent-Length: 2\r\n", "{}"), 400),
        (post("Content-Length: 2, 2\r\n", "{}"), 400),
        (post("Content-Length: +2\r\n", "{}"), 400),
        (post("Content-Length : 2\r\n", "{}"), 400),
        (format!("POST /a/mcp HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{HOST}X: a\rb\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n X: a\r\n{HOST}\r\n"), 400),
        (format!("GET /a http/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /a\u{b}HTTP/1.1\r\n{HOST}\r\n"), 400),
        ("GET /a\r\n\r\n".to_owned(), 400),
        (format!("GET /a HTTP/1.1\r\n{HOST}{many_headers}\r\n"), 431),
        (format!("GET /a HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "x".repeat(20_000)), 431),
    ]
}

#[tokio::test]
async fn the_future_of_a_request_fits_its_reserved_bytes() {
    let gateway = start(Limits::default());
    let peer = ConnInfo::direct(gateway.addr, gateway.addr.ip());
    let request = http::Request::new(http_body_util::Empty::<bytes::Bytes>::new());
    let waiting = super::dispatch::handle(&gateway.server, &peer, request);
    assert!(size_of_val(&waiting) as u64 <= super::body::HEAD_BYTES * 3 / 4, "{}", size_of_val(&waiting));
}

#[tokio::test]
async fn hostile_requests_are_refused_and_sound_ones_are_not() {
    let gateway = start(Limits::default());
    for (request, expected) in requests() {
        let (status, answer) = ask(&gateway, &request).await;
        assert_eq!(status, expected, "{request:?} got {answer}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_problem_document_and_ends_the_connection() {
    let gateway = start(Limits::default());
    let mut client = RawClient::connect(&gateway).await;
    client.send(get("/a/../b")).await;
    let (_, answer) = client.answer().await;
    for part in [
        "application/problem+json",
        "connection: close",
        "dot segment",
        "x-request-id: ",
        "nosniff",
        "no-store",
    ] {
        assert!(answer.contains(part), "{part:?} is missing in {answer}");
    }
    assert!(client.ends().await);
}

#[tokio::test]
async fn an_unknown_path_keeps_the_connection() {
    let gateway = start(Limits::default());
    let mut client = RawClient::connect(&gateway).await;
    for _ in 0..2 {
        client.send(get("/a/mcp")).await;
        assert_eq!(client.answer().await.0, 404);
    }
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_loses_its_connection() {
    let gateway = start(Limits::default());
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let mut client = RawClient::connect(&gateway).await;
        client.send(post(headers, "0\r\n\r\n") + &get("/smuggled")).await;
        let mut answers = String::new();
        // The connection may be reset, since the smuggled request is never read.
        let _ended =
            tokio::time::timeout(Duration::from_secs(5), client.0.read_to_string(&mut answers)).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(answers.contains("connection: close\r\n"), "{answers}");
    }
}

#[tokio::test]
async fn before_the_first_scan_unknown_paths_get_503() {
    let gateway = start(Limits::default());
    gateway.publisher.publish(RoutingTable::default());
    let (status, answer) = ask(&gateway, get("/a/mcp")).await;
    assert_eq!(status, 503);
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut() {
    let gateway = start(Limits { idle_seconds: 600, ..impatient() });
    let mut client = RawClient::connect(&gateway).await;
    client.send("GET /a HTTP/1.1\r\nHo").await;
    assert!(client.ends().await);
    let mut silent = RawClient::connect(&gateway).await;
    assert!(silent.ends().await);
}

#[tokio::test]
async fn an_idle_connection_is_ended() {
    let gateway = start(Limits { header_seconds: 600, ..impatient() });
    let mut client = RawClient::connect(&gateway).await;
    client.send(get("/a/mcp")).await;
    assert_eq!(client.answer().await.0, 404);
    assert!(client.ends().await);
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let gateway = start(Limits { connections_per_ip: 2, ..Limits::default() });
    let mut places = [RawClient::connect(&gateway).await, RawClient::connect(&gateway).await];
    for place in &mut places {
        place.send(get("/a/mcp")).await;
        assert_eq!(place.answer().await.0, 404);
    }
    let mut third = RawClient::connect(&gateway).await;
    assert!(third.ends().await);
    places[0].send(get("/a/mcp")).await;
    assert_eq!(places[0].answer().await.0, 404);
}

#[tokio::test]
async fn draining_ends_idle_connections_and_takes_no_new_ones() {
    let gateway = start(Limits::default());
    let mut client = RawClient::connect(&gateway).await;
    client.send(get("/a/mcp")).await;
    assert_eq!(client.answer().await.0, 404);
    assert!(gateway.tasks.drain(Duration::from_secs(5)).await);
    assert!(client.ends().await);
    assert!(TcpStream::connect(gateway.addr).await.is_err());
}

/// Serves one HTTP/2 connection on a socket of its own, as if ALPN had chosen it.
async fn http2(gateway: &TestServer) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let server = Arc::clone(&gateway.server);
    gateway.tasks.spawn("http2", async move {
        let (stream, client) = listener.accept().await.expect("a connection");
        let peer = ConnInfo::direct(client, addr.ip());
        let activity = Arc::new(Activity::default());
        connection::Connection::new(server, peer, activity).serve_protocol(Protocol::Http2, stream).await;
    });
    addr
}

#[tokio::test]
async fn http2_is_answered_and_drained() {
    let gateway = start(Limits::default());
    let addr = http2(&gateway).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let ask = |path: &str| client.get(format!("http://{addr}{path}")).send();
    let answer = ask("/a/mcp").await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (404, http::Version::HTTP_2));
    let refused = ask("/a/%2e%2e%2fb").await.expect("an answer");
    assert_eq!(refused.status(), 400);
    assert!(gateway.tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_connection_made_for_one_tenants_host_serves_no_other() {
    let gateway = start(Limits::default());
    let mut router = Router::new();
    for host in ["one.example", "two.example"] {
        router.insert(&Mount { listener: None, host: HostName::parse(host), prefix: Prefix::root() }, ());
    }
    let check = |sni: Option<&str>, host: &str| {
        let peer = ConnInfo { sni: sni.map(Into::into), ..ConnInfo::direct(gateway.addr, gateway.addr.ip()) };
        super::dispatch::check_host(&gateway.server, router.main(), host, &peer)
    };
    assert_eq!(check(Some("one.example"), "one.example"), Ok(()));
    assert_eq!(check(None, "one.example"), Ok(()));
    assert_eq!(check(Some("localhost"), "mcp.example.com"), Ok(()));
    assert_eq!(check(Some("one.example"), "two.example"), Err(RequestRejection::SniMismatch));
    assert_eq!(check(Some("one.example"), "mcp.example.com"), Err(RequestRejection::SniMismatch));
    assert_eq!(check(Some("mcp.example.com"), "one.example"), Err(RequestRejection::SniMismatch));
    assert_eq!(check(Some("one.example"), "evil.example"), Err(RequestRejection::UnknownHost));
}

#[tokio::test]
async fn silent_and_malformed_tls_clients_are_disconnected() {
    let gateway = start_with(impatient(), Some(super::tls::tests::configs().0));
    let mut silent = RawClient::connect(&gateway).await;
    assert!(silent.ends().await);
    let mut garbage = RawClient::connect(&gateway).await;
    garbage.send([0x16, 3, 1, 0, 4, 1, 2, 3, 4]).await;
    assert!(garbage.ends().await);
    let (status, answer) = ask(&gateway, get("/a/mcp")).await;
    assert_eq!(status, 400);
    assert!(answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn https_is_answered_in_both_protocols() {
    let (server, client) = super::tls::tests::configs();
    let gateway = start_with(Limits::default(), Some(server));
    for (alpn, version) in [("h2", http::Version::HTTP_2), ("http/1.1", http::Version::HTTP_11)] {
        let mut client = client.clone();
        client.alpn_protocols = vec![alpn.into()];
        let client = reqwest::Client::builder().tls_backend_preconfigured(client).build().expect("a client");
        let answer = client.get(format!("https://localhost:{}/a/mcp", gateway.addr.port())).send().await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (404, version));
    }
}
