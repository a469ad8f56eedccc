//! Tenants on several gateways that share a database: what is in force where, and operators' orders,
//! which count everywhere.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tenantd::base::clock::{Clock, SystemClock};

use super::harness::backend::Recorded;
use super::harness::gateway::BINARY;
use super::harness::{FakeBackend, Gateway, Setup, Tenant, until};
use super::postgres::Database;
use super::state::{fine, printed, tenants};

/// How soon every gateway must have done what was ordered at one of them.
const PROMISED: Duration = Duration::from_secs(2);
const HOLD: &str = "hold_changes: tools\n";

/// Two gateways with folders of their own, on one database.
struct Two {
    backend: FakeBackend,
    database: Database,
}

impl Two {
    async fn new() -> Self {
        Self { backend: FakeBackend::start().await, database: Database::new() }
    }

    fn edition(&self, text: &str) -> Vec<u8> {
        Tenant::new("acme", &self.backend).with(&format!("description: {text}")).yaml()
    }

    fn setup(&self, node: &str) -> Setup {
        self.database.join(Setup::new()).flag("--node-name", node)
    }

    /// Starts a gateway whose folder has this edition of the tenant.
    async fn start(&self, node: &str, text: &str) -> Gateway {
        self.setup(node).file("acme.yaml", self.edition(text)).start().await
    }

    fn sql(&self, sql: &str) -> String {
        self.database.server.psql(&self.database.name, sql)
    }
}

/// Waits until the tenant is as it should be.
async fn until_status(gateway: &Gateway, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(what, async || gateway.status("acme").await.filter(&is_so)).await
}

/// The same within the time that is promised.
async fn until_followed(gateway: &Gateway, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let ordered = SystemClock.monotonic();
    let status = until_status(gateway, what, is_so).await;
    // Printed, since a machine under load may stall: the promise is measured where it is quiet.
    println!(
        "{what}: after {:?} of {PROMISED:?}",
        SystemClock.monotonic().saturating_duration_since(ordered)
    );
    status
}

fn codes(status: &Value) -> Vec<&str> {
    status["findings"].as_array().expect("a list").iter().filter_map(|it| it["code"].as_str()).collect()
}

async fn answered(gateway: &Gateway) -> u16 {
    gateway.client().get("/acme/").await.status
}

#[tokio::test]
async fn a_pause_at_one_gateway_counts_at_all_and_over_restarts_and_for_newcomers() {
    let two = Two::new().await;
    let (north, south) = (two.start("north", "One").await, two.start("south", "One").await);
    for gateway in [&north, &south] {
        gateway.until_state("acme", "serving").await;
    }
    fine(&north, &["pause", "acme"]);
    until_followed(&south, "south is paused", |status| status["paused"] == true).await;
    // All of them restart.
    let (north, south) = (north.killed(), south.killed());
    let (north, south) = (north.start_again().await, south.start_again().await);
    for gateway in [&north, &south] {
        assert_eq!(gateway.status("acme").await.expect("there")["paused"], true);
    }
    // A newcomer never serves it, not even at first.
    let west = two.start("west", "One").await;
    assert_eq!(west.status("acme").await.expect("there")["paused"], true);
    let south = south.killed();
    fine(&west, &["resume", "acme"]);
    until_followed(&north, "north is resumed", |status| status["paused"] == false).await;
    let south = south.start_again().await;
    assert_eq!(south.status("acme").await.expect("there")["paused"], false, "it missed the order");

    // An order that the others would not hear of is none.
    two.database.go_away();
    let refused = tenants(&south, &["pause", "acme"]);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(printed(&refused).contains("nothing was done"), "{}", printed(&refused));
    assert_eq!(south.status("acme").await.expect("there")["paused"], false);
    two.database.come_back();
    until("an order is taken again", async || {
        (tenants(&south, &["pause", "acme"]).status.code() == Some(0)).then_some(())
    })
    .await;
    until_status(&west, "west is paused", |status| status["paused"] == true).await;
}

