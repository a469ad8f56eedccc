//! Isolation: one tenant's trouble never affects another tenant. Each submodule attacks one
//! resource.

mod answers;
mod claims;
mod edge;
mod files;
mod grants;
mod logins;
mod places;
mod portal;
mod rights;

use std::time::Duration;

use serde_json::json;

use super::harness::beside::Fared;
use super::harness::{Beside, Era, FakeBackend, Reply, Setup, Tenant};

#[tokio::test]
async fn a_goes_on_while_bs_backend_hangs_and_b_is_flooded() {
    let (good, hanging) = (FakeBackend::start().await, FakeBackend::start().await);
    hanging.answer("/nlp-search", Reply::Hang);
    let setup = Setup::new().file("a.zip", Tenant::new("a", &good).zip());
    let gateway = setup.file("b.zip", Tenant::new("b", &hanging).zip()).start().await;
    let client = gateway.client();
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        flood.spawn(async move { client.search(Era::Modern, "/b", "q").await.status });
    }
    hanging.until(|counts| counts.in_flight > 0).await;
    for number in 0..50 {
        let data = client.search(Era::Modern, "/a", "q").await.data();
        assert_eq!(data["row_count"], 2, "call {number}");
    }
    // The bulkhead keeps the flood within its share of connections.
    let counts = hanging.counts();
    assert!(counts.most_in_flight < 100, "the bulkhead let everything through: {counts:?}");
    assert_eq!(gateway.admin("/readyz").await.0, 200);
    flood.abort_all();
}

#[tokio::test]
async fn junk_requests_of_one_caller_take_neither_memory_nor_time_from_others() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().memory_mib(1024).file("a.zip", Tenant::new("a", &backend).zip());
    let gateway = setup.file("b.zip", Tenant::new("b", &backend).zip()).start().await;
    let client = gateway.client();
    let alone = Fared::alone(&client, "/b", 50).await;
    alone.assert_unharmed("b alone");
    let (before, threads) = (gateway.resident_mib(), gateway.threads());
    let beside = Beside::watch(client.clone(), "/b");
    let junk = "[".repeat(200 << 10);
    for _ in 0..20 {
        let mut wave = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let request = client.request(reqwest::Method::POST, "/a/mcp").body(junk.clone());
            wave.spawn(request.header("content-type", "application/json").send());
        }
        for answer in wave.join_all().await {
            assert_eq!(answer.expect("an answer").status(), 400);
        }
    }
    beside.finish().await.assert_unharmed("b beside junk");
    let grown = gateway.peak_mib().saturating_sub(before);
    assert!(grown < 100, "junk took {grown} MiB");
    assert!(gateway.threads() < threads + 16, "junk took threads: {}", gateway.threads());
}

#[tokio::test]
async fn a_full_bulkhead_is_said_at_once_and_in_a_sentence() {
    let hanging = FakeBackend::start().await;
    hanging.answer("/nlp-search", Reply::Hang);
    let tenant = Tenant::new("b", &hanging).with("limits:\n  concurrent_calls: 1");
    let gateway = Setup::new().file("b.yaml", tenant.yaml()).start().await;
    let client = gateway.client();
    let first = {
        let client = client.clone();
        async move { client.search(Era::Modern, "/b", "q").await }
    };
    let second = async {
        hanging.until(|counts| counts.in_flight == 1).await;
        client.search(Era::Modern, "/b", "q").await.tool_error()
    };
    let sentence = tokio::select! {
        answer = first => panic!("answered by a backend that hangs: {answer:?}"),
        sentence = second => sentence,
    };
    assert!(sentence.contains("request"), "{sentence}");
}

#[tokio::test]
async fn garbage_beside_good_files_is_rejected_with_reasons_and_nothing_else_happens() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.zip", Tenant::new("a", &backend).zip()).start().await;
    let whole = Tenant::new("cut", &backend).zip();
    let bad: [(&str, Vec<u8>, &str); 8] = [
        ("text.zip", b"hello".to_vec(), "zip"),
        ("empty.zip", Vec::new(), "empty"),
        ("cut.zip", whole[..whole.len() / 2].to_vec(), "zip"),
        ("syntax.yaml", b"search_url: [".to_vec(), "YAML"),
        ("half.yaml", b"search_url: https://api.example.com/nlp-search\n".to_vec(), "api_key"),
        ("twin.yaml", Tenant::new("twin", &backend).with("path_prefix: /a").yaml(), "/a"),
        ("login.yaml", Tenant::new("login", &backend).with("oauth_enabled: true").yaml(), "oauth"),
        ("own.yaml", Tenant::at("own", &format!("http://{}", gateway.address())).yaml(), "gateway"),
    ];
    for (name, bytes, _) in &bad {
        gateway.put(name, bytes);
    }
    for (name, _, said) in &bad {
        let stem = name.split('.').next().expect("a stem");
        let status = gateway.until_state(stem, "rejected").await;
        let findings = status["findings"].to_string();
        assert!(findings.contains(said), "{name} should be told about {said}: {findings}");
        assert_eq!(gateway.client().get(&format!("/{stem}/")).await.status, 404, "{name}");
    }
    assert_eq!(gateway.client().search(Era::Legacy, "/a", "q").await.data()["row_count"], 2);
    assert_eq!(gateway.admin("/readyz").await.0, 200);
}

#[tokio::test]
async fn every_way_a_backend_can_fail_is_one_sentence_for_the_asker() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("deadline: 2");
    let gateway = Setup::new().file("a.yaml", tenant.yaml()).start().await;
    let client = gateway.client();
    for reply in [
        Reply::Status(500, json!({ "detail": "stack trace of the vendor" })),
        Reply::Status(401, json!({})),
        Reply::Garbage,
        Reply::Html(502),
        Reply::Reset,
        Reply::Redirect(302, "http://169.254.169.254/latest".to_owned()),
        Reply::HugeChunked(64 << 20),
        Reply::ManyHeaders(101),
        Reply::RateLimited("7"),
    ] {
        backend.answer("/nlp-search", reply.clone());
        let sentence = client.search(Era::Modern, "/a", "q").await.tool_error();
        assert!(sentence.contains("(request "), "{reply:?}: {sentence}");
        assert!(
            !sentence.contains("<!doctype") && !sentence.contains("stack trace"),
            "{reply:?}: {sentence}"
        );
        assert!(sentence.matches(". ").count() >= 1, "{reply:?} is told without advice: {sentence}");
    }
}

#[tokio::test]
async fn a_dead_backend_makes_a_tenant_degraded_and_never_unready() {
    let backend = FakeBackend::start().await;
    let gone = FakeBackend::start().await;
    let dead = Tenant::new("dead", &gone).zip();
    gone.stop().await;
    let setup = Setup::new().file("dead.zip", dead).file("a.zip", Tenant::new("a", &backend).zip());
    let gateway = setup.start().await;
    let status = gateway.until_state("dead", "degraded").await;
    assert!(status["trouble"].as_str().is_some_and(|trouble| !trouble.is_empty()), "{status}");
    assert_eq!(gateway.admin("/readyz").await.0, 200);
    let sentence = gateway.client().search(Era::Modern, "/dead", "q").await.tool_error();
    assert!(sentence.contains("reach") || sentence.contains("connect"), "{sentence}");
    let client = gateway.client();
    let quick = tokio::time::timeout(Duration::from_secs(10), client.search(Era::Modern, "/a", "q"));
    assert_eq!(quick.await.expect("an answer").data()["row_count"], 2);
}
