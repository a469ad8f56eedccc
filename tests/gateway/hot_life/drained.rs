//! Requests in flight on a revision that is removed or replaced.

use std::time::Duration;

use serde_json::json;
use tenantd::base::clock::{Clock, SystemClock};

use super::super::harness::{Client, Era, FakeBackend, PATIENCE, Reply, Setup, Tenant};

const DRAIN: Duration = Duration::from_secs(3);

async fn open_stream(client: &Client, prefix: &str) -> reqwest::Response {
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let request = client.ask(Era::Modern, &format!("{prefix}/mcp"), "subscriptions/listen", params);
    let stream = request.timeout(4 * PATIENCE).send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    stream
}

#[tokio::test]
async fn a_removed_tenants_streams_are_told_and_closed_after_the_drain_period() {
    let backend = FakeBackend::start().await;
    let settings = format!("limits:\n  drain_seconds: {}\n", DRAIN.as_secs());
    let setup = Setup::new().settings(&settings).file("gone.yaml", Tenant::new("gone", &backend).yaml());
    let gateway = setup.file("stays.yaml", Tenant::new("stays", &backend).yaml()).start().await;
    gateway.until_state("gone", "serving").await;
    let ending = open_stream(&gateway.client(), "/gone").await;
    let mut staying = open_stream(&gateway.client(), "/stays").await;
    backend.answer("/nlp-search", Reply::Hang);
    let client = gateway.client();
    let call = async {
        backend.until(|counts| counts.in_flight == 1).await;
        let removed = SystemClock.monotonic();
        gateway.remove("gone.yaml");
        gateway.until_gone("gone").await;
        let told = ending.text().await.expect("it ends as it should, not torn");
        assert!(SystemClock.monotonic() - removed >= DRAIN, "it was closed before its time");
        let last = told.lines().rev().find_map(|line| line.strip_prefix("data:")).expect("an event");
        assert!(last.contains("\"result\""), "the last word is its result: {told}");
        // The hanging call has ended, too.
        backend.until(|counts| counts.in_flight == 0).await;
    };
    let ((), answer) = tokio::join!(call, client.search(Era::Modern, "/gone", "q"));
    assert!(!answer.text.contains("row_count"), "{answer:?}");
    // The other tenant's stream received nothing so far, and receives its own tenant's change.
    let other = Tenant::new("stays", &backend).with("description: Other texts").yaml();
    gateway.put("stays.yaml", other);
    let mut heard = String::new();
    while !heard.contains("tools/list_changed") {
        let piece = staying.chunk().await.expect("the stream goes on").expect("the stream goes on");
        heard.push_str(&String::from_utf8_lossy(&piece));
    }
    assert_eq!(heard.matches("list_changed").count(), 1, "{heard}");
}

#[tokio::test]
async fn a_call_under_way_finishes_on_the_revision_that_took_it() {
    let backend = FakeBackend::start().await;
    let before = Tenant::new("acme", &backend).yaml();
    let gateway = Setup::new().file("acme.yaml", before).start().await;
    gateway.until_state("acme", "serving").await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = gateway.client();
    let change = async {
        backend.until(|counts| counts.in_flight == 1).await;
        // Nothing listens at the backend of the next revision.
        gateway.put("acme.yaml", Tenant::at("acme", "http://127.0.0.1:9").yaml());
        let taken = async || {
            let status = gateway.status("acme").await?;
            (status["revision"] == 2).then_some(())
        };
        super::super::harness::until("the change is in force", taken).await;
        backend.release();
    };
    let (answer, ()) = tokio::join!(client.search(Era::Modern, "/acme", "q"), change);
    assert_eq!(answer.data()["row_count"], 2);
    assert!(client.search(Era::Modern, "/acme", "q").await.tool_error().contains("reach"));
}
