//! Several nodes on one database, without their gateways.

use std::sync::Arc;
use std::time::Duration;

use super::nodes::{NodeIdentity, refuse_live_nodes};
use super::{
    ChangeBatch, ClusterStore, EntryOrders, HeartbeatOutcome, NodeEntry, OtherNodes, Replacement, TenantOrder,
};
use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::store::auth::postgres::{PostgresAddress, PostgresEngine};
use crate::store::tests::flaky_proxy::FlakyProxy;
use crate::store::tests::postgres_server::PostgresServer;
use crate::store::{
    AuthStore, BlockId, Error, Incarnation, IncarnationChange, IncarnationRecord, KeySource, Keyring,
    LocalCertificate, PostgresError,
};

/// A database, and the means to join it as any node.
struct Cluster {
    server: PostgresServer,
    name: String,
    keyring: Arc<Keyring>,
}

impl Cluster {
    fn new() -> Self {
        let server = PostgresServer::acquire();
        let name = server.create_database();
        let folder = tempfile::tempdir().expect("a folder");
        let keyring = Arc::new(Keyring::load(folder.path(), &KeySource::State, true).expect("a key"));
        Self { server, name, keyring }
    }

    async fn engine(&self) -> PostgresEngine {
        self.engine_for(9).await
    }

    async fn engine_for(&self, node: u8) -> PostgresEngine {
        let address = PostgresAddress::parse(&self.server.address(&self.name), None).expect("an address");
        PostgresEngine::open(address, Arc::clone(&self.keyring), [node; 16]).await.expect("opened")
    }

    /// Joins as the node with this number, whose state folder is at this place.
    async fn join(&self, node: u8, place: u8) -> Result<ClusterStore, Error> {
        let boot = crate::base::random::bytes();
        let node = NodeIdentity { id: [node; 16], name: format!("node {node}"), boot, place: [place; 32] };
        ClusterStore::join(self.engine().await, node).await
    }

    async fn node(&self, node: u8) -> ClusterStore {
        self.join(node, node).await.expect("joined")
    }

    fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql)
    }

    async fn save_block(&self) -> Vec<u8> {
        let id = BlockId::random();
        let store = AuthStore::in_database(self.engine().await);
        store.save_block(id, Vec::new()).await.expect("written");
        crate::base::hex::decode::<16>(&id.to_string()).expect("digits").to_vec()
    }
}

fn keys(batch: &ChangeBatch) -> Vec<Vec<u8>> {
    let ChangeBatch::Changes(changes) = batch else { panic!("not everything: {batch:?}") };
    changes.iter().map(|change| change.key.clone()).collect()
}

#[tokio::test]
async fn nodes_are_live_until_they_leave_or_fall_silent() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(1).await, cluster.node(2).await);
    let live = async || {
        let nodes = first.load_nodes().await.expect("read");
        nodes.into_iter().filter(|node| node.is_live).map(|node| node.name).collect::<Vec<_>>()
    };
    assert_eq!(live().await, ["node 1", "node 2"]);
    let heard = first.load_changes(&first.first_cursor()).await.expect("read");
    assert_eq!((heard.others, heard.batch.is_empty()), (OtherNodes { live: 1, silent: 0 }, true));
    second.leave().await.expect("written");
    assert_eq!(live().await, ["node 1"]);
    let heard = first.load_changes(&first.first_cursor()).await.expect("read");
    assert_eq!(heard.others, OtherNodes::default());
    assert_eq!(second.send_heartbeat().await.expect("written"), HeartbeatOutcome::Live);
    cluster.sql("UPDATE tenantd.nodes SET seen_at = now() - interval '16 seconds' WHERE name = 'node 2'");
    assert_eq!(live().await, ["node 1"]);
    let heard = first.load_changes(&first.first_cursor()).await.expect("read");
    assert_eq!(heard.others, OtherNodes { live: 0, silent: 1 });
    assert_eq!(first.load_nodes().await.expect("read").len(), 2);
}

