//! A store for tests.

use super::{KeySource, Store};

/// Creates a store in a temporary folder, which is deleted when the returned guard is dropped.
pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), &KeySource::State).expect("opened");
    (folder, store)
}

/// Changes a store that is not open, as an attacker could who has the file but not the key.
pub(crate) fn tamper(folder: &std::path::Path, sql: &str) {
    let connection = rusqlite::Connection::open(folder.join(super::DATABASE)).expect("opened");
    assert!(connection.execute(sql, []).expect("changed") > 0, "{sql} changed nothing");
}
