//! Memory limits that change while the gateway runs: what has no room is refused, and served again
//! when there is room.

use tokio::task::JoinSet;

use super::super::harness::{Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};
use super::super::limits::{answer, begin_request};
use super::change;

/// Returns a reply whose text takes so much.
fn large(kib: usize) -> Reply {
    Reply::Text(format!("[{{\"x\":\"{}\"}}]", "y".repeat(kib << 10)).into(), &[])
}

async fn serving(backend: &FakeBackend, names: &[&str]) -> Gateway {
    let mut setup = Setup::new().settings("").flag("--tls", "off");
    for name in names {
        let tenant = Tenant::new(name, backend).with("limits: {max_request: 1m, max_result: 8m}");
        setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
    }
    setup.start().await
}

fn limit(name: &str, mib: usize) -> String {
    format!("limits: {{{name}: {mib}}}\n")
}

/// Returns whether a search of tenant `a` has its rows.
async fn is_answered(client: &Client) -> bool {
    let answer = client.search(Era::Modern, "/a", "q").await;
    answer.status == 200 && !answer.text.contains("\"isError\":true") && !answer.text.contains("\"error\"")
}

#[tokio::test]
async fn the_memory_for_answers_of_backends_and_of_the_gateway_changes() {
    let backend = FakeBackend::start().await;
    let gateway = serving(&backend, &["a"]).await;
    let client = gateway.client();
    backend.answer("/nlp-search", large(700));
    assert!(is_answered(&client).await);
    for (name, budget) in [("backend_memory_mib", None), ("answer_memory_mib", Some("answers"))] {
        change(&gateway, &limit(name, 1));
        until(name, async || (!is_answered(&client).await).then_some(())).await;
        let metrics = gateway.admin("/metrics").await.1;
        if let Some(budget) = budget {
            let shown = format!("tenantd_budget_limit_bytes{{budget=\"{budget}\"}} 1048576\n");
            assert!(metrics.contains(&shown), "{metrics}");
        }
        change(&gateway, "");
        until("there is room again", async || is_answered(&client).await.then_some(())).await;
    }
}

#[tokio::test]
async fn the_memory_for_calls_changes() {
    let backend = FakeBackend::start().await;
    let gateway = serving(&backend, &["a"]).await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let mut held = JoinSet::new();
    for _ in 0..10 {
        let client = gateway.client();
        held.spawn(async move { client.search(Era::Modern, "/a", "held").await.status });
    }
    backend.until(|counts| counts.in_flight == 10).await;
    backend.answer("/nlp-search", Reply::Rows);
    let client = gateway.client();
    assert!(is_answered(&client).await);
    // Ten calls of 64 KiB are more than one tenant's half of 1 MiB.
    change(&gateway, &limit("call_memory_mib", 1));
    until("one more has no room", async || {
        (client.search(Era::Modern, "/a", "q").await.status == 503).then_some(())
    })
    .await;
    backend.release();
    while let Some(status) = held.join_next().await {
        assert_eq!(status.expect("no panic"), 200, "what is in progress goes on");
    }
    until("there is room again", async || is_answered(&client).await.then_some(())).await;
}

#[tokio::test]
async fn the_memory_for_requests_changes() {
    const LENGTH: usize = 700_000;
    let backend = FakeBackend::start().await;
    let gateway = serving(&backend, &["a"]).await;
    let _under_way = begin_request(gateway.address(), LENGTH - 1, LENGTH).await;
    let is_refused = async || {
        let mut other = begin_request(gateway.address(), LENGTH, LENGTH).await;
        let head = answer(&mut other).await;
        assert!(head.starts_with("HTTP/1.1 503") || head.starts_with("HTTP/1.1 400"), "{head}");
        head.starts_with("HTTP/1.1 503")
    };
    assert!(!is_refused().await, "blanks are no JSON, but there is room for them");
    change(&gateway, &limit("request_memory_mib", 4));
    until("there is no room", async || is_refused().await.then_some(())).await;
    let known = gateway.admin("/api/gateway").await.1;
    assert!(known.contains("\"request_memory_mib\":4"), "checks before an upload know it: {known}");
    change(&gateway, "");
    until("there is room again", async || (!is_refused().await).then_some(())).await;
}

#[tokio::test]
async fn the_memory_for_contexts_changes() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-context", large(700));
    let gateway = serving(&backend, &["a", "b"]).await;
    let held = async || {
        let metrics = gateway.admin("/metrics").await.1;
        let held = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tenantd_budget_held_bytes{budget=\"contexts\"} "));
        held.and_then(|held| held.parse::<usize>().ok()).expect("the metric is there")
    };
    until("both are kept", async || (held().await > 1_400 << 10).then_some(())).await;
    change(&gateway, &limit("context_memory_mib", 1));
    until("one is dropped", async || (held().await < 1 << 20).then_some(())).await;
    change(&gateway, "");
    let client = gateway.client();
    until("it is fetched and kept again", async || {
        for path in ["/a/mcp", "/b/mcp"] {
            let params = serde_json::json!({ "name": "get_context", "arguments": {} });
            client.rpc(Era::Modern, path, "tools/call", params).await;
        }
        (held().await > 1_400 << 10).then_some(())
    })
    .await;
}
