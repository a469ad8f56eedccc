//! Slow responses: comments until the response is ready, progress for clients that asked for it,
//! cancellation for clients that disconnect.

use serde_json::json;

use super::testkit::*;
use crate::backend::tests::fake::Reply;

#[tokio::test]
async fn a_slow_answer_is_kept_alive_and_comes_as_the_one_event() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Held(Reply::Rows.into()));
    let server = bed.impatient();
    let mut stream = open(&server, search("orders")).await;
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    assert_eq!(stream.headers["cache-control"], "no-store");
    for _ in 0..3 {
        assert_eq!(stream.next().await, Some(SseItem::Comment));
    }
    assert_eq!(server.in_flight_count(), 1);
    bed.backend.until(|counts| counts.in_flight == 1).await;
    bed.backend.release();
    let messages = stream.rest().await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["id"], 7);
    assert_eq!(messages[0]["result"]["structuredContent"]["data"]["row_count"], 2);
    assert_eq!(server.in_flight_count(), 0);
}

#[tokio::test]
async fn a_failure_that_comes_late_is_an_event_as_well() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Held(Reply::Html(502).into()));
    let server = bed.impatient();
    let mut stream = open(&server, search("orders")).await;
    assert_eq!(stream.next().await, Some(SseItem::Comment));
    bed.backend.until(|counts| counts.in_flight == 1).await;
    bed.backend.release();
    let messages = stream.rest().await;
    let (text, is_error) = text_and_error_flag(&messages[0]["result"]);
    assert!(is_error && text.starts_with("The search service failed (HTTP 502)."), "{text}");
}

#[tokio::test]
async fn progress_is_sent_to_clients_that_ask_for_it() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Held(Reply::Rows.into()));
    let server = bed.impatient();
    let mut stream = open(&server, search_with_progress()).await;
    let mut last = -1.0;
    for _ in 0..3 {
        let message = stream.message().await.expect("a notification");
        assert_eq!(message["method"], "notifications/progress");
        assert_eq!(message["params"]["progressToken"], "p-1");
        let progress = message["params"]["progress"].as_f64().expect("a number");
        assert!(progress > last, "{progress} after {last}");
        last = progress;
    }
    bed.backend.until(|counts| counts.in_flight == 1).await;
    bed.backend.release();
    let messages = stream.rest().await;
    let answer = messages.last().expect("an answer");
    assert_eq!(answer["result"]["structuredContent"]["data"]["row_count"], 2);
}

#[tokio::test]
async fn a_client_that_leaves_before_an_answer_began_cancels_the_backend_call() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Hang);
    let server = bed.server();
    for request in [
        search("orders"),
        legacy("2025-11-25", "tools/call", json!({"name": "search", "arguments": {"query": "x"}})),
    ] {
        let before = bed.backend.counts().cancelled;
        let mut answer = Box::pin(server.handle(request, caller()));
        tokio::select! {
            _ = &mut answer => panic!("a backend that is silent was answered for"),
            _ = bed.backend.until(|counts| counts.in_flight == 1) => {}
        }
        assert_eq!(server.in_flight_count(), 1);
        drop(answer);
        bed.backend.until(|counts| counts.cancelled == before + 1).await;
        assert_eq!(server.in_flight_count(), 0);
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_the_backend_call() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::Hang);
    let server = bed.impatient();
    for request in [search("orders"), search_with_progress()] {
        let before = bed.backend.counts().cancelled;
        let mut stream = open(&server, request).await;
        stream.next().await.expect("a sign of life");
        bed.backend.until(|counts| counts.in_flight == 1).await;
        drop(stream);
        bed.backend.until(|counts| counts.cancelled == before + 1).await;
        assert_eq!(server.in_flight_count(), 0);
    }
}
