//! A gateway that starts while its database of logins is away: it serves what needs no logins,
//! answers the rest with 503, forgets nothing, and has all in force as soon as the database answers.

use serde_json::Value;

use super::cluster::order;
use super::harness::entra::FakeEntra;
use super::harness::login::{App, Browser, CALLBACK, Tokens};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until, unused_port};
use super::postgres::Database;

const KEY: &str = "tk_0123456789abcdef0123456789abcdef";

fn setup(database: &Database, entra: &FakeEntra, backend: &FakeBackend, host: &str, port: u16) -> Setup {
    let setup = Setup::listening(port).instead("--listen", &format!("{host}:{port}"));
    let setup = database.join(setup).flag("--entra-authority", &entra.authority());
    setup
        .file("guarded.yaml", Tenant::new("guarded", backend).with(&entra.lines()).yaml())
        .file("open.yaml", Tenant::new("open", backend).yaml())
        .file("shut.yaml", Tenant::new("shut", backend).yaml())
}

async fn call(gateway: &Gateway, prefix: &str, access: &str) -> u16 {
    gateway.client().bearer(access).search(Era::Modern, prefix, "q").await.status
}

async fn readiness(gateway: &Gateway) -> (u16, Value) {
    let (status, body) = gateway.admin("/readyz").await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

fn app<'a>(gateway: &'a Gateway, client_id: &str) -> App<'a> {
    let client_id = client_id.to_owned();
    App { gateway, prefix: "/guarded", client_id, redirect_uri: CALLBACK.to_owned() }
}

#[tokio::test]
async fn a_start_without_the_database_serves_what_needs_none_and_forgets_nothing() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let (database, port) = (Database::new(), unused_port());
    let gateway = setup(&database, &entra, &backend, "127.0.0.1", port).start().await;
    let other = setup(&database, &entra, &backend, "127.0.0.2", port).start().await;
    let id = App::registered(&gateway, "/guarded").await.client_id;
    let tokens = app(&gateway, &id).tokens(&entra).await;
    let leaver = app(&gateway, &id).tokens(&entra).await;
    for access in [&tokens.access, &leaver.access] {
        assert_eq!(call(&gateway, "/guarded", access).await, 200);
    }
    order(&gateway, &["tenants", "pause", "shut"]).await;
    let gateway = gateway.killed();
    let form = [("token", leaver.refresh.as_str()), ("client_id", &id)];
    assert_eq!(app(&other, &id).post("/revoke", &form).await.status, 200);
    let _ended = other.killed();

    // By the time it is back, another version has been there.
    let version = database.query("SELECT number || ',' || readable_from FROM tenantd.schema_version");
    let (number, readable_from) = version.split_once(',').expect("two");
    database.query("UPDATE tenantd.schema_version SET number = 9999, readable_from = 9999");
    database.go_away();
    let gateway = gateway.start_again().await;
    assert_eq!(call(&gateway, "/open", KEY).await, 200);
    assert_ne!(call(&gateway, "/shut", KEY).await, 200, "it stays shut");
    let refused = gateway.client().bearer(&tokens.access).search(Era::Modern, "/guarded", "q").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    let renewal = [("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh), ("client_id", &id)];
    let answer = app(&gateway, &id).post("/token", &renewal).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    let (status, detail) = readiness(&gateway).await;
    let awaited = detail["cluster"]["awaited"].as_str().expect("a text");
    assert_eq!((status, awaited.contains("the database")), (503, true), "{detail}");
    assert!(gateway.admin("/metrics").await.1.contains("\ntenantd_store_writable 0"));
    assert!(gateway.output().contains("starts without its database of logins"), "{}", gateway.output());

    let told = gateway.status("guarded").await.expect("there").to_string();
    assert!(told.contains("degraded") && told.contains("away since the gateway started"), "{told}");

    // What answers must be a database that this version can use.
    database.come_back();
    let is_newer = async || {
        let (_, detail) = readiness(&gateway).await;
        detail["cluster"]["awaited"].as_str()?.contains("newer tenantd").then_some(())
    };
    until("the newer schema is refused", is_newer).await;
    assert_eq!(call(&gateway, "/guarded", &tokens.access).await, 503);
    let back = format!("number = {number}, readable_from = {readable_from}");
    database.query(&format!("UPDATE tenantd.schema_version SET {back}"));

    let is_served = async || (call(&gateway, "/guarded", &tokens.access).await == 200).then_some(());
    until("logins are in force without a restart", is_served).await;
    assert_eq!(call(&gateway, "/guarded", &leaver.access).await, 401, "the revocation was kept");
    assert_ne!(call(&gateway, "/shut", KEY).await, 200);
    assert_eq!(readiness(&gateway).await.0, 200);
    let answer = app(&gateway, &id).post("/token", &renewal).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(call(&gateway, "/guarded", &Tokens::of(&answer.json()).access).await, 200);
    app(&gateway, &id).log_in(&mut Browser::new(&gateway), &entra).await;
    assert_eq!(database.count("incarnations"), "1", "it is the same life");
    order(&gateway, &["tenants", "resume", "shut"]).await;
    assert_eq!(call(&gateway, "/shut", KEY).await, 200);
}
