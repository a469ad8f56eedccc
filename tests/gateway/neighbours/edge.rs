//! Slow requests, unread responses and idle connections of some callers take no room from others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::harness::beside::Fared;
use crate::harness::entra::FakeEntra;
use crate::harness::login::App;
use crate::harness::secret::secret;
use crate::harness::{Beside, Client, Era, FakeBackend, Gateway, PATIENCE, Reply, Setup, Tenant, until};

/// The source address of bad callers; good callers use 127.0.0.1.
const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connects from a source address.
async fn connect(to: SocketAddr, from: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("connected")
}

/// Starts a gateway with two open tenants at `/a` and `/b`, and one backend for both.
async fn two_tenants(setup: Setup) -> (FakeBackend, Gateway) {
    let backend = FakeBackend::start().await;
    let gateway = two_tenants_of(&backend, setup).await;
    (backend, gateway)
}

async fn two_tenants_of(backend: &FakeBackend, setup: Setup) -> Gateway {
    let setup = setup.file("a.zip", Tenant::new("a", backend).zip());
    let gateway = setup.file("b.zip", Tenant::new("b", backend).zip()).start().await;
    Fared::alone(&gateway.client(), "/b", 30).await.assert_unharmed("b alone");
    gateway
}

/// Returns the value of a metric; 0 if it is missing.
pub(super) async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let (_, text) = gateway.admin("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse::<f64>().expect("a number") as u64)
}

