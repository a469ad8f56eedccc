//! What versions without incarnations of tenants stored. Part of the step to schema version 3,
//! which takes code, because SQL cannot seal.

use rusqlite::Transaction;

use crate::store::Error;
use crate::store::auth::Incarnation;
use crate::store::auth::sqlite::incarnations::OWNED_TABLES;
use crate::store::auth::sqlite::{clients, grants, incarnations, signing_keys};
use crate::store::database::Database;
use crate::store::keyring::{Keyring, SealContext};

/// Assigns everything that an earlier version stored to incarnations that begin now and have no
/// holder yet, and seals it so that seals cover whole rows. A value that does not open stays as it
/// is, and opens nowhere.
pub(super) fn assign_incarnations(transaction: &Transaction<'_>, keys: &Keyring) -> rusqlite::Result<()> {
    let all = OWNED_TABLES.map(|table| format!("SELECT tenant FROM {table}")).join(" UNION ");
    let tenants: Vec<String> =
        transaction.prepare(&all)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for tenant in tenants {
        let incarnation = Incarnation::new(&tenant.into());
        grants::migrate_legacy(transaction, keys, &incarnation)?;
        signing_keys::migrate_legacy(transaction, keys, &incarnation)?;
        clients::migrate_legacy(transaction, keys, &incarnation)?;
        incarnations::insert_unheld(transaction, keys, incarnation)?;
    }
    Ok(())
}

/// Opens the grants, signing keys and clients of a schema without incarnations, and returns how
/// many of each there are.
pub(in crate::store) fn verify(database: &Database, keys: &Keyring) -> Result<[usize; 3], Error> {
    const ALL: [(&str, &str); 3] = [
        ("SELECT tenant, lower(hex(id)), details FROM grants", "grant"),
        ("SELECT tenant, kid, pkcs8 FROM signing_keys", "signing-key"),
        ("SELECT tenant, id, document FROM clients", "client"),
    ];
    let mut counts = [0; 3];
    for ((select, purpose), count) in ALL.iter().zip(&mut counts) {
        let read = || -> rusqlite::Result<Vec<(String, String, Vec<u8>)>> {
            let connection = database.connection();
            let mut select = connection.prepare(select)?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        };
        let rows = read().map_err(database.error())?;
        let opens = |(tenant, row, sealed): &(String, String, Vec<u8>)| {
            keys.open(&SealContext { purpose, tenant, row }, sealed).is_some()
        };
        if !rows.iter().all(opens) {
            return Err(Error::CannotUnseal);
        }
        *count = rows.len();
    }
    Ok(counts)
}
