//! Gateways that share one PostgreSQL database obtain certificates together: each name is ordered
//! once, by one of them, and any of them answers the CA.

use std::net::IpAddr;

use serde_json::Value;

use super::front::{Fault, Front};
use super::pebble::{Options, Pebble};
use super::visitor::Visitor;
use super::{post, renew, status, until_trouble};
use crate::harness::{Gateway, PATIENCE, Setup, until, until_within};
use crate::postgres::Database;

const NAME: &str = "mcp.test";

/// Configures the gateway number `node`, from 1 on. It listens on an address of its own, on the
/// ports where the CA validates.
fn setup(pebble: &Pebble, directory: &str, database: &Database, node: u8) -> Setup {
    let address = address(node);
    let lines = format!("listen_http: {address}:{}\n", pebble.http_port);
    let port = if pebble.options.wrong_tls_port { 0 } else { pebble.tls_port };
    let setup = pebble.setup_at(directory, &lines).instead("--listen", &format!("{address}:{port}"));
    database.join(setup).flag("--host", NAME).flag("--node-name", &format!("node-{node}"))
}

fn address(node: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, node])
}

async fn start(pebble: &Pebble, database: &Database, node: u8) -> Gateway {
    setup(pebble, &pebble.directory(), database, node).start().await
}

/// Waits until a gateway has a certificate for a name. Returns its serial number.
async fn certified(gateway: &Gateway, name: &str) -> String {
    let what = format!("{name} is certified");
    let valid = async || status(gateway, name).await.filter(|status| status["state"] == "valid");
    let found = until_within(PATIENCE * 2, &what, valid).await;
    found["serial"].as_str().expect("a number").to_owned()
}

/// Returns how often a gateway has ordered.
fn placed(gateway: &Gateway) -> usize {
    gateway.output().matches("ordering a certificate").count()
}

/// Waits until one of two gateways orders. Returns it and the other one.
async fn orderer_first(pebble: &Pebble, mut two: [Gateway; 2]) -> [Gateway; 2] {
    until("an order is under way", async || (pebble.orders() == 1).then_some(())).await;
    if placed(&two[1]) > 0 {
        two.reverse();
    }
    two
}

fn node_of(gateway: &Gateway) -> IpAddr {
    gateway.address().ip()
}

