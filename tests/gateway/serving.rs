//! A dropped export answers MCP clients of both protocol eras, for every dataset family and shape
//! of the vendor.

use std::net::TcpListener;

use serde_json::json;

use super::harness::{Client, Era, FakeBackend, Reply, Setup, Tenant, until};

const BOTH: [Era; 2] = [Era::Legacy, Era::Modern];

#[tokio::test]
async fn a_zip_becomes_an_endpoint_for_both_eras() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    let client = gateway.client();
    for era in BOTH {
        let listed = client.rpc(era, "/acme/mcp", "tools/list", json!({})).await.result();
        let names: Vec<_> =
            listed["tools"].as_array().expect("tools").iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["search", "get_context"], "{era:?}");
        let data = client.search(era, "/acme", "orders by region").await.data();
        assert_eq!(data["rows"][0], json!({ "region": "north", "orders": 12 }), "{era:?}");
    }
    let asked =
        backend.requests().into_iter().find(|request| request.target == "/nlp-search").expect("asked");
    assert_eq!(asked.json(), json!({ "query": "orders by region", "connection_id": "conn-acme" }));
    assert_eq!(asked.header("x-api-key").as_deref(), Some(super::harness::secret::secret("acme").as_str()));
}

#[tokio::test]
async fn clients_of_every_older_revision_may_say_hello() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-context", Reply::Json(json!({ "entities": [{ "name": "turbine" }] })));
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    let client = gateway.client();
    for version in ["2025-11-25", "2025-06-18", "2025-03-26"] {
        let hello = json!({
            "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        // The instructions contain the digest of the context once the warm-up has fetched it.
        let result = until("the instructions name an entity", async || {
            let result = client.rpc(Era::Legacy, "/acme/mcp", "initialize", hello.clone()).await.result();
            result["instructions"].as_str().is_some_and(|text| text.contains("turbine")).then_some(result)
        });
        assert_eq!(result.await["protocolVersion"], version);
    }
    let found = client.rpc(Era::Modern, "/acme/mcp", "server/discover", json!({})).await.result();
    assert!(
        found["supportedVersions"].as_array().is_some_and(|all| all.contains(&json!("2026-07-28"))),
        "{found}"
    );
}

#[tokio::test]
async fn the_context_is_a_tool_and_a_resource() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    let client = gateway.client();
    for era in BOTH {
        let params = json!({ "name": "get_context", "arguments": {} });
        let data = client.rpc(era, "/acme/mcp", "tools/call", params).await.data();
        assert_eq!(data["row_count"], 2, "{era:?}");
        let listed = client.rpc(era, "/acme/mcp", "resources/list", json!({})).await.result();
        let uri = listed["resources"][0]["uri"].as_str().expect("one resource").to_owned();
        let read = client.rpc(era, "/acme/mcp", "resources/read", json!({ "uri": uri })).await.result();
        assert!(
            read["contents"][0]["text"].as_str().is_some_and(|text| text.contains("row_count")),
            "{read}"
        );
    }
}

#[tokio::test]
async fn the_other_families_behave_like_nlp() {
    let backend = FakeBackend::start().await;
    let tenant = |family: &str| {
        let yaml = String::from_utf8(Tenant::new(family, &backend).yaml()).expect("text");
        yaml.replace("nlp-", &format!("{family}-"))
    };
    let setup =
        Setup::new().file("cassandra.yaml", tenant("cassandra")).file("dynamodb.yaml", tenant("dynamodb"));
    let gateway = setup.start().await;
    for family in ["cassandra", "dynamodb"] {
        let data = gateway.client().search(Era::Modern, &format!("/{family}"), "how many").await.data();
        assert_eq!(data["row_count"], 2);
        assert!(backend.requests().iter().any(|request| request.target == format!("/{family}-search")));
    }
}

#[tokio::test]
async fn bad_arguments_are_told_to_the_asker_and_nobody_else() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    for (arguments, named) in [
        (json!({}), "query"),
        (json!({ "query": 7 }), "query"),
        (json!({ "query": "x", "limit": 0 }), "limit"),
        // Unknown arguments are dropped, but one that looks like a typo is reported by name.
        (json!({ "query": "x", "limt": 5 }), "limt"),
    ] {
        let params = json!({ "name": "search", "arguments": arguments });
        let answer = gateway.client().rpc(Era::Modern, "/acme/mcp", "tools/call", params).await;
        let sentence = answer.tool_error();
        assert!(sentence.contains(named) && sentence.contains("was not called"), "{sentence}");
    }
    assert!(backend.requests().iter().all(|request| request.target != "/nlp-search"));
}

