//! Signing keys in PostgreSQL.

use tokio_postgres::Row;

use super::PostgresEngine;
use super::grants::read_incarnation;
use super::link::ReadError;
use super::value::Value;
use crate::store::auth::Error;
use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::sealed::SigningKeyRow;
use crate::store::auth::signing_key::SigningKey;

pub(super) const COLUMNS: &str = "tenant, incarnation, kid, signs_from, pkcs8";

impl PostgresEngine {
    pub(in crate::store) async fn load_signing_keys(
        &self,
        incarnation: &Incarnation,
    ) -> Result<Vec<SigningKey>, Error> {
        let select = format!(
            "SELECT {COLUMNS} FROM tenantd.signing_keys WHERE tenant = $1 AND incarnation = $2
             ORDER BY signs_from, kid"
        );
        let values = [Value::Text(incarnation.tenant()), Value::Bytes(incarnation.id_bytes())];
        let rows = self.link.query_rows_promptly(&select, &values, read_row).await?;
        let opened: Option<Vec<_>> = rows.iter().map(|row| row.open(&self.keyring)).collect();
        opened.ok_or_else(|| crate::store::Error::CannotUnseal.into())
    }

    pub(in crate::store) async fn insert_first_signing_key(
        &self,
        incarnation: &Incarnation,
        key: SigningKey,
    ) -> Result<Vec<SigningKey>, Error> {
        // The unique index decides between nodes that try at the same time.
        const INSERT: &str = "
            INSERT INTO tenantd.signing_keys (tenant, incarnation, kid, signs_from, pkcs8, is_first)
            SELECT $1, $2, $3, $4, $5, true
            WHERE NOT EXISTS (SELECT FROM tenantd.signing_keys WHERE tenant = $1 AND incarnation = $2)
            ON CONFLICT DO NOTHING";
        let row = SigningKeyRow::seal(&self.keyring, incarnation, &key);
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Text(&row.kid),
            Value::Number(row.signs_from),
            Value::Bytes(&row.pkcs8),
        ];
        self.link.query(INSERT, &values).await?;
        self.load_signing_keys(incarnation).await
    }

    pub(in crate::store) async fn replace_signing_keys(
        &self,
        incarnation: &Incarnation,
        new: Option<SigningKey>,
        gone: Vec<String>,
    ) -> Result<Vec<SigningKey>, Error> {
        const REPLACE: &str = "
            WITH gone AS (
                DELETE FROM tenantd.signing_keys
                WHERE tenant = $1 AND incarnation = $2 AND kid = ANY ($3::text[])
            ), added AS (
                INSERT INTO tenantd.signing_keys (tenant, incarnation, kid, signs_from, pkcs8)
                SELECT $1, $2, $4, $5, $6 WHERE $4::text IS NOT NULL ON CONFLICT DO NOTHING
            )
            SELECT tenantd.record_change('signing keys', $1, '')";
        let row = new.map(|key| SigningKeyRow::seal(&self.keyring, incarnation, &key));
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Texts(gone.iter().map(String::as_str).collect()),
            Value::MaybeText(row.as_ref().map(|row| &*row.kid)),
            Value::MaybeNumber(row.as_ref().map(|row| row.signs_from)),
            Value::MaybeBytes(row.as_ref().map(|row| &row.pkcs8[..])),
        ];
        self.link.query(REPLACE, &values).await?;
        self.load_signing_keys(incarnation).await
    }
}

pub(super) fn read_row(row: &Row) -> Result<SigningKeyRow, ReadError> {
    Ok(SigningKeyRow {
        incarnation: read_incarnation(row, 0, 1)?,
        kid: row.try_get(2)?,
        signs_from: row.try_get(3)?,
        pkcs8: row.try_get(4)?,
    })
}
