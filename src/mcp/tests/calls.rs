//! Tool calls: what the backend receives, and what a model reads of its answer or failure.

use std::time::Duration;

use serde_json::{Value, json};

use super::testkit::*;
use crate::backend::tests::fake::Reply;
use crate::mcp::timing::Timing;
use crate::mcp::{AuthMode, Caller};
use crate::oauth::bearer::Principal;

#[tokio::test]
async fn a_search_returns_its_rows_as_data_and_as_text() {
    let bed = McpTestkit::new().await;
    let answer = ask(&bed.server(), call("search", json!({"query": "orders", "limit": 5}))).await;
    let result = answer.result();
    assert_eq!(result["structuredContent"]["data"]["rows"][0], json!({"region": "north", "orders": 12}));
    let (text, is_error) = answer.text_and_error_flag();
    assert!(text.contains("north") && text.contains("12") && !is_error, "{text}");
    let requests = bed.backend.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].target, "/nlp-search");
    assert_eq!(requests[0].json(), json!({"query": "orders", "limit": 5}));
    assert_eq!(requests[0].header("x-api-key").as_deref(), Some(KEY));
    assert!(bed.metrics.encode().contains("outcome=\"ok\""));
}

#[tokio::test]
async fn arguments_that_break_the_schema_cause_no_backend_call() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    for (arguments, named) in [
        (json!({}), "argument \"query\" is missing"),
        (json!({"query": ""}), "argument \"query\""),
        (json!({"query": 7}), "argument \"query\": the value is not of type"),
        (json!({"query": "x", "limit": 0}), "argument \"limit\""),
        (json!({"query": "x", "limt": 5}), "argument \"limt\" is unknown (known: query, limit, topic)"),
    ] {
        let (text, is_error) = ask(&server, call("search", arguments.clone())).await.text_and_error_flag();
        assert!(is_error && text.contains(named) && text.contains(REQUEST_ID), "{arguments}: {text}");
    }
    let (text, is_error) =
        ask(&server, modern("tools/call", json!({"name": "search"}))).await.text_and_error_flag();
    assert!(is_error && text.contains("\"query\" is missing"), "{text}");
    assert_eq!(bed.backend.counts().requests, 0);
    assert!(bed.metrics.encode().contains("outcome=\"bad_arguments\""));
}

#[tokio::test]
async fn members_added_by_clients_do_not_fail_a_call() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    for (tool, arguments) in [
        ("search", json!({"query": "orders", "limit": null, "topic": null})),
        ("search", json!({"query": "orders", "toolCallId": "call_1", "sessionId": "x", "chatInput": "hi"})),
        ("get_context", json!({"topic": null})),
        ("get_context", json!({"random_string": "x"})),
    ] {
        let (text, is_error) = ask(&server, call(tool, arguments.clone())).await.text_and_error_flag();
        assert!(!is_error, "{arguments}: {text}");
    }
    for asked in bed.backend.requests().iter().filter(|asked| asked.target == "/nlp-search") {
        assert_eq!(asked.json(), json!({"query": "orders"}));
    }
}

#[tokio::test]
async fn a_backend_failure_is_one_sentence_with_the_request_id() {
    let bed = McpTestkit::new().await;
    let error = |status| Reply::Status(status, json!({"detail": "x", "key": KEY}));
    for (reply, sentence) in [
        (error(401), "The search service refused this server's API key. The operator should"),
        (error(503), "The search service failed (HTTP 503). Try again"),
        (Reply::RateLimited("30"), "The search service is limiting requests. Wait"),
        (Reply::Garbage, "The search service gave an answer that is not JSON. The operator"),
        (Reply::Html(200), "The search service gave an answer that is not JSON."),
        (Reply::HangInBody, "The search service did not answer in time. Try a narrower"),
        (Reply::TruncatedChunk, "The search service ended the connection before its answer was complete."),
    ] {
        let mut config = bed.server_config();
        if matches!(reply, Reply::HangInBody) {
            config.call_timeout = Duration::from_millis(200);
        }
        let case = format!("{reply:?}");
        bed.backend.answer("/nlp-search", reply);
        let answer = ask(&build_server(config, fast_json_timing()), search("orders")).await;
        let (text, is_error) = answer.text_and_error_flag();
        assert!(is_error && text.starts_with(sentence), "{case}: {text}");
        assert!(text.ends_with(&format!("(request {REQUEST_ID})")), "{text}");
        assert!(answer.result().get("structuredContent").is_none(), "{answer:?}");
        let whole = answer.body.to_string();
        assert!(!whole.contains(KEY) && !whole.contains("<h1>") && !whole.contains("127.0.0.1"), "{whole}");
    }
    assert!(bed.metrics.encode().contains("outcome=\"backend_error\""));
}

