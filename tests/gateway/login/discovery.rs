//! Discovery: the metadata that clients find, under every URL they try.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::Value;

use super::super::harness::client::{Answer, read};
use super::super::harness::login::{App, Browser, VERIFIER, parameter};
use super::*;

/// Paths of the authorization server metadata of the tenant at `/a`.
const SERVER: [&str; 10] = [
    "/.well-known/oauth-authorization-server/a",
    "/.well-known/oauth-authorization-server/a/",
    "/.well-known/openid-configuration/a",
    "/a/.well-known/openid-configuration",
    "/a/.well-known/oauth-authorization-server",
    "/a/.well-known/oauth-authorization-server/",
    "/.well-known/oauth-authorization-server/a/mcp",
    "/.well-known/openid-configuration/a/mcp",
    "/a/mcp/.well-known/openid-configuration",
    "/a/mcp/.well-known/oauth-authorization-server",
];

/// Paths of the protected resource metadata, and the `resource` in each.
const RESOURCE: [(&str, &str); 8] = [
    ("/a/.well-known/oauth-protected-resource", "/a/mcp"),
    ("/a/.well-known/oauth-protected-resource/mcp/", "/a/mcp/"),
    ("/a/.well-known/oauth-protected-resource/", "/a"),
    ("/.well-known/oauth-protected-resource/a/mcp", "/a/mcp"),
    ("/.well-known/oauth-protected-resource/a/mcp/", "/a/mcp/"),
    ("/.well-known/oauth-protected-resource/a", "/a"),
    ("/a/mcp/.well-known/oauth-protected-resource", "/a/mcp"),
    ("/a/.well-known/oauth-protected-resource/mcp", "/a/mcp"),
];

async fn ask(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = gateway.client().request(method, path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    read(request.send().await.expect("an answer")).await
}

fn pointer(refused: &Answer) -> String {
    let challenge = refused.header("www-authenticate");
    let rest =
        challenge.split("resource_metadata=\"").nth(1).unwrap_or_else(|| panic!("no pointer: {challenge}"));
    rest.split('"').next().expect("its end").to_owned()
}

#[tokio::test]
async fn every_spelling_finds_the_same_documents() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let base = gateway.client().base().to_owned();
    let first = gateway.client().get(SERVER[0]).await.text;
    for path in SERVER {
        let answer = gateway.client().get(path).await;
        assert_eq!((answer.status, &answer.text), (200, &first), "{path}");
    }
    for (path, resource) in RESOURCE {
        let answer = gateway.client().get(path).await;
        assert_eq!(
            (answer.status, answer.json()["resource"].clone()),
            (200, format!("{base}{resource}").into()),
            "{path}"
        );
    }
    for path in SERVER.into_iter().chain(RESOURCE.map(|(path, _)| path)).chain(["/a/.well-known/jwks.json"]) {
        let whole = ask(&gateway, Method::GET, path, &[("origin", "https://anywhere.example")]).await;
        assert_eq!(whole.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(whole.header("content-type"), "application/json; charset=utf-8", "{path}");
        assert!(whole.header("cache-control").starts_with("public, max-age="), "{path}");
        let head = ask(&gateway, Method::HEAD, path, &[]).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), whole.text.len().to_string(), "{path}");
        let held = ask(&gateway, Method::GET, path, &[("if-none-match", whole.header("etag"))]).await;
        assert_eq!((held.status, held.text.as_str()), (304, ""), "{path}");
        let preflight = ask(&gateway, Method::OPTIONS, path, &[("origin", "https://anywhere.example")]).await;
        assert_eq!((preflight.status, preflight.header("access-control-max-age")), (204, "600"), "{path}");
        assert_eq!(ask(&gateway, Method::POST, path, &[("content-length", "0")]).await.status, 405, "{path}");
    }
}

#[tokio::test]
async fn the_same_strings_stand_in_refusal_documents_answers_and_tokens() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let base = gateway.client().base().to_owned();
    let issuer = format!("{base}/a");
    // The names come from the configuration, whatever the request's headers say.
    let forwarded = [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "host=evil.example"),
    ];
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let refused = ask(&gateway, method, "/a/mcp", &forwarded).await;
        assert_eq!((refused.status, pointer(&refused)), (401, format!("{base}{}", RESOURCE[0].0)));
    }
    // The challenge names the document with the same spelling of the endpoint, below the prefix
    // that proxies forward.
    for (path, document) in [("/a/mcp/", RESOURCE[1].0), ("/a", RESOURCE[2].0), ("/a/", RESOURCE[2].0)] {
        let refused = ask(&gateway, Method::POST, path, &[]).await;
        assert_eq!((refused.status, pointer(&refused)), (401, format!("{base}{document}")), "{path}");
    }

    let resource = gateway.client().get(RESOURCE[0].0).await.json();
    assert_eq!(resource["authorization_servers"], serde_json::json!([issuer]));
    let server = gateway.client().get(SERVER[0]).await.json();
    assert_eq!(server["issuer"], issuer);
    for (name, path) in [
        ("authorization_endpoint", "/authorize"),
        ("token_endpoint", "/token"),
        ("registration_endpoint", "/register"),
        ("revocation_endpoint", "/revoke"),
        ("introspection_endpoint", "/introspect"),
        ("jwks_uri", "/.well-known/jwks.json"),
    ] {
        assert_eq!(server[name], format!("{issuer}{path}"), "{name}");
    }
    assert_eq!(server["protected_resources"][0], resource["resource"]);
    assert_eq!(server["authorization_response_iss_parameter_supported"], true);
    assert_eq!(server["client_id_metadata_document_supported"], true);

    let app = App::registered(&gateway, "/a").await;
    let back = app.log_in(&mut Browser::new(&gateway), &entra).await;
    assert_eq!(parameter(&back, "iss"), Some(issuer.clone()));
    let sold = app.redeem(&parameter(&back, "code").expect("a code")).await.json();
    let token = sold["access_token"].as_str().expect("a token");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!((&claims["iss"], &claims["aud"]), (&server["issuer"], &resource["resource"]));
}

