//! Tenants behind one portal do not affect each other.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::beside::Fared;
use crate::harness::gateway::may_mount;
use crate::harness::portal::{Portal, Proxy};
use crate::harness::{Beside, Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant};

const HTTP2: &str = "backend: {http2: true}";

/// Starts a gateway with the tenants a and b behind one portal, over HTTP/1.1 or HTTP/2.
async fn behind(portal: &Portal, lines: &str) -> Gateway {
    let tenant = |name: &str| Tenant::at(name, &portal.url("")).with(lines).yaml();
    let setup = Setup::new().file("a.yaml", tenant("a")).file("b.yaml", tenant("b"));
    let trusted = portal.certificate().display().to_string();
    setup.variable("SSL_CERT_FILE", &trusted).start().await
}

/// Calls a tenant's search with this `traceparent`.
async fn traced(client: &Client, prefix: &str, traceparent: &str) -> u16 {
    let params = json!({
        "name": "search", "arguments": { "query": "q" }, "_meta": { "traceparent": traceparent },
    });
    let answer = client.rpc(Era::Modern, &format!("{prefix}/mcp"), "tools/call", params).await;
    assert!(!answer.text.contains(r#""isError":true"#), "{}", answer.text);
    answer.status
}

#[tokio::test]
async fn a_caller_who_says_nonsense_of_a_trace_closes_nobodys_connection() {
    let backend = FakeBackend::start().await;
    let portal = Portal::start(&backend, "").await;
    for lines in ["", HTTP2] {
        let gateway = behind(&portal, lines).await;
        let client = gateway.client();
        Fared::alone(&client, "/b", 30).await.assert_unharmed("b alone");
        let beside = Beside::watch(client.clone(), "/b");
        let nonsense = "a".repeat(20_000);
        for _ in 0..30 {
            assert_eq!(client.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
            assert_eq!(traced(&client, "/a", &nonsense).await, 200);
        }
        beside.finish().await.assert_unharmed("b beside nonsense");
        let traces = backend.requests().into_iter().filter_map(|request| request.header("traceparent"));
        assert_eq!(traces.count(), 0, "nonsense was sent on");
    }
}

#[tokio::test]
async fn tenants_with_slow_questions_leave_the_portal_to_others() {
    let backend = FakeBackend::start().await;
    backend.answer("/slow", Reply::Held(Box::new(Reply::Rows)));
    let portal = Portal::start(&backend, "").await;
    let slow = |name: &str| {
        let body = "body: '{\"query\": {{query}}}'";
        let lines = format!("backend: {{search: {{url: '{}', {body}}}}}", portal.url("/slow"));
        Tenant::at(name, &portal.url("")).with(&lines).yaml()
    };
    let setup = Setup::new().file("a.yaml", slow("a")).file("a2.yaml", slow("a2"));
    let setup = setup.file("b.yaml", Tenant::at("b", &portal.url("")).yaml());
    let trusted = portal.certificate().display().to_string();
    let gateway = setup.variable("SSL_CERT_FILE", &trusted).start().await;
    let client = gateway.client();
    let mut waiting = JoinSet::new();
    for prefix in ["/a", "/a2"] {
        // One connection to the gateway carries at most a hundred concurrent calls.
        let client = gateway.client();
        for _ in 0..64 {
            let client = client.clone();
            waiting.spawn(async move { client.search(Era::Modern, prefix, "q").await.status });
        }
    }
    backend.until(|counts| counts.in_flight >= 128).await;
    let beside = Beside::watch(client.clone(), "/b");
    tokio::time::timeout(Duration::from_secs(10), Fared::alone(&client, "/b", 30))
        .await
        .expect("b's calls wait for nobody's")
        .assert_unharmed("b beside slow questions");
    beside.finish().await.assert_unharmed("b beside slow questions, watched");
    backend.release();
    assert!(waiting.join_all().await.into_iter().all(|status| status == 200));
}

#[tokio::test]
async fn a_portal_that_ends_its_connections_again_and_again_fails_no_call() {
    let backend = FakeBackend::start().await;
    // Over HTTP/2 each closed connection starts with a GOAWAY.
    let portal = Portal::start(&backend, "keepalive_requests 5;").await;
    for lines in ["", HTTP2] {
        let gateway = behind(&portal, lines).await;
        let client = gateway.client();
        let beside = Beside::watch(client.clone(), "/b");
        for _ in 0..10 {
            let mut wave = JoinSet::new();
            for _ in 0..8 {
                let client = client.clone();
                wave.spawn(async move { client.search(Era::Modern, "/a", "q").await.data() });
            }
            assert!(wave.join_all().await.iter().all(|data| data["row_count"] == 2));
        }
        beside.finish().await.assert_unharmed("b behind a portal that ends its connections");
    }
}

#[tokio::test]
async fn callers_who_cancel_again_and_again_reset_nobodys_connection() {
    const WAVE: usize = 10;
    let backend = FakeBackend::start().await;
    backend.answer("/slow/nlp-search", Reply::Hang);
    let portal = Portal::start(&backend, "").await;
    for lines in ["", HTTP2] {
        let tenant = |name: &str, path: &str| Tenant::at(name, &portal.url(path)).with(lines).yaml();
        let setup = Setup::new().file("a.yaml", tenant("a", "/slow")).file("b.yaml", tenant("b", ""));
        let trusted = portal.certificate().display().to_string();
        let gateway = setup.variable("SSL_CERT_FILE", &trusted).start().await;
        let beside = Beside::watch(gateway.client(), "/b");
        let before = backend.counts().cancelled;
        for wave in 1..=20 {
            // The gateway closes a caller's connection that resets too many streams.
            let caller = gateway.client();
            let mut calls = JoinSet::new();
            for _ in 0..WAVE {
                let params = json!({ "name": "search", "arguments": { "query": "q" } });
                calls.spawn(caller.ask(Era::Modern, "/a/mcp", "tools/call", params).send());
            }
            // One of the calls in flight may be b's.
            backend.until(|counts| counts.in_flight >= WAVE).await;
            calls.shutdown().await;
            backend.until(|counts| counts.cancelled >= before + wave * (WAVE - 1)).await;
        }
        beside.finish().await.assert_unharmed("b beside cancelled calls");
    }
}

#[tokio::test]
async fn answers_in_crumbs_end_and_take_no_time_from_others() {
    let backend = FakeBackend::start().await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    backend.answer("/crumbs/nlp-search", Reply::Endless(head, "1\r\nx\r\n"));
    backend.answer("/interim/nlp-search", Reply::Endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"));
    let mut setup = Setup::new().file("b.yaml", Tenant::new("b", &backend).yaml());
    for name in ["crumbs", "interim"] {
        setup =
            setup.file(&format!("{name}.yaml"), Tenant::at(name, &backend.url(&format!("/{name}"))).yaml());
    }
    let gateway = setup.start().await;
    let client = gateway.client();
    let beside = Beside::watch(client.clone(), "/b");
    for prefix in ["/crumbs", "/interim"] {
        for _ in 0..2 {
            let sentence = client.search(Era::Modern, prefix, "q").await.tool_error();
            assert!(sentence.contains("too many small pieces"), "{sentence}");
        }
    }
    beside.finish().await.assert_unharmed("b beside crumbs");
}

#[tokio::test]
async fn backends_are_asked_through_the_proxies_of_the_environment() {
    let backend = FakeBackend::start().await;
    let portal = Portal::start(&backend, "").await;
    let secure = Proxy::start(portal.address()).await;
    let plain = Proxy::start(backend.address()).await;
    // No DNS server knows these names: they are reachable only through the proxies.
    let setup = Setup::new()
        .file("a.yaml", Tenant::at("a", "http://portal.test").yaml())
        .file("b.yaml", Tenant::new("b", &backend).yaml())
        .file("c.yaml", Tenant::at("c", "https://portal.test").yaml())
        .file("d.yaml", Tenant::at("d", "http://portal.direct.test").yaml())
        .variable("SSL_CERT_FILE", &portal.certificate().display().to_string())
        .variable("HTTP_PROXY", &format!("http://ann:pass@{}", plain.address()))
        .variable("https_proxy", &format!("http://{}", secure.address()))
        .variable("NO_PROXY", "direct.test");
    let gateway = setup.start().await;
    let client = gateway.client();
    let beside = Beside::watch(client.clone(), "/b");
    assert_eq!(client.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
    assert_eq!(client.search(Era::Modern, "/c", "q").await.data()["row_count"], 2);
    let sentence = client.search(Era::Modern, "/d", "q").await.tool_error();
    assert!(sentence.contains("cannot be reached"), "{sentence}");
    beside.finish().await.assert_unharmed("b on loopback, without a proxy");
    let asked = plain.asked();
    // The connection is reused, so the proxy records only its first request.
    assert!(asked.iter().any(|line| line.contains(" http://portal.test/nlp-")), "{asked:?}");
    assert!(asked.iter().all(|line| line.contains("proxy-authorization: Basic YW5uOnBhc3M=")), "{asked:?}");
    assert!(
        !asked.iter().any(|line| line.contains("127.0.0.1") || line.contains("direct.test")),
        "{asked:?}"
    );
    assert!(secure.asked().contains(&"CONNECT portal.test:443 HTTP/1.1".to_owned()), "{:?}", secure.asked());
}

#[tokio::test]
async fn names_that_hang_take_neither_threads_nor_time_from_others() {
    if !may_mount() {
        eprintln!("not tried: this user may not mount");
        return;
    }
    // A DNS server that never answers. A port where nothing listens would refuse at once.
    let silent = UdpSocket::bind("127.53.53.53:53").expect("root may listen there");
    let backend = FakeBackend::start().await;
    let mut setup = Setup::new().file("b.yaml", Tenant::new("b", &backend).yaml());
    for number in 0..80 {
        let name = format!("hung{number}");
        let tenant = Tenant::at(&name, &format!("http://{name}.test"));
        setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
    }
    let file = setup.path().join("resolv.conf");
    fs::write(&file, "nameserver 127.53.53.53\noptions timeout:5 attempts:2\n").expect("written");
    let setup = setup.after_mounting(&format!("mount --bind {} /etc/resolv.conf", file.display()));
    let gateway = setup.start().await;
    let client = gateway.client();
    // On a connection of its own: the waiting calls use up the streams of theirs.
    let beside = Beside::watch(gateway.client(), "/b");
    let mut calls = JoinSet::new();
    for number in 0..80 {
        for _ in 0..3 {
            let client = client.clone();
            calls.spawn(async move {
                client.search(Era::Modern, &format!("/hung{number}"), "q").await.tool_error()
            });
        }
    }
    let mut most = 0;
    while let Some(sentence) = calls.join_next().await {
        let sentence = sentence.expect("an answer");
        assert!(sentence.contains("cannot be reached"), "{sentence}");
        most = most.max(gateway.threads());
    }
    beside.finish().await.assert_unharmed("b beside names that hang");
    assert!(most < 100, "names took threads: {most}");
    let names = fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("it runs").flatten();
    let names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    let resolving = names.filter(|name| name.trim() == "resolve").count();
    eprintln!("threads at most {most}, of them {resolving} look names up");
    assert!((20..=48).contains(&resolving), "{resolving} lookups under way");
    drop(silent);
}
