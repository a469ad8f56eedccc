//! A store for tests.

use super::{KeySource, Store};

/// A new store in a folder that goes with it.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), &KeySource::State).expect("opened");
    (folder, store)
}
