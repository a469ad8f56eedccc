//! What monitoring sees: each tenant's counters, breakers and secrets, as long as there is the
//! tenant.

use super::harness::entra::FakeEntra;
use super::harness::login::App;
use super::harness::secret::secret;
use super::harness::{Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant};

async fn metrics(gateway: &Gateway) -> String {
    gateway.admin("/metrics").await.1
}

fn assert_has(metrics: &str, lines: &[&str]) {
    for wanted in lines {
        assert!(metrics.lines().any(|line| line == *wanted), "no {wanted} in\n{metrics}");
    }
}

async fn call(client: &Client, prefix: &str) {
    client.search(Era::Modern, prefix, "q").await.data();
}

#[tokio::test]
async fn series_go_with_a_tenants_name_and_begin_anew_under_another() {
    let backend = FakeBackend::start().await;
    let key = secret("caller");
    let keyed = |name: &str| {
        let keys = format!("name: {name}\npath_prefix: /{name}\napi_keys:\n  - label: ci\n    key: {key}");
        Tenant::new("a", &backend).with(&keys).yaml()
    };
    let setup = Setup::new().file("a.yaml", keyed("acme")).file("b.yaml", Tenant::new("b", &backend).yaml());
    let gateway = setup.start().await;
    let (client, stranger) = (gateway.client().bearer(&key), gateway.client());
    call(&client, "/acme").await;
    call(&stranger, "/b").await;
    assert_eq!(stranger.search(Era::Modern, "/acme", "q").await.status, 401);
    assert_has(
        &metrics(&gateway).await,
        &[
            r#"tenantd_tool_calls_total{tenant="acme",outcome="ok"} 1"#,
            r#"tenantd_requests_refused_total{tenant="acme",reason="no_credential"} 1"#,
        ],
    );
    gateway.put("a.yaml", keyed("other"));
    gateway.until_state("other", "serving").await;
    gateway.until_gone("acme").await;
    call(&client, "/other").await;
    let text = metrics(&gateway).await;
    assert!(!text.contains("acme"), "{text}");
    assert_has(
        &text,
        &[
            r#"tenantd_tool_calls_total{tenant="other",outcome="ok"} 1"#,
            r#"tenantd_tool_calls_total{tenant="b",outcome="ok"} 1"#,
        ],
    );
}

#[tokio::test]
async fn a_dead_backend_shows_in_errors_by_kind_and_in_the_breaker_until_it_is_well() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let client = gateway.client();
    call(&client, "/a").await;
    assert!(!metrics(&gateway).await.contains("tenantd_backend_breaker{"));
    backend.answer("/nlp-search", Reply::Status(503, serde_json::json!({})));
    for _ in 0..5 {
        client.search(Era::Modern, "/a", "q").await.tool_error();
    }
    let text = metrics(&gateway).await;
    assert_has(
        &text,
        &[
            r#"tenantd_tool_calls_total{tenant="a",outcome="backend_error"} 5"#,
            r#"tenantd_tool_call_errors_total{tenant="a",kind="failed"} 5"#,
        ],
    );
    let is_shown =
        |state: &str| text.contains(&format!(r#"tenantd_backend_breaker{{tenant="a",state="{state}"}} 1"#));
    assert!(is_shown("open") || is_shown("half_open"), "{text}");
    backend.answer("/nlp-search", Reply::Rows);
    // The breaker's pause ends by itself; a call tries as soon as it may.
    super::harness::until("a trial call succeeds", async || {
        let answer = client.search(Era::Modern, "/a", "q").await.result();
        (answer["isError"] != true).then_some(())
    })
    .await;
    assert!(!metrics(&gateway).await.contains("tenantd_backend_breaker{"));
}

#[tokio::test]
async fn logins_and_tokens_are_counted_and_keys_say_when_they_expire() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let keys =
        format!("api_keys:\n  - label: ci\n    key: {}\n    expires: 2099-01-01T00:00:00Z", secret("ci"));
    let setup = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml())
        .file("b.yaml", Tenant::new("b", &backend).with(&keys).yaml());
    let gateway = setup.start().await;
    let app = App::registered(&gateway, "/a").await;
    let tokens = app.tokens(&entra).await;
    call(&gateway.client().bearer(&tokens.access), "/a").await;
    let refused = app.redeem("no-code").await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let text = metrics(&gateway).await;
    assert_has(
        &text,
        &[
            r#"tenantd_logins_total{tenant="a",outcome="ok"} 1"#,
            r#"tenantd_tokens_total{tenant="a",grant_type="authorization_code",outcome="ok"} 1"#,
            r#"tenantd_tokens_total{tenant="a",grant_type="authorization_code",outcome="invalid_grant"} 1"#,
            r#"tenantd_secret_expires_timestamp_seconds{tenant="b",secret="api_key",label="ci"} 4070908800"#,
        ],
    );
    assert!(text.contains("tenantd_certificate_not_after_timestamp_seconds{name="), "{text}");
    let parts: Vec<&str> = text.lines().filter(|line| line.contains("tenant=\"b\"")).collect();
    assert_eq!(parts.len(), 1, "a tenant that nobody called has no counters: {parts:?}");
}
