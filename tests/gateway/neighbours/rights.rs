//! What a caller may not call it cannot read in another way either, and every read is in the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::harness::entra::FakeEntra;
use crate::harness::login::App;
use crate::harness::secret::secret;
use crate::harness::{Beside, Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

const ENTITY: &str = "entity-of-the-context";

/// Waits until the audit has `count` lines of this event for a tenant, and returns them.
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
    assert!(!read.text.contains(ENTITY), "{read:?}");
    let told = read.json()["error"]["message"].to_string();
    assert!(told.contains("this server has no such resource"), "what is hidden is not there: {told}");
    let called = json!({ "name": "get_context", "arguments": {} });
    let called = client.rpc(Era::Modern, "/a/mcp", "tools/call", called).await;
    assert_eq!(called.json()["error"]["code"], -32602, "{called:?}");
    let tools = client.rpc(Era::Modern, "/a/mcp", "tools/list", json!({})).await;
    assert!(!tools.text.contains("get_context"), "{tools:?}");
    let page = client.get("/a/").await;
    assert!(page.text.contains("<code>search</code>") && !page.text.contains("get_context"), "{}", page.text);
}

#[tokio::test]
async fn arguments_that_do_not_fit_reach_no_backend_and_a_refusal_tells_nothing_of_the_schema() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let lines = "tools:\n  search:\n    parameters:\n      region: {type: string, enum: [north, south]}\n\
        access:\n  tools:\n    search: {roles: [Analyst]}";
    let a = Tenant::new("a", &backend).with(&entra.lines()).with(lines);
    let setup = Setup::new().flag("--entra-authority", &entra.authority()).file("a.yaml", a.yaml());
    let gateway = setup.start().await;
    let mut people = Vec::new();
    for role in ["Analyst", "Modeller"] {
        entra.account(json!({ "roles": [role] }));
        let tokens = App::registered(&gateway, "/a").await.tokens(&entra).await;
        people.push(gateway.client().bearer(&tokens.access));
    }
    let search = async |client: &Client, arguments: Value| {
        let params = json!({ "name": "search", "arguments": arguments });
        client.rpc(Era::Modern, "/a/mcp", "tools/call", params).await
    };
    let asked = || backend.requests().iter().filter(|request| request.target == "/nlp-search").count();
    for (arguments, said) in [
        (json!({ "query": "q", "region": "west" }), "region"),
        (json!({ "region": "north" }), "query"),
        (json!({ "query": 7, "region": "north" }), "query"),
    ] {
        let sentence = search(&people[0], arguments.clone()).await.tool_error();
        assert!(sentence.contains("was not called") && sentence.contains(said), "{sentence}");
        let refused = search(&people[1], arguments).await.tool_error();
        assert!(refused.contains("may not use this tool"), "{refused}");
        assert!(!refused.contains("region") && !refused.contains("query"), "{refused}");
    }
    assert_eq!(asked(), 0);
    let fits = json!({ "query": "q", "region": "north" });
    assert_eq!(search(&people[0], fits).await.data()["row_count"], 2);
    assert_eq!(asked(), 1);
    let calls = audit(&gateway, "a", "call", 7).await;
    let count = |outcome: &str| calls.iter().filter(|line| line["outcome"] == outcome).count();
    assert_eq!((count("ok"), count("bad_arguments"), count("not_allowed")), (1, 3, 3), "{calls:?}");
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

