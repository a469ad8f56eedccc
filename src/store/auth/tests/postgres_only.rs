//! What only a database promises, and the sentences for what is wrong with it.

use std::sync::Arc;

use super::database::{new_keyring, open_engine, open_postgres};
use super::*;
use crate::store::auth::postgres::PostgresAddress;
use crate::store::tests::postgres_server::PostgresServer;

fn new_database() -> (PostgresServer, String) {
    let server = PostgresServer::acquire();
    let name = server.create_database();
    (server, name)
}

#[tokio::test]
async fn an_assertion_is_used_once() {
    let (server, name) = new_database();
    let store = open_postgres(&server.address(&name), &new_keyring()).await;
    let digest = Digest::of(b"assertion");
    let uses = (0..8).map(|_| store.use_assertion(digest, NOW + 60.seconds()));
    let first = futures_util::future::join_all(uses).await;
    assert_eq!(first.into_iter().filter(|first| *first.as_ref().expect("answered")).count(), 1);
    assert_eq!(store.delete_expired(NOW + 60.seconds(), 10).await.expect("deleted"), 1);
    assert!(store.use_assertion(digest, NOW + 60.seconds()).await.expect("answered"), "forgotten");
}

#[tokio::test]
async fn what_nodes_keep_in_memory_is_counted() {
    let (server, name) = new_database();
    let store = open_postgres(&server.address(&name), &new_keyring()).await;
    let generation = || server.psql(&name, "SELECT number FROM tenantd.generation").trim().to_owned();
    assert_eq!(generation(), "0");
    let acme = Incarnation::new(&"acme".into());
    let subject = RevokedSubject::Client(Digest::of(b"client"));
    let revocation = Revocation { subject, issued_until: NOW, forget_at: NOW + 60.seconds() };
    store.revoke(&acme, revocation).await.expect("written");
    let block = BlockId::random();
    store.save_block(block, Vec::new()).await.expect("written");
    store.delete_block(block).await.expect("written");
    store.apply_incarnation_changes(vec![IncarnationChange::End("acme".into())]).await.expect("written");
    store.replace_signing_keys(&acme, None, Vec::new()).await.expect("written");
    assert_eq!(generation(), "5");
}

#[tokio::test]
async fn a_database_with_another_key_or_a_newer_schema_is_refused() {
    let (server, name) = new_database();
    let (address, keyring) = (server.address(&name), new_keyring());
    drop(open_postgres(&address, &keyring).await);
    let told = open_engine(&address, &new_keyring()).await.err().expect("another key").to_string();
    assert!(told.contains("does not fit"), "{told}");
    // A newer one that this version can use beside it.
    server.psql(&name, "UPDATE tenantd.schema_version SET number = 99");
    drop(open_postgres(&address, &keyring).await);
    server.psql(&name, "UPDATE tenantd.schema_version SET readable_from = 98");
    let told = open_engine(&address, &keyring).await.err().expect("newer").to_string();
    assert!(told.contains("schema 99") && told.contains("newer tenantd"), "{told}");
}

