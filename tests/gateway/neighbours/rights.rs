//! What one may not call, one does not read by another way either; and what is read is in the audit.

use std::fs;

use serde_json::{Value, json};

use crate::harness::entra::FakeEntra;
use crate::harness::login::App;
use crate::harness::secret::secret;
use crate::harness::{Beside, Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

const ENTITY: &str = "entity-of-the-context";

/// The lines of the audit about one tenant, when there are so many.
async fn audit(gateway: &Gateway, tenant: &str, event: &str, count: usize) -> Vec<Value> {
    let file = gateway.path().join("state/audit.jsonl");
    until(&format!("{count} lines {event} of {tenant}"), async || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["tenant"] == tenant && line["event"] == event).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

async fn uri(client: &Client) -> Option<String> {
    let listed = client.rpc(Era::Modern, "/a/mcp", "resources/list", json!({})).await.result();
    listed["resources"][0]["uri"].as_str().map(str::to_owned)
}

async fn instructions(client: &Client) -> String {
    client.rpc(Era::Modern, "/a/mcp", "server/discover", json!({})).await.result()["instructions"].to_string()
}

#[tokio::test]
async fn a_rule_for_get_context_holds_for_the_document_wherever_it_is_read() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    backend.answer("/nlp-context", Reply::Json(json!({ "entities": [ENTITY] })));
    let rule = "access:\n  tools:\n    get_context: {roles: [Modeller]}";
    let a = Tenant::new("a", &backend).with(&entra.lines()).with(rule).with("description: Orders of A.");
    let setup = Setup::new().flag("--entra-authority", &entra.authority()).file("a.yaml", a.yaml());
    let gateway = setup.file("b.zip", Tenant::new("b", &backend).zip()).start().await;
    gateway.until_state("a", "serving").await;
    let beside = Beside::watch(gateway.client(), "/b");

    entra.account(json!({ "roles": ["Modeller"] }));
    let modeller = App::registered(&gateway, "/a").await.tokens(&entra).await;
    entra.account(json!({ "roles": ["Analyst"] }));
    let analyst = App::registered(&gateway, "/a").await.tokens(&entra).await;
    let (modeller, analyst) =
        (gateway.client().bearer(&modeller.access), gateway.client().bearer(&analyst.access));

    let uri_of_context = uri(&modeller).await.expect("whoever may have it sees it");
    let read = json!({ "uri": uri_of_context });
    let given = modeller.rpc(Era::Modern, "/a/mcp", "resources/read", read.clone()).await.result();
    assert!(given["contents"][0]["text"].as_str().is_some_and(|text| text.contains(ENTITY)), "{given}");
    assert!(instructions(&modeller).await.contains(ENTITY));

    assert_eq!(uri(&analyst).await, None);
    assert!(!instructions(&analyst).await.contains(ENTITY));
    for era in [Era::Modern, Era::Legacy] {
        let refused = analyst.rpc(era, "/a/mcp", "resources/read", read.clone()).await;
        assert!(!refused.text.contains(ENTITY), "{refused:?}");
        let told = refused.json()["error"]["message"].to_string();
        assert!(told.contains("may not read this") && told.contains("(request "), "{told}");
    }
    let refused = analyst
        .rpc(Era::Modern, "/a/mcp", "tools/call", json!({ "name": "get_context", "arguments": {} }))
        .await;
    assert!(refused.tool_error().contains("may not use this tool"), "{refused:?}");
    assert_eq!(analyst.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);

    let reads = audit(&gateway, "a", "read", 3).await;
    let outcomes: Vec<_> = reads.iter().map(|line| line["outcome"].as_str().expect("a word")).collect();
    assert_eq!(outcomes, ["ok", "not_allowed", "not_allowed"]);
    for line in &reads {
        let whole =
            ["tid", "oid", "client_id", "grant", "request_id"].iter().all(|name| line[name].is_string());
        assert!(whole && line["resource"] == uri_of_context && line["elapsed_ms"].is_u64(), "{line}");
    }
    assert!(reads[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 20), "{}", reads[0]);
    assert_eq!((&reads[1]["bytes"], &reads[1]["tool"]), (&Value::Null, &Value::Null));
    beside.finish().await.assert_unharmed("b beside a's rules");
}

#[tokio::test]
async fn a_hidden_tool_hides_the_document_from_everybody() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-context", Reply::Json(json!({ "entities": [ENTITY] })));
    let a = Tenant::new("a", &backend).with("tools:\n  get_context: {hidden: true}");
    let gateway = Setup::new().file("a.yaml", a.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let client = gateway.client();
    assert_eq!(uri(&client).await, None);
    assert!(!instructions(&client).await.contains(ENTITY));
    let read = client.rpc(Era::Modern, "/a/mcp", "resources/read", json!({ "uri": "context://a" })).await;
    assert!(!read.text.contains(ENTITY) && read.json()["error"].is_object(), "{read:?}");
    let called = json!({ "name": "get_context", "arguments": {} });
    let called = client.rpc(Era::Modern, "/a/mcp", "tools/call", called).await;
    assert_eq!(called.json()["error"]["code"], -32602, "{called:?}");
    let tools = client.rpc(Era::Modern, "/a/mcp", "tools/list", json!({})).await;
    assert!(!tools.text.contains("get_context"), "{tools:?}");
    let page = client.get("/a/").await;
    assert!(page.text.contains("<code>search</code>") && !page.text.contains("get_context"), "{}", page.text);
}

#[tokio::test]
async fn strangers_read_of_a_guarded_tenant_its_title_and_the_way_in() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let keys = format!("api_keys:\n  - label: ci\n    key: {}", secret("caller"));
    let words = "description: Words for those let in.\ninstructions: Instructions for those let in.";
    let tenant = |name: &str, guard: &str| Tenant::new(name, &backend).with(guard).with(words).yaml();
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let setup = setup.file("k.yaml", tenant("k", &keys)).file("l.yaml", tenant("l", &entra.lines()));
    let gateway = setup.start().await;
    let client = gateway.client();
    for (prefix, title) in [("/k", "The k data"), ("/l", "The l data")] {
        for path in [
            format!("{prefix}/"),
            format!("{prefix}/mcp"),
            format!("/.well-known/oauth-protected-resource{prefix}/mcp"),
            format!("/.well-known/oauth-authorization-server{prefix}"),
            format!("{prefix}/.well-known/openid-configuration"),
        ] {
            let answer = client.request(reqwest::Method::GET, &path).header("accept", "text/html");
            let answer = crate::harness::client::read(answer.send().await.expect("an answer")).await;
            for inside in ["Dataset</dt>", "for those let in", "get_context", "<code>search</code>"] {
                assert!(!answer.text.contains(inside), "{path} tells strangers {inside}: {}", answer.text);
            }
        }
        let page = client.get(&format!("{prefix}/")).await;
        assert!(page.text.contains(title) && page.text.contains("/mcp"), "{}", page.text);
    }
}
