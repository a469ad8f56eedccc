//! Stores for tests.

mod cluster_database;

use std::path::Path;
use std::sync::Arc;

pub(crate) use self::cluster_database::ClusterDatabase;
use super::auth::postgres::{PostgresAddress, PostgresEngine};
use super::auth::sqlite::AuthTables;
use super::{AuthStore, CreateGrant, Incarnation, IncarnationChange, KeySource, Keyring, LocalTables, Store};

/// Creates a store in a temporary folder, which is deleted when the returned guard is dropped.
pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_store(folder.path(), &KeySource::State);
    (folder, store)
}

pub(super) fn new_auth_tables() -> (tempfile::TempDir, AuthTables) {
    let (folder, store) = new_store();
    (folder, auth_tables(&store))
}

pub(super) fn open_auth_tables(folder: &Path, key: &KeySource) -> AuthTables {
    auth_tables(&open_store(folder, key))
}

pub(super) fn new_local_tables() -> (tempfile::TempDir, LocalTables) {
    let (folder, store) = new_store();
    (folder, local_tables(&store))
}

pub(super) fn open_local_tables(folder: &Path, key: &KeySource) -> LocalTables {
    local_tables(&open_store(folder, key))
}

/// Writes changes of incarnations, for tests that are not asynchronous.
pub(crate) fn apply_incarnation_changes(store: &AuthStore, changes: &[IncarnationChange]) {
    store.tables().apply_incarnation_changes(changes).expect("kept");
}

/// Opens a PostgreSQL database as one of several gateways that share a master key.
pub(crate) async fn open_postgres(address: &str, keyring: &Arc<Keyring>) -> AuthStore {
    let address = PostgresAddress::parse(address, None).expect("an address");
    let opened = PostgresEngine::open(address, Arc::clone(keyring), [1; 16]).await;
    AuthStore::in_database(opened.unwrap_or_else(|error| panic!("{error}")))
}

/// Stores a grant, for tests that are not asynchronous.
pub(crate) fn create_grant(store: &AuthStore, incarnation: &Incarnation, grant: CreateGrant) {
    store.tables().create_grant(incarnation, grant).expect("kept");
}

/// Changes a store that is not open, as an attacker could who has the file but not the key.
pub(crate) fn tamper(folder: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(folder.join(super::DATABASE)).expect("opened");
    assert!(connection.execute(sql, []).expect("changed") > 0, "{sql} changed nothing");
}

/// Runs statements in an open store, for instance to make it fail.
pub(crate) fn execute(store: &Store, sql: &str) {
    store.database.connection().execute_batch(sql).expect("executed");
}

pub(super) fn open_store(folder: &Path, key: &KeySource) -> Store {
    Store::open(folder, key).expect("opened")
}

fn auth_tables(store: &Store) -> AuthTables {
    AuthTables::new(Arc::clone(&store.database), Arc::clone(&store.keyring))
}

fn local_tables(store: &Store) -> LocalTables {
    LocalTables::new(Arc::clone(&store.database), Arc::clone(&store.keyring))
}