#[tokio::test]
async fn an_argument_in_a_path_never_walks_out_of_its_segment() {
    let backend = FakeBackend::start().await;
    let base = backend.url("");
    let lines = format!(
        "tools:\n  search:\n    parameters:\n      region: {{type: string}}\n\
         backend:\n  search:\n    url: {base}/tenants/42/{{{{region}}}}/nlp-search"
    );
    let a = Tenant::new("a", &backend).with(&lines);
    let gateway = Setup::new().file("a.yaml", a.yaml()).start().await;
    let client = gateway.client();
    let search = async |arguments: Value| {
        let params = json!({ "name": "search", "arguments": arguments });
        client.rpc(Era::Modern, "/a/mcp", "tools/call", params).await
    };
    let asked = || {
        let requests = backend.requests().into_iter().map(|request| request.target);
        requests.filter(|target| target.starts_with("/tenants")).collect::<Vec<_>>()
    };
    for region in
        ["..", ".", "", " ", "../..", "a/b", "..%2f..", "%2e%2e", "%252e%252e", "a\\b", "a\0", "..;x=1"]
    {
        let sentence = search(json!({ "query": "q", "region": region })).await.tool_error();
        assert!(
            sentence.contains("argument \"region\"") && sentence.contains("was not called"),
            "{sentence}"
        );
    }
    let missing = search(json!({ "query": "q" })).await.tool_error();
    assert!(missing.contains("argument \"region\" is missing"), "{missing}");
    assert_eq!(asked(), Vec::<String>::new());
    search(json!({ "query": "q", "region": "north & south" })).await.result();
    assert_eq!(asked(), ["/tenants/42/north%20%26%20south/nlp-search"]);
    // The schema tells the model that a region is required.
    let tools = client.rpc(Era::Modern, "/a/mcp", "tools/list", json!({})).await.result();
    assert_eq!(tools["tools"][0]["inputSchema"]["required"], json!(["query", "region"]));
}

#[tokio::test]
async fn texts_of_a_zip_are_bounded_and_its_neighbour_goes_on() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("b.zip", Tenant::new("b", &backend).zip()).start().await;
    let beside = Beside::watch(gateway.client(), "/b");
    let long = "x".repeat(240 << 10);
    for (name, line, said) in [
        ("description", format!("description: {long}"), "description has 245760 bytes; at most 4096"),
        ("instructions", format!("instructions: {long}"), "instructions has 245760 bytes; at most 16384"),
    ] {
        gateway.put(&format!("{name}.yaml"), Tenant::new(name, &backend).with(&line).yaml());
        let status = gateway.until_state(name, "rejected").await;
        assert!(status["findings"].to_string().contains(said), "{status}");
    }
    let zip = Tenant::new("z", &backend).with(&format!("description: {long}")).zip();
    gateway.put("z.zip", zip);
    let status = gateway.until_state("z", "rejected").await;
    assert!(status["findings"].to_string().contains("into the .yaml beside the zip"), "{status}");
    // Following the finding's advice helps.
    gateway.put("z.yaml", "description: Short.\n");
    gateway.until_state("z", "serving").await;
    let tools = gateway.client().rpc(Era::Modern, "/z/mcp", "tools/list", json!({})).await;
    assert!(tools.text.len() < 8 << 10 && tools.text.contains("Short."), "{}", tools.text.len());
    beside.finish().await.assert_unharmed("b beside long texts");
}

/// The number of responses by status.
type Counted = BTreeMap<u16, usize>;

/// The credential headers of a request, with a description.
type Credential = (&'static str, Vec<(&'static str, String)>);