#[tokio::test]
async fn gateways_that_start_at_once_order_each_name_once() {
    let (pebble, database) = (Pebble::start(Options::default()).await, Database::new());
    let begin = |node| {
        let setup = setup(&pebble, &pebble.directory(), &database, node);
        setup.flag("--host", "second.test").start()
    };
    let (first, second, third) = tokio::join!(begin(1), begin(2), begin(3));
    for name in [NAME, "second.test"] {
        let serial = certified(&first, name).await;
        for other in [&second, &third] {
            assert_eq!(certified(other, name).await, serial, "{name}");
        }
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1));
    // What lies in the database is of no use without the master key.
    for (table, column, word) in [
        ("certificates", "bundle", "PRIVATE KEY"),
        ("certificates", "renewal", "failures"),
        ("acme_accounts", "account", "directory"),
    ] {
        let plain = database.query(&format!(
            "SELECT count(*) FROM tenantd.{table}
             WHERE {column} IS NULL OR position('{word}'::bytea IN {column}) > 0"
        ));
        assert_eq!(plain, "0", "{table}.{column}");
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_order_answers_the_ca() {
    for (wrong_tls_port, way) in [(false, "tls-alpn-01"), (true, "http-01")] {
        let options = Options { wrong_tls_port, ..Options::default() };
        let (pebble, database) = (Pebble::start(options).await, Database::new());
        // At first the CA finds this one, which must listen before anybody orders.
        let orderer = start(&pebble, &database, 1).await;
        let before = certified(&orderer, NAME).await;
        let other = start(&pebble, &database, 2).await;
        certified(&other, NAME).await;
        let orders = (pebble.orders(), placed(&other));
        // The CA finds only the other one.
        pebble.lead(NAME, &node_of(&other).to_string()).await;
        renew(&orderer, NAME).await;
        assert_eq!((pebble.orders(), placed(&other)), (orders.0 + 1, orders.1), "{way}");
        let renewed = status(&orderer, NAME).await.expect("a status");
        assert!(renewed["challenge"] == way && renewed["serial"] != before.as_str(), "{renewed}");
        until("the other one serves it", async || {
            (certified(&other, NAME).await == renewed["serial"]).then_some(())
        })
        .await;
        assert_eq!(database.query("SELECT count(*) FROM tenantd.acme_challenges"), "0", "answers stay");
    }
}

#[tokio::test]
async fn another_gateway_goes_on_with_the_order_of_one_that_was_killed() {
    let options = Options { slow_validation: true, ..Options::default() };
    let (pebble, database) = (Pebble::start(options).await, Database::new());
    let two = tokio::join!(start(&pebble, &database, 1), start(&pebble, &database, 2));
    let [orderer, other] = orderer_first(&pebble, two.into()).await;
    let name = if node_of(&orderer) == address(1) { "node-1" } else { "node-2" };
    let shown = async || status(&other, NAME).await.filter(|status| status["ordered_by"] == name);
    until("the other one shows who orders", shown).await;
    pebble.lead(NAME, &node_of(&other).to_string()).await;
    let _killed = orderer.killed();
    certified(&other, NAME).await;
    assert!(pebble.orders() <= 2, "{} orders", pebble.orders());
    assert!(other.output().contains("going on with an order"), "it ordered again");
}

#[tokio::test]
async fn a_gateway_that_was_frozen_writes_and_orders_nothing_when_it_wakes() {
    let options = Options { slow_validation: true, ..Options::default() };
    let (pebble, database) = (Pebble::start(options).await, Database::new());
    let two = tokio::join!(start(&pebble, &database, 1), start(&pebble, &database, 2));
    let [frozen, other] = orderer_first(&pebble, two.into()).await;
    pebble.lead(NAME, &node_of(&other).to_string()).await;
    frozen.signal("STOP");
    let serial = certified(&other, NAME).await;
    let kept = || database.query("SELECT fence, not_before, bundle FROM tenantd.certificates");
    until("the other one is done", async || {
        let released = "SELECT count(*) FROM tenantd.certificates WHERE until > clock_timestamp()";
        (database.query(released) == "0").then_some(())
    })
    .await;
    let (before, orders) = (kept(), pebble.orders());
    frozen.signal("CONT");
    assert_eq!(certified(&frozen, NAME).await, serial);
    assert!(frozen.output().contains("a lease was lost"), "it did not notice");
    assert_eq!((kept(), pebble.orders()), (before, orders));
}

#[tokio::test]
async fn certificates_are_served_and_none_is_ordered_while_the_database_is_away() {
    let (pebble, database) = (Pebble::start(Options::default()).await, Database::new());
    let gateway = start(&pebble, &database, 1).await;
    let serial = certified(&gateway, NAME).await;
    database.go_away();
    let orders = pebble.orders();
    let (answer, text) = post(&gateway, &format!("/-/renew/{NAME}")).await;
    assert!(answer == 409 && text.contains("database"), "{answer} {text}");
    assert_eq!(pebble.orders(), orders);
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    assert_eq!(visitor.serial(NAME).await.map(|served| served.replace(':', "")), Some(serial));
    database.come_back();
    until("it orders again", async || {
        (post(&gateway, &format!("/-/renew/{NAME}")).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(pebble.orders(), orders + 1);
}

#[tokio::test]
async fn the_pause_that_a_ca_asks_for_is_kept_by_all() {
    let (pebble, database) = (Pebble::start(Options::default()).await, Database::new());
    let front = Front::before(&pebble).await;
    front.fail(&[Fault::RateLimited(7200)]);
    let begin = |node| setup(&pebble, &front.directory(), &database, node).start();
    let (first, second) = tokio::join!(begin(1), begin(2));
    let next = |found: Value| found["next_attempt"].as_str().expect("a time").to_owned();
    let paused = next(until_trouble(&first, NAME, "rateLimited").await);
    assert_eq!(next(until_trouble(&second, NAME, "rateLimited").await), paused);
    // Also by one that starts later.
    let third = begin(3).await;
    assert_eq!(next(until_trouble(&third, NAME, "rateLimited").await), paused);
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test]
async fn certificates_of_a_folder_are_shared_and_stay_in_each_folder() {
    let (pebble, database) = (Pebble::start(Options::default()).await, Database::new());
    let alone = pebble.setup("").flag("--host", NAME).start().await;
    let serial = certified(&alone, NAME).await;
    let alone = alone.killed();
    let certs = alone.path().join("certs").display().to_string();
    let joined = setup(&pebble, &pebble.directory(), &database, 1).instead("--certs", &certs).start().await;
    let second = start(&pebble, &database, 2).await;
    assert_eq!([certified(&joined, NAME).await, certified(&second, NAME).await], [serial.clone(), serial]);
    assert_eq!(pebble.orders(), 1);
    renew(&joined, NAME).await;
    let renewed = certified(&joined, NAME).await;
    until("the second serves it", async || (certified(&second, NAME).await == renewed).then_some(())).await;
    assert_eq!(pebble.accounts(), 1, "the account is not shared");

    // One that leaves takes its copy with it.
    let certs = second.path().join("certs").display().to_string();
    let second = second.killed();
    let alone = pebble.setup_without_plain("").instead("--listen", "127.0.0.2:0");
    let alone = alone.flag("--host", NAME).instead("--certs", &certs).start().await;
    assert_eq!(certified(&alone, NAME).await, renewed);
    assert_eq!(pebble.orders(), 2);
    drop((alone, second));
}

#[tokio::test]
async fn what_another_key_sealed_is_said_and_not_ordered_anew() {
    let (pebble, database) = (Pebble::start(Options::default()).await, Database::new());
    let gateway = start(&pebble, &database, 1).await;
    let serial = certified(&gateway, NAME).await;
    let change = "UPDATE tenantd.certificates SET bundle = set_byte(bundle, 30, get_byte(bundle, 30) # 1),
                  version = version + 1
                  RETURNING tenantd.record_change('certificate', '', convert_to(name, 'UTF8'))";
    database.query(change);
    let found = until_trouble(&gateway, NAME, "cannot be decrypted").await;
    assert!(found["state"] == "refused" && found["serial"] == serial.as_str(), "{found}");
    let second = start(&pebble, &database, 2).await;
    until_trouble(&second, NAME, "cannot be decrypted").await;
    assert_eq!(pebble.orders(), 1);
    let stranger = database.join_with_key(pebble.setup("").instead("--listen", "127.0.0.3:0"), "cd");
    let refusal = stranger.flag("--host", NAME).refusal().await;
    assert!(refusal.contains("master key does not fit"), "{refusal}");
}
