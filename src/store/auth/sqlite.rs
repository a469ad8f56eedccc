//! The tables of the auth store in the SQLite file. The functions of each table stand in the file
//! of its name; all of them block.

mod blocks;
pub(in crate::store) mod clients;
mod copy;
mod engine;
pub(in crate::store) mod grants;
pub(in crate::store) mod incarnations;
pub(in crate::store) mod signing_keys;

use std::sync::Arc;

pub(in crate::store) use self::engine::SqliteEngine;
use crate::store::database::Database;
use crate::store::keyring::Keyring;

/// Grants, revocations, blocks, signing keys, clients, and the incarnations that all of these
/// belong to.
pub(in crate::store) struct AuthTables {
    database: Arc<Database>,
    keyring: Arc<Keyring>,
}

impl AuthTables {
    pub(in crate::store) fn new(database: Arc<Database>, keyring: Arc<Keyring>) -> Self {
        Self { database, keyring }
    }

    /// Returns the file that the tables are in.
    pub(in crate::store) fn database(&self) -> &Database {
        &self.database
    }
}