#[tokio::test]
async fn pages_of_others_may_ask_for_documents_and_tokens_but_not_log_people_in() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let origin = [("origin", "https://anywhere.example")];
    for (path, open) in [
        ("/a/token", true),
        ("/a/register", true),
        ("/a/revoke", true),
        ("/a/introspect", false),
        ("/a/authorize", false),
        ("/a/consent", false),
        ("/a/auth/ms-callback", false),
    ] {
        let preflight = ask(&gateway, Method::OPTIONS, path, &origin).await;
        assert_eq!(preflight.status == 204, open, "{path}");
        let expected = if open { "*" } else { "" };
        for answer in [preflight, ask(&gateway, Method::POST, path, &origin).await] {
            let allowed = answer
                .headers
                .get("access-control-allow-origin")
                .map_or("", |it| it.to_str().expect("ASCII"));
            assert_eq!(allowed, expected, "{path}");
            assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{path}");
        }
    }
}

#[tokio::test]
async fn tenants_without_a_login_have_nothing_to_discover() {
    let backend = FakeBackend::start().await;
    let keys = format!("api_keys:\n  - label: ci\n    key: {}\n", secret("caller"));
    let setup = Setup::new().file("a.yaml", Tenant::new("a", &backend).with(&keys).yaml());
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    for name in ["/a", "/b"] {
        let paths = SERVER.into_iter().chain(RESOURCE.map(|(path, _)| path));
        let paths = paths.chain(["/a/.well-known/jwks.json", "/a/authorize", "/a/token", "/a/register"]);
        for path in paths.map(|path| path.replacen("/a", name, 1)) {
            let answer = gateway.client().get(&path).await;
            assert_eq!((answer.status, &answer.json()["error"]), (404, &"not_found".into()), "{path}");
        }
    }
}

#[tokio::test]
async fn the_host_itself_has_a_hint_unless_a_tenant_is_its_root() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let root = [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ];
    let prefixed = gateway(&entra, &backend, &["a"]).await;
    for path in root.into_iter().chain(["/authorize", "/token", "/register"]) {
        let answer = prefixed.client().get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["detail"].as_str().expect("a text").contains("prefix"), "{path}: {answer:?}");
    }
    let tenant = Tenant::new("r", &backend).with(&entra.lines()).with("path_prefix: /");
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let rooted = setup.file("r.yaml", tenant.yaml()).start().await;
    let base = rooted.client().base().to_owned();
    for path in root {
        assert_eq!(rooted.client().get(path).await.status, 200, "{path}");
    }
    assert_eq!(rooted.client().get(root[1]).await.json()["issuer"], base);
    let refused = ask(&rooted, Method::POST, "/mcp", &[]).await;
    assert_eq!(pointer(&refused), format!("{base}{}", root[0]));
    assert_eq!(rooted.client().get(root[0]).await.json()["resource"], format!("{base}/mcp"));
    assert_eq!(rooted.client().get(&format!("{}/", root[0])).await.json()["resource"], base);
    let path = "/.well-known/oauth-protected-resource/mcp";
    assert_eq!(rooted.client().get(path).await.json()["resource"], format!("{base}/mcp"));
    App::registered(&rooted, "").await.tokens(&entra).await;
}

#[tokio::test]
async fn a_resource_counts_in_every_equivalent_spelling() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let tenant = Tenant::new("r", &backend).with(&entra.lines()).with("path_prefix: /");
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let gateway = setup.file("r.yaml", tenant.yaml()).start().await;
    let base = gateway.client().base().to_owned();
    let app = App::registered(&gateway, "").await;
    let loud = base.replace("https://localhost", "HTTPS://LOCALHOST");
    for resource in [format!("{base}/"), format!("{base}/mcp"), format!("{loud}/mcp"), format!("{loud}/")] {
        let page = Browser::new(&gateway).get(&app.authorize_path(&[("resource", &resource)])).await;
        assert_eq!(page.status, 200, "{resource}: {page:?}");
    }
    let empty = format!("{}&resource=", app.authorize_path(&[]));
    assert_eq!(Browser::new(&gateway).get(&empty).await.status, 200);
    let root = format!("{base}/");
    let back = Browser::new(&gateway).log_in(&app.authorize_path(&[("resource", &root)]), &entra).await;
    let code = parameter(&back, "code").expect("a code");
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &app.redirect_uri),
        ("code_verifier", VERIFIER),
        ("client_id", &app.client_id),
        ("resource", &root),
        ("resource", ""),
    ];
    let sold = app.post("/token", &form).await;
    assert_eq!(sold.status, 200, "{sold:?}");
    let sold = sold.json();
    let token = sold["access_token"].as_str().expect("a token");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["aud"], format!("{base}/mcp"), "the audience is ours, however it was asked for");
    assert_eq!(gateway.client().bearer(token).search(Era::Modern, "", "q").await.data()["row_count"], 2);
}