#[tokio::test]
async fn a_silent_node_that_is_heard_of_again_keeps_logins_from_being_copied() {
    let cluster = Cluster::new();
    let (node, engine) = (cluster.node(1).await, cluster.engine().await);
    // As if the database had been away.
    cluster.sql("UPDATE tenantd.nodes SET seen_at = now() - interval '1 minute'");
    let speaking = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.send_heartbeat().await.expect("written")
    };
    let (refused, _) = tokio::join!(refuse_live_nodes(&engine), speaking);
    assert!(matches!(refused, Err(PostgresError::InUse { .. })), "{refused:?}");
    node.leave().await.expect("written");
    refuse_live_nodes(&engine).await.expect("it said that it leaves");
}

#[tokio::test]
async fn a_restart_in_the_same_folder_needs_no_wait_and_a_copy_of_the_folder_is_refused() {
    let cluster = Cluster::new();
    let first = cluster.node(1).await;
    let again = cluster.node(1).await;
    // One process hands its folder to the next, and may get it back.
    assert_eq!(first.send_heartbeat().await.expect("written"), HeartbeatOutcome::Live);
    let heartbeat = async {
        loop {
            again.send_heartbeat().await.expect("written");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    };
    let refused = tokio::select! {
        joined = cluster.join(1, 7) => joined.expect_err("a copy"),
        () = heartbeat => unreachable!(),
    };
    assert!(matches!(refused, Error::Postgres(PostgresError::CopiedNode { .. })), "{refused}");
    assert!(refused.to_string().contains("node 1"), "{refused}");
    // A folder that moved to another machine is none: nothing is heard of the first.
    let moved = cluster.join(1, 7).await.expect("joined");
    assert_eq!(again.send_heartbeat().await.expect("answered"), HeartbeatOutcome::Replaced);
    assert_eq!(moved.send_heartbeat().await.expect("written"), HeartbeatOutcome::Live);
}

#[tokio::test]
async fn each_change_is_heard_once_and_in_order() {
    let cluster = Cluster::new();
    let node = cluster.node(1).await;
    let first = cluster.save_block().await;
    let second = cluster.save_block().await;
    let heard = node.load_changes(&node.first_cursor()).await.expect("read");
    assert_eq!(keys(&heard.batch), [first, second]);
    let heard = node.load_changes(&heard.cursor).await.expect("read");
    assert!(heard.batch.is_empty());
    let third = cluster.save_block().await;
    let heard = node.load_changes(&heard.cursor).await.expect("read");
    assert_eq!(keys(&heard.batch), [third]);
    assert!(!heard.is_partial);

    cluster.sql("SELECT tenantd.record_changes('block', array_fill(''::text, ARRAY[2500]), array_fill(''::bytea, ARRAY[2500]))");
    let (mut cursor, mut count) = (heard.cursor, 0);
    loop {
        let heard = node.load_changes(&cursor).await.expect("read");
        count += keys(&heard.batch).len();
        cursor = heard.cursor;
        if !heard.is_partial {
            break;
        }
    }
    assert_eq!(count, 2500);
}

#[tokio::test]
async fn a_node_whose_connections_are_deaf_hears_by_a_new_one() {
    let cluster = Cluster::new();
    let proxy = FlakyProxy::start(cluster.server.socket());
    let address = PostgresAddress::parse(&proxy.address(&cluster.name), None).expect("an address");
    let engine = PostgresEngine::open(address, Arc::clone(&cluster.keyring), [1; 16]).await.expect("opened");
    let node = NodeIdentity { id: [1; 16], name: "node 1".to_owned(), boot: [1; 16], place: [1; 32] };
    let node = ClusterStore::join(engine, node).await.expect("joined");
    let key = cluster.save_block().await;
    proxy.deafen_open_connections();
    let heard = node.load_changes(&node.first_cursor()).await.expect("a new connection is asked in time");
    assert_eq!(keys(&heard.batch), std::slice::from_ref(&key));
    proxy.deafen_open_connections();
    let id = BlockId::from_bytes(&key).expect("an id");
    node.load_blocks(&[id]).await.expect("a new connection is asked in time");
}

#[tokio::test]
async fn whoever_missed_what_is_forgotten_loads_everything() {
    let cluster = Cluster::new();
    let node = cluster.node(1).await;
    let start = node.first_cursor();
    cluster.save_block().await;
    let latest = cluster.save_block().await;
    cluster.sql("UPDATE tenantd.changes SET recorded_at = now() - interval '2 hours'");
    node.remove_old_records().await.expect("removed");
    let heard = node.load_changes(&start).await.expect("read");
    assert_eq!(heard.batch, ChangeBatch::Everything);
    let after = node.load_changes(&heard.cursor).await.expect("read");
    assert!(after.batch.is_empty(), "the latest is kept: {after:?}");
    let next = cluster.save_block().await;
    let after = node.load_changes(&heard.cursor).await.expect("read");
    assert_eq!(keys(&after.batch), [next]);
    assert!(!latest.is_empty());

    // A replica that was promoted lacks the last change, and has another one with its number.
    cluster.sql("UPDATE tenantd.changes SET mark = gen_random_uuid()");
    let heard = node.load_changes(&after.cursor).await.expect("read");
    assert_eq!(heard.batch, ChangeBatch::Everything);
    cluster.sql("DELETE FROM tenantd.changes WHERE number = (SELECT max(number) FROM tenantd.changes)");
    let heard = node.load_changes(&heard.cursor).await.expect("read");
    assert_eq!(heard.batch, ChangeBatch::Everything);
}

#[tokio::test]
async fn one_of_the_live_nodes_removes_old_records() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(1).await, cluster.node(2).await);
    let gone = cluster.node(3).await;
    gone.leave().await.expect("written");
    cluster.save_block().await;
    cluster.sql("UPDATE tenantd.changes SET recorded_at = now() - interval '2 hours'");
    cluster.sql("UPDATE tenantd.nodes SET left_at = left_at - interval '2 hours'");
    // These are not old: somebody may not have heard of them yet.
    cluster.node(4).await.leave().await.expect("written");
    cluster.save_block().await;
    cluster.save_block().await;
    let counts =
        || cluster.sql("SELECT (SELECT count(*) FROM tenantd.nodes), (SELECT count(*) FROM tenantd.changes)");
    second.remove_old_records().await.expect("answered");
    assert_eq!(counts().trim(), "4|4");
    first.remove_old_records().await.expect("removed");
    assert_eq!(counts().trim(), "3|2");
}

