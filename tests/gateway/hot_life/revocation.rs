//! Removing a key from the file ends its holder's calls and streams; all others continue.

use serde_json::json;

use super::super::harness::secret::secret;
use super::super::harness::{Client, Era, FakeBackend, Reply, Setup, Tenant};

fn keyed(backend: &FakeBackend, labels: &[&str]) -> Vec<u8> {
    let line = |label: &&str| format!("  - label: {label}\n    key: {}\n", secret(label));
    let lines: String = labels.iter().map(line).collect();
    Tenant::new("acme", backend).with(&format!("api_keys:\n{lines}")).yaml()
}

async fn open_stream(client: &Client) -> reqwest::Response {
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let request = client.ask(Era::Modern, "/acme/mcp", "subscriptions/listen", params);
    let stream = request.send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    stream
}

#[tokio::test]
async fn a_removed_key_ends_its_calls_and_streams_at_once_and_no_others() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.yaml", keyed(&backend, &["leaver", "stayer"])).start().await;
    gateway.until_state("acme", "serving").await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let leaver = gateway.client().bearer(&secret("leaver"));
    let stayer = gateway.client().bearer(&secret("stayer"));
    let stream_of_leaver = open_stream(&leaver).await;
    let mut stream_of_stayer = open_stream(&stayer).await;
    let cut = async {
        let refused = leaver.search(Era::Modern, "/acme", "q").await;
        assert_eq!(refused.status, 401, "{refused:?}");
        // The stream or its connection ends; either way nothing more arrives.
        let _rest = stream_of_leaver.bytes().await;
        // The backend answers only now, so its answer did not end the leaver's call.
        backend.release();
    };
    let goes_on = async {
        assert_eq!(stayer.search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    };
    let change = async {
        backend.until(|counts| counts.in_flight == 2).await;
        gateway.put("acme.yaml", keyed(&backend, &["stayer"]));
    };
    tokio::join!(cut, goes_on, change);
    backend.answer("/nlp-search", Reply::Rows);
    // The stayer's stream belongs to the new revision now, and receives its changes.
    let other = String::from_utf8(keyed(&backend, &["stayer"])).expect("text") + "description: Other texts\n";
    gateway.put("acme.yaml", other);
    let mut heard = String::new();
    while !heard.contains("tools/list_changed") {
        let piece = stream_of_stayer.chunk().await.expect("the stream goes on").expect("the stream goes on");
        heard.push_str(&String::from_utf8_lossy(&piece));
    }
}
