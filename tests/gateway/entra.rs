//! Faults of Microsoft Entra ID while tenants are served, and what operators see of them.

use serde_json::json;

use super::harness::entra::{Endpoint, FakeEntra, Fault};
use super::harness::login::{App, Browser, Tokens};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

async fn stage() -> (FakeEntra, FakeBackend, Gateway) {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let tenant = Tenant::new("acme", &backend).with(&entra.lines());
    let setup = Setup::new().flag("--entra-authority", &entra.authority()).file("acme.zip", tenant.zip());
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    (entra, backend, gateway)
}

/// Redeems the refresh token. Returns the status and the OAuth error.
async fn renew(app: &App<'_>, tokens: &Tokens) -> (u16, serde_json::Value) {
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh), ("client_id", &app.client_id)];
    let answer = app.post("/token", &form).await;
    (answer.status, answer.json()["error"].clone())
}

#[tokio::test]
async fn while_it_is_down_sessions_go_on_and_the_tenant_is_degraded() {
    let (entra, _backend, gateway) = stage().await;
    let app = App::registered(&gateway, "/acme").await;
    let tokens = app.tokens(&entra).await;
    for (fault, trouble) in [
        (Fault::Answer(503, "down"), "Microsoft's login does not answer"),
        (Fault::Refusal("invalid_client", 7_000_222), "secret_expired"),
    ] {
        entra.fault(Endpoint::Token, fault);
        assert_eq!(renew(&app, &tokens).await, (503, json!("temporarily_unavailable")));
        let status = gateway.until_state("acme", "degraded").await;
        assert!(status["trouble"].as_str().is_some_and(|text| text.contains(trouble)), "{status}");
        // The session goes on, and the refresh token was not consumed.
        let answer = gateway.client().bearer(&tokens.access).search(Era::Modern, "/acme", "q").await;
        assert_eq!(answer.data()["row_count"], 2);
    }
    entra.fault(Endpoint::Token, None);
    assert_eq!(renew(&app, &tokens).await.0, 200);
    gateway.until_state("acme", "serving").await;
}

#[tokio::test]
async fn a_session_that_microsoft_ended_ends_here() {
    let (entra, _backend, gateway) = stage().await;
    let app = App::registered(&gateway, "/acme").await;
    let tokens = app.tokens(&entra).await;
    entra.revoke_sessions();
    assert_eq!(renew(&app, &tokens).await, (400, json!("invalid_grant")));
    let refused = gateway.client().bearer(&tokens.access).search(Era::Modern, "/acme", "q").await;
    assert_eq!(refused.status, 401);
    assert_eq!(gateway.status("acme").await.expect("it is there")["state"], "serving");
}

#[tokio::test]
async fn people_read_what_microsoft_says_in_words() {
    let (entra, _backend, gateway) = stage().await;
    let app = App::registered(&gateway, "/acme").await;
    for (code, status, said) in [
        (65_001, 403, "An administrator must approve this application"),
        (50_105, 403, "not assigned to this application"),
        (53_003, 403, "do not allow this login"),
        (700_016, 500, "Microsoft does not know this application"),
    ] {
        entra.fault(Endpoint::Token, Fault::Refusal("invalid_grant", code));
        let mut browser = Browser::new(&gateway);
        let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
        let page = browser.get(&callback).await;
        assert_eq!(page.status, status, "{code}: {page:?}");
        assert!(page.text.contains(said), "{code}: {}", page.text);
    }
    // The operator needs Entra's trace id to find the attempt in Entra's sign-in log.
    assert!(gateway.output().contains("0b-2"), "{}", gateway.output());
}