#[tokio::test]
async fn certificates_that_no_node_wants_are_deleted_after_a_month() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(1).await, cluster.node(2).await);
    for name in ["wanted", "unwanted", "ordered"] {
        let local = LocalCertificate { name, bundle: None, renewal: b"{}" };
        assert!(first.import_certificate(&local).await.expect("written"));
    }
    let names = || cluster.sql("SELECT string_agg(name, ' ' ORDER BY name) FROM tenantd.certificates");
    cluster.sql("UPDATE tenantd.certificates SET wanted_at = now() - interval '29 days'");
    first.remove_old_records().await.expect("removed");
    assert_eq!(names().trim(), "ordered unwanted wanted");
    cluster.sql("UPDATE tenantd.certificates SET wanted_at = now() - interval '31 days'");
    // Whichever node asks for a name wants it, also if nothing is new there.
    assert!(second.load_certificates(&[("wanted", 1)]).await.expect("read").is_empty());
    let (_claim, _) = second.take_certificate("ordered", true).await.expect("answered").expect("taken");
    first.remove_old_records().await.expect("removed");
    assert_eq!(names().trim(), "ordered wanted");
}

#[tokio::test]
async fn a_change_is_notified_at_once_and_handed_to_all_who_subscribed() {
    let cluster = Cluster::new();
    let node = cluster.node(1).await;
    let notifications = node.listen().await.expect("connected").expect("they arrive");
    let (mut one, mut other) = (node.subscribe(), node.subscribe());
    let key = cluster.save_block().await;
    let told = tokio::time::timeout(Duration::from_secs(30), notifications.next()).await;
    assert_eq!(told, Ok(true));
    let heard = node.load_changes(&node.first_cursor()).await.expect("read");
    node.publish(heard.batch);
    assert_eq!(keys(&one.next().await), std::slice::from_ref(&key));
    assert_eq!(keys(&other.next().await), [key]);
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'");
    assert!(!notifications.next().await, "whoever listens knows that it is deaf");
}

fn entry(entry_id: &str, revision: &str) -> NodeEntry {
    NodeEntry {
        entry_id: entry_id.to_owned(),
        name: entry_id.to_owned(),
        state: "serving".to_owned(),
        since: jiff::Timestamp::UNIX_EPOCH,
        on_disk: Some(Digest::of(revision.as_bytes())),
        in_force: Some(Digest::of(revision.as_bytes())),
    }
}