#[tokio::test]
async fn a_rollback_counts_wherever_the_files_are_those_that_it_replaces() {
    let two = Two::new().await;
    let (north, south) = (two.start("north", "One").await, two.start("south", "Two").await);
    let first = north.until_state("acme", "serving").await["in_force"].clone();
    let second = south.until_state("acme", "serving").await["in_force"].clone();
    assert_ne!(first, second);
    north.put("acme.yaml", two.edition("Two"));
    until_status(&north, "north has the second", |status| status["in_force"] == second).await;
    fine(&north, &["rollback", "acme", "1"]);
    // The other gateway never had that revision.
    let status = until_followed(&south, "south is rolled back", |status| status["in_force"] == first).await;
    assert_eq!((&status["rolled_back"], &status["on_disk"]), (&Value::Bool(true), &second), "{status}");
    let (north, south) = (north.kill_and_restart().await, south.kill_and_restart().await);
    for gateway in [&north, &south] {
        let status = gateway.status("acme").await.expect("there");
        assert_eq!((&status["in_force"], &status["rolled_back"]), (&first, &Value::Bool(true)), "{status}");
    }
    let west = two.start("west", "Two").await;
    assert_eq!(west.status("acme").await.expect("there")["in_force"], first, "a newcomer");
    // Other files are not replaced, whoever has them.
    west.put("acme.yaml", two.edition("Three"));
    let third = until_status(&west, "west has the third", |status| status["rolled_back"] == false).await;
    assert_eq!(third["state"], "serving", "{third}");
    assert_eq!(north.status("acme").await.expect("there")["in_force"], first);
    // An operator ends it with the revision of the files themselves.
    fine(&south, &["rollback", "acme", "1"]);
    until_followed(&north, "north has its files", |status| status["in_force"] == second).await;
    let status = until_status(&south, "so has south", |status| status["in_force"] == second).await;
    assert_eq!(status["rolled_back"], false, "{status}");
    until_status(&north, "north is not rolled back", |status| status["rolled_back"] == false).await;
}

#[tokio::test]
async fn a_rollback_that_a_gateway_cannot_follow_is_said_and_keeps_what_is_in_force() {
    let two = Two::new().await;
    let (north, south) = (two.start("north", "One").await, two.start("south", "Two").await);
    let second = south.until_state("acme", "serving").await["in_force"].clone();
    north.until_state("acme", "serving").await;
    north.put("acme.yaml", two.edition("Two"));
    until_status(&north, "north has the second", |status| status["in_force"] == second).await;
    fine(&north, &["pause", "acme"]);
    until_status(&south, "south is paused", |status| status["paused"] == true).await;
    let south = south.killed();
    fine(&north, &["rollback", "acme", "1"]);
    two.sql("UPDATE tenantd.tenant_orders SET documents = NULL");
    let south = south.start_again().await;
    let status =
        until_status(&south, "it is said", |status| codes(status).contains(&"rollback-missing")).await;
    assert_eq!(status["in_force"], second, "{status}");
    until_status(&south, "they disagree", |status| {
        let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        nodes.len() == 2 && nodes[0]["in_force"] != nodes[1]["in_force"]
    })
    .await;
    // New files are taken as always.
    south.put("acme.yaml", two.edition("Three"));
    let status =
        until_status(&south, "it is over", |status| !codes(status).contains(&"rollback-missing")).await;
    assert_eq!(status["paused"], true, "{status}");
}

#[tokio::test]
async fn an_approval_counts_for_that_change_on_every_gateway_also_where_it_arrives_later() {
    let two = Two::new().await;
    let held = |text: &str| Tenant::new("acme", &two.backend).with(&format!("description: {text}")).zip();
    let start = async |node: &str| {
        two.setup(node).file("acme.zip", held("One")).file("acme.yaml", HOLD).start().await
    };
    let (north, south) = (start("north").await, start("south").await);
    for gateway in [&north, &south] {
        gateway.until_state("acme", "serving").await;
    }
    north.put("acme.zip", held("Two"));
    let waiting = north.until_state("acme", "held").await;
    fine(&north, &["approve", "acme"]);
    let approved = north.until_state("acme", "serving").await["in_force"].clone();
    assert_eq!(approved, waiting["on_disk"]);
    south.put("acme.zip", held("Two"));
    let status = until_status(&south, "it is not held", |status| status["in_force"] == approved).await;
    assert_eq!(status["state"], "serving", "{status}");
    // Where the same change waits already, it goes on.
    for gateway in [&north, &south] {
        gateway.put("acme.zip", held("Three"));
        gateway.until_state("acme", "held").await;
    }
    fine(&south, &["approve", "acme"]);
    let approved = south.until_state("acme", "serving").await["in_force"].clone();
    until_followed(&north, "north goes on", |status| status["in_force"] == approved).await;
    // Another change is not approved.
    north.put("acme.zip", held("Four"));
    north.until_state("acme", "held").await;
}

/// Returns the nodes and disagreements that a gateway knows of.
#[tokio::test]
async fn a_claim_that_is_accepted_at_one_gateway_is_accepted_at_all_and_by_newcomers() {
    let two = Two::new().await;
    let rival = Tenant::new("rival", &two.backend).with("name: acme").yaml();
    let setup = |node| two.setup(node).file("acme.yaml", two.edition("One"));
    let (north, south) = (setup("north").start().await, setup("south").start().await);
    let entry = async |gateway: &Gateway, is_so: &dyn Fn(&Value) -> bool| {
        until("the rival is as it should be", async || gateway.status("rival").await.filter(is_so)).await
    };
    for gateway in [&north, &south] {
        gateway.until_state("acme", "serving").await;
        gateway.put("rival.yaml", &rival);
        entry(gateway, &|status| status["state"] == "rejected").await;
        gateway.remove("acme.yaml");
        entry(gateway, &|status| codes(status).contains(&"claim-free")).await;
        assert_ne!(answered(gateway).await, 200, "nobody takes over by itself");
    }
    fine(&north, &["accept", "rival"]);
    for gateway in [&north, &south] {
        until("the rival is served", async || (answered(gateway).await == 200).then_some(())).await;
    }
    let south = south.kill_and_restart().await;
    assert_eq!(answered(&south).await, 200, "it outlives a restart");
}

