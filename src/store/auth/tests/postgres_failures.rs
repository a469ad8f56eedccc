//! Real failures of servers: one that is promoted, frozen, demoted or behind a pooler. Nothing that was
//! acknowledged is lost, and the store goes on without a restart.

use super::database::{new_keyring, open_engine};
use super::grants::{acme, create_grant, new_rotation};
use super::*;
use crate::store::testkit::open_postgres;
use crate::store::tests::postgres_cluster::{Bouncer, OwnServer, address};

/// Stores a grant whose code was redeemed.
async fn create_redeemed_grant(store: &AuthStore) -> GrantId {
    let id = create_grant(store, "client").await;
    assert!(store.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    id
}

async fn last_sequence(store: &AuthStore, id: GrantId) -> u32 {
    store.load_grant(&acme(), id, NOW).await.expect("read").expect("it is there").last_sequence
}

/// Waits until the store can be written again.
async fn until_writable(store: &AuthStore) {
    for _ in 0..300 {
        if store.probe_write().await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the store is not used again: {}", store.probe_write().await.expect_err("away"));
}

#[tokio::test]
async fn a_promoted_replica_has_all_that_was_acknowledged_and_its_predecessor_is_told_nothing() {
    let primary = OwnServer::start();
    let replica = primary.start_replica();
    let keyring = new_keyring();
    // The address of a replica alone is refused.
    open_postgres(&address(&[primary.port]), &keyring).await.probe_write().await.expect("written");
    let told = open_engine(&address(&[replica.port]), &keyring).await.err().expect("a replica").to_string();
    assert!(told.contains("can only be read"), "{told}");
    let store = open_postgres(&address(&[replica.port, primary.port]), &keyring).await;
    let id = create_redeemed_grant(&store).await;
    assert!(store.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect("acknowledged"));

    primary.kill();
    let error = store.rotate_refresh(&acme(), new_rotation(id, 2)).await.expect_err("nobody can be written");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    replica.promote();
    until_writable(&store).await;
    assert_eq!(last_sequence(&store, id).await, 2);
    assert!(store.rotate_refresh(&acme(), new_rotation(id, 2)).await.expect("acknowledged"));

    // The old primary comes back and believes that it still is one.
    primary.restart();
    assert!(store.rotate_refresh(&acme(), new_rotation(id, 3)).await.expect("acknowledged"));
    assert_eq!(primary.psql("SELECT number FROM tenantd.grants").trim(), "2");
    replica.kill();
    let error = store.probe_write().await.expect_err("the old primary is no replacement").to_string();
    let told = async || store.probe_write().await.expect_err("still").to_string();
    let told = if error.contains("promoted") { error } else { told().await };
    assert!(told.contains("another one was promoted"), "{told}");
    assert_eq!(primary.psql("SELECT number FROM tenantd.grants").trim(), "2");
}

#[tokio::test]
async fn a_frozen_primary_is_left_for_a_promoted_replica() {
    let primary = OwnServer::start();
    let replica = primary.start_replica();
    let store = open_postgres(&address(&[primary.port, replica.port]), &new_keyring()).await;
    let id = create_redeemed_grant(&store).await;
    assert!(store.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect("acknowledged"));
    primary.freeze();
    let error = store.rotate_refresh(&acme(), new_rotation(id, 2)).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    replica.promote();
    until_writable(&store).await;
    assert_eq!(last_sequence(&store, id).await, 2);
    assert!(store.rotate_refresh(&acme(), new_rotation(id, 2)).await.expect("acknowledged"));
    primary.thaw();
    for from in 3..8 {
        assert!(store.rotate_refresh(&acme(), new_rotation(id, from)).await.expect("acknowledged"));
    }
    assert_eq!(replica.psql("SELECT number FROM tenantd.grants").trim(), "8");
}

#[tokio::test]
async fn a_primary_that_becomes_read_only_is_away_until_it_can_be_written_again() {
    let server = OwnServer::start();
    let store = open_postgres(&address(&[server.port]), &new_keyring()).await;
    let id = create_redeemed_grant(&store).await;
    server.psql("ALTER SYSTEM SET default_transaction_read_only = on");
    server.psql("SELECT pg_reload_conf()");
    let mut refused = None;
    // The server's processes hear of it a moment later.
    for from in 1..200 {
        if let Err(error) = store.rotate_refresh(&acme(), new_rotation(id, from)).await {
            refused = Some((from, error));
            break;
        }
    }
    let (from, error) = refused.expect("it cannot be written");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("can only be read"), "{error}");
    assert!(!store.is_writable() && store.was_away_lately());
    server.psql("ALTER SYSTEM RESET default_transaction_read_only");
    server.psql("SELECT pg_reload_conf()");
    until_writable(&store).await;
    assert_eq!(last_sequence(&store, id).await, from, "what was refused did not happen");
    assert!(store.rotate_refresh(&acme(), new_rotation(id, from)).await.expect("acknowledged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_does_and_one_in_statement_mode_is_named() {
    let server = OwnServer::start();
    let keyring = new_keyring();
    let statement = Bouncer::start(&server, "statement");
    let told = open_engine(&address(&[statement.port]), &keyring).await.err().expect("refused").to_string();
    assert!(told.contains("pool_mode = transaction"), "{told}");
    let bouncer = Bouncer::start(&server, "transaction");
    let store = open_postgres(&address(&[bouncer.port]), &keyring).await;
    // More at once than the pooler has sessions, so that each changes hands.
    let work = (0..24).map(|_| async {
        let id = create_redeemed_grant(&store).await;
        for from in 1..6 {
            assert!(store.rotate_refresh(&acme(), new_rotation(id, from)).await.expect("acknowledged"));
        }
        assert!(
            !store.rotate_refresh(&acme(), new_rotation(id, 3)).await.expect("answered"),
            "it was replaced"
        );
        assert_eq!(last_sequence(&store, id).await, 6);
        id
    });
    let ids = futures_util::future::join_all(work).await;
    server.kill();
    assert!(store.probe_write().await.is_err());
    server.restart();
    until_writable(&store).await;
    assert_eq!(last_sequence(&store, ids[0]).await, 6);
    assert!(store.rotate_refresh(&acme(), new_rotation(ids[0], 6)).await.expect("acknowledged"));
}