#[tokio::test]
async fn entries_differ_if_a_live_node_has_another_revision_or_none() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(1).await, cluster.node(2).await);
    let different = async || {
        let found = first.find_different_entries(10).await.expect("read");
        found.into_iter().map(|found| (found.entry_id, found.seconds.is_some())).collect::<Vec<_>>()
    };
    first.replace_entries(&[entry("a", "1"), entry("b", "1"), entry("c", "1")]).await.expect("written");
    assert_eq!(different().await, [], "the second has not read its folder yet");
    second.replace_entries(&[entry("a", "1"), entry("b", "2")]).await.expect("written");
    assert_eq!(different().await, [("b".to_owned(), true), ("c".to_owned(), false)]);
    second.update_entries(&[entry("b", "1"), entry("c", "1")], &[], 3).await.expect("written");
    assert_eq!(different().await, []);
    second.update_entries(&[], &["a".to_owned()], 2).await.expect("written");
    assert_eq!(different().await, [("a".to_owned(), false)]);
    let on_nodes = first.find_entry_on_nodes("b").await.expect("read");
    assert_eq!(on_nodes, [([1; 16], entry("b", "1")), ([2; 16], entry("b", "1"))]);
    let reports = first.load_node_reports().await.expect("read");
    assert_eq!(reports.iter().map(|report| report.entries).collect::<Vec<_>>(), [Some(3), Some(2)]);
    // A dead node does not count, whether it ended in order or not.
    second.leave().await.expect("written");
    assert_eq!(different().await, []);
    second.send_heartbeat().await.expect("written");
    assert_eq!(different().await.len(), 1);
    cluster.sql("UPDATE tenantd.nodes SET seen_at = now() - interval '16 seconds' WHERE name = 'node 2'");
    assert_eq!(different().await, []);
    // What is written anew as it was begins no new time.
    cluster.sql("UPDATE tenantd.node_entries SET changed_at = '2000-01-01'");
    first.replace_entries(&[entry("a", "1"), entry("b", "2")]).await.expect("written");
    let kept = cluster.sql(
        "SELECT entry_id FROM tenantd.node_entries WHERE changed_at < '2001-01-01' ORDER BY node, entry_id",
    );
    assert_eq!(
        kept.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "c"],
        "a of the first, both of the second"
    );
}

#[tokio::test]
async fn an_incarnation_ends_only_where_no_other_node_serves_its_entry_and_never_comes_back() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(1).await, cluster.node(2).await);
    for node in [&first, &second] {
        node.replace_entries(&[]).await.expect("written");
    }
    let at_first = AuthStore::in_database(cluster.engine_for(1).await);
    let at_second = AuthStore::in_database(cluster.engine_for(2).await);
    let [one, two, three] = [0; 3].map(|_| Incarnation::new(&"acme".into()));
    let refused = async |store: &AuthStore, incarnation: &Incarnation, entry_id: &str| {
        let (incarnation, entry_id) = (incarnation.clone(), Some(entry_id.into()));
        let begin =
            IncarnationChange::Begin(IncarnationRecord { incarnation, entry_id, payload: Vec::new() });
        !store.apply_incarnation_changes(vec![begin]).await.expect("answered").is_empty()
    };
    assert!(!refused(&at_first, &one, "a").await);
    assert!(refused(&at_second, &two, "a").await, "one begins for an entry");
    second.replace_entries(&[entry("a", "1")]).await.expect("written");
    assert!(refused(&at_first, &three, "z").await, "the other node serves the entry");
    let end = IncarnationChange::End("acme".into());
    assert!(!at_first.apply_incarnation_changes(vec![end]).await.expect("answered").is_empty());
    second.replace_entries(&[]).await.expect("written");
    assert!(!refused(&at_first, &three, "z").await);
    assert!(refused(&at_second, &one, "a").await, "it has ended");
}

