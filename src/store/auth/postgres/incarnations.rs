//! Incarnations of tenants in PostgreSQL.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::PostgresEngine;
use super::grants::read_incarnation;
use super::link::ReadError;
use super::value::Value;
use crate::store::auth::Error;
use crate::store::auth::incarnation::{IncarnationChange, IncarnationRecord};
use crate::store::auth::sealed::{IncarnationChangeRow, IncarnationRow};

pub(super) const COLUMNS: &str = "tenant, id, entry_id, payload";

impl PostgresEngine {
    pub(in crate::store) async fn apply_incarnation_changes(
        &self,
        changes: Vec<IncarnationChange>,
    ) -> Result<(), Error> {
        // Nothing can belong to an incarnation that began and ended within the changes, so the last
        // change of each tenant says it all. One that ends has an empty id.
        const CHANGE: &str = "
            WITH change AS (
                SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[])
                    AS given_row (tenant, id, entry_id, payload)
            ), grants AS (
                DELETE FROM tenantd.grants AS owned USING change
                WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
            ), revocations AS (
                DELETE FROM tenantd.revocations AS owned USING change
                WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
            ), signing_keys AS (
                DELETE FROM tenantd.signing_keys AS owned USING change
                WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
            ), clients AS (
                DELETE FROM tenantd.clients AS owned USING change
                WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
            ), removed_clients AS (
                DELETE FROM tenantd.removed_clients AS owned USING change
                WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
            ), ended AS (
                DELETE FROM tenantd.incarnations USING change
                WHERE incarnations.tenant = change.tenant AND octet_length(change.id) = 0
            ), begun AS (
                INSERT INTO tenantd.incarnations (tenant, id, entry_id, payload)
                SELECT tenant, id, entry_id, payload FROM change WHERE octet_length(id) > 0
                ON CONFLICT (tenant) DO UPDATE
                SET id = excluded.id, entry_id = excluded.entry_id, payload = excluded.payload
            )
            SELECT tenantd.record_changes('incarnation', $1, array_fill(''::bytea, ARRAY[cardinality($1)]))";
        if changes.is_empty() {
            return Ok(());
        }
        let last: HashMap<_, _> = changes.iter().map(|change| (change.tenant(), change)).collect();
        let rows: Vec<_> =
            last.into_values().map(|change| IncarnationChangeRow::seal(&self.keyring, change)).collect();
        let entry_id =
            |change: &'_ IncarnationChangeRow| change.row.as_ref().and_then(|row| row.entry_id.clone());
        let entry_ids: Vec<_> = rows.iter().map(entry_id).collect();
        let payload = |change: &'_ IncarnationChangeRow| change.row.as_ref().map(|row| row.payload.clone());
        let payloads: Vec<_> = rows.iter().map(|row| payload(row).unwrap_or_default()).collect();
        let values = [
            Value::Texts(rows.iter().map(|row| &*row.tenant).collect()),
            Value::ByteStrings(rows.iter().map(IncarnationChangeRow::id_bytes).collect()),
            Value::MaybeTexts(entry_ids.iter().map(Option::as_deref).collect()),
            Value::ByteStrings(payloads.iter().map(Vec::as_slice).collect()),
        ];
        Ok(self.link.query(CHANGE, &values).await.map(drop)?)
    }

    pub(super) async fn load_incarnations(&self) -> Result<Vec<IncarnationRecord>, Error> {
        let rows = self.read_incarnations().await?;
        Ok(rows.iter().filter_map(|row| row.open(&self.keyring)).collect())
    }

    /// Seals incarnations anew that an older master key sealed, so that its line can be removed. If
    /// they cannot be written now, the next start tries again.
    pub(super) async fn reseal_incarnations(&self) {
        let rows = self.read_incarnations().await.unwrap_or_default();
        let outdated = rows.iter().filter(|row| !self.keyring.is_current(&row.payload));
        let changes: Vec<_> =
            outdated.filter_map(|row| row.open(&self.keyring)).map(IncarnationChange::Begin).collect();
        if let Err(error) = self.apply_incarnation_changes(changes).await {
            tracing::warn!(%error, "incarnations of tenants cannot be encrypted with the new master key; \
                                    keep the line of the old key");
        }
    }

    async fn read_incarnations(&self) -> Result<Vec<IncarnationRow>, Error> {
        let select = format!("SELECT {COLUMNS} FROM tenantd.incarnations");
        Ok(self.link.query_rows(&select, &[], read_row).await?)
    }
}

pub(super) fn read_row(row: &Row) -> Result<IncarnationRow, ReadError> {
    let entry_id: Option<&str> = row.try_get(2)?;
    let (incarnation, entry_id) = (read_incarnation(row, 0, 1)?, entry_id.map(Into::into));
    Ok(IncarnationRow { incarnation, entry_id, payload: row.try_get(3)? })
}
