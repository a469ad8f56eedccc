//! Limits a minute that change while the gateway runs.

use serde_json::json;

use super::super::harness::entra::FakeEntra;
use super::super::harness::login::{CALLBACK, Form, register};
use super::super::harness::secret::secret;
use super::super::harness::{FakeBackend, Gateway, Setup, Tenant, until};
use super::change;

/// Makes a request that a limit counts. Returns its status.
async fn ask(gateway: &Gateway, limit: &str) -> u16 {
    let client = gateway.client();
    match limit {
        "logins_per_minute" => client.get("/a/authorize").await.status,
        "tokens_per_minute" => {
            let form = [("grant_type", "refresh_token"), ("refresh_token", "none"), ("client_id", "nobody")];
            let request = client.request(reqwest::Method::POST, "/a/token").form_of(&form);
            request.send().await.expect("an answer").status().as_u16()
        }
        _ => {
            let body = json!({ "client_name": "A test", "redirect_uris": [CALLBACK] });
            register(gateway, "/a", &body).await.status
        }
    }
}

#[tokio::test]
async fn the_rates_of_logins_tokens_and_registrations_change() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let tenant = Tenant::new("a", &backend).with(&entra.lines());
    let setup = Setup::new().settings("").flag("--entra-authority", &entra.authority());
    let gateway = setup.file("a.yaml", tenant.yaml()).start().await;
    for limit in ["logins_per_minute", "tokens_per_minute", "registrations_per_minute"] {
        for _ in 0..3 {
            assert_ne!(ask(&gateway, limit).await, 429, "{limit}");
        }
        change(&gateway, &format!("limits: {{{limit}: 1}}\n"));
        until(limit, async || (ask(&gateway, limit).await == 429).then_some(())).await;
        change(&gateway, "");
        until(limit, async || (ask(&gateway, limit).await != 429).then_some(())).await;
    }
}
