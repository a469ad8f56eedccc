//! An auth store for a test, on one of the engines, and the means to change its rows behind its
//! back.

use std::sync::Arc;

use super::AuthStore;
use crate::store::auth::postgres::{PostgresAddress, PostgresEngine};
use crate::store::keyring::Keyring;
use crate::store::testkit::{new_store, open_store};
use crate::store::tests::postgres_server::PostgresServer;
use crate::store::{KeySource, Store};

/// A database of its own, which goes when the value is dropped.
pub(super) enum TestDatabase {
    File { folder: tempfile::TempDir, store: Option<Store> },
    Postgres { server: PostgresServer, name: String, keyring: Arc<Keyring>, store: AuthStore },
}

impl TestDatabase {
    pub(super) async fn in_file() -> Self {
        let (folder, store) = new_store();
        Self::File { folder, store: Some(store) }
    }

    pub(super) async fn in_postgres() -> Self {
        let server = PostgresServer::acquire();
        let name = server.create_database();
        let keyring = new_keyring();
        let store = open_postgres(&server.address(&name), &keyring).await;
        Self::Postgres { server, name, keyring, store }
    }

    pub(super) fn store(&self) -> AuthStore {
        match self {
            Self::File { store, .. } => store.as_ref().expect("it is open").auth().clone(),
            Self::Postgres { store, .. } => store.clone(),
        }
    }

    /// Opens the store again, as a restart does. No handle of it may be left.
    pub(super) async fn reopen(&mut self) {
        match self {
            Self::File { folder, store } => {
                drop(store.take());
                *store = Some(open_store(folder.path(), &KeySource::State));
            }
            Self::Postgres { server, name, keyring, store } => {
                *store = open_postgres(&server.address(name), keyring).await;
            }
        }
    }

    /// Changes the database while the store is not open, as an attacker could who has no key.
    /// `sql` names tables and columns as the SQLite file does.
    pub(super) async fn change(&mut self, sql: &str) {
        match self {
            Self::File { folder, store } => {
                drop(store.take());
                let file = rusqlite::Connection::open(folder.path().join("tenantd.db")).expect("opened");
                file.execute_batch(sql).expect("changed");
            }
            Self::Postgres { server, name, .. } => {
                let sql = sql.replace("denied_clients", "removed_clients").replace("denied_at", "removed_at");
                server.psql(name, &format!("SET search_path = tenantd; {sql}"));
            }
        }
        self.reopen().await;
    }

    /// Returns whether the bytes occur in the database.
    pub(super) async fn contains(&self, bytes: &[u8]) -> bool {
        match self {
            Self::File { folder, .. } => ["tenantd.db", "tenantd.db-wal"].iter().any(|file| {
                let found = std::fs::read(folder.path().join(file)).unwrap_or_default();
                found.windows(bytes.len()).any(|window| window == bytes)
            }),
            Self::Postgres { server, name, .. } => {
                let tables = ["grants", "revocations", "clients", "blocks", "incarnations"];
                let dump: String = tables
                    .iter()
                    .map(|table| server.psql(name, &format!("SELECT * FROM tenantd.{table}")))
                    .collect();
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                dump.contains(&hex) || dump.contains(&*String::from_utf8_lossy(bytes))
            }
        }
    }
}

pub(super) fn new_keyring() -> Arc<Keyring> {
    let folder = tempfile::tempdir().expect("a folder");
    Arc::new(Keyring::load(folder.path(), &KeySource::State, true).expect("a key"))
}

pub(super) async fn open_postgres(address: &str, keyring: &Arc<Keyring>) -> AuthStore {
    crate::store::testkit::open_postgres(address, keyring).await
}

pub(super) async fn open_engine(
    address: &str,
    keyring: &Arc<Keyring>,
) -> Result<PostgresEngine, crate::store::Error> {
    let address = PostgresAddress::parse(address, None)?;
    PostgresEngine::open(address, Arc::clone(keyring), [1; 16]).await
}
