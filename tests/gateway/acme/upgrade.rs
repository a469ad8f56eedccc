//! `tenantd upgrade` of a gateway that obtains its certificates by ACME.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::pebble::{Options, Pebble};
use super::visitor::Visitor;
use super::{renew, status};
use crate::harness::{Era, FakeBackend, Reply, Tenant, until, until_within};

/// Longer than the pauses of a sink together.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Returns the ids of lines of the audit.
fn ids(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].to_string()).collect()
}

#[tokio::test]
async fn an_upgrade_keeps_the_certificate_and_the_next_process_renews_it() {
    let pebble = Pebble::start(Options::default()).await;
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    let sink = format!("audit_sinks: [{{name: lake, http: '{}'}}]\n", receiver.url("/audit"));
    let setup = pebble.setup(&sink).flag("--host", "mcp.test");
    let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let serial = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let (orders, accounts) = (pebble.orders(), pebble.accounts());
    let hammer = visitor.hammer("mcp.test");
    gateway.upgrade(&[]).await;
    assert!(gateway.until_first_process_ended().await.success());
    until("the next process has looked", async || {
        status(&gateway, "mcp.test").await.filter(|it| it["state"] == "valid")
    })
    .await;
    assert_eq!(visitor.serial("mcp.test").await, Some(serial.clone()), "the certificate is the same");
    assert_eq!((pebble.orders(), pebble.accounts()), (orders, accounts), "nothing is ordered again");
    // Folder, account and key belong to the next process.
    renew(&gateway, "mcp.test").await;
    let renewed = async || visitor.serial("mcp.test").await.filter(|now| *now != serial);
    until("it is renewed", renewed).await;
    assert_eq!((pebble.orders(), pebble.accounts()), (orders + 1, accounts));
    let seen = hammer.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new(), "of {} handshakes", seen.handshakes);
    let client = gateway.client_with(|builder| builder.tls_danger_accept_invalid_certs(true));
    client.search(Era::Modern, "/a", "q").await.data();
    until_within(PATIENCE, "all lines of both processes arrive", async || {
        let written = fs::read_to_string(gateway.path().join("state/audit.jsonl")).unwrap_or_default();
        let posted = receiver.requests().into_iter().map(|request| request.body).collect::<Vec<_>>().concat();
        let posted = ids(&String::from_utf8(posted).expect("text"));
        (written.contains(r#""order":"renew""#) && posted.is_superset(&ids(&written))).then_some(())
    })
    .await;
}