#[tokio::test]
async fn several_nodes_create_the_schema_once() {
    let (server, name) = new_database();
    let (address, keyring) = (server.address(&name), new_keyring());
    let nodes = (0..4).map(|_| open_engine(&address, &keyring));
    for opened in futures_util::future::join_all(nodes).await {
        opened.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test]
async fn each_fault_of_an_address_has_its_sentence() {
    let (server, name) = new_database();
    server.psql(&name, &format!("CREATE ROLE {name} LOGIN PASSWORD 'right'"));
    let certificate = server.certificate().display().to_string();
    let keyring = new_keyring();
    let tcp = server.tcp_address(&format!("{name}:right"), &name);
    let wrong = server.tcp_address(&format!("{name}:wrong"), &name);
    let trusted = format!("?sslrootcert={certificate}");
    for (address, part) in [
        (format!("{wrong}{trusted}"), "password authentication failed"),
        (tcp.clone(), "certificate"),
        (format!("{}{trusted}", tcp.replace("localhost", "127.0.0.1")), "certificate"),
        (format!("{}{trusted}", server.tcp_address(&name, &name)), "store_password_file"),
        (format!("{}{trusted}", server.tcp_address(&format!("{name}:right"), "nowhere")), "createdb"),
        (format!("postgres://{name}@127.0.0.1:1/x"), "nothing listens there"),
        (format!("{tcp}{trusted}"), "GRANT CREATE"),
    ] {
        let told = open_engine(&address, &keyring).await.err().expect(&address).to_string();
        assert!(told.contains(part) && !told.contains("right@"), "{address}: {told}");
    }
    server.psql(&name, &format!("ALTER DATABASE {name} OWNER TO {name}"));
    let opened = open_engine(&format!("{tcp}{trusted}"), &keyring).await;
    opened.unwrap_or_else(|error| panic!("{error}"));
    server.psql(&name, &format!("ALTER ROLE {name} SET default_transaction_read_only = on"));
    let told = open_engine(&format!("{tcp}{trusted}"), &keyring).await.err().expect("read-only");
    assert!(told.to_string().contains("can only be read"), "{told}");
    server.psql(&name, &format!("ALTER ROLE {name} RESET ALL"));
    server.psql(&name, &format!("ALTER ROLE {name} SET synchronous_commit = off"));
    let told = open_engine(&format!("{tcp}{trusted}"), &keyring).await.err().expect("asynchronous");
    assert!(told.to_string().contains("synchronous_commit"), "{told}");
}

#[tokio::test]
async fn a_broken_connection_is_replaced_without_an_error() {
    let (server, name) = new_database();
    let store = open_postgres(&server.address(&name), &new_keyring()).await;
    store.probe_write().await.expect("written");
    for _ in 0..3 {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenantd'";
        server.psql(&name, &format!("{end} AND datname = '{name}'"));
        store.probe_write().await.expect("written over another connection");
    }
    assert!(store.is_writable());
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_comes_back() {
    let (server, name) = new_database();
    let store = open_postgres(&server.address(&name), &new_keyring()).await;
    let (told, changes) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let tell = move |writable| told.lock().expect("sound").send(writable).expect("heard");
    store.health().expect("a database").on_change(tell);
    server.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
    server.psql("postgres", &format!("{end} = '{name}'"));
    let error = store.probe_write().await.expect_err("away");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!store.is_writable());
    server.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    for _ in 0..200 {
        if store.probe_write().await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(store.is_writable());
    assert_eq!(changes.try_iter().collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn rows_travel_sealed_between_a_file_and_a_database() {
    let (server, name) = new_database();
    let (_folder, store) = crate::store::testkit::new_store();
    let acme = Incarnation::new(&"acme".into());
    let record = IncarnationRecord { incarnation: acme.clone(), entry_id: None, payload: Vec::new() };
    let auth = store.auth();
    auth.apply_incarnation_changes(vec![IncarnationChange::Begin(record)]).await.expect("written");
    let id = GrantId::random();
    let grant = CreateGrant {
        id,
        client_id: "client".into(),
        now: NOW,
        code_expires_at: NOW + 60.seconds(),
        family_key: [7; 32],
        payload: b"canary".to_vec(),
    };
    auth.create_grant(&acme, grant).await.expect("written");
    let key = SigningKey { kid: "k".into(), signs_from: NOW, pkcs8: vec![7] };
    auth.insert_first_signing_key(&acme, key).await.expect("written");
    auth.insert_client(&acme, "op", b"document".to_vec()).await.expect("written");
    auth.mark_client_removed(&acme, "gone", NOW).await.expect("written");
    auth.save_block(BlockId::random(), b"who".to_vec()).await.expect("written");
    let subject = RevokedSubject::Client(Digest::of(b"client"));
    let revocation = Revocation { subject, issued_until: NOW, forget_at: NOW + 60.seconds() };
    auth.revoke(&acme, revocation).await.expect("written");

    let address = || PostgresAddress::parse(&server.address(&name), None).expect("an address");
    let refused = store.clone().connect_auth(address(), "node").await.expect_err("not copied").to_string();
    assert!(refused.contains("store copy --to"), "{refused}");
    let copied = store.copy_auth_to(address()).await.expect("copied");
    assert!(!copied.is_empty() && copied.grants == 1 && copied.blocks == 1, "{copied:?}");
    let refused = store.verify_auth_in_file().expect_err("moved").to_string();
    assert!(refused.contains("PostgreSQL"), "{refused}");

    let there = store.clone().connect_auth(address(), "node").await.expect("connected");
    let grant = there.auth().load_grant(&acme, id, NOW).await.expect("read").expect("there");
    assert_eq!(grant.payload, b"canary");
    assert!(there.auth().is_client_removed(&acme, "gone").await.expect("read"));
    there.auth().save_block(BlockId::random(), b"later".to_vec()).await.expect("written");
    assert_eq!(store.check_auth(address()).await.expect("sound").0.blocks, 2);

    // The row of this folder's own node does not count.
    server.psql(&name, "UPDATE tenantd.nodes SET id = substring(sha256(id) FOR 16)");
    let refused = store.copy_auth_from(address()).await.expect_err("a node is live").to_string();
    assert!(refused.contains("node"), "{refused}");
    server.psql(&name, "UPDATE tenantd.nodes SET left_at = clock_timestamp()");
    let back = store.copy_auth_from(address()).await.expect("copied back");
    assert_eq!(back.blocks, 2);
    store.verify_auth_in_file().expect("it is in the file again");
    let blocks = Arc::new(store.auth().load_state().await.expect("read").blocks);
    assert_eq!(blocks.known.len(), 2);
    let refused = store.copy_auth_to(address()).await.expect_err("not empty").to_string();
    assert!(refused.contains("has logins already"), "{refused}");
}
