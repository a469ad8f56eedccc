use jiff::Timestamp;

use super::*;
use crate::store::cluster::ChangeBatch;
use crate::store::testkit::ClusterDatabase;

const NAME: &str = "mcp.test";
const NOON: Timestamp = Timestamp::constant(1_700_000_000, 0);
const LATER: Timestamp = Timestamp::constant(1_700_000_001, 0);

/// Takes the lease that is free.
async fn take(store: &ClusterStore) -> (LeaseClaim, SharedCertificate) {
    store.take_certificate(NAME, true).await.expect("answered").expect("it is free")
}

/// Lets the lease run out.
fn run_out(database: &ClusterDatabase) {
    database.psql("UPDATE tenantd.certificates SET until = clock_timestamp() - interval '1 second'");
}

async fn load(store: &ClusterStore) -> SharedCertificate {
    store.load_certificates(&[(NAME, -1)]).await.expect("read").remove(0)
}

/// Returns the names whose certificates changed.
async fn changed(store: &ClusterStore) -> Vec<String> {
    let heard = store.load_changes(&store.first_cursor()).await.expect("read");
    let ChangeBatch::Changes(changes) = heard.batch else { panic!("not everything") };
    let certificates = changes.iter().filter(|change| &*change.kind == CERTIFICATE_CHANGE);
    certificates.map(|change| String::from_utf8(change.key.clone()).expect("a name")).collect()
}

#[tokio::test]
async fn a_lease_is_held_by_one_until_it_is_given_back_or_runs_out() {
    let database = ClusterDatabase::new();
    let (first, second) = (database.connect().await, database.connect().await);
    let (claim, _) = take(&first).await;
    assert!(second.take_certificate(NAME, true).await.expect("answered").is_none());
    let shown = load(&second).await.holder.expect("somebody orders");
    assert!(shown.is_ordering && shown.node == "a node" && shown.seconds_left > 0.0, "{shown:?}");
    assert!(first.extend_lease(&claim).await.expect("answered"));
    assert!(first.release_certificate(&claim, None).await.expect("answered"));
    let (next, shared) = take(&second).await;
    assert!(next.fence() > claim.fence() && shared.holder.is_some(), "{next:?} after {claim:?}");
    run_out(&database);
    assert!(load(&first).await.holder.is_none());
    assert!(!second.extend_lease(&next).await.expect("answered"), "what ran out is not extended");
    assert!(!second.save_renewal(&next, b"late").await.expect("answered"), "nor written under");
    let (last, _) = take(&first).await;
    assert!(last.fence() > next.fence());
}

#[tokio::test]
async fn what_an_earlier_holder_writes_late_changes_nothing() {
    let database = ClusterDatabase::new();
    let (frozen, other) = (database.connect().await, database.connect().await);
    let (old, _) = take(&frozen).await;
    run_out(&database);
    let (claim, _) = take(&other).await;
    let row = || {
        database
            .psql("SELECT fence, until, version, renewal, pending_order, bundle FROM tenantd.certificates")
    };
    let before = row();
    assert!(!frozen.extend_lease(&old).await.expect("answered"));
    assert!(!frozen.save_renewal(&old, b"renewal").await.expect("answered"));
    assert!(!frozen.save_pending_order(&old, Some(b"order")).await.expect("answered"));
    assert!(!frozen.save_bundle(&old, b"bundle", NOON).await.expect("answered"));
    assert!(!frozen.release_certificate(&old, Some(b"renewal")).await.expect("answered"));
    assert_eq!(row(), before);
    assert!(other.extend_lease(&claim).await.expect("answered"));
    assert!(other.save_renewal(&claim, b"renewal").await.expect("answered"));
    assert!(other.save_pending_order(&claim, Some(b"order")).await.expect("answered"));
    assert_eq!(load(&frozen).await.pending_order.as_deref(), Some(&b"order"[..]));
    assert!(other.save_bundle(&claim, b"bundle", NOON).await.expect("answered"));
    assert!(other.release_certificate(&claim, Some(b"after")).await.expect("answered"));
    let shared = load(&frozen).await;
    assert_eq!(shared.bundle.as_deref(), Some(&b"bundle"[..]));
    assert_eq!((shared.renewal.as_deref(), shared.pending_order), (Some(&b"after"[..]), None));
}

#[tokio::test]
async fn what_others_must_read_is_a_change() {
    let database = ClusterDatabase::new();
    let (first, second) = (database.connect().await, database.connect().await);
    let local = LocalCertificate { name: NAME, bundle: Some((b"imported", NOON)), renewal: b"renewal" };
    assert!(first.import_certificate(&local).await.expect("answered"));
    assert_eq!(changed(&second).await.len(), 1, "imported");
    let (claim, _) = take(&first).await;
    assert_eq!(changed(&second).await.len(), 2, "taken");
    first.save_bundle(&claim, b"bundle", LATER).await.expect("answered");
    assert_eq!(changed(&second).await.len(), 3, "obtained");
    first.release_certificate(&claim, None).await.expect("answered");
    assert_eq!(changed(&second).await, [NAME; 4], "given back");
    let version = load(&second).await.version;
    assert!(second.load_certificates(&[(NAME, version)]).await.expect("read").is_empty(), "it is known");
}

#[tokio::test]
async fn a_certificate_of_a_folder_replaces_only_an_older_one() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let import = async |bundle: &[u8], not_before| {
        let local = LocalCertificate { name: NAME, bundle: Some((bundle, not_before)), renewal: b"renewal" };
        store.import_certificate(&local).await.expect("answered")
    };
    let nothing = LocalCertificate { name: NAME, bundle: None, renewal: b"failures" };
    assert!(store.import_certificate(&nothing).await.expect("answered"));
    assert!(import(b"first", NOON).await);
    assert!(!import(b"as new", NOON).await);
    assert!(!store.import_certificate(&nothing).await.expect("answered"));
    assert!(import(b"newer", LATER).await);
    assert!(!import(b"older", NOON).await);
    assert_eq!(load(&store).await.bundle.as_deref(), Some(&b"newer"[..]));
}

#[tokio::test]
async fn each_value_is_sealed_and_one_that_was_changed_is_unreadable() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let (claim, _) = take(&store).await;
    store.save_bundle(&claim, b"canary", NOON).await.expect("answered");
    store.save_renewal(&claim, b"canary").await.expect("answered");
    store.save_pending_order(&claim, Some(b"canary")).await.expect("answered");
    let stored = database.psql(
        "SELECT encode(bundle, 'escape'), encode(renewal, 'escape'), encode(pending_order, 'escape')
         FROM tenantd.certificates",
    );
    assert!(!stored.contains("canary"), "{stored}");
    assert!(!load(&store).await.is_unreadable);
    for change in
        ["not_before = not_before + 1", "renewal = '\\x00'", "pending_order = bundle", "bundle = renewal"]
    {
        database.psql("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM tenantd.certificates");
        database.psql(&format!("UPDATE tenantd.certificates SET {change}"));
        assert!(load(&store).await.is_unreadable, "{change}");
        database
            .psql("DELETE FROM tenantd.certificates; INSERT INTO tenantd.certificates SELECT * FROM kept");
    }
    assert!(!load(&store).await.is_unreadable);
}
