//! What every table of the database is to `tenantd store check` and `store copy`. A table that is not
//! listed here is one that a newer version made, and the check says so.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::sealed_column::SealedColumn;
use super::{acme, certificates, orders};
use crate::store::auth::postgres::{Error as PostgresError, PostgresEngine};

/// What a table is to a check and to a copy.
enum TableContents {
    /// A part of `AuthRows`: checked and copied row by row.
    Logins,
    /// Sealed values of what gateways share beside logins. A gateway has its own copy in its folders,
    /// from which it goes on where a database is not used any more.
    Sealed(&'static [SealedColumn]),
    /// Counted together, in clear text: copied as a whole.
    Usage,
    /// What gateways tell each other, and what is forgotten soon: a copy begins without it.
    Passing,
    /// The schema itself, and the key check, with which each check begins.
    Schema,
}

/// All tables of the schema `tenantd`.
const TABLES: &[(&str, TableContents)] = &[
    ("acme_accounts", TableContents::Sealed(acme::SEALED_ACCOUNTS)),
    ("acme_challenges", TableContents::Sealed(acme::SEALED_CHALLENGES)),
    ("blocks", TableContents::Logins),
    ("certificates", TableContents::Sealed(certificates::SEALED)),
    ("changes", TableContents::Passing),
    ("clients", TableContents::Logins),
    ("ended_incarnations", TableContents::Passing),
    ("generation", TableContents::Passing),
    ("grants", TableContents::Logins),
    ("incarnations", TableContents::Logins),
    ("marks", TableContents::Schema),
    ("node_entries", TableContents::Passing),
    ("node_reports", TableContents::Passing),
    ("nodes", TableContents::Passing),
    ("quotas", TableContents::Usage),
    ("removed_clients", TableContents::Logins),
    ("revocations", TableContents::Logins),
    ("schema_version", TableContents::Schema),
    ("signing_keys", TableContents::Logins),
    ("tenant_orders", TableContents::Sealed(orders::SEALED)),
    ("told", TableContents::Passing),
    ("usage", TableContents::Usage),
    ("usage_sizes", TableContents::Usage),
    ("usage_writers", TableContents::Passing),
    ("used_assertions", TableContents::Passing),
];

/// What a check found of the tables that are not about logins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedTablesReport {
    /// How many sealed values each table has.
    pub sealed: BTreeMap<&'static str, usize>,
    /// The columns with values that do not open, as `TABLE.COLUMN`, and how many.
    pub unreadable: BTreeMap<String, usize>,
    /// Tables of a newer version, which this one cannot check.
    pub unknown: BTreeSet<String>,
}

/// Opens every sealed value that belongs to no login.
///
/// # Errors
/// The database cannot be read.
pub(in crate::store) async fn check_shared_tables(
    engine: &PostgresEngine,
) -> Result<SharedTablesReport, PostgresError> {
    const LIST: &str = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'tenantd'";
    let (link, keyring) = (engine.link(), engine.keyring());
    let found: Vec<String> = link.query_rows(LIST, &[], |row| Ok(row.try_get(0)?)).await?;
    let is_unknown = |found: &String| TABLES.iter().all(|(table, _)| table != found);
    let mut report =
        SharedTablesReport { unknown: found.into_iter().filter(is_unknown).collect(), ..Default::default() };
    for (table, contents) in TABLES {
        let TableContents::Sealed(columns) = contents else { continue };
        for column in *columns {
            let read = |row: &Row| (column.is_intact)(keyring, row);
            let intact = link.query_rows(column.select, &[], read).await?;
            *report.sealed.entry(table).or_default() += intact.len();
            let unreadable = intact.iter().filter(|is_intact| !**is_intact).count();
            if unreadable > 0 {
                report.unreadable.insert(format!("{table}.{}", column.name), unreadable);
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testkit::ClusterDatabase;
    use crate::store::{LocalCertificate, SharedChallenge, TenantOrder};

    #[tokio::test]
    async fn a_value_that_does_not_open_is_named_by_its_column() {
        let database = ClusterDatabase::new();
        let store = database.connect().await;
        store.give_order("a", TenantOrder::Rollback(None), Some(b"documents")).await.expect("given");
        let local = LocalCertificate {
            name: "a.example.com",
            bundle: Some((b"pem", jiff::Timestamp::UNIX_EPOCH)),
            renewal: b"{}",
        };
        assert!(store.import_certificate(&local).await.expect("written"));
        let (claim, _) =
            store.take_certificate("a.example.com", true).await.expect("answered").expect("taken");
        assert!(store.save_pending_order(&claim, Some(b"order")).await.expect("written"));
        let challenge = SharedChallenge::new_http01("token".to_owned(), "text");
        let minute = std::time::Duration::from_secs(60);
        assert!(store.publish_challenge(Some(&claim), &challenge, minute).await.expect("written"));
        let account = store.take_acme_account("https://ca").await.expect("answered").expect("taken");
        assert!(store.save_acme_account(&account, b"account").await.expect("written"));

        let check = async || check_shared_tables(&store.engine).await.expect("read");
        let sound = check().await;
        assert_eq!((&sound.unreadable, &sound.unknown), (&BTreeMap::new(), &BTreeSet::new()));
        assert_eq!(sound.sealed.values().sum::<usize>(), 7, "{sound:?}");
        for (table, contents) in TABLES {
            let TableContents::Sealed(columns) = contents else { continue };
            for column in *columns {
                database.psql(&format!("CREATE TABLE kept AS SELECT * FROM tenantd.{table}"));
                database.psql(&format!("UPDATE tenantd.{table} SET {} = 'forged'", column.name));
                let forged = format!("{table}.{}", column.name);
                assert_eq!(check().await.unreadable, BTreeMap::from([(forged, 1)]));
                let back =
                    format!("DELETE FROM tenantd.{table}; INSERT INTO tenantd.{table} SELECT * FROM kept");
                database.psql(&format!("{back}; DROP TABLE kept"));
            }
        }
        database.psql("CREATE TABLE tenantd.later (a int)");
        assert_eq!(check().await.unknown, BTreeSet::from(["later".to_owned()]));
    }

    #[tokio::test]
    async fn every_table_and_every_binary_column_is_known() {
        let database = ClusterDatabase::new();
        let _store = database.connect().await;
        let list = "SELECT tablename FROM pg_tables WHERE schemaname = 'tenantd'";
        let found: BTreeSet<String> = database.psql(list).lines().map(str::to_owned).collect();
        let known: BTreeSet<String> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
        assert_eq!(found, known, "say in TABLES what a check and a copy do with it");

        // What is sealed is binary. These binary columns are ids and digests.
        let clear = ["acme_accounts.lease", "certificates.lease"];
        for (table, contents) in TABLES {
            let TableContents::Sealed(columns) = contents else { continue };
            let list = format!(
                "SELECT column_name FROM information_schema.columns
                 WHERE table_schema = 'tenantd' AND table_name = '{table}' AND data_type = 'bytea'"
            );
            for column in database.psql(&list).lines() {
                let is_checked = columns.iter().any(|known| known.name == column);
                let is_clear = clear.contains(&&*format!("{table}.{column}"));
                assert!(is_checked != is_clear, "{table}.{column} is sealed and not checked, or the reverse");
            }
        }
    }
}