/// Sends a `tools/call` with every method and content type and one credential, and asserts that
/// none is accepted.
async fn knock(client: &Client, path: &str, (what, headers): &Credential, counted: &mut Counted) {
    use reqwest::Method;
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "search", "arguments": { "query": "q" } },
    });
    let types = [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/event-stream",
        "",
    ];
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    for method in &methods {
        for media_type in types {
            let mut request = client.request(method.clone(), path);
            if ![Method::GET, Method::HEAD].contains(method) {
                request = request.body(body.to_string());
            }
            if !media_type.is_empty() {
                request = request.header("content-type", media_type);
            }
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let response = request.header("accept", "application/json, text/event-stream").send().await;
            let answer = crate::harness::client::read(response.expect("an answer")).await;
            *counted.entry(answer.status).or_default() += 1;
            let preflight = *method == Method::OPTIONS && [204, 403].contains(&answer.status);
            assert!(
                preflight || [400, 401, 403, 404, 405].contains(&answer.status),
                "{method} {path} {media_type} with {what}: {answer:?}"
            );
            assert!(!answer.text.contains("row_count") && !answer.text.contains("\"result\""), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn no_request_without_a_good_credential_gets_through_whatever_else_it_says() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let (key, old) = (secret("caller"), secret("expired"));
    let keys = format!(
        "api_keys:\n  - label: ci\n    key: {key}\n  - label: old\n    key: {old}\n    expires: 2020-01-01"
    );
    let other = format!("api_keys:\n  - label: ci\n    key: {}", secret("other"));
    let setup = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("k.yaml", Tenant::new("k", &backend).with(&keys).yaml())
        .file("o.yaml", Tenant::new("o", &backend).with(&other).yaml())
        .file("l.yaml", Tenant::new("l", &backend).with(&entra.lines()).yaml())
        .file("m.yaml", Tenant::new("m", &backend).with(&entra.lines()).yaml());
    let gateway = setup.start().await;
    let tokens = App::registered(&gateway, "/m").await.tokens(&entra).await;
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let parts: Vec<&str> = tokens.access.split('.').collect();
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    let credentials: Vec<Credential> = vec![
        ("nothing", vec![]),
        ("garbage", vec![bearer("garbage")]),
        ("no token", vec![("authorization", "Bearer".to_owned())]),
        ("an expired key", vec![bearer(&old)]),
        ("a key of another tenant", vec![bearer(&secret("other"))]),
        ("the shape of a key", vec![bearer("tk_0123456789abcdefghijklmnopqrstuvwxyzABCDEF")]),
        ("a token of another tenant", vec![bearer(&tokens.access)]),
        ("its refresh token", vec![bearer(&tokens.refresh)]),
        ("a token without its signature", vec![bearer(&unsigned)]),
        ("another scheme", vec![("authorization", format!("Basic {key}"))]),
        ("a scheme like it", vec![("authorization", format!("Bearer: {key}"))]),
        ("two headers", vec![bearer(&key), bearer(&key)]),
        ("two in one header", vec![("authorization", format!("Bearer {key}, Bearer {key}"))]),
        (
            "other headers",
            vec![
                ("x-api-key", key.clone()),
                ("cookie", format!("access_token={key}")),
                ("proxy-authorization", format!("Bearer {key}")),
                ("x-forwarded-authorization", format!("Bearer {key}")),
                ("mcp-session-id", key.clone()),
            ],
        ),
        (
            "the address of another",
            vec![
                ("x-forwarded-for", "10.0.0.1".to_owned()),
                ("forwarded", "for=127.0.0.1".to_owned()),
                ("x-real-ip", "127.0.0.1".to_owned()),
                ("x-original-url", "/o/mcp".to_owned()),
                ("x-http-method-override", "GET".to_owned()),
            ],
        ),
    ];
    let client = gateway.client();
    let mut counted = Counted::new();
    let in_query = format!("/k/mcp?access_token={key}&api_key={key}&key={key}");
    for path in ["/k/mcp", "/k/mcp/", "/l/mcp", "/l/mcp/", &in_query] {
        for credential in &credentials {
            // Each on a connection of its own: too many unread bodies end an HTTP/2 connection.
            knock(&gateway.client(), path, credential, &mut counted).await;
        }
    }
    eprintln!("answers by status: {counted:?}");
    assert!(counted[&401] > 1000, "{counted:?}");
    assert!(backend.requests().iter().all(|request| request.target != "/nlp-search"), "a backend was asked");
    assert_eq!(client.clone().bearer(&key).search(Era::Modern, "/k", "q").await.data()["row_count"], 2);
}

#[tokio::test]
async fn sessions_of_anybody_are_nobodys() {
    let backend = FakeBackend::start().await;
    let keys = format!("api_keys:\n  - label: ci\n    key: {}", secret("caller"));
    let setup = Setup::new().file("k.yaml", Tenant::new("k", &backend).with(&keys).yaml());
    let gateway = setup.start().await;
    let stranger = gateway.client().with("mcp-session-id", "a-session-of-somebody");
    let holder = stranger.clone().bearer(&secret("caller"));
    for era in [Era::Modern, Era::Legacy] {
        assert_eq!(stranger.search(era, "/k", "q").await.status, 401);
        let answer = holder.search(era, "/k", "q").await;
        assert_eq!((answer.data()["row_count"].as_u64(), answer.header("mcp-session-id")), (Some(2), ""));
        let stop = holder.request(reqwest::Method::DELETE, "/k/mcp").send().await.expect("an answer");
        assert_eq!(stop.status(), 405);
    }
}

#[tokio::test]
async fn limits_are_charged_to_who_used_them_whatever_address_they_name() {
    let backend = FakeBackend::start().await;
    let (ann, bob) = (secret("ann"), secret("bob"));
    let keys = format!(
        "api_keys:\n  - label: ann\n    key: {ann}\n  - label: bob\n    key: {bob}\nlimits: {{requests_per_minute: 3}}"
    );
    let open = "limits: {requests_per_minute: 3}";
    let setup = Setup::new()
        .file("a.yaml", Tenant::new("a", &backend).with(&keys).yaml())
        .file("b.yaml", Tenant::new("b", &backend).with(&keys).yaml())
        .file("c.yaml", Tenant::new("c", &backend).with(open).yaml())
        .file("d.yaml", Tenant::new("d", &backend).with(open).yaml());
    let gateway = setup.start().await;
    let (ann, bob) = (gateway.client().bearer(&ann), gateway.client().bearer(&bob));
    let nobody = gateway.client();
    let statuses = async |client: &Client, prefix: &str, count: usize| {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(client.search(Era::Modern, prefix, "q").await.status);
        }
        statuses
    };
    assert_eq!(statuses(&ann, "/a", 4).await, [200, 200, 200, 429]);
    assert_eq!(statuses(&bob, "/a", 1).await, [200], "another caller of the same address");
    assert_eq!(statuses(&ann, "/b", 1).await, [200], "the same caller at another tenant");
    assert_eq!(statuses(&nobody, "/c", 4).await, [200, 200, 200, 429]);
    assert_eq!(statuses(&nobody, "/d", 1).await, [200], "the same address at another tenant");
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-for", "203.0.113.7, 198.51.100.1"),
        ("forwarded", "for=203.0.113.7"),
        ("x-real-ip", "203.0.113.7"),
        ("cf-connecting-ip", "203.0.113.7"),
        ("true-client-ip", "203.0.113.7"),
        ("x-client-ip", "203.0.113.7"),
        ("via", "1.1 elsewhere"),
    ] {
        for (client, prefix) in [(&ann, "/a"), (&nobody, "/c")] {
            let spoofed = client.clone().with(name, value);
            assert_eq!(statuses(&spoofed, prefix, 1).await, [429], "{name}: {value}");
        }
    }
    assert_eq!(statuses(&bob, "/b", 1).await, [200]);
}

#[tokio::test]
async fn no_two_gateways_have_a_key_in_common() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let setup = Setup::new().flag("--entra-authority", &entra.authority());
        let setup = setup.file("l.yaml", Tenant::new("l", &backend).with(&entra.lines()).yaml());
        let gateway = setup.start().await;
        let tokens = App::registered(&gateway, "/l").await.tokens(&entra).await;
        assert!(!tokens.access.is_empty());
        let published = gateway.client().get("/l/.well-known/jwks.json").await.json();
        let keys = published["keys"].as_array().expect("keys");
        assert!(!keys.is_empty(), "{published}");
        let texts = keys.iter().map(|key| format!("{} {}", key["x"], key["y"]));
        let master = fs::read_to_string(gateway.path().join("state/master.key")).expect("a master key");
        let authority = fs::read_to_string(gateway.ca().expect("a certificate")).expect("a certificate");
        for text in texts.chain([master, authority]) {
            assert!(seen.insert(text), "two gateways have a key in common");
        }
    }
    assert!(seen.len() >= 6);
}