/// Timing of `fast_timing`, but without streams.
fn fast_json_timing() -> Timing {
    Timing { stream_after: Duration::from_secs(60), ..fast_timing() }
}

#[tokio::test]
async fn a_failed_context_fetch_is_reported() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-context", Reply::Status(401, json!({})));
    let server = bed.server();
    let (text, is_error) = ask(&server, call("get_context", json!({}))).await.text_and_error_flag();
    assert!(is_error && text.starts_with("The search service refused this server's API key."), "{text}");
    let read = ask(&server, modern("resources/read", json!({"uri": "context://acme%20orders"}))).await;
    assert_eq!(read.error().1, -32603);
    assert!(read.message().contains("API key") && read.message().contains(REQUEST_ID), "{read:?}");
}

#[tokio::test]
async fn the_context_is_narrowed_and_fetched_once() {
    let bed = McpTestkit::new().await;
    let document = json!({"entities": [{"name": "order"}, {"name": "invoice"}]});
    bed.backend.answer("/nlp-context", Reply::Json(document.clone()));
    let server = bed.server();
    let about = async |topic: &str| {
        let answer = ask(&server, call("get_context", json!({"topic": topic}))).await;
        answer.result()["structuredContent"].clone()
    };
    assert_eq!(about("").await, json!({"data": document}));
    assert_eq!(about("invoice").await["data"]["entities"], json!([{"name": "invoice"}]));
    let all = about("weather").await;
    assert_eq!(all["data"], document);
    assert!(all["notice"].as_str().unwrap().contains("\"weather\""), "{all}");
    assert_eq!(bed.backend.counts().requests, 1);
}

#[tokio::test]
async fn a_large_answer_is_cut_and_says_so() {
    let bed = McpTestkit::new().await;
    let rows: Vec<Value> = (0..2000).map(|n| json!({"n": n, "pad": "x".repeat(80)})).collect();
    bed.backend.answer("/nlp-search", Reply::Json(json!({"rows": rows})));
    let mut config = bed.server_config();
    config.max_result_bytes = 16 << 10;
    let answer = ask(&build_server(config, fast_json_timing()), search("everything")).await;
    let structured = &answer.result()["structuredContent"];
    assert_eq!(structured["truncated"], true);
    let kept = structured["data"]["rows"].as_array().expect("rows").len();
    let notice = structured["notice"].as_str().expect("a notice");
    assert!(
        kept > 10 && notice.starts_with(&format!("The result has only the first {kept} of 2000 rows")),
        "{notice}"
    );
    assert!(answer.text_and_error_flag().0.starts_with("Note: The result has only the first"));
    assert!(answer.body.to_string().len() < 20 << 10);
}

#[tokio::test]
async fn user_and_trace_are_passed_to_the_backend() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    let of = |n: u8| format!("00-{}-00f067aa0ba902b7-01", format!("{n:02x}").repeat(16));
    let in_meta = json!({"name": "search", "arguments": {"query": "q"}, "_meta": {"traceparent": of(1)}});
    let both = with(modern("tools/call", in_meta), "traceparent", &of(2));
    let ann = Caller { principal: Principal::Key { label: "ann".into() }, ..caller() };
    let mut keyed = bed.server_config();
    keyed.auth_mode = AuthMode::Keys;
    ask_as(&build_server(keyed, slow_timing()), both, ann).await.result();
    ask(&server, with(search("q"), "traceparent", &of(2))).await.result();
    let requests = bed.backend.requests();
    let trace_of = |index: usize| requests[index].header("traceparent").expect("a trace")[3..35].to_owned();
    assert_eq!((trace_of(0), trace_of(1)), ("01".repeat(16), "02".repeat(16)));
    assert_eq!(requests[0].header("x-user").as_deref(), Some("ann"));
    assert_eq!(requests[1].header("x-user"), None);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_cause() {
    let bed = McpTestkit::new().await;
    // A period of zero makes tokio's interval panic during the call.
    let server =
        build_server(bed.server_config(), Timing { progress_interval: Duration::ZERO, ..fast_json_timing() });
    let answer = ask(&server, search_with_progress()).await;
    assert_eq!(answer.body["error"]["code"], -32603);
    assert_eq!(answer.message(), format!("The server failed. (request {REQUEST_ID})"));
    assert!(bed.metrics.encode().contains("outcome=\"internal\""));
    // An overflowing deadline makes std panic before the call.
    let mut config = bed.server_config();
    config.call_timeout = Duration::MAX;
    let server = build_server(config, fast_json_timing());
    let answer = ask(&server, search("orders")).await;
    assert_eq!(
        (answer.body["error"]["code"].as_i64(), answer.message()),
        (Some(-32603), "The server failed.")
    );
    assert_eq!(server.in_flight_count(), 0);
    ask(&server, modern("tools/list", json!({}))).await.result();
}
