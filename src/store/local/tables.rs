//! The tables of the local store in the SQLite file. The functions of each table stand in the file
//! of its name.

use std::sync::Arc;

use crate::store::database::Database;
use crate::store::keyring::Keyring;

/// Entries of the tenants folder with their revisions, pauses and claims. All functions block: call
/// them where blocking is acceptable, and those of [`LocalStore`](super::LocalStore) elsewhere.
pub struct LocalTables {
    pub(super) database: Arc<Database>,
    pub(super) keyring: Arc<Keyring>,
}

impl LocalTables {
    pub(in crate::store) fn new(database: Arc<Database>, keyring: Arc<Keyring>) -> Self {
        Self { database, keyring }
    }
}
