//! Several gateways on one database: their quotas, rates and ledger are one.

use std::time::Duration;

use serde_json::Value;

use super::super::postgres::Database;
use super::{keyed, person, read};
use crate::harness::secret::secret;
use crate::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until_within};

/// A gateway that is killed counts as live for 15 seconds, and others look every 3.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts gateways with these names on one database.
async fn start(database: &Database, names: &[&str], tenant: &Tenant) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for name in names {
        let setup = database.join(Setup::new()).flag("--node-name", name);
        gateways.push(setup.file("a.yaml", tenant.yaml()).start().await);
    }
    gateways
}

/// Returns how many of these calls are admitted.
async fn call(gateway: &Gateway, who: &str, calls: usize) -> usize {
    let client = person(gateway, who);
    let mut admitted = 0;
    for _ in 0..calls {
        let answer = client.search(Era::Modern, "/a", "q").await;
        admitted += usize::from(answer.result()["isError"] != true);
    }
    admitted
}

async fn used(gateway: &Gateway) -> u64 {
    let traffic = read(gateway, "/api/tenants/a/traffic").await;
    traffic["quotas"][0]["used"].as_u64().expect("a number")
}

async fn until_used(gateway: &Gateway, calls: u64) {
    until_within(PATIENCE, "all calls are known", async || (used(gateway).await == calls).then_some(()))
        .await;
}

async fn until_live(gateway: &Gateway, nodes: u32) {
    let line = format!("\ntenantd_cluster_live_nodes {nodes}\n");
    let live = async || gateway.admin("/metrics").await.1.contains(&line).then_some(());
    until_within(PATIENCE, "the others are known", live).await;
}

async fn ledger_calls(gateway: &Gateway) -> Value {
    read(gateway, "/api/usage?tenant=a").await["rows"][0]["calls"].clone()
}

#[tokio::test]
async fn a_quota_and_the_ledger_are_those_of_all_gateways_and_a_killed_one_loses_what_it_had_not_sent() {
    let (backend, database) = (FakeBackend::start().await, Database::new());
    let tenant = keyed("a", &backend, "  calls_per_day: 12");
    let mut gateways = start(&database, &["one", "two", "three"], &tenant).await;
    for gateway in &gateways {
        assert_eq!(call(gateway, "ann", 3).await, 3);
    }
    for gateway in &gateways {
        until_used(gateway, 9).await;
        assert_eq!(ledger_calls(gateway).await, 9);
    }
    let audit = gateways[1].admin("/api/audit?event=call").await.1;
    assert!(audit.contains(r#""node":"two""#), "{audit}");

    // What the third has not sent dies with it: one call at most, since it sends within 5 seconds.
    let third = gateways.pop().expect("three");
    assert_eq!(call(&third, "ann", 1).await, 1);
    let third = third.kill_and_restart().await;
    let known = used(&third).await;
    assert!((9..=10).contains(&known), "{known}");
    gateways.push(third);
    until_used(&gateways[0], known).await;
    let left = usize::try_from(12 - known).expect("small");
    assert_eq!(call(&gateways[0], "ann", 5).await, left, "nobody else calls meanwhile");
    for gateway in &gateways {
        until_used(gateway, 12).await;
        assert_eq!(call(gateway, "ben", 2).await, 0, "the day is used up for all, everywhere");
        assert_eq!(ledger_calls(gateway).await, 12);
    }
}

#[tokio::test]
async fn rates_follow_the_gateways_that_live() {
    let (backend, database) = (FakeBackend::start().await, Database::new());
    let people: Vec<String> = (0..3).map(|number| format!("person-{number}")).collect();
    let keys: String =
        people.iter().map(|who| format!("  - label: {who}\n    key: {}\n", secret(who))).collect();
    let limits = "limits:\n  per_caller: {calls_per_minute: 6}";
    let tenant = Tenant::new("a", &backend).with(&format!("api_keys:\n{keys}{limits}"));
    let mut gateways = start(&database, &["one", "two", "three"], &tenant).await;
    for gateway in &gateways {
        until_live(gateway, 3).await;
        assert_eq!(call(gateway, &people[0], 6).await, 2, "a third");
    }
    let killed = gateways.pop().expect("three").killed();
    for gateway in &gateways {
        until_live(gateway, 2).await;
        until_within(PATIENCE, "the dead one is shown as silent", async || {
            let nodes = read(gateway, "/api/nodes").await["nodes"].clone();
            let dead = nodes.as_array()?.iter().find(|node| node["name"] == "three")?.clone();
            (dead["state"] == "silent").then_some(())
        })
        .await;
        assert_eq!(call(gateway, &people[1], 6).await, 3, "a half");
    }
    let again = killed.start_again().await;
    until_live(&again, 3).await;
    until_live(&gateways[0], 3).await;
    assert_eq!(call(&gateways[0], &people[2], 6).await, 2, "a third again");
}

#[tokio::test]
async fn a_quota_is_told_by_one_gateway() {
    let (backend, database) = (FakeBackend::start().await, Database::new());
    let tenant = keyed("a", &backend, "  calls_per_day: 10");
    let gateways = start(&database, &["one", "two"], &tenant).await;
    for gateway in &gateways {
        assert_eq!(call(gateway, "ann", 4).await, 4);
    }
    for gateway in &gateways {
        until_used(gateway, 8).await;
        assert_eq!(call(gateway, "ann", 1).await, 1);
    }
    for gateway in &gateways {
        until_used(gateway, 10).await;
    }
    let told =
        || gateways.iter().map(|gateway| gateway.output().matches("80 % of a quota").count()).sum::<usize>();
    until_within(PATIENCE, "one has told it", async || (told() > 0).then_some(())).await;
    // One more call and exchange: nobody tells it again.
    let before = ledger_calls(&gateways[0]).await;
    assert_eq!(before, ledger_calls(&gateways[1]).await);
    assert_eq!(told(), 1);
}