#[tokio::test]
async fn http_1_and_2_and_plain_http_are_served() {
    let backend = FakeBackend::start().await;
    let zip = Tenant::new("acme", &backend).zip();
    let gateway = Setup::new().file("acme.zip", &zip).start().await;
    let answer = gateway.client().request(reqwest::Method::GET, "/acme/").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let plain = Setup::new().file("acme.zip", &zip).flag("--tls", "off").start().await;
    assert!(plain.base().starts_with("http://localhost:"));
    assert_eq!(plain.client().search(Era::Legacy, "/acme", "q").await.data()["row_count"], 2);
}

#[tokio::test]
async fn the_page_says_how_to_add_the_connector() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    let page = gateway.client().get("/acme/").await;
    let url = format!("{}/acme/mcp", gateway.base());
    for expected in [url.as_str(), "The acme data", "Claude", "ChatGPT", "Cursor", "Copilot"] {
        assert!(page.text.contains(expected), "the page lacks {expected}:\n{}", page.text);
    }
}

#[tokio::test]
async fn a_browser_at_a_wrong_address_gets_a_page_and_a_program_a_document() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    let client = gateway.client();
    for path in ["/", "/nobody", "/nobody/mcp", "/acme/nothing"] {
        let page = client.request(reqwest::Method::GET, path).header("accept", "text/html,*/*;q=0.8");
        let page = page.send().await.expect("an answer");
        assert_eq!(page.status().as_u16(), 404, "{path}");
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8", "{path}");
        assert!(page.text().await.expect("a page").contains("There is nothing here"), "{path}");
        let document = client.request(reqwest::Method::GET, path).header("accept", "*/*");
        let document = document.send().await.expect("an answer");
        assert_eq!(document.headers()["content-type"], "application/problem+json", "{path}");
    }
    // Programs read the metadata, also those inside browsers.
    let metadata = client.request(reqwest::Method::GET, "/.well-known/oauth-protected-resource");
    let metadata = metadata.header("accept", "text/html").send().await.expect("an answer");
    assert_eq!(metadata.status().as_u16(), 404);
}

#[tokio::test]
async fn a_tenant_has_an_icon_and_says_so() {
    let backend = FakeBackend::start().await;
    let own = Tenant::new("own", &backend).with("icon: https://cdn.example.com/logo.png").yaml();
    let setup = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip());
    let gateway = setup.file("own.yaml", own).start().await;
    let client = gateway.client();
    for path in ["/favicon.ico", "/acme/favicon.ico"] {
        let icon = client.request(reqwest::Method::GET, path).send().await.expect("an answer");
        assert_eq!(
            (icon.status().as_u16(), &icon.headers()["content-type"]),
            (200, &"image/png".parse().unwrap())
        );
        assert!(icon.bytes().await.expect("an image").starts_with(b"\x89PNG"), "{path}");
    }
    let gateways = format!("{}/acme/favicon.ico", gateway.base());
    for (path, expected) in
        [("/acme/mcp", gateways.as_str()), ("/own/mcp", "https://cdn.example.com/logo.png")]
    {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" },
        });
        let answer = client.rpc(Era::Legacy, path, "initialize", params).await;
        assert_eq!(answer.result()["serverInfo"]["icons"], json!([{ "src": expected }]));
    }
}

#[tokio::test]
async fn concurrent_callers_get_each_their_own_answer() {
    let backend = FakeBackend::start().await;
    let other = FakeBackend::start().await;
    other.answer("/nlp-search", Reply::Json(json!({ "rows": [{ "whose": "other" }] })));
    let setup = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip());
    let gateway = setup.file("other.zip", Tenant::new("other", &other).zip()).start().await;
    let client = gateway.client();
    let calls = (0..40).map(|number| ask_one(&client, number));
    for (number, data) in futures_of(calls).await {
        let expected = if number % 2 == 0 { json!(null) } else { json!("other") };
        assert_eq!(data["rows"][0]["whose"], expected, "call {number}");
    }
}

async fn ask_one(client: &Client, number: usize) -> (usize, serde_json::Value) {
    let prefix = ["/acme", "/other"][number % 2];
    (number, client.search(BOTH[number / 2 % 2], prefix, "q").await.data())
}

/// Runs all futures concurrently.
async fn futures_of<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in running.iter_mut().filter(|(_, answer)| answer.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *answer = Some(value);
            }
        }
        match running.iter().all(|(_, answer)| answer.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    running.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_served_by_its_address() {
    let backend = FakeBackend::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    let setup = Setup::listening(address.port()).inheriting(&socket);
    let gateway = setup.file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    assert_eq!(gateway.addresses(), [address]);
    let data = gateway.client().search(Era::Modern, "/acme", "orders by region").await.data();
    assert_eq!(data["row_count"], 2);
}

#[tokio::test]
async fn a_socket_that_nobody_would_serve_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    let output = Setup::new().inheriting(&socket).refusal().await;
    assert!(output.contains(&format!("handed over a socket on {address}")), "{output}");
}
