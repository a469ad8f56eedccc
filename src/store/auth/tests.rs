use jiff::ToSpan;

use super::*;
use crate::store::testkit::{new_store, open_store};
use crate::store::{KeySource, Store};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Creates a store with one grant, changes its file by `sql`, and opens it again.
async fn reopen_after(sql: &str) -> (tempfile::TempDir, Store, Incarnation, GrantId) {
    let (folder, store) = new_store();
    let (incarnation, id) = (Incarnation::new(&"acme".into()), GrantId::random());
    let grant = CreateGrant {
        id,
        client_id: "client".into(),
        now: NOW,
        code_expires_at: NOW + 60.seconds(),
        family_key: [7; 32],
        payload: b"payload".to_vec(),
    };
    store.auth().create_grant(&incarnation, grant).await.expect("written");
    drop(store);
    let file = rusqlite::Connection::open(folder.path().join("tenantd.db")).expect("opened");
    file.execute_batch(sql).expect("changed");
    drop(file);
    let store = open_store(folder.path(), &KeySource::State);
    (folder, store, incarnation, id)
}

#[tokio::test]
async fn errors_have_the_kind_of_their_cause() {
    let (_folder, store, incarnation, id) = reopen_after("").await;
    assert!(store.auth().load_grant(&incarnation, id, NOW).await.expect("read").is_some());
    for (sql, kind) in [
        ("UPDATE grants SET client_id = 'other'", ErrorKind::Corrupt),
        ("DROP TABLE grants", ErrorKind::Unavailable),
    ] {
        let (_folder, store, incarnation, id) = reopen_after(sql).await;
        let error = store.auth().load_grant(&incarnation, id, NOW).await.expect_err(sql);
        assert_eq!(error.kind(), kind, "{sql}: {error}");
    }
}
