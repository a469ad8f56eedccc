//! Renewal: automatic, by the CA's suggested window, and without interruption for clients.

use std::fs;

use serde_json::Value;

use super::front::{Front, Lie};
use super::pebble::{Options, Pebble};
use super::visitor::Visitor;
use super::{post, renew};
use crate::harness::{FakeBackend, Tenant, until};

#[tokio::test]
async fn thirty_renewals_under_load_lose_no_handshake_and_no_connection() {
    let pebble = Pebble::start(Options { validity_seconds: 60, ..Options::default() }).await;
    let backend = FakeBackend::start().await;
    let setup = pebble.setup("").flag("--host", "mcp.test").file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    gateway.until_state("a", "serving").await;

    let mut kept = visitor.keep_alive("mcp.test").await;
    let mut stream = visitor.listen_stream("mcp.test", "/a/mcp").await;
    let hammering: Vec<_> = (0..4).map(|_| visitor.hammer("mcp.test")).collect();
    for _ in 0..30 {
        renew(&gateway, "mcp.test").await;
        assert_eq!(kept.get("/a/mcp/").await, kept.first(), "the kept connection answers otherwise");
    }
    let mut serials = std::collections::BTreeSet::new();
    let mut handshakes = 0;
    for hammer in hammering {
        let seen = hammer.stop().await;
        assert_eq!(seen.failed, Vec::<String>::new());
        handshakes += seen.handshakes;
        serials.extend(seen.serials);
    }
    assert!(serials.len() >= 30, "only {} certificates were seen in {handshakes} handshakes", serials.len());
    assert!(stream.is_open().await, "the stream ended");
    println!("{handshakes} handshakes, {} certificates, none failed", serials.len());
}

#[tokio::test]
async fn short_lived_certificates_renew_by_themselves() {
    let pebble = Pebble::start(Options { validity_seconds: 12, ..Options::default() }).await;
    let _gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    until("it is renewed", async || visitor.serial("mcp.test").await.filter(|serial| *serial != first)).await;
}

#[tokio::test]
async fn renewals_say_what_they_replace_and_go_by_the_cas_window() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.suggest(-60, 3000);
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    // By its own schedule the gateway renews at half of the hour (± 1/20); the CA's window ends
    // later.
    until("the CA's window is known", async || {
        let file =
            fs::read_dir(gateway.path().join("certs/sets")).ok()?.flatten().next()?.path().join("state.json");
        let state: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (!state["window"].is_null()).then_some(())
    })
    .await;
    renew(&gateway, "mcp.test").await;
    let orders = front.orders();
    assert_eq!(orders.len(), 2);
    assert!(orders[0].get("replaces").is_none() && orders[1]["replaces"].is_string(), "{orders:?}");
}

#[tokio::test]
async fn a_window_that_is_near_renews_by_itself_and_says_what_is_replaced() {
    // Without ARI the certificate would be renewed after half of its lifetime.
    let pebble = Pebble::start(Options { validity_seconds: 200, ..Options::default() }).await;
    let front = Front::before(&pebble).await;
    front.suggest(-60, 2);
    let _gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let renewed = async || visitor.serial("mcp.test").await.filter(|serial| *serial != first);
    until("it is renewed because the CA likes it so", renewed).await;
    assert!(front.orders()[1]["replaces"].is_string(), "{:?}", front.orders());
}

#[tokio::test]
async fn a_certificate_that_was_replaced_already_is_renewed_all_the_same() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.suggest(1000, 3000);
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    // The CA counts the first certificate as replaced, but the new chain is not used.
    front.lie(Some(Lie::Truncated));
    let (status, _) = post(&gateway, "/-/renew/mcp.test").await;
    assert_eq!(status, 409);
    front.lie(None);
    renew(&gateway, "mcp.test").await;
    let orders = front.orders();
    assert_eq!(orders.len(), 3, "{orders:?}");
    assert!(orders[1]["replaces"].is_string() && orders[2].get("replaces").is_none(), "{orders:?}");
}
