//! Slow calls, and clients that do not wait for their end.

use std::time::Duration;

use serde_json::json;

use super::library::LIBRARIES;
use super::script::search;
use super::stage::{each, plain};
use crate::harness::Reply;
use crate::harness::backend::rows;

/// Longer than the minute for which most libraries and proxies wait for a silent server.
const LONG: Duration = Duration::from_secs(90);

#[tokio::test]
async fn every_client_gets_an_answer_that_takes_ninety_seconds() {
    each(LIBRARIES, plain, |stage| async move {
        stage.backend.answer("/nlp-search", Reply::After(LONG, Box::new(Reply::Rows)));
        let mut client = stage.connected().await;
        let mut order = search("q");
        order["patience"] = json!(2 * LONG.as_secs());
        client.tell(order).await;
        let answer = client.answer_within(2 * LONG).await;
        assert_eq!(answer["failed"], false, "{answer}");
        assert_eq!(answer["data"]["data"], rows());
        assert_eq!(stage.backend.counts().cancelled, 0);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_ends_its_call() {
    each(LIBRARIES, plain, |stage| async move {
        stage.backend.answer("/nlp-search", Reply::Hang);
        let mut client = stage.connected().await;
        client.tell(search("q")).await;
        stage.backend.until(|counts| counts.in_flight == 1).await;
        drop(client);
        stage.backend.until(|counts| counts.in_flight == 0 && counts.cancelled == 1).await;
    })
    .await;
}

/// Without sessions, nothing tells whose request an older client's `notifications/cancelled` means,
/// so its call ends when it disconnects. A newer client cancels by closing the call's stream.
#[tokio::test]
async fn a_client_that_gives_up_can_call_again_and_leaves_no_call_behind() {
    each(LIBRARIES, plain, |stage| async move {
        stage.backend.answer("/nlp-search", Reply::Hang);
        let mut client = stage.connected().await;
        let mut order = search("q");
        order["stoppable"] = json!(true);
        client.tell(order).await;
        stage.backend.until(|counts| counts.in_flight == 1).await;
        let stopped = client.ask(json!({ "do": "stop" })).await;
        assert!(stopped["error"].is_string(), "{stopped}");
        if stage.library.is_modern() {
            stage.backend.until(|counts| counts.in_flight == 0 && counts.cancelled == 1).await;
        }
        stage.backend.answer("/nlp-search", Reply::Rows);
        assert_eq!(client.search("q").await["data"]["data"], rows());
        assert_eq!(client.ask(json!({ "do": "close" })).await, json!({ "closed": true }));
        stage.backend.until(|counts| counts.in_flight == 0 && counts.cancelled == 1).await;
    })
    .await;
}
