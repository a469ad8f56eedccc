//! All rows of a database, to copy them to or from a file. They stay sealed.

use super::PostgresEngine;
use super::error::Error;
use super::value::Value;
use super::{blocks, clients, grants, incarnations, revocations, signing_keys};
use crate::store::auth::sealed::AuthRows;

impl PostgresEngine {
    /// Returns all rows.
    pub(in crate::store) async fn export_rows(&self) -> Result<AuthRows, Error> {
        let from = |columns: &str, table: &str| format!("SELECT {columns} FROM tenantd.{table}");
        let link = &self.link;
        let incarnations = from(incarnations::COLUMNS, "incarnations");
        let grants = from(grants::COLUMNS, "grants");
        let revocations = from(revocations::COLUMNS, "revocations");
        let signing_keys = from(signing_keys::COLUMNS, "signing_keys");
        let clients = from(clients::COLUMNS, "clients");
        let removed_clients = from(clients::REMOVED_COLUMNS, "removed_clients");
        let blocks = from("id, details", "blocks");
        Ok(AuthRows {
            incarnations: link.query_rows(&incarnations, &[], incarnations::read_row).await?,
            grants: link.query_rows(&grants, &[], grants::read_row).await?,
            revocations: link.query_rows(&revocations, &[], revocations::read_row).await?,
            signing_keys: link.query_rows(&signing_keys, &[], signing_keys::read_row).await?,
            clients: link.query_rows(&clients, &[], clients::read_row).await?,
            removed_clients: link.query_rows(&removed_clients, &[], clients::read_removed_row).await?,
            blocks: link.query_rows(&blocks, &[], blocks::read_row).await?,
        })
    }

    /// Writes all rows into an empty database; all or nothing.
    pub(in crate::store) async fn import_rows(&self, rows: &AuthRows) -> Result<(), Error> {
        let mut client = self.link.connection().await?;
        let failed = |cause: tokio_postgres::Error| Error::from_statement(self.link.shown(), &cause);
        let transaction = client.transaction().await.map_err(failed)?;
        for (insert, values) in insertions(rows) {
            let typed: Vec<_> = values.iter().map(Value::typed).collect();
            transaction.query_typed(insert, &typed).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }
}

/// Returns one statement for each table.
fn insertions(rows: &AuthRows) -> [(&'static str, Vec<Value<'_>>); 7] {
    let AuthRows { incarnations, grants, revocations, signing_keys, clients, removed_clients, blocks } = rows;
    [
        (
            "INSERT INTO tenantd.incarnations (tenant, id, entry_id, payload)
             SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[])",
            vec![
                Value::Texts(incarnations.iter().map(|row| &**row.incarnation.tenant()).collect()),
                Value::ByteStrings(incarnations.iter().map(|row| row.incarnation.id_bytes()).collect()),
                Value::MaybeTexts(incarnations.iter().map(|row| row.entry_id.as_deref()).collect()),
                Value::ByteStrings(incarnations.iter().map(|row| &row.payload[..]).collect()),
            ],
        ),
        (
            "INSERT INTO tenantd.grants (tenant, incarnation, id, client_id, number, issued_at, expires_at,
                 ends_at, family_key, payload)
             SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[],
                 $7::bigint[], $8::bigint[], $9::bytea[], $10::bytea[])",
            vec![
                Value::Texts(grants.iter().map(|row| &**row.incarnation.tenant()).collect()),
                Value::ByteStrings(grants.iter().map(|row| row.incarnation.id_bytes()).collect()),
                Value::ByteStrings(grants.iter().map(|row| &row.id.0[..]).collect()),
                Value::Texts(grants.iter().map(|row| &*row.client_id).collect()),
                Value::Numbers(grants.iter().map(|row| row.number.into()).collect()),
                Value::Numbers(grants.iter().map(|row| row.issued).collect()),
                Value::Numbers(grants.iter().map(|row| row.expires).collect()),
                Value::Numbers(grants.iter().map(|row| row.ends).collect()),
                Value::ByteStrings(grants.iter().map(|row| &row.family_key[..]).collect()),
                Value::ByteStrings(grants.iter().map(|row| &row.payload[..]).collect()),
            ],
        ),
        (
            "INSERT INTO tenantd.revocations (tenant, incarnation, subject, issued_until, forget_at, seal)
             SELECT * FROM
                 unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])",
            vec![
                Value::Texts(revocations.iter().map(|row| &**row.incarnation.tenant()).collect()),
                Value::ByteStrings(revocations.iter().map(|row| row.incarnation.id_bytes()).collect()),
                Value::ByteStrings(revocations.iter().map(|row| &row.subject[..]).collect()),
                Value::Numbers(revocations.iter().map(|row| row.issued_until).collect()),
                Value::Numbers(revocations.iter().map(|row| row.forget_at).collect()),
                Value::ByteStrings(revocations.iter().map(|row| &row.seal[..]).collect()),
            ],
        ),
        (
            "INSERT INTO tenantd.signing_keys (tenant, incarnation, kid, signs_from, pkcs8, is_first)
             SELECT *, row_number() OVER (PARTITION BY tenant, incarnation ORDER BY signs_from, kid) = 1
             FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[], $5::bytea[])
                 AS given_row (tenant, incarnation, kid, signs_from, pkcs8)",
            vec![
                Value::Texts(signing_keys.iter().map(|row| &**row.incarnation.tenant()).collect()),
                Value::ByteStrings(signing_keys.iter().map(|row| row.incarnation.id_bytes()).collect()),
                Value::Texts(signing_keys.iter().map(|row| &*row.kid).collect()),
                Value::Numbers(signing_keys.iter().map(|row| row.signs_from).collect()),
                Value::ByteStrings(signing_keys.iter().map(|row| &row.pkcs8[..]).collect()),
            ],
        ),
        (
            "INSERT INTO tenantd.clients (tenant, incarnation, id, document)
             SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[])",
            vec![
                Value::Texts(clients.iter().map(|row| &**row.incarnation.tenant()).collect()),
                Value::ByteStrings(clients.iter().map(|row| row.incarnation.id_bytes()).collect()),
                Value::Texts(clients.iter().map(|row| &*row.id).collect()),
                Value::ByteStrings(clients.iter().map(|row| &row.document[..]).collect()),
            ],
        ),
        (
            "INSERT INTO tenantd.removed_clients (tenant, incarnation, client, removed_at, seal)
             SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[])",
            vec![
                Value::Texts(removed_clients.iter().map(|row| &**row.incarnation.tenant()).collect()),
                Value::ByteStrings(removed_clients.iter().map(|row| row.incarnation.id_bytes()).collect()),
                Value::ByteStrings(removed_clients.iter().map(|row| &row.client[..]).collect()),
                Value::Numbers(removed_clients.iter().map(|row| row.removed_at).collect()),
                Value::ByteStrings(removed_clients.iter().map(|row| &row.seal[..]).collect()),
            ],
        ),
        (
            "INSERT INTO tenantd.blocks (id, details) SELECT * FROM unnest($1::bytea[], $2::bytea[])",
            vec![
                Value::ByteStrings(blocks.iter().map(|row| &row.id.0[..]).collect()),
                Value::ByteStrings(blocks.iter().map(|row| &row.details[..]).collect()),
            ],
        ),
    ]
}
