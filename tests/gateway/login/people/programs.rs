//! Programs' tokens, as operators see and end them.

use serde_json::{Value, json};

use super::super::super::harness::client::read;
use super::super::super::harness::login::Form;
use super::*;

/// Returns a gateway with a program at tenant `a`.
async fn gateway_with_program(entra: &FakeEntra, backend: &FakeBackend) -> Gateway {
    let digest = tenantd::base::digest::Digest::of(secret("program").as_bytes());
    let lines = format!("machine_clients:\n  - {{id: job, label: Nightly job, sha256: {digest}}}");
    let tenant = Tenant::new("a", backend).with(&(entra.lines() + &lines));
    Setup::new().flag("--entra-authority", &entra.authority()).file("a.yaml", tenant.yaml()).start().await
}

async fn buy(gateway: &Gateway) -> String {
    let request = gateway.client().request(reqwest::Method::POST, "/a/token");
    let request = request.form_of(&[("grant_type", "client_credentials")]);
    let sold =
        read(request.basic_auth("job", Some(secret("program"))).send().await.expect("an answer")).await;
    assert_eq!(sold.status, 200, "{sold:?}");
    sold.json()["access_token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn programs_are_listed_with_their_label_and_ended() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway_with_program(&entra, &backend).await;
    let app = App::registered(&gateway, "/a").await;
    let ada = app.tokens(&entra).await;
    let token = buy(&gateway).await;
    let status =
        async |token: &str| gateway.client().bearer(token).search(Era::Modern, "/a", "q").await.status;
    assert_eq!(status(&token).await, 200);
    let table = text(&logins(&gateway, &["list"]));
    assert!(table.contains("program  Nightly job") && table.contains("person   ada@contoso.com"), "{table}");
    let listed: Vec<Value> =
        serde_json::from_str(&text(&logins(&gateway, &["list", "--client", "job", "--format", "json"])))
            .expect("JSON");
    let program = &listed[0];
    assert_eq!(
        (listed.len(), &program["kind"], &program["label"], &program["tenant"]),
        (1, &json!("program"), &json!("Nightly job"), &json!("a"))
    );
    assert!(program["last_used"].is_string(), "{program}");
    let (_, page) = gateway.admin("/people").await;
    assert!(page.contains("<b>Nightly job</b> at <a href=\"/tenants/a\">a</a>"), "{page}");
    let id = program["id"].as_str().expect("an id").to_owned();
    assert!(page.contains(&format!("name=\"id\" value=\"{id}\"")), "it can be ended: {page}");
    assert_eq!(text(&logins(&gateway, &["end", &id])), "1 login ended\n");
    assert_eq!((status(&token).await, status(&ada.access).await), (401, 200));
    assert!(!text(&logins(&gateway, &["list"])).contains("Nightly job"));
    assert!(!gateway.admin("/people").await.1.contains("Programs"));
    let again = buy(&gateway).await;
    assert_eq!(status(&again).await, 200, "it may get another one");
    super::super::super::harness::until("the end is in the audit", async || {
        let line =
            audit(&gateway).into_iter().find(|line| line["event"] == "revocation" && line["grant"] == id)?;
        assert_eq!((&line["client_id"], &line["order"]), (&json!("job"), &json!("end_logins")), "{line}");
        Some(())
    })
    .await;
}