#[tokio::test]
async fn bodies_whose_last_byte_is_withheld_take_no_room_from_others() {
    const LENGTH: usize = 180_000;
    let setup = Setup::new().memory_mib(1024).flag("--tls", "off").settings("limits:\n  body_seconds: 8\n");
    let (_backend, gateway) = two_tenants(setup).await;
    let beside = Beside::watch(gateway.client(), "/b");
    let mut withheld = JoinSet::new();
    for _ in 0..358 {
        let to = gateway.address();
        withheld.spawn(async move {
            let head = format!(
                "POST /a/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Accept: application/json, text/event-stream\r\nContent-Length: {LENGTH}\r\n\r\n"
            );
            let mut stream = connect(to, BAD).await;
            stream.write_all(head.as_bytes()).await.expect("sent");
            // A request that is refused early may find the connection closed.
            let _refused = stream.write_all(&vec![b' '; LENGTH - 1]).await;
            let mut answer = vec![0; 64];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer");
            String::from_utf8_lossy(&answer[..read.unwrap_or_default()]).into_owned()
        });
    }
    let answers = withheld.join_all().await;
    let with = |status: &str| answers.iter().filter(|answer| answer.starts_with(status)).count();
    beside.finish().await.assert_unharmed("b beside withheld bodies");
    assert!(with("HTTP/1.1 408") > 50, "{answers:?}");
    let refused = r#"tenantd_budget_refused_total{budget="requests",reason="tenant"}"#;
    assert!(metric(&gateway, refused).await > 0, "nothing was refused");
    assert_eq!(metric(&gateway, r#"tenantd_budget_held_bytes{budget="requests"}"#).await, 0);
}

#[tokio::test]
async fn bodies_that_are_sent_on_and_on_after_a_refusal_take_no_room_from_others() {
    let (_backend, gateway) = two_tenants(Setup::new().memory_mib(1024).flag("--tls", "off")).await;
    let beside = Beside::watch(gateway.client(), "/b");
    let before = gateway.resident_mib();
    let mut endless = JoinSet::new();
    for _ in 0..500 {
        let to = gateway.address();
        endless.spawn(async move {
            let mut sent = 0;
            let mut stream = connect(to, BAD).await;
            let head = "POST /nobody/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("sent");
            while stream.write_all(&[b'x'; 16 << 10]).await.is_ok() {
                sent += 16_usize;
            }
            sent >> 10
        });
    }
    let ended = tokio::time::timeout(PATIENCE * 2, endless.join_all()).await.expect("all of them are cut");
    beside.finish().await.assert_unharmed("b beside bodies that are sent on and on");
    let grown = gateway.peak_mib().saturating_sub(before);
    let most = ended.iter().max().copied().unwrap_or_default();
    eprintln!(
        "500 refused bodies: {} MiB sent, {most} at most by one, {grown} MiB held",
        ended.iter().sum::<usize>()
    );
    // 16 MiB are read of one at most; more lies in the kernel's buffers.
    assert!((1..40).contains(&most), "{most} MiB were taken of one");
    assert!(grown < 40, "dropped bodies took {grown} MiB");
    let refused = r#"tenantd_budget_refused_total{budget="lingering",reason="network"}"#;
    assert!(metric(&gateway, refused).await > 0, "there was a place for everybody");
}

/// A body that begins and does not go on.
fn begun(bytes: usize) -> reqwest::Body {
    let first = Ok::<_, std::io::Error>(vec![b'x'; bytes]);
    let pieces =
        futures_util::StreamExt::chain(futures_util::stream::iter([first]), futures_util::stream::pending());
    reqwest::Body::wrap_stream(pieces)
}

#[tokio::test]
async fn slow_token_requests_of_nobody_take_no_room_from_callers() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let login = Tenant::new("a", &backend).with(&entra.lines());
    let setup = Setup::new().memory_mib(1024).flag("--entra-authority", &entra.authority());
    let setup = setup.settings("limits:\n  body_seconds: 8\n");
    let setup = setup.file("a.yaml", login.yaml()).file("b.yaml", Tenant::new("b", &backend).yaml());
    let gateway = setup.start().await;
    let client = gateway.client();
    let long = "x".repeat(7_000);
    assert_eq!(client.search(Era::Modern, "/b", &long).await.status, 200);
    let beside = Beside::watch(client.clone(), "/b");
    let mut slow = JoinSet::new();
    for _ in 0..24 {
        let bad = gateway.client_with(|builder| builder.local_address(BAD).http2_prior_knowledge());
        for _ in 0..95 {
            let request = bad.request(Method::POST, "/a/token").body(begun(32_000));
            slow.spawn(
                async move { request.send().await.map(|answer| answer.status().as_u16()).unwrap_or(0) },
            );
        }
    }
    until("they take much", async || {
        let held = metric(&gateway, r#"tenantd_budget_held_bytes{budget="requests"}"#).await;
        (held > 12 << 20).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client.search(Era::Modern, "/b", &long).await.status, 200);
    }
    let statuses = slow.join_all().await;
    beside.finish().await.assert_unharmed("b beside slow token requests");
    assert!(statuses.iter().all(|status| [0, 408, 429, 503].contains(status)), "{statuses:?}");
    assert!(statuses.iter().any(|status| [408, 503].contains(status)), "{statuses:?}");
    let limit = metric(&gateway, r#"tenantd_budget_limit_bytes{budget="requests"}"#).await;
    assert_eq!(limit, 64 << 20);
}

#[tokio::test]
async fn requests_that_never_bring_a_body_are_bounded_and_leave_room_for_others() {
    let setup = Setup::new().memory_mib(1024);
    let settings = "limits:\n  body_seconds: 8\n  request_memory_mib: 4\n";
    let (_backend, gateway) = two_tenants(setup.settings(settings)).await;
    let beside = Beside::watch(gateway.client(), "/b");
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let bad = gateway.client_with(|builder| builder.local_address(BAD).http2_prior_knowledge());
        for _ in 0..95 {
            let request = bad.request(Method::POST, "/a/mcp").header("content-type", "application/json");
            let request = request.body(begun(0));
            waiting.spawn(async move { request.send().await.map_or(0, |answer| answer.status().as_u16()) });
        }
    }
    let statuses = waiting.join_all().await;
    beside.finish().await.assert_unharmed("b beside requests without a body");
    // Half of the budget covers 128 requests; refused ones release their reservation shortly after.
    assert!(statuses.iter().filter(|status| **status == 503).count() > 20, "{statuses:?}");
    assert_eq!(metric(&gateway, r#"tenantd_budget_held_bytes{budget="requests"}"#).await, 0);
}

async fn listen(client: &Client) -> reqwest::Response {
    let params = json!({ "notifications": { "toolsListChanged": true } });
    client.ask(Era::Modern, "/a/mcp", "subscriptions/listen", params).send().await.expect("an answer")
}

#[tokio::test]
async fn streams_are_bounded_by_what_they_take_and_leave_room_for_others() {
    let setup = Setup::new().memory_mib(1024).settings("limits:\n  call_memory_mib: 16\n");
    let (_backend, gateway) = two_tenants(setup).await;
    let beside = Beside::watch(gateway.client(), "/b");
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let bad = gateway.client_with(|builder| builder.local_address(BAD));
        let mut wave = JoinSet::new();
        for _ in 0..99 {
            let bad = bad.clone();
            wave.spawn(async move { listen(&bad).await });
        }
        for answer in wave.join_all().await {
            if answer.status() == 200 { open.push(answer) } else { refused.push(answer) }
        }
    }
    // Half of the budget covers 128 streams of 64 KiB.
    assert!((100..=128).contains(&open.len()), "{} streams", open.len());
    let refused = refused.pop().expect("one was refused");
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    let error: serde_json::Value = refused.json().await.expect("JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("try again")), "{error}");
    beside.finish().await.assert_unharmed("b beside streams");
    drop(open);
    until("the streams are gone", async || {
        let held = metric(&gateway, r#"tenantd_budget_held_bytes{budget="calls"}"#).await;
        (held == 0).then_some(())
    })
    .await;
    assert_eq!(listen(&gateway.client()).await.status(), 200);
}

#[tokio::test]
async fn one_person_has_so_many_streams_and_the_next_one_has_others() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let login = Tenant::new("a", &backend).with(&entra.lines());
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let gateway = setup.file("a.yaml", login.yaml()).start().await;
    let app = App::registered(&gateway, "/a").await;
    let ann = gateway.client().bearer(&app.tokens(&entra).await.access);
    let mut open = Vec::new();
    for number in 0..16 {
        let stream = listen(&ann).await;
        assert_eq!(stream.status(), 200, "stream {number}");
        open.push(stream);
    }
    let refused = listen(&ann).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    let error: serde_json::Value = refused.json().await.expect("JSON");
    assert!(
        error["error"]["message"].as_str().is_some_and(|text| text.contains("limit of one client")),
        "{error}"
    );
    assert_eq!(ann.search(Era::Modern, "/a", "q").await.status, 200, "calls are no streams");
    drop(open);
    until("there is room again", async || (listen(&ann).await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_tenant_whose_requests_never_have_room_is_told_so() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  max_request: 1m");
    let setup = Setup::new().settings("limits:\n  request_memory_mib: 7\n");
    let gateway = setup.file("a.yaml", tenant.yaml()).start().await;
    let status = gateway.until_state("a", "serving").await;
    let findings = status["findings"].to_string();
    assert!(findings.contains("request-room") && findings.contains("request_memory_mib"), "{findings}");
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_leave_room_for_others() {
    let setup = Setup::new().memory_mib(1024).settings("limits:\n  answer_memory_mib: 8\n");
    let backend = FakeBackend::start().await;
    let large = json!({ "entities": [{ "name": "turbine", "description": "x".repeat(200_000) }] });
    backend.answer("/nlp-context", Reply::Json(large));
    let gateway = two_tenants_of(&backend, setup).await;
    let beside = Beside::watch(gateway.client(), "/b");
    let before = gateway.resident_mib();
    let mut held = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let bad = gateway.client_with(|builder| {
            let builder = builder.local_address(BAD).http2_prior_knowledge();
            builder.http2_initial_stream_window_size(1)
        });
        let mut wave = JoinSet::new();
        for _ in 0..95 {
            let params = json!({ "name": "get_context", "arguments": {} });
            let request = bad.ask(Era::Modern, "/a/mcp", "tools/call", params);
            wave.spawn(async move { request.send().await.expect("an answer") });
        }
        for answer in wave.join_all().await {
            statuses.push(answer.status().as_u16());
            held.push(answer);
        }
    }
    let taken = statuses.iter().filter(|status| **status == 200).count();
    // Half of the budget is 4 MiB, and each response holds two texts of 200 kB.
    assert!((1..=20).contains(&taken), "{taken} of {} answers wait", statuses.len());
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    beside.finish().await.assert_unharmed("b beside answers that nobody reads");
    let grown = gateway.peak_mib().saturating_sub(before);
    assert!(grown < 100, "unread answers took {grown} MiB");
    drop(held);
    until("there is room again", async || {
        let held = metric(&gateway, r#"tenantd_budget_held_bytes{budget="answers"}"#).await;
        (held < 1 << 20).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_that_ask_for_nothing_give_way_to_others() {
    let setup = Setup::new().settings("limits:\n  connections: 40\n  connections_per_ip: 20\n");
    let (_backend, gateway) = two_tenants(setup.flag("--tls", "off")).await;
    let beside = Beside::watch(gateway.client(), "/b");
    let mut idle = Vec::new();
    for last in 2..6 {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        for _ in 0..20 {
            let mut stream = connect(gateway.address(), from).await;
            // The beginning of a request.
            stream.write_all(b"GET /").await.expect("sent");
            idle.push(stream);
        }
        // A new client each time, which needs a new connection; the previous one still has its
        // permit.
        for _ in 0..3 {
            let quick = tokio::time::timeout(Duration::from_secs(5), async {
                gateway.client().search(Era::Modern, "/a", "q").await.status
            });
            assert_eq!(quick.await.expect("in time"), 200, "from 127.0.0.{last}");
        }
    }
    beside.finish().await.assert_unharmed("b beside connections that ask for nothing");
    assert!(metric(&gateway, r#"tenantd_connections_refused_total{reason="gave_way"}"#).await >= 40);
}

#[tokio::test]
async fn half_requests_at_the_admin_listener_do_not_keep_probes_from_their_answer() {
    let gateway = Setup::new().start().await;
    let mut half = Vec::new();
    for round in 0..4 {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(gateway.admin_address()).await.expect("connected");
            stream.write_all(b"GET /api/tenants HTTP/1.1\r\nHost: 127.0.0.1\r\n").await.expect("sent");
            half.push(stream);
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            let quick = tokio::time::timeout(Duration::from_secs(2), gateway.admin(path));
            assert_eq!(quick.await.expect("in time").0, 200, "{path}, round {round}");
        }
    }
}

#[tokio::test]
async fn slow_orders_at_the_admin_listener_do_not_keep_probes_from_their_answer() {
    let gateway = Setup::new().start().await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(gateway.admin_address()).await.expect("connected");
        let head = "PUT /api/files/x.zip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx";
        stream.write_all(head.as_bytes()).await.expect("sent");
        slow.push(stream);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let quick = tokio::time::timeout(Duration::from_secs(2), gateway.admin(path));
        assert_eq!(quick.await.expect("in time").0, 200, "{path}");
    }
}

/// Makes this many searches at `/a` with 8 concurrent callers. Invalid `arguments` make them fail.
async fn flood(client: &Client, calls: usize, arguments: serde_json::Value) {
    let mut wave = JoinSet::new();
    for _ in 0..8 {
        let (client, params) = (client.clone(), json!({ "name": "search", "arguments": arguments }));
        wave.spawn(async move {
            for _ in 0..calls / 8 {
                let answer = client.rpc(Era::Modern, "/a/mcp", "tools/call", params.clone()).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        });
    }
    wave.join_all().await;
}

#[tokio::test]
async fn failing_calls_of_one_tenant_do_not_fill_the_log_or_hide_others() {
    let (backend, gone) = (FakeBackend::start().await, FakeBackend::start().await);
    let (dead, dead_too) = (Tenant::new("a", &gone).yaml(), Tenant::new("c", &gone).yaml());
    gone.stop().await;
    let setup = Setup::new().file("a.yaml", dead).file("c.yaml", dead_too);
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    let client = gateway.client();
    let beside = Beside::watch(client.clone(), "/b");
    flood(&client, 2_000, json!({ "query": "q" })).await;
    let hidden = client.search(Era::Modern, "/c", "q").await;
    beside.finish().await.assert_unharmed("b beside failing calls");
    assert!(hidden.text.contains(r#""isError":true"#), "{hidden:?}");
    let output = gateway.output();
    let about = |tenant: &str| {
        let tenant = format!(r#""tenant":"{tenant}""#);
        output.lines().filter(|line| line.contains("tool call failed") && line.contains(&tenant)).count()
    };
    assert!((1..150).contains(&about("a")), "{} lines about 2000 calls", about("a"));
    assert_eq!(about("c"), 1, "{output}");
    let left_out = metric(&gateway, "tenantd_log_lines_left_out_total").await;
    assert!(left_out > 1_000, "{left_out} lines were left out");
}

#[tokio::test]
async fn calls_of_one_tenant_do_not_push_others_out_of_the_audit() {
    let backend = FakeBackend::start().await;
    let key = secret("ann");
    let keys = Tenant::new("b", &backend).with(&format!("api_keys:\n  - label: ann\n    key: {key}"));
    let setup = Setup::new().file("b.yaml", keys.yaml()).settings("audit: 256KB\naudit_files: 2\n");
    let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let ann = gateway.client().bearer(&key);
    assert_eq!(ann.search(Era::Modern, "/b", "q").await.status, 200);
    // At 150 bytes a line this flood would fill both files.
    flood(&gateway.client(), 5_000, json!({ "query": 1 })).await;
    gateway.signal("TERM");
    gateway.until_ended().await;
    let read =
        |name: &str| std::fs::read_to_string(gateway.path().join("state").join(name)).unwrap_or_default();
    let lines: Vec<serde_json::Value> = (read("audit.jsonl.1") + &read("audit.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let calls = |tenant: &str| {
        let of = lines.iter().filter(|line| line["tenant"] == tenant && line["event"] == "call");
        of.map(|line| line["left_out"].as_u64().unwrap_or(1)).sum::<u64>()
    };
    assert_eq!((calls("a"), calls("b")), (5_000, 1), "the counts are exact");
    assert!(lines.iter().any(|line| line["tenant"] == "b" && line["label"] == "ann"));
    assert!(lines.len() < 2_000, "{} lines", lines.len());
}
