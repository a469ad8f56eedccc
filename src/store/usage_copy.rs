//! Copies the usage ledger and the counts of quotas between the file and a database, hour by hour
//! and day by day, since a ledger may have a million rows.

use super::cluster::UsageTables;
use super::{Error, LocalTables};

/// How many rows one statement carries.
const CHUNK: usize = 10_000;

/// Copies from the file, in place of what the database has. Returns the number of rows.
///
/// # Errors
/// The file cannot be read, or the database cannot be written; then a part may have arrived, and
/// the next copy replaces it.
pub(super) async fn to_database(file: &LocalTables, database: &UsageTables<'_>) -> Result<u64, Error> {
    database.clear().await?;
    let mut rows = 0;
    for part in file.ledger_parts()? {
        let ledger = file.load_ledger_part(part)?;
        for chunk in ledger.chunks(CHUNK) {
            database.insert(part, chunk).await?;
        }
        rows += ledger.len() as u64;
    }
    for chunk in file.export_quotas()?.chunks(CHUNK) {
        database.insert_quotas(chunk).await?;
    }
    database.count_details().await?;
    Ok(rows)
}

/// Copies from the database, in place of what the file has. Returns the number of rows.
///
/// # Errors
/// The database cannot be read, or the file cannot be written; then a part may have arrived, and
/// the next copy replaces it.
pub(super) async fn to_file(database: &UsageTables<'_>, file: &LocalTables) -> Result<u64, Error> {
    file.clear_usage()?;
    let mut rows = 0;
    for part in database.parts().await? {
        let ledger = database.load(part).await?;
        rows += ledger.len() as u64;
        file.insert_ledger_part(part, ledger)?;
    }
    file.import_quotas(database.load_quotas().await?)?;
    Ok(rows)
}
