//! A store for tests.

use super::{KeySource, Store};

/// A new store in a folder that goes with it.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), &KeySource::State).expect("opened");
    (folder, store)
}

/// Changes the store of a folder that nobody uses, as somebody could who has the file and not the key.
pub(crate) fn tamper(folder: &std::path::Path, sql: &str) {
    let connection = rusqlite::Connection::open(folder.join(super::DATABASE)).expect("opened");
    assert!(connection.execute(sql, []).expect("changed") > 0, "{sql} changed nothing");
}