async fn nodes(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.admin("/api/nodes").await.1).expect("JSON")
}

fn raised(receiver: &FakeBackend) -> Vec<Value> {
    let events = receiver.requests();
    let events = events.iter().map(Recorded::json);
    events.filter(|event| event["kind"] == "tenants-disagree").collect()
}

#[tokio::test]
async fn gateways_that_disagree_are_shown_and_told_of_once_until_they_agree() {
    let two = Two::new().await;
    let receiver = FakeBackend::start().await;
    let notify = format!("notify:\n  - name: pager\n    webhook: {}\n", receiver.url("/hook"));
    let start = async |node: &str, text: &str| {
        two.setup(node).settings(&notify).file("acme.yaml", two.edition(text)).start().await
    };
    let (north, south) = (start("north", "One").await, start("south", "Two").await);
    let first = north.until_state("acme", "serving").await["in_force"].clone();
    let second = south.until_state("acme", "serving").await["in_force"].clone();
    let known = until("both have told", async || {
        let status = north.status("acme").await?;
        let nodes = status["nodes"].as_array()?.clone();
        (nodes.len() == 2 && nodes.iter().all(|node| node["in_force"].is_string())).then_some(nodes)
    })
    .await;
    assert_eq!((&known[0]["node"], &known[0]["in_force"]), (&"north".into(), &first));
    assert_eq!((&known[1]["node"], &known[1]["in_force"]), (&"south".into(), &second));
    assert_eq!(nodes(&north).await["disagreements"], serde_json::json!([]), "not for a minute yet");
    // A minute and more goes by, as the database has it.
    two.sql("UPDATE tenantd.node_entries SET changed_at = changed_at - interval '2 minutes'");
    two.sql("UPDATE tenantd.node_reports SET version = version + 1");
    for gateway in [&north, &south] {
        until("it is a disagreement", async || {
            let nodes = nodes(gateway).await;
            let summary = nodes["disagreements"][0]["summary"].as_str()?.to_owned();
            (summary.contains("on north") && summary.contains("on south")).then_some(())
        })
        .await;
        let metrics = gateway.admin("/metrics").await.1;
        assert!(metrics.contains("\ntenantd_cluster_disagreeing_tenants 1"), "{metrics}");
        let listed = fine(gateway, &["list"]);
        assert!(listed.contains("acme is not the same on all gateways"), "{listed}");
        let shown = fine(gateway, &["show", "acme"]);
        assert!(shown.contains("node       north: serving") && shown.contains("differs"), "{shown}");
    }
    until("the overview says it", async || {
        let overview = north.admin("/").await.1;
        (overview.contains("tenants-disagree") && overview.contains("2 live")).then_some(())
    })
    .await;
    assert!(north.admin("/tenants/acme").await.1.contains("On each gateway"));
    let verb = std::process::Command::new(BINARY)
        .args(["nodes", "--admin", &south.admin_address().to_string()])
        .env_clear()
        .output()
        .expect("the binary runs");
    let verb = printed(&verb);
    assert!(verb.contains("south (this one)") && verb.contains("acme"), "{verb}");
    until("one tells", async || (!raised(&receiver).is_empty()).then_some(())).await;

    south.put("acme.yaml", two.edition("One"));
    until("it is over and told", async || (raised(&receiver).len() == 2).then_some(())).await;
    let told = raised(&receiver);
    let states: Vec<_> = told.iter().map(|event| event["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["raised", "resolved"], "once for both gateways: {told:?}");
    assert_eq!(nodes(&north).await["disagreements"], serde_json::json!([]));

    // What dead gateways had does not count, and a folder that is not there changes nothing here.
    let south = south.killed();
    fs::remove_file(south.tenant_file("acme.yaml")).expect("removed");
    let south = south.start_again().await;
    until("the other one has nothing", async || {
        let nodes = nodes(&north).await;
        let counts: Vec<_> = nodes["nodes"].as_array()?.iter().map(|node| node["entries"].as_i64()).collect();
        (counts == [Some(1), Some(0)]).then_some(())
    })
    .await;
    assert_eq!(answered(&north).await, 200);
    let status = north.status("acme").await.expect("there");
    assert_eq!((&status["in_force"], &status["state"]), (&first, &"serving".into()), "{status}");
    drop(south);
}
