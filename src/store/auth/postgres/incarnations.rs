//! Incarnations of tenants in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;

use super::PostgresEngine;
use super::grants::read_incarnation;
use super::link::ReadError;
use super::value::Value;
use crate::store::auth::Error;
use crate::store::auth::incarnation::{IncarnationChange, StoredIncarnations};
use crate::store::auth::sealed::{IncarnationChangeRow, IncarnationRow};

pub(super) const COLUMNS: &str = "tenant, id, entry_id, payload";

impl PostgresEngine {
    /// Returns the tenants whose change is refused.
    pub(in crate::store) async fn apply_incarnation_changes(
        &self,
        changes: Vec<IncarnationChange>,
    ) -> Result<Vec<Arc<str>>, Error> {
        // Nothing can belong to an incarnation that began and ended within the changes, so the last
        // change of each tenant says it all. One that ends has an empty id.
        const CHANGE: &str = "SELECT tenantd.change_incarnations($1, $2, $3, $4, $5)";
        if changes.is_empty() {
            return Ok(Vec::new());
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
            Value::Bytes(&self.node_id),
            Value::Texts(rows.iter().map(|row| &*row.tenant).collect()),
            Value::ByteStrings(rows.iter().map(IncarnationChangeRow::id_bytes).collect()),
            Value::MaybeTexts(entry_ids.iter().map(Option::as_deref).collect()),
            Value::ByteStrings(payloads.iter().map(Vec::as_slice).collect()),
        ];
        let read = |row: &Row| Ok(Arc::from(row.try_get::<_, &str>(0)?));
        Ok(self.link.query_rows(CHANGE, &values, read).await?)
    }

    /// Returns the incarnations of these tenants, as far as they have one; of all, if none are given.
    pub(in crate::store) async fn load_incarnations_of(
        &self,
        tenants: Option<&[Arc<str>]>,
    ) -> Result<StoredIncarnations, Error> {
        const ENDED: &str = "
            SELECT DISTINCT ON (tenant) tenant, id FROM tenantd.ended_incarnations
            WHERE $1::text[] IS NULL OR tenant = ANY ($1) ORDER BY tenant, ended_at DESC";
        let select = format!(
            "SELECT {COLUMNS} FROM tenantd.incarnations WHERE $1::text[] IS NULL OR tenant = ANY ($1)"
        );
        let names = tenants.map(|tenants| tenants.iter().map(|tenant| &**tenant).collect());
        let values = [Value::AnyTexts(names)];
        let rows = self.link.query_rows_as_follower(&select, &values, read_row).await?;
        let current = rows.iter().filter_map(|row| row.open(&self.keyring)).collect();
        let ended =
            self.link.query_rows_as_follower(ENDED, &values, |row| read_incarnation(row, 0, 1)).await?;
        Ok(StoredIncarnations { current, ended })
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
