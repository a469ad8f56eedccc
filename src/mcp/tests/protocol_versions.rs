//! Both eras on one URL: what each kind of client receives, and that neither receives the other's
//! features.

use serde_json::{Value, json};

use super::testkit::*;
use crate::backend::tests::fake::Reply;
use crate::mcp::{AuthMode, Caller};
use crate::oauth::bearer::Principal;

const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

fn initialize(version: &str) -> http::Request<bytes::Bytes> {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
    post(&json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params}))
}

fn names(tools: &Value) -> Vec<&str> {
    tools["tools"].as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect()
}

#[tokio::test]
async fn an_incomplete_handshake_is_answered() {
    let server = McpTestkit::new().await.server();
    let whole = json!({"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let with = |name: &str, value: Value| {
        let mut params = whole.clone();
        match value {
            Value::Null => params.as_object_mut().expect("an object").remove(name),
            value => params.as_object_mut().expect("an object").insert(name.to_owned(), value),
        };
        json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params})
    };
    for message in [
        with("clientInfo", Value::Null),
        with("clientInfo", json!({"name": "x"})),
        with("clientInfo", json!({"name": "x", "version": null})),
        with("clientInfo", json!({"name": "x", "version": 1})),
        with(
            "clientInfo",
            json!({"name": "x", "version": "1", "icons": [{"src": "https://x/y.png", "sizes": "48x48"}]}),
        ),
        with("capabilities", Value::Null),
        with("capabilities", json!([])),
        with("capabilities", json!({"roots": true})),
        with("capabilities", json!({"sampling": true})),
        with("capabilities", json!({"experimental": {"x": true}})),
        with("protocolVersion", Value::Null),
        with("protocolVersion", json!(7)),
        json!({"jsonrpc": "2.0", "id": 7, "method": "initialize"}),
        json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": null}),
        json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": []}),
    ] {
        let answer = ask(&server, post(&message)).await;
        let result = answer.result();
        assert_eq!(result["protocolVersion"], LEGACY[0], "{message}");
        assert_eq!(result["serverInfo"]["name"], "acme", "{message}");
    }
    let older = json!({"protocolVersion": "2025-03-26"});
    let older = post(&json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": older}));
    assert_eq!(ask(&server, older).await.result()["protocolVersion"], "2025-03-26");
}

