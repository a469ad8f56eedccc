//! Behind a proxy: whose word on the caller counts, and what the caller's address decides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::harness::client::{Client, read};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};

/// The address from which the tests' proxy calls; everything else on loopback is a stranger.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const OUTSIDE: &str = "8.8.8.8";

fn trusting() -> Setup {
    Setup::new().flag("--trusted-proxies", "127.0.0.7")
}

fn proxy(gateway: &Gateway) -> Client {
    gateway.client_with(|builder| builder.local_address(IpAddr::V4(PROXY)))
}

async fn search(client: Client) -> u16 {
    client.search(Era::Modern, "/a", "q").await.status
}

#[tokio::test]
async fn an_open_tenant_answers_whom_the_proxy_names() {
    let backend = FakeBackend::start().await;
    let gateway = trusting().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    for (name, value, status) in [
        ("x-forwarded-for", "10.1.2.3", 200),
        ("x-forwarded-for", "10.1.2.3, 8.8.8.8", 403),
        ("x-forwarded-for", "8.8.8.8, 10.1.2.3:4711", 200),
        ("forwarded", "for=\"[fd00::1]:80\";proto=https", 200),
        ("forwarded", "for=8.8.8.8", 403),
        ("x-forwarded-for", "who knows", 403),
        ("x-forwarded-proto", "https", 403),
    ] {
        assert_eq!(search(proxy(&gateway).with(name, value)).await, status, "{name}: {value}");
        // From anybody else it is a claim, in both directions.
        assert_eq!(search(gateway.client().with(name, value)).await, 200, "{name}: {value} from a stranger");
    }
    let page = proxy(&gateway).with("x-forwarded-for", OUTSIDE).get("/a/").await;
    assert_eq!(page.status, 403, "{page:?}");
    let both = proxy(&gateway).with("x-forwarded-for", "10.1.2.3").with("forwarded", "for=10.1.2.4");
    assert_eq!(search(both).await, 403, "they disagree");
    let metrics = gateway.admin("/metrics").await.1;
    for (reason, count) in [("not_forwarded", 1), ("malformed", 1), ("contradictory", 1)] {
        let line = format!("tenantd_unknown_callers_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    let warned = gateway.output().matches("does not say who calls").count();
    assert_eq!(warned, 1, "once for many");
}

#[tokio::test]
async fn rates_and_the_audit_tell_callers_behind_a_proxy_apart() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("public: true\nlimits: {requests_per_minute: 1}");
    let gateway = trusting().file("a.yaml", tenant.yaml()).start().await;
    for caller in ["8.8.4.1", "8.8.4.2", "2001:4860::1"] {
        let caller = proxy(&gateway).with("x-forwarded-for", caller);
        assert_eq!([search(caller.clone()).await, search(caller).await], [200, 429]);
    }
    assert_eq!(search(gateway.client().with("x-forwarded-for", "8.8.4.9")).await, 200);
    assert_eq!(search(gateway.client().with("x-forwarded-for", "8.8.4.8")).await, 429, "the same stranger");
    let audit = gateway.path().join("state/audit.jsonl");
    until("the audit names them", async || {
        let text = std::fs::read_to_string(&audit).unwrap_or_default();
        let all = ["8.8.4.1", "8.8.4.2", "2001:4860::1", "127.0.0.1"];
        let calls = |it: &str| {
            text.lines()
                .any(|line| line.contains("\"call\"") && line.contains(&format!("\"client_addr\":\"{it}\"")))
        };
        (all.into_iter().all(calls) && !text.contains("8.8.4.9")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn probes_are_answered_under_any_host() {
    let gateway = Setup::new().start().await;
    let client = gateway.client();
    for (method, host, path, status) in [
        (Method::GET, "localhost", "/-/healthz", 200),
        (Method::HEAD, "10.0.0.9:8443", "/-/healthz", 200),
        (Method::GET, "anything.example", "/-/healthz?x=1", 200),
        (Method::POST, "localhost", "/-/healthz", 405),
        (Method::GET, "localhost", "/-/healthz/", 404),
        (Method::GET, "localhost", "/-/reload", 404),
        (Method::GET, "anything.example", "/-/reload", 421),
    ] {
        let request =
            client.request(method.clone(), path).header("host", host).version(reqwest::Version::HTTP_11);
        let client = gateway.client_with(reqwest::ClientBuilder::http1_only);
        let answer =
            read(client.http().execute(request.build().expect("a request")).await.expect("an answer")).await;
        assert_eq!(answer.status, status, "{method} {host}{path}: {answer:?}");
        if status == 200 && method == Method::GET {
            assert_eq!(answer.text, "ok\n");
        }
    }
    let metrics = gateway.admin("/metrics").await.1;
    assert!(metrics.contains("tenantd_http_answers_total{route=\"health\",status=\"200\"} 3"), "{metrics}");
    // It says the same where tenants ask for credentials, and whoever asks.
    let keyed = format!("api_keys:\n  - label: ci\n    key: {}\n", secret("caller"));
    let backend = FakeBackend::start().await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with(&keyed).yaml());
    gateway.until_state("a", "serving").await;
    assert_eq!(client.get("/-/healthz").await.text, "ok\n");
}

/// Sends bytes on a connection of its own, from an address of loopback. Returns what comes back.
async fn exchange(to: SocketAddr, from: Ipv4Addr, bytes: &[u8]) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of loopback");
    let mut stream = socket.connect(to).await.expect("it listens");
    // A listener that refuses a connection may close it before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_proxy_protocol_header_names_the_caller() {
    const LOCAL_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let backend = FakeBackend::start().await;
    let setup = trusting().instead("--listen", "127.0.0.1:0 proxy_protocol").flag("--tls", "off");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let page = "GET /a/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let ask = async |from, header: &[u8], lines: &str| {
        let request = [header, page.as_bytes(), lines.as_bytes(), b"\r\n"].concat();
        exchange(gateway.address(), from, &request).await.lines().next().unwrap_or_default().to_owned()
    };
    let v1 = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n").into_bytes();
    for (header, lines, status) in [
        (v1("10.1.2.3"), "", "HTTP/1.1 200 OK"),
        (v1("8.8.8.8"), "", "HTTP/1.1 403 Forbidden"),
        // The caller that the header names is no proxy, so nobody reads its headers.
        (v1("8.8.8.8"), "X-Forwarded-For: 10.1.2.3\r\n", "HTTP/1.1 403 Forbidden"),
        // An HTTP proxy behind a TCP proxy.
        (v1("127.0.0.7"), "X-Forwarded-For: 10.1.2.3\r\n", "HTTP/1.1 200 OK"),
        (v1("127.0.0.7"), "", "HTTP/1.1 403 Forbidden"),
        // The proxy asks for itself.
        (LOCAL_V2.to_vec(), "", "HTTP/1.1 403 Forbidden"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "X-Forwarded-For: 10.1.2.3\r\n", "HTTP/1.1 200 OK"),
        (b"".to_vec(), "", ""),
        (b"PROXY TCP4 nobody\r\n".to_vec(), "", ""),
    ] {
        assert_eq!(ask(PROXY, &header, lines).await, status, "{} {lines}", String::from_utf8_lossy(&header));
    }
    assert_eq!(
        ask(Ipv4Addr::LOCALHOST, &v1("10.1.2.3"), "").await,
        "",
        "a stranger's header counts for nothing"
    );
    let metrics = gateway.admin("/metrics").await.1;
    assert!(metrics.contains("tenantd_connections_refused_total{reason=\"proxy_header\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_tls_handshake_follows_a_proxy_protocol_header() {
    let backend = FakeBackend::start().await;
    let setup = trusting().instead("--listen", "127.0.0.1:0 proxy_protocol");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    // A TCP proxy that does what load balancers do.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = relay.local_addr().expect("an address");
    let relaying = async {
        let (mut near, _) = relay.accept().await.expect("a connection");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((PROXY, 0).into()).expect("an address of loopback");
        let mut far = socket.connect(gateway.address()).await.expect("it listens");
        far.write_all(b"PROXY TCP4 10.9.8.7 127.0.0.1 4711 443\r\n").await.expect("sent");
        let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    let base = format!("https://localhost:{}", address.port());
    let client = Client::new(&base, address, gateway.ca().as_deref());
    let answer = tokio::select! {
        answer = client.search(Era::Modern, "/a", "q") => answer,
        () = relaying => panic!("the connection ended"),
    };
    assert_eq!(answer.data()["row_count"], 2);
    let audit = gateway.path().join("state/audit.jsonl");
    until("the audit names the caller", async || {
        std::fs::read_to_string(&audit)
            .unwrap_or_default()
            .contains("\"client_addr\":\"10.9.8.7\"")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tenant_answers_the_networks_that_its_file_allows() {
    let backend = FakeBackend::start().await;
    let keyed = format!("api_keys:\n  - label: ci\n    key: {}\n", secret("caller"));
    let tenant = |lines: &str| Tenant::new("a", &backend).with(&keyed).with(lines).yaml();
    let gateway =
        trusting().file("a.yaml", tenant("allow_from: [8.8.4.0/24, \"2001:4860::/32\"]")).start().await;
    let status = gateway.until_state("a", "serving").await;
    assert_eq!(status["access"], "api keys (1), from 2 networks only");
    let from = |address: &str| proxy(&gateway).bearer(&secret("caller")).with("x-forwarded-for", address);
    assert_eq!(search(from("8.8.4.9")).await, 200);
    assert_eq!(search(from("2001:4860:1::9")).await, 200);
    for stranger in [from("8.8.5.9"), proxy(&gateway).bearer(&secret("caller")), gateway.client()] {
        for path in ["/a/", "/a/mcp", "/.well-known/oauth-protected-resource/a"] {
            let answer = stranger.get(path).await;
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
            assert!(answer.text.contains("from your network") && !answer.text.contains("8.8"), "{answer:?}");
        }
        let answer = stranger.search(Era::Legacy, "/a", "q").await;
        assert_eq!((answer.status, answer.json()["jsonrpc"].as_str()), (403, Some("2.0")));
    }
    // Wider, and nothing in progress ends; a list that cannot be read closes the tenant.
    gateway.put("a.yaml", tenant("allow_from: [8.8.0.0/16]"));
    until("the wider list counts", async || (search(from("8.8.5.9")).await == 200).then_some(())).await;
    gateway.put("a.yaml", tenant("allow_from: [8.8.0.0/16, office]"));
    until("the tenant is closed", async || (search(from("8.8.4.9")).await == 503).then_some(())).await;
    let status = gateway.status("a").await.expect("it is there");
    assert!(status["findings"].to_string().contains("access-invalid"), "{status}");
}

#[tokio::test]
async fn a_narrower_list_ends_calls_in_progress() {
    let backend = FakeBackend::start().await;
    let tenant = |lines: &str| Tenant::new("a", &backend).with("public: true").with(lines).yaml();
    let gateway = trusting().file("a.yaml", tenant("")).start().await;
    gateway.until_state("a", "serving").await;
    backend.answer("/nlp-search", super::harness::Reply::Hang);
    let call = proxy(&gateway).with("x-forwarded-for", OUTSIDE);
    let (ended, ()) = tokio::join!(call.search(Era::Modern, "/a", "q"), async {
        backend.until(|counts| counts.in_flight == 1).await;
        gateway.put("a.yaml", tenant("allow_from: [10.0.0.0/8]"));
        backend.until(|counts| counts.in_flight == 0).await;
    });
    assert_eq!(ended.status, 401, "{ended:?}");
    backend.answer("/nlp-search", super::harness::Reply::Rows);
    assert_eq!(search(proxy(&gateway).with("x-forwarded-for", OUTSIDE)).await, 403);
    assert_eq!(search(proxy(&gateway).with("x-forwarded-for", "10.1.2.3")).await, 200);
}

/// Ports that are free now.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

fn at_port(gateway: &Gateway, port: u16) -> Client {
    let base = format!("https://localhost:{port}");
    Client::new(&base, SocketAddr::from(([127, 0, 0, 1], port)), gateway.ca().as_deref())
}

async fn answers(gateway: &Gateway, port: u16, path: &str) -> Option<u16> {
    let request = at_port(gateway, port).request(Method::GET, path).header("accept", "text/html");
    Some(request.send().await.ok()?.status().as_u16())
}

#[tokio::test]
async fn tenants_have_listeners_of_their_own() {
    let backend = FakeBackend::start().await;
    let [one, two, three] = free_ports();
    let rooted = |name: &str, port: u16| {
        Tenant::new(name, &backend).with(&format!("path_prefix: /\nlisten: {port}")).yaml()
    };
    let setup = [one, two, three]
        .iter()
        .fold(Setup::new(), |setup, port| setup.flag("--tenant-listeners", &format!("127.0.0.1:{port}")));
    let setup = setup.file("a.yaml", rooted("a", one)).file("b.yaml", rooted("b", two));
    let gateway = setup.file("c.yaml", Tenant::new("c", &backend).yaml()).start().await;
    for (name, port) in [("a", one), ("b", two)] {
        let status = gateway.until_state(name, "serving").await;
        assert_eq!(status["connector_url"], format!("https://localhost:{port}/mcp"));
        until("it is open", async || answers(&gateway, port, "/mcp").await.filter(|it| *it == 200)).await;
        let answer = at_port(&gateway, port).search(Era::Modern, "", name).await;
        assert_eq!(answer.data()["row_count"], 2, "{answer:?}");
        // Neither is reachable by the other's listener, nor the gateway's tenants there.
        assert_eq!(answers(&gateway, port, "/c/mcp").await, Some(404));
    }
    assert_eq!(gateway.client().get("/mcp").await.status, 404);
    assert_eq!(gateway.client().search(Era::Modern, "/c", "q").await.status, 200);
    assert_eq!(at_port(&gateway, one).get("/-/healthz").await.status, 200);
    // A second tenant at the same place is refused, and says on which listener.
    gateway.put("d.yaml", rooted("d", one));
    let status = gateway.until_state("d", "rejected").await;
    assert!(status["findings"].to_string().contains(&format!("on listener 127.0.0.1:{one}")), "{status}");
    gateway.remove("d.yaml");
    gateway.until_gone("d").await;
    // It moves, and its old port closes; it leaves, and so does the new one.
    gateway.put("a.yaml", rooted("a", three));
    until("it moved", async || answers(&gateway, three, "/mcp").await.filter(|it| *it == 200)).await;
    until("the old port is closed", async || answers(&gateway, one, "/mcp").await.is_none().then_some(()))
        .await;
    gateway.remove("a.yaml");
    until("the port is closed", async || answers(&gateway, three, "/mcp").await.is_none().then_some(()))
        .await;
    assert_eq!(answers(&gateway, two, "/mcp").await, Some(200));
}

#[tokio::test]
async fn a_port_in_use_keeps_the_last_good_revision_and_is_tried_again() {
    let backend = FakeBackend::start().await;
    let [one, two] = free_ports();
    let taken = TcpListener::bind(("127.0.0.1", two)).expect("it is free");
    let rooted =
        |port: u16| Tenant::new("a", &backend).with(&format!("path_prefix: /\nlisten: {port}")).yaml();
    let setup = Setup::new()
        .flag("--tenant-listeners", &format!("127.0.0.1:{one}"))
        .flag("--tenant-listeners", &format!("127.0.0.1:{two}"))
        .flag("--watch", "poll");
    let gateway = setup.file("a.yaml", rooted(one)).start().await;
    gateway.until_state("a", "serving").await;
    until("it is open", async || answers(&gateway, one, "/mcp").await.filter(|it| *it == 200)).await;
    gateway.put("a.yaml", rooted(two));
    let status = gateway.until_state("a", "stale").await;
    assert!(status["findings"].to_string().contains("listen-unavailable"), "{status}");
    assert_eq!(answers(&gateway, one, "/mcp").await, Some(200), "the last good revision");
    drop(taken);
    gateway.until_state("a", "serving").await;
    until("it is open", async || answers(&gateway, two, "/mcp").await.filter(|it| *it == 200)).await;
    // After a restart, somebody else may have the port.
    let gateway = gateway.killed();
    let taken = TcpListener::bind(("127.0.0.1", two)).expect("it is free");
    let gateway = gateway.start_again().await;
    let status = until("it says so", async || {
        let status = gateway.status("a").await?;
        (status["state"] != "serving" && status["state"] != "loading").then_some(status)
    })
    .await;
    assert!(status.to_string().contains(&two.to_string()), "{status}");
    drop(taken);
    gateway.until_state("a", "serving").await;
    until("it is open", async || answers(&gateway, two, "/mcp").await.filter(|it| *it == 200)).await;
}

#[tokio::test]
async fn a_listener_that_the_settings_do_not_allow_is_a_finding() {
    let backend = FakeBackend::start().await;
    let tenant = |listen: &str| Tenant::new("a", &backend).with(&format!("listen: {listen}")).yaml();
    let gateway = Setup::new().file("a.yaml", tenant("8001")).start().await;
    let status = gateway.until_state("a", "rejected").await;
    let findings = status["findings"].to_string();
    assert!(findings.contains("listen-not-allowed") && findings.contains("tenant_listeners"), "{findings}");
    gateway.put("a.yaml", tenant("everywhere"));
    until("the other finding", async || {
        gateway.status("a").await?["findings"].to_string().contains("bad-listen").then_some(())
    })
    .await;
}
