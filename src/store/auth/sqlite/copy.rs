//! All rows of the file, to copy them to or from another database. They stay sealed.

use rusqlite::{Connection, Row, params};

use super::AuthTables;
use super::incarnations::OWNED_TABLES;
use crate::store::Error;
use crate::store::auth::block::BlockId;
use crate::store::auth::grant::GrantId;
use crate::store::auth::incarnation::{Incarnation, IncarnationId};
use crate::store::auth::sealed::{
    AuthRows, BlockRow, ClientRow, IncarnationRow, RemovedClientRow, SigningKeyRow,
};

impl AuthTables {
    /// Returns all rows.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn export_rows(&self) -> Result<AuthRows, Error> {
        let connection = self.database().connection();
        read_all(&connection).map_err(self.database().error())
    }

    /// Writes all rows in place of those that are there; all or nothing.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be written; then nothing has changed.
    pub(in crate::store) fn import_rows(&self, rows: AuthRows) -> Result<(), Error> {
        self.database().commit(move |connection| {
            for table in OWNED_TABLES.iter().chain(&["lives", "blocks"]) {
                connection.execute(&format!("DELETE FROM {table}"), [])?;
            }
            write_all(connection, &rows)
        })
    }
}

fn read_all(connection: &Connection) -> rusqlite::Result<AuthRows> {
    Ok(AuthRows {
        incarnations: read(connection, "SELECT tenant, id, stem, about FROM lives", |row| {
            let entry_id: Option<String> = row.get(2)?;
            let (incarnation, entry_id) = (read_incarnation(row)?, entry_id.map(Into::into));
            Ok(IncarnationRow { incarnation, entry_id, payload: row.get(3)? })
        })?,
        grants: read(
            connection,
            "SELECT tenant, life, id, client_id, number, issued_at, expires_at, ends_at, family, details
             FROM grants",
            |row| super::grants::read_row(row, 3, read_incarnation(row)?, GrantId(row.get(2)?)),
        )?,
        revocations: read(
            connection,
            "SELECT tenant, life, subject, issued_until, forget_at, seal FROM revoked",
            super::grants::read_revocation,
        )?,
        signing_keys: read(
            connection,
            "SELECT tenant, life, kid, signs_from, pkcs8 FROM signing_keys",
            |row| {
                let (kid, signs_from, pkcs8) = (row.get(2)?, row.get(3)?, row.get(4)?);
                Ok(SigningKeyRow { incarnation: read_incarnation(row)?, kid, signs_from, pkcs8 })
            },
        )?,
        clients: read(connection, "SELECT tenant, life, id, document FROM clients", |row| {
            Ok(ClientRow { incarnation: read_incarnation(row)?, id: row.get(2)?, document: row.get(3)? })
        })?,
        removed_clients: read(
            connection,
            "SELECT tenant, life, client, denied_at, seal FROM denied_clients",
            |row| {
                let (client, removed_at, seal) = (row.get(2)?, row.get(3)?, row.get(4)?);
                Ok(RemovedClientRow { incarnation: read_incarnation(row)?, client, removed_at, seal })
            },
        )?,
        blocks: read(connection, "SELECT id, details FROM blocks", |row| {
            Ok(BlockRow { id: BlockId(row.get(0)?), details: row.get(1)? })
        })?,
    })
}

fn read<T>(
    connection: &Connection,
    select: &str,
    read_row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(select)?.query_map([], read_row)?.collect()
}

fn read_incarnation(row: &Row<'_>) -> rusqlite::Result<Incarnation> {
    let tenant: String = row.get(0)?;
    Ok(Incarnation { tenant: tenant.into(), id: IncarnationId(row.get(1)?) })
}

fn write_all(connection: &Connection, rows: &AuthRows) -> rusqlite::Result<()> {
    let AuthRows { incarnations, grants, revocations, signing_keys, clients, removed_clients, blocks } = rows;
    for row in incarnations {
        let insert = "INSERT INTO lives (tenant, id, stem, about) VALUES (?1, ?2, ?3, ?4)";
        let (tenant, id) = (row.incarnation.tenant(), row.incarnation.id_bytes());
        connection.prepare_cached(insert)?.execute(params![tenant, id, row.entry_id, row.payload])?;
    }
    for row in grants {
        let insert =
            "INSERT INTO grants (tenant, life, id, client_id, number, issued_at, expires_at, ends_at,
                          family, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let (tenant, life) = (row.incarnation.tenant(), row.incarnation.id_bytes());
        let times = (row.issued, row.expires, row.ends);
        connection.prepare_cached(insert)?.execute(params![
            tenant,
            life,
            row.id.0,
            row.client_id,
            row.number,
            times.0,
            times.1,
            times.2,
            row.family_key,
            row.payload
        ])?;
    }
    for row in revocations {
        super::grants::insert_revocation(connection, row)?;
    }
    for row in signing_keys {
        let insert =
            "INSERT INTO signing_keys (tenant, life, kid, signs_from, pkcs8) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (tenant, life) = (row.incarnation.tenant(), row.incarnation.id_bytes());
        let parameters = params![tenant, life, row.kid, row.signs_from, row.pkcs8];
        connection.prepare_cached(insert)?.execute(parameters)?;
    }
    for row in clients {
        let insert = "INSERT INTO clients (tenant, life, id, document) VALUES (?1, ?2, ?3, ?4)";
        let (tenant, life) = (row.incarnation.tenant(), row.incarnation.id_bytes());
        connection.prepare_cached(insert)?.execute(params![tenant, life, row.id, row.document])?;
    }
    for row in removed_clients {
        let insert = "INSERT INTO denied_clients (tenant, life, client, denied_at, seal)
                      VALUES (?1, ?2, ?3, ?4, ?5)";
        let (tenant, life) = (row.incarnation.tenant(), row.incarnation.id_bytes());
        let parameters = params![tenant, life, row.client, row.removed_at, row.seal];
        connection.prepare_cached(insert)?.execute(parameters)?;
    }
    for row in blocks {
        let insert = "INSERT INTO blocks (id, details) VALUES (?1, ?2)";
        connection.prepare_cached(insert)?.execute(params![row.id.0, row.details])?;
    }
    Ok(())
}