#[tokio::test]
async fn an_empty_list_in_the_place_of_an_object_is_an_empty_object() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-context", Reply::Json(json!({"entities": [{"name": "order"}]})));
    let server = bed.server();
    let message = |method: &str, params: Value| {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        with(post(&message), "mcp-protocol-version", LEGACY[0])
    };
    let list = ask(&server, message("tools/list", json!([]))).await;
    assert_eq!(names(list.result()), ["search", "get_context"]);
    assert_eq!(ask(&server, message("ping", json!([]))).await.result(), &json!({}));
    let called = ask(&server, message("tools/call", json!({"name": "get_context", "arguments": []}))).await;
    assert!(called.result().get("isError").is_none_or(|it| it == false), "{called:?}");
    let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized", "params": []});
    let accepted = server.handle(with(post(&done), "mcp-protocol-version", LEGACY[0]), caller()).await;
    assert_eq!(accepted.status(), 202);
    // What a string says is not touched.
    let quoted = json!({"name": "search", "arguments": {"query": r#""params":[] and "arguments": [ ]"#}});
    ask(&server, message("tools/call", quoted)).await.result();
}

#[tokio::test]
async fn parameters_that_are_no_object_are_invalid_params() {
    let server = McpTestkit::new().await.server();
    for method in ["initialize", "ping", "tools/list", "tools/call", "resources/read", "server/discover"] {
        for params in [json!([1]), json!("x"), json!(7), json!(true)] {
            let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
            let answer = ask(&server, post(&message)).await;
            assert_eq!(answer.error().1, -32602, "{message}: {answer:?}");
            assert!(answer.message().contains("must be an object"), "{answer:?}");
            assert_eq!(answer.body["id"], 7);
        }
    }
    for (method, params, told) in [
        ("tools/call", Value::Null, "needs params.name"),
        ("tools/call", json!({"arguments": {}}), "needs params.name"),
        ("tools/call", json!({"name": 7}), "params.name of tools/call must be a string"),
        ("tools/call", json!({"name": "search", "arguments": ["q"]}), "params.arguments"),
        ("resources/read", json!({}), "needs params.uri"),
    ] {
        let answer = ask(&server, legacy(LEGACY[0], method, params.clone())).await;
        assert_eq!(answer.error().1, -32602, "{method} {params}: {answer:?}");
        assert!(answer.message().contains(told), "{method} {params}: {answer:?}");
    }
}

#[tokio::test]
async fn a_handshake_settles_on_the_clients_revision() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    for version in LEGACY {
        let answer = ask(&server, initialize(version)).await;
        let result = answer.result();
        assert_eq!(result["protocolVersion"], version);
        assert_eq!(result["serverInfo"]["name"], "acme");
        assert_eq!(result["serverInfo"]["title"], "Acme");
        assert_eq!(result["instructions"], "Orders of Acme.");
        assert!(!answer.headers.contains_key("mcp-session-id"), "{version}");
        // The server cannot push anything to a client without a session.
        assert_eq!(result["capabilities"]["tools"], json!({}), "{version}");
    }
    assert_eq!(ask(&server, initialize("1999-01-01")).await.result()["protocolVersion"], LEGACY[0]);
}

#[tokio::test]
async fn a_client_of_an_old_era_lists_calls_and_reads() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-context", Reply::Json(json!({"entities": [{"name": "order"}]})));
    let server = bed.server();
    for version in LEGACY {
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let accepted = server.handle(with(post(&done), "mcp-protocol-version", version), caller()).await;
        assert_eq!(accepted.status(), 202, "{version}");
        let list = ask(&server, legacy(version, "tools/list", json!({}))).await;
        assert_eq!(names(list.result()), ["search", "get_context"]);
        assert!(
            list.result().get("resultType").is_none() && list.result().get("_meta").is_none(),
            "{list:?}"
        );
        let params = json!({"name": "search", "arguments": {"query": "orders"}});
        let called = ask(&server, legacy(version, "tools/call", params)).await;
        assert_eq!(called.result()["structuredContent"]["data"]["row_count"], 2);
        let read = legacy(version, "resources/read", json!({"uri": "context://acme%20orders"}));
        let read = ask(&server, read).await;
        assert!(read.result()["contents"][0]["text"].as_str().unwrap().contains("order"), "{read:?}");
        assert_eq!(ask(&server, legacy(version, "ping", json!({}))).await.result(), &json!({}));
    }
}

#[tokio::test]
async fn discovery_tells_all_that_a_handshake_would() {
    let bed = McpTestkit::new().await;
    bed.backend.answer("/nlp-context", Reply::Json(json!({"entities": [{"name": "order"}]})));
    let server = bed.server();
    let answer = ask(&server, modern("server/discover", json!({}))).await;
    let result = answer.result();
    let versions = result["supportedVersions"].as_array().expect("versions");
    assert!(LEGACY.iter().chain(&[MODERN]).all(|version| versions.contains(&json!(version))), "{result}");
    assert_eq!(result["capabilities"]["tools"]["listChanged"], true);
    assert!(result["capabilities"].get("prompts").is_none(), "{result}");
    assert_eq!(result["instructions"], "Orders of Acme.");
    assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(60_000), &json!("public")));
    assert_eq!(answer.signed_by(), "acme");
    // Once the context is known, the instructions contain its digest.
    ask(&server, call("get_context", json!({}))).await.result();
    let answer = ask(&server, modern("server/discover", json!({}))).await;
    assert_eq!(answer.result()["instructions"], "Orders of Acme.\n\nEntities: order");
}

