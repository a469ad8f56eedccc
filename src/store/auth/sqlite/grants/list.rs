//! Lists of grants, page by page, so that a long list never keeps others from the store.

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row, params};

use super::read_row;
use crate::store::Error;
use crate::store::auth::grant::{GrantCursor, GrantId, ListedGrant};
use crate::store::auth::incarnation::{Incarnation, IncarnationId};
use crate::store::auth::sealed::GrantRow;
use crate::store::auth::sqlite::AuthTables;

const COLUMNS: &str = "tenant, life, id, client_id, number, issued_at, expires_at, ends_at, family, details";

impl AuthTables {
    /// Returns at most `at_most` redeemed grants that have not expired, of all tenants or of one,
    /// that come after `after`, by tenant and then by id.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn list_grants(
        &self,
        tenant: Option<&str>,
        after: Option<&GrantCursor>,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<ListedGrant>, Error> {
        let now = now.as_second();
        let (after_tenant, after_id) =
            after.map_or(("", &[][..]), |after| (&*after.tenant, after.id.0.as_slice()));
        let read = || {
            let connection = self.database.connection();
            match tenant {
                Some(tenant) => {
                    select(&connection, "tenant = ?1 AND id > ?2", params![tenant, after_id, now, at_most])
                }
                None => select(
                    &connection,
                    "(tenant, id) > (?1, ?2)",
                    params![after_tenant, after_id, now, at_most],
                ),
            }
        };
        let rows = read().map_err(self.database.error())?;
        Ok(rows.into_iter().map(|row| row.open_listed(&self.keyring)).collect())
    }

    /// Counts the redeemed grants that have not expired, by incarnation; at most `at_most` of all.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn count_grants(
        &self,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<(Incarnation, usize)>, Error> {
        const SELECT: &str = "
            SELECT tenant, life, count(*) FROM
                (SELECT tenant, life FROM grants WHERE expires_at > ?1 AND number > 0 LIMIT ?2)
            GROUP BY tenant, life";
        let read = || {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let counted = select.query_map(params![now.as_second(), at_most], |row| {
                Ok((read_incarnation(row)?, to_count(row.get(2)?)))
            })?;
            counted.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.database.error())
    }
}

fn select(connection: &Connection, place: &str, parameters: impl Params) -> rusqlite::Result<Vec<GrantRow>> {
    let select = format!(
        "SELECT {COLUMNS} FROM grants WHERE {place} AND expires_at > ?3 AND number > 0
         ORDER BY tenant, id LIMIT ?4"
    );
    let mut select = connection.prepare_cached(&select)?;
    select.query_map(parameters, read_listed)?.collect()
}

fn read_listed(row: &Row<'_>) -> rusqlite::Result<GrantRow> {
    let incarnation = read_incarnation(row)?;
    read_row(row, 3, incarnation, GrantId(row.get(2)?))
}

fn read_incarnation(row: &Row<'_>) -> rusqlite::Result<Incarnation> {
    let tenant: String = row.get(0)?;
    Ok(Incarnation { tenant: tenant.into(), id: IncarnationId(row.get(1)?) })
}

fn to_count(count: i64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
