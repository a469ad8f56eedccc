//! Reloads and shutdown: streams are notified, and calls in flight always get a response.

use std::time::Duration;

use serde_json::{Value, json};

use super::testkit::*;
use crate::backend::tests::fake::Reply;
use crate::mcp::{McpServer, McpServerConfig};
use crate::spec::ToolKind;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Opens a stream and reads its acknowledgement.
async fn listen(server: &McpServer) -> SseStream {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut stream = open(server, modern("subscriptions/listen", wanted)).await;
    let message = stream.message().await.expect("an acknowledgement");
    assert_eq!(message["method"], "notifications/subscriptions/acknowledged");
    stream
}

/// Returns the methods of all messages until the end; the final result has none.
async fn methods(stream: SseStream) -> Vec<String> {
    let method = |message: &Value| message["method"].as_str().unwrap_or("result").to_owned();
    let messages = stream.rest().await;
    for message in &messages {
        assert!(message.get("error").is_none(), "{message}");
    }
    messages.iter().map(method).collect()
}

fn with_another_tool(bed: &McpTestkit) -> McpServerConfig {
    let mut config = bed.server_config();
    let more = bed.tool("search_more", ToolKind::Search, "/nlp-search");
    config.tools = config.tools.iter().cloned().chain([more]).collect();
    config
}

#[tokio::test]
async fn streams_are_notified_when_the_tools_change() {
    let bed = McpTestkit::new().await;
    let (first, same, other) =
        (bed.server(), bed.server(), build_server(with_another_tool(&bed), slow_timing()));
    let mut stream = listen(&first).await;
    first.hand_over_to(&same);
    first.close();
    same.hand_over_to(&other);
    same.close();
    let message = stream.message().await.expect("a notification");
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert_eq!(message["params"]["_meta"][SUBSCRIPTION], 7, "{message}");
    assert_eq!(first.in_flight_count(), 1);
    other.close();
    assert_eq!(methods(stream).await, ["result"]);
    assert_eq!(first.in_flight_count(), 0);
}

#[tokio::test]
async fn a_reload_with_the_same_tools_sends_no_notification() {
    let bed = McpTestkit::new().await;
    let (first, same) = (bed.server(), bed.server());
    let stream = listen(&first).await;
    first.hand_over_to(&same);
    same.close();
    assert_eq!(methods(stream).await, ["result"]);
}

#[tokio::test]
async fn streams_without_the_tools_filter_get_no_notification() {
    let bed = McpTestkit::new().await;
    let (first, other) = (bed.server(), build_server(with_another_tool(&bed), slow_timing()));
    let wanted = json!({"notifications": {"promptsListChanged": true}});
    let mut stream = open(&first, modern("subscriptions/listen", wanted)).await;
    let acknowledged = stream.message().await.expect("an acknowledgement");
    assert_eq!(acknowledged["params"]["notifications"].get("toolsListChanged"), None, "{acknowledged}");
    let mut others = listen(&first).await;
    first.hand_over_to(&other);
    others.message().await.expect("a notification");
    let silence = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    other.close();
    assert_eq!(methods(stream).await, ["result"]);
}

#[tokio::test]
async fn closing_ends_streams_and_calls_with_an_answer() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Hang);
    let server = bed.impatient();
    let stream = listen(&server).await;
    let called = open(&server, search("orders")).await;
    bed.backend.until(|counts| counts.in_flight == 1).await;
    server.close();
    assert_eq!(methods(stream).await, ["result"]);
    let answers = called.rest().await;
    let (text, is_error) = text_and_error_flag(&answers[0]["result"]);
    assert!(is_error && text.starts_with("This server was changed or is shutting down."), "{text}");
    bed.backend.until(|counts| counts.cancelled == 1).await;
    assert_eq!(server.in_flight_count(), 0);
}

#[tokio::test]
async fn streams_can_end_while_calls_go_on() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Held(Reply::Rows.into()));
    let server = bed.impatient();
    let stream = listen(&server).await;
    let called = open(&server, search("orders")).await;
    bed.backend.until(|counts| counts.in_flight == 1).await;
    server.end_streams();
    assert_eq!(methods(stream).await, ["result"]);
    assert_eq!(methods(listen(&server).await).await, ["result"]);
    bed.backend.release();
    let answers = called.rest().await;
    assert_eq!(answers[0]["result"]["structuredContent"]["data"]["row_count"], 2, "{answers:?}");
}

#[tokio::test]
async fn a_stream_counts_until_its_client_leaves() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    let streams = [listen(&server).await, listen(&server).await];
    assert_eq!(server.in_flight_count(), 2);
    drop(streams);
    assert_eq!(server.in_flight_count(), 0);
}

#[tokio::test]
async fn two_servers_share_nothing() {
    let (here, there) = (McpTestkit::new().await, McpTestkit::new().await);
    there.backend.answer("/nlp-context", Reply::Json(json!({"entities": ["theirs"]})));
    let mut config = with_another_tool(&there);
    config.dataset = "there".into();
    let (ours, theirs) = (here.server(), build_server(config, slow_timing()));
    let (our_stream, their_stream) = (listen(&ours).await, listen(&theirs).await);

    ask(&theirs, call("search_more", json!({"query": "q"}))).await.result();
    assert_eq!(ask(&ours, call("search_more", json!({"query": "q"}))).await.error().1, -32602);
    ask(&theirs, call("get_context", json!({}))).await.result();
    let discovered = ask(&ours, modern("server/discover", json!({}))).await;
    assert_eq!(discovered.result()["instructions"], "Orders of Acme.");
    let read = modern("resources/read", json!({"uri": "context://there"}));
    assert_eq!(ask(&ours, read).await.error().1, -32602);
    assert_eq!(here.backend.counts().requests, 0);

    ours.close();
    assert_eq!(methods(our_stream).await, ["result"]);
    assert_eq!((ours.in_flight_count(), theirs.in_flight_count()), (0, 1));
    ask(&theirs, search("q")).await.result();
    theirs.close();
    assert_eq!(methods(their_stream).await, ["result"]);
}
