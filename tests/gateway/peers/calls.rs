//! Everyday use: list tools, call them, read the context, and get errors in words.

use std::time::Duration;

use serde_json::{Value, json};

use super::library::LIBRARIES;
use super::script::search;
use super::stage::{document, each, plain};
use crate::harness::Reply;
use crate::harness::backend::rows;

#[tokio::test]
async fn every_client_lists_the_tools_and_gets_rows() {
    each(LIBRARIES, plain, |stage| async move {
        let mut client = stage.connected().await;
        let listed = client.ask(json!({ "do": "tools" })).await;
        let tools = listed["tools"].as_array().unwrap_or_else(|| panic!("no list: {listed}"));
        let names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
        assert_eq!(names, ["search", "get_context"]);
        assert!(tools[0]["description"].to_string().contains(stage.library.name), "{listed}");
        let answer = client.search("orders by region").await;
        assert_eq!(answer["failed"], false, "{answer}");
        assert_eq!(answer["data"]["data"], rows());
        let text = answer["text"].as_str().unwrap_or_default();
        assert!(text.contains("north") && text.contains("12"), "{text}");
        let asked = stage.backend.requests().into_iter().find(|request| request.target == "/nlp-search");
        assert_eq!(asked.expect("the backend was asked").json()["query"], "orders by region");
    })
    .await;
}

#[tokio::test]
async fn every_client_reads_the_context() {
    each(LIBRARIES, plain, |stage| async move {
        let mut client = stage.connected().await;
        let uri = format!("context://{}", stage.library.name);
        assert_eq!(client.ask(json!({ "do": "resources" })).await, json!({ "uris": [uri] }));
        let read = client.ask(json!({ "do": "read", "uri": uri })).await;
        let text = read["text"].as_str().unwrap_or_else(|| panic!("nothing was read: {read}"));
        assert_eq!(serde_json::from_str::<Value>(text).ok(), Some(document()));
        let absent = client.ask(json!({ "do": "read", "uri": "context://nobody" })).await;
        assert!(absent["error"].is_string(), "{absent}");
    })
    .await;
}

#[tokio::test]
async fn every_client_is_told_in_words_what_failed() {
    each(LIBRARIES, plain, |stage| async move {
        let mut client = stage.connected().await;
        stage.backend.answer("/nlp-search", Reply::Status(500, json!({ "detail": "a stack trace" })));
        let broken = client.search("q").await;
        assert_eq!(broken["failed"], true, "{broken}");
        let sentence = broken["text"].as_str().unwrap_or_default();
        assert!(sentence.contains("search service") && sentence.contains("(request "), "{sentence}");
        assert!(!sentence.contains("stack trace"), "{sentence}");
        let wrong = json!({ "do": "call", "name": "search", "arguments": { "query": 7 } });
        let misunderstood = client.ask(wrong).await;
        assert_eq!(misunderstood["failed"], true, "{misunderstood}");
        let sentence = misunderstood["text"].as_str().unwrap_or_default();
        assert!(sentence.contains("query") && sentence.contains("Correct them"), "{sentence}");
        let unknown = client.ask(json!({ "do": "call", "name": "drop_table", "arguments": {} })).await;
        assert!(unknown["error"].to_string().contains("this server has no tool"), "{unknown}");
        stage.backend.answer("/nlp-search", Reply::Rows);
        assert_eq!(client.search("q").await["failed"], false, "the connection is as good as before");
    })
    .await;
}

#[tokio::test]
async fn every_client_hears_progress() {
    each(LIBRARIES, plain, |stage| async move {
        stage.backend.answer("/nlp-search", Reply::After(Duration::from_secs(7), Box::new(Reply::Rows)));
        let mut client = stage.connected().await;
        let mut order = search("q");
        order["progress"] = json!(true);
        let answer = client.ask(order).await;
        assert_eq!(answer["data"]["data"], rows(), "{answer}");
        let beats = answer["progress"].as_array().map_or(0, Vec::len);
        assert!(beats >= 2, "{answer}");
        assert!(answer["progress"].to_string().contains("waiting for the search service"), "{answer}");
    })
    .await;
}
