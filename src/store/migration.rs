//! The steps from one version of the schema to the next.

pub(super) mod legacy;

use std::collections::HashSet;
use std::path::Path;

use rusqlite::Connection;

use super::keyring::Keyring;
use super::local::entry_seal;
use super::{Error, schema};

/// The SQL that leads to each version. A step that was released is never changed.
const MIGRATIONS: [&str; schema::CURRENT_VERSION as usize] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
];

/// Checks the file and upgrades it to this program's version.
pub(super) fn migrate_to_current(
    connection: &mut Connection,
    keys: &Keyring,
    file: &Path,
) -> Result<(), Error> {
    let found = schema::check_version(connection, file)?;
    if found == schema::CURRENT_VERSION {
        return Ok(());
    }
    let failed = |cause| match found {
        // The file was empty: the disk was too full to create the schema at a first start.
        0 => Error::File { action: "created", path: file.to_owned(), cause: std::io::Error::other(cause) },
        _ => schema::to_store_error(file, cause),
    };
    apply_migrations(connection, keys, found, schema::CURRENT_VERSION).map_err(failed)
}

/// Takes the steps between two versions in one transaction.
pub(super) fn apply_migrations(
    connection: &mut Connection,
    keys: &Keyring,
    from: i64,
    to: i64,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    // A step may add columns that the seal of an entry (a tenant's row) covers. Entries that were
    // tampered with before must not get a valid seal.
    let tampered = if from < schema::INCARNATIONS_VERSION {
        HashSet::new()
    } else {
        entry_seal::tampered_entries(&transaction, keys)?
    };
    for (step, version) in MIGRATIONS.iter().zip(1..).filter(|(_, version)| (from + 1..=to).contains(version))
    {
        transaction.execute_batch(step)?;
        if version == schema::INCARNATIONS_VERSION {
            // Before this version the tables did not tell apart the lives of a tenant that was
            // removed and added again.
            legacy::assign_incarnations(&transaction, keys)?;
        }
    }
    if to >= schema::INCARNATIONS_VERSION {
        entry_seal::seal_all_except(&transaction, keys, &tampered)?;
    }
    transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()
}
