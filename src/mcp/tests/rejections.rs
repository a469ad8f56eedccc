//! Requests that never reach a tool: every refusal has a JSON-RPC body, from which a client chooses
//! its era.

use http::Method;
use serde_json::{Value, json};

use super::testkit::*;
use crate::backend::tests::fake::Reply;

#[tokio::test]
async fn a_body_that_is_no_message_is_refused_with_its_reason() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for (body, code, reason) in [
        ("", -32700, "not JSON"),
        ("{\"jsonrpc\":", -32700, "line 1"),
        (&*format!("[{ping}]"), -32600, "Batches are not supported"),
        (&*ping.replace('1', "null"), -32600, "not null"),
        ("7", -32600, "not a JSON-RPC 2.0 message"),
        (r#"{"id":1,"method":7}"#, -32600, "not a JSON-RPC 2.0 message"),
    ] {
        let answer = ask(&server, post_text(body)).await;
        assert_eq!(answer.error(), (400, code), "{body}");
        assert!(answer.message().contains(reason), "{body}: {answer:?}");
        assert_eq!(answer.body["jsonrpc"], "2.0");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    assert_eq!(ask(&server, post_text(r#"{"id":1,"method":7}"#)).await.body["id"], 1);
}

#[tokio::test]
async fn protocol_formalities_are_rejected_with_a_body() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    let mut get = search("orders");
    *get.method_mut() = Method::GET;
    let mut delete = search("orders");
    *delete.method_mut() = Method::DELETE;
    for (request, status) in [
        (get, 405),
        (delete, 405),
        (with(search("orders"), "content-type", "text/plain"), 415),
        (with(search("orders"), "accept", "text/html"), 406),
        (with(search("orders"), "origin", "https://evil.example"), 403),
    ] {
        let answer = ask(&server, request).await;
        assert_eq!(answer.error(), (status, -32600), "{answer:?}");
        assert!(!answer.message().is_empty(), "{answer:?}");
        assert_eq!(answer.headers.get("allow").is_some(), status == 405);
    }
    let ours = with(search("orders"), "origin", "https://app.example.com");
    ask(&server, ours).await.result();
    assert_eq!(bed.backend.counts().requests, 1);
}

#[tokio::test]
async fn a_foreign_host_is_refused_where_hosts_are_named() {
    let bed = McpTestkit::new().await;
    let mut config = bed.server_config();
    config.allowed_hosts = Some(["mcp.example.com".to_owned()].into());
    let server = build_server(config, slow_timing());
    let foreign = with(search("orders"), "host", "evil.example");
    assert_eq!(ask(&server, foreign).await.error(), (403, -32600));
    ask(&server, with(search("orders"), "host", "mcp.example.com")).await.result();
    let mut config = bed.server_config();
    config.allowed_hosts = Some([].into());
    let closed =
        ask(&build_server(config, slow_timing()), with(search("orders"), "host", "mcp.example.com")).await;
    assert_eq!(closed.error(), (403, -32600));
}

#[tokio::test]
async fn an_unknown_revision_is_told_the_known_ones() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    let list = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list"});
    let answer = ask(&server, with(post(&list), "mcp-protocol-version", "2099-01-01")).await;
    assert_eq!(answer.error(), (400, -32022));
    assert_eq!(answer.body["id"], "a");
    assert_eq!(answer.body["error"]["data"]["requested"], "2099-01-01");
    let supported = answer.body["error"]["data"]["supported"].as_array().expect("revisions");
    assert!(supported.contains(&json!(MODERN)) && supported.contains(&json!("2025-03-26")), "{answer:?}");
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    for (header, value) in
        [("mcp-method", "tools/list"), ("mcp-name", "get_context"), ("mcp-protocol-version", "2025-11-25")]
    {
        let answer = ask(&server, with(search("orders"), header, value)).await;
        assert_eq!(answer.error(), (400, -32020), "{header}");
        assert_eq!(answer.body["id"], 7);
    }
    let mut bare = search("orders");
    bare.headers_mut().remove("mcp-method");
    assert_eq!(ask(&server, bare).await.error(), (400, -32020));
    assert_eq!(bed.backend.counts().requests, 0);
}

#[tokio::test]
async fn a_modern_request_needs_its_client_info() {
    let bed = McpTestkit::new().await;
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}});
    let request = with(with(post(&message), "mcp-protocol-version", MODERN), "mcp-method", "tools/list");
    assert_eq!(ask(&bed.server(), request).await.error(), (400, -32602));
}

#[tokio::test]
async fn clients_without_event_streams_never_get_one() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-search", Reply::After(std::time::Duration::from_millis(50), Reply::Rows.into()));
    let server = bed.impatient();
    for accept in [None, Some("*/*"), Some("application/json"), Some("application/*;q=0.9, text/html")] {
        let mut request = search_with_progress();
        request.headers_mut().remove("accept");
        let request = accept.into_iter().fold(request, |request, accept| with(request, "accept", accept));
        let answer = ask(&server, request).await;
        assert_eq!(answer.result()["structuredContent"]["data"]["row_count"], 2, "{accept:?}");
    }
    let streamed = open(&server, with(search("orders"), "accept", "text/event-stream")).await;
    let messages: Vec<Value> = streamed.rest().await;
    assert_eq!(messages.len(), 1, "{messages:?}");
}
