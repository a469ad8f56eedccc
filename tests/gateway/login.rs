//! Login, from the first 401 to the first answer: real gateway, real store, and a fake Entra
//! directory.

use super::harness::entra::FakeEntra;
use super::harness::login::{App, Browser, Tokens, parameter};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

mod account;
mod attacks;
mod clients;
mod discovery;
mod isolation;
mod operators;
mod people;
mod rust_sdk;

/// Starts a gateway whose tenants log in at `entra`.
pub(super) async fn gateway(entra: &FakeEntra, backend: &FakeBackend, names: &[&str]) -> Gateway {
    let mut setup = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .variable("TENANTD_LOG_FILTER", "info,tenantd::server=debug");
    for name in names {
        setup = setup.file(&format!("{name}.zip"), Tenant::new(name, backend).with(&entra.lines()).zip());
    }
    setup.start().await
}

#[tokio::test]
async fn a_dropped_export_lets_a_stranger_log_in_and_search() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let client = gateway.client();

    // The client knows nothing but the connector URL.
    let refused = client.search(Era::Modern, "/a", "q").await;
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate");
    let pointer = challenge.split("resource_metadata=\"").nth(1).and_then(|rest| rest.split('"').next());
    let pointer = pointer.expect("a pointer").strip_prefix(client.base()).expect("on this host").to_owned();
    let resource = client.get(&pointer).await.json();
    assert_eq!(resource["resource"], format!("{}/a/mcp", client.base()));
    let issuer = resource["authorization_servers"][0].as_str().expect("an issuer").to_owned();
    let path = issuer.strip_prefix(client.base()).expect("on this host");
    let server = client.get(&format!("/.well-known/oauth-authorization-server{path}")).await.json();
    assert_eq!(server["issuer"], issuer);

    let app = App::registered(&gateway, "/a").await;
    let back = app.log_in(&mut Browser::new(&gateway), &entra).await;
    assert_eq!(back.as_str().split('?').next(), Some(app.redirect_uri.as_str()));
    assert_eq!(parameter(&back, "state").as_deref(), Some("st%te &+ä"));
    assert_eq!(parameter(&back, "iss"), Some(issuer));

    let sold = app.redeem(&parameter(&back, "code").expect("a code")).await;
    assert_eq!((sold.status, sold.header("cache-control")), (200, "no-store"), "{sold:?}");
    let tokens = Tokens::of(&sold.json());
    let answer = client.bearer(&tokens.access).search(Era::Modern, "/a", "q").await;
    assert_eq!(answer.data()["row_count"], 2);
}
