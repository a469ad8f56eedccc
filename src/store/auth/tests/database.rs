//! An auth store for a test, on one of the engines, and the means to change its rows behind its
//! back.

use super::AuthStore;
use crate::store::testkit::{new_store, open_store};
use crate::store::{KeySource, Store};

/// A database of its own, which goes when the value is dropped.
pub(super) enum TestDatabase {
    File { folder: tempfile::TempDir, store: Option<Store> },
}

impl TestDatabase {
    pub(super) async fn in_file() -> Self {
        let (folder, store) = new_store();
        Self::File { folder, store: Some(store) }
    }

    pub(super) fn store(&self) -> AuthStore {
        match self {
            Self::File { store, .. } => store.as_ref().expect("it is open").auth().clone(),
        }
    }

    /// Opens the store again, as a restart does. No handle of it may be left.
    pub(super) async fn reopen(&mut self) {
        match self {
            Self::File { folder, store } => {
                drop(store.take());
                *store = Some(open_store(folder.path(), &KeySource::State));
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
        }
    }
}