#[tokio::test]
async fn every_modern_result_says_who_answers_and_how_long_it_keeps() {
    let bed = McpTestkit::new().await;
    let mut config = bed.server_config();
    config.auth_mode = AuthMode::Keys;
    let server = build_server(config, slow_timing());
    let holder = Caller { principal: Principal::Key { label: "ci".into() }, ..caller() };
    let lists = ["tools/list", "resources/list", "resources/templates/list"].map(|list| (list, json!({})));
    let read = ("resources/read", json!({"uri": "context://acme%20orders"}));
    for (method, params) in lists.into_iter().chain([read]) {
        let answer = ask_as(&server, modern(method, params), holder.clone()).await;
        let result = answer.result();
        assert_eq!(answer.signed_by(), "acme", "{method}");
        assert_eq!(result["resultType"], "complete", "{method}");
        assert_eq!(
            (&result["ttlMs"], &result["cacheScope"]),
            (&json!(60_000), &json!("private")),
            "{method}"
        );
        assert_eq!(answer.headers["cache-control"], "no-store", "{method}");
    }
    assert_eq!(ask_as(&server, search("orders"), holder).await.signed_by(), "acme");
}

#[tokio::test]
async fn tools_are_listed_in_the_order_of_the_spec_with_all_that_a_model_reads() {
    let bed = McpTestkit::new().await;
    let answer = ask(&bed.server(), modern("tools/list", json!({}))).await;
    assert_eq!(names(answer.result()), ["search", "get_context"]);
    let tool = &answer.result()["tools"][0];
    assert_eq!(tool["description"], "Does search.");
    assert_eq!(tool["inputSchema"]["required"], json!(["query"]));
    assert_eq!(tool["outputSchema"], json!({"type": "object"}));
    assert_eq!(tool["annotations"]["readOnlyHint"], true);
}

#[tokio::test]
async fn the_context_is_the_one_resource() {
    let bed = McpTestkit::new().await;
    let document = json!({"entities": ["order"], "deep": {"x": [1, 2]}});
    bed.backend.answer("/nlp-context", Reply::Json(document.clone()));
    let server = bed.server();
    let list = ask(&server, modern("resources/list", json!({}))).await;
    let resources = list.result()["resources"].as_array().expect("resources");
    assert_eq!(resources.len(), 1);
    let uri = resources[0]["uri"].as_str().expect("a URI");
    let read = ask(&server, modern("resources/read", json!({"uri": uri}))).await;
    let contents = &read.result()["contents"][0];
    assert_eq!(contents["uri"], uri);
    let text = contents["text"].as_str().expect("text");
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), document);
    let templates = ask(&server, modern("resources/templates/list", json!({}))).await;
    assert_eq!(templates.result()["resourceTemplates"], json!([]));
}

#[tokio::test]
async fn unknown_methods_tools_and_resources_have_their_errors() {
    let bed = McpTestkit::new().await;
    let server = bed.server();
    for method in ["nonsense/method", "ping", "logging/setLevel", "prompts/list", "resources/subscribe"] {
        assert_eq!(ask(&server, modern(method, json!({}))).await.error(), (404, -32601), "{method}");
    }
    let old = ask(&server, legacy("2025-11-25", "nonsense/method", json!({}))).await;
    assert_eq!(old.error(), (200, -32601));
    let tool = ask(&server, call("serach", json!({"query": "x"}))).await;
    assert_eq!(tool.error().1, -32602);
    assert_eq!(tool.message(), "this server has no tool \"serach\"; it has: search, get_context");
    let resource = ask(&server, modern("resources/read", json!({"uri": "context://other"}))).await;
    assert_eq!(resource.error().1, -32602);
    assert_eq!(resource.body["error"]["data"]["uri"], "context://other");
    let cursor = ask(&server, modern("tools/list", json!({"cursor": "2"}))).await;
    assert_eq!(cursor.error().1, -32602);
    assert_eq!(bed.backend.counts().requests, 0);
}

#[tokio::test]
async fn known_methods_with_invalid_parameters_are_not_unknown() {
    let bed = McpTestkit::new().await;
    let answer =
        ask(&bed.server(), modern("tools/call", json!({"name": "search", "arguments": "text"}))).await;
    assert_eq!(answer.error().1, -32602);
    assert!(answer.message().contains("tools/call"), "{answer:?}");
}
