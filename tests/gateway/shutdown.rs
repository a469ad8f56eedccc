//! Shutdown: drain, deadlines and signals.

use serde_json::json;

use super::harness::{Era, FakeBackend, PATIENCE, Reply, Setup, Tenant};

#[tokio::test]
async fn sigterm_lets_calls_finish_and_takes_no_new_ones() {
    let backend = FakeBackend::start().await;
    let mut gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = gateway.client();
    let call = async { client.search(Era::Modern, "/a", "q").await.data() };
    let meanwhile = async {
        backend.until(|counts| counts.in_flight == 1).await;
        gateway.signal("TERM");
        super::harness::until("it drains", async || gateway.output().contains("draining").then_some(()))
            .await;
        backend.release();
    };
    let (data, ()) = tokio::join!(call, meanwhile);
    assert_eq!(data["row_count"], 2);
    drop(client);
    assert!(gateway.until_ended().await.success());
}

#[tokio::test]
async fn the_drain_ends_streams_before_it_ends_calls() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().settings("limits:\n  drain_seconds: 15\n");
    let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = gateway.client();
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let stream = gateway.client().ask(Era::Modern, "/a/mcp", "subscriptions/listen", params);
    let stream = stream.send().await.expect("an answer");
    let call = async { client.search(Era::Modern, "/a", "q").await.data() };
    let meanwhile = async {
        backend.until(|counts| counts.in_flight == 1).await;
        gateway.signal("TERM");
        let heard = tokio::time::timeout(PATIENCE, stream.text()).await.expect("the stream ends");
        assert_eq!(backend.counts().in_flight, 1, "the call outlives the stream");
        backend.release();
        heard.expect("the stream ends whole")
    };
    let (data, heard) = tokio::join!(call, meanwhile);
    assert_eq!(data["row_count"], 2);
    assert!(heard.contains("\"result\""), "no final result: {heard}");
    drop(client);
    assert!(gateway.until_ended().await.success());
}

#[tokio::test]
async fn the_drain_has_an_end_and_a_second_signal_ends_at_once() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::Hang);
    for (drain_seconds, signals) in [(1, 1), (600, 2)] {
        let setup = Setup::new().settings(&format!("limits:\n  drain_seconds: {drain_seconds}\n"));
        let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
        let client = gateway.client();
        let before = backend.counts().requests;
        let mut call = tokio::task::JoinSet::new();
        call.spawn(async move {
            let request = client.ask(
                Era::Modern,
                "/a/mcp",
                "tools/call",
                serde_json::json!({
                    "name": "search", "arguments": { "query": "q" },
                }),
            );
            drop(request.send().await);
        });
        backend.until(|counts| counts.requests > before && counts.in_flight > 0).await;
        for _ in 0..signals {
            gateway.signal("TERM");
            super::harness::until("it drains", async || gateway.output().contains("draining").then_some(()))
                .await;
        }
        gateway.until_ended().await;
        call.abort_all();
    }
}

#[tokio::test]
async fn a_killed_gateway_starts_again_as_it_was() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with("description: As it was").yaml());
    super::harness::until("the change is there", async || {
        gateway.client().get("/a/").await.text.contains("As it was").then_some(())
    })
    .await;
    let gateway = gateway.kill_and_restart().await;
    assert!(gateway.client().get("/a/").await.text.contains("As it was"));
    assert_eq!(gateway.client().search(Era::Legacy, "/a", "q").await.data()["row_count"], 2);
}