#[tokio::test]
async fn the_last_order_of_a_kind_counts_and_is_a_change_that_is_sealed() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(1).await, cluster.node(2).await);
    let cursor = second.first_cursor();
    let replacement = Replacement { files: Digest::of(b"files"), revision: Digest::of(b"older") };
    first.give_order("acme", TenantOrder::Pause(true), None).await.expect("given");
    let rollback = TenantOrder::Rollback(Some(replacement));
    first.give_order("acme", rollback, Some(b"canary of the documents")).await.expect("given");
    second.give_order("acme", TenantOrder::Approve(Digest::of(b"new")), None).await.expect("given");
    second.give_order("acme", TenantOrder::Accept(Some(Digest::of(b"claim"))), None).await.expect("given");
    let ordered = EntryOrders {
        paused: Some(true),
        replacement: Some(replacement),
        approved: Some(Digest::of(b"new")),
        accepted: Some(Digest::of(b"claim")),
    };
    let orders = async |store: &ClusterStore| {
        store.load_orders(None).await.expect("read").get("acme").copied().unwrap_or_default()
    };
    assert_eq!(orders(&first).await, ordered);
    let heard = second.load_changes(&cursor).await.expect("read").batch;
    assert_eq!(keys(&heard), ["pause", "rollback", "approve", "accept"].map(|kind| kind.as_bytes().to_vec()));
    assert_eq!(
        second.load_order_documents("acme").await.expect("read").as_deref(),
        Some(&b"canary of the documents"[..])
    );
    let stored =
        cluster.sql("SELECT encode(documents, 'escape') FROM tenantd.tenant_orders WHERE kind = 'rollback'");
    assert!(!stored.contains("canary"), "{stored}");

    second.give_order("acme", TenantOrder::Pause(false), None).await.expect("given");
    first.give_order("acme", TenantOrder::Rollback(None), None).await.expect("given");
    assert_eq!(first.load_order_documents("acme").await.expect("read"), None);
    assert!(!first.adopt_order("acme", TenantOrder::Pause(true), None).await.expect("asked"), "there is one");
    assert!(first.adopt_order("beta", TenantOrder::Pause(true), None).await.expect("given"));
    let acme = orders(&second).await;
    assert_eq!((acme.paused, acme.replacement), (Some(false), None));
    let of_beta = second.load_orders(Some(&["beta".into()])).await.expect("read");
    assert_eq!(of_beta.keys().map(|entry_id| &**entry_id).collect::<Vec<_>>(), ["beta"]);

    // A pause that somebody changed still is one, and other orders are none.
    cluster.sql("UPDATE tenantd.tenant_orders SET details = '\\x00' WHERE entry_id = 'acme'");
    let changed = orders(&first).await;
    assert_eq!(changed, EntryOrders { paused: Some(true), ..EntryOrders::default() });

    second.replace_entries(&[entry("acme", "1")]).await.expect("written");
    first.forget_orders("acme").await.expect("asked");
    assert_ne!(orders(&first).await, EntryOrders::default(), "the other node has the entry");
    second.forget_orders("acme").await.expect("asked");
    assert_eq!(orders(&first).await, EntryOrders::default());
}

#[tokio::test]
async fn orders_outlive_the_removal_of_an_old_master_key() {
    let mut cluster = Cluster::new();
    let folder = tempfile::tempdir().expect("a folder");
    let load = |text: &str| {
        let source = KeySource::Variable(Secret::new(text.to_owned()));
        Arc::new(Keyring::load(folder.path(), &source, false).expect("keys"))
    };
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    cluster.keyring = load(&old);
    let replacement = Replacement { files: Digest::of(b"files"), revision: Digest::of(b"older") };
    let rollback = TenantOrder::Rollback(Some(replacement));
    let first = cluster.node(1).await;
    first.give_order("acme", rollback, Some(b"documents")).await.expect("given");
    first.give_order("acme", TenantOrder::Pause(false), None).await.expect("given");
    cluster.keyring = load(&format!("{new}\n{old}\n"));
    cluster.node(1).await.reseal_orders().await.expect("resealed");
    cluster.keyring = load(&new);
    let store = cluster.node(1).await;
    let orders = store.load_orders(None).await.expect("read").remove("acme").expect("there are some");
    assert_eq!((orders.paused, orders.replacement), (Some(false), Some(replacement)));
    let documents = store.load_order_documents("acme").await.expect("read");
    assert_eq!(documents.as_deref(), Some(&b"documents"[..]));
}
