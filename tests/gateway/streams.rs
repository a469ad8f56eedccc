//! Slow answers, clients that disconnect, and streams that receive change notifications.

use std::time::Duration;

use serde_json::json;

use super::harness::{Era, FakeBackend, PATIENCE, Reply, Setup, Tenant};

#[tokio::test]
async fn a_slow_answer_becomes_a_stream_with_one_event() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::After(Duration::from_secs(8), Box::new(Reply::Rows)));
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    for era in [Era::Legacy, Era::Modern] {
        let answer = gateway.client().search(era, "/a", "q").await;
        assert!(answer.header("content-type").starts_with("text/event-stream"), "{answer:?}");
        assert_eq!(answer.data()["row_count"], 2);
        assert_eq!(answer.text.matches("data:").count(), 1, "{answer:?}");
        assert!(answer.text.starts_with(':'), "no comment kept it alive: {answer:?}");
    }
}

#[tokio::test]
async fn a_tenant_that_answers_in_json_never_streams_a_slow_answer() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::After(Duration::from_secs(8), Box::new(Reply::Rows)));
    let yaml = Tenant::new("a", &backend).with("answers: json").yaml();
    let gateway = Setup::new().file("a.yaml", yaml).start().await;
    for era in [Era::Legacy, Era::Modern] {
        let answer = gateway.client().search(era, "/a", "q").await;
        assert!(answer.header("content-type").starts_with("application/json"), "{answer:?}");
        assert_eq!(answer.data()["row_count"], 2);
    }
}

#[tokio::test]
async fn who_asks_for_progress_gets_it() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::After(Duration::from_millis(500), Box::new(Reply::Rows)));
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    for era in [Era::Legacy, Era::Modern] {
        let params = json!({
            "name": "search", "arguments": { "query": "q" }, "_meta": { "progressToken": "p-1" },
        });
        let answer = gateway.client().rpc(era, "/a/mcp", "tools/call", params).await;
        assert!(answer.text.contains("notifications/progress") && answer.text.contains("p-1"), "{answer:?}");
        assert_eq!(answer.data()["row_count"], 2);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_the_backend_call() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::Hang);
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    for (number, era) in [Era::Legacy, Era::Modern].into_iter().enumerate() {
        // The call has a client of its own, so that its connection ends with it.
        let client = gateway.client();
        let call = tokio::time::timeout(PATIENCE, client.search(era, "/a", "q"));
        tokio::select! {
            answer = call => panic!("answered by a backend that hangs: {answer:?}"),
            _ = backend.until(|counts| counts.in_flight == 1) => {}
        }
        drop(client);
        backend.until(|counts| counts.cancelled == number + 1 && counts.in_flight == 0).await;
    }
}

#[tokio::test]
async fn a_listener_hears_that_the_tools_changed() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let request = gateway.client().ask(Era::Modern, "/a/mcp", "subscriptions/listen", params);
    let mut stream = request.send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    gateway.put("a.yaml", Tenant::new("a", &backend).with("description: Other texts").yaml());
    let mut heard = String::new();
    let listening = async {
        while !heard.contains("notifications/tools/list_changed") {
            let piece = stream.chunk().await.expect("the stream goes on").expect("the stream goes on");
            heard.push_str(&String::from_utf8_lossy(&piece));
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.unwrap_or_else(|_| panic!("heard only: {heard}"));
}
