//! Clients that operators entered or removed, and used assertions, in PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::PostgresEngine;
use super::grants::read_incarnation;
use super::link::ReadError;
use super::value::Value;
use crate::base::digest::Digest;
use crate::base::random;
use crate::store::auth::Error;
use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::sealed::{ClientRow, RemovedClientRow};

pub(super) const COLUMNS: &str = "tenant, incarnation, id, document";
pub(super) const REMOVED_COLUMNS: &str = "tenant, incarnation, client, removed_at, seal";

impl PostgresEngine {
    pub(in crate::store) async fn insert_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
        document: Vec<u8>,
    ) -> Result<bool, Error> {
        const INSERT: &str = "INSERT INTO tenantd.clients (tenant, incarnation, id, document)
                              VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id";
        // A sealed document has a nonce, so it shows who wrote it.
        const IS_OURS: &str = "SELECT id FROM tenantd.clients WHERE tenant = $1 AND incarnation = $2 AND id = $3 AND document = $4";
        let row = ClientRow::seal(&self.keyring, incarnation, id, &document);
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Text(id),
            Value::Bytes(&row.document),
        ];
        // The statement may have been sent twice, and have done its work the first time.
        Ok(!self.link.query(INSERT, &values).await?.is_empty()
            || !self.link.query(IS_OURS, &values).await?.is_empty())
    }

    pub(in crate::store) async fn load_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let select = format!(
            "SELECT {COLUMNS} FROM tenantd.clients WHERE tenant = $1 AND incarnation = $2 AND id = $3"
        );
        let values =
            [Value::Text(incarnation.tenant()), Value::Bytes(incarnation.id_bytes()), Value::Text(id)];
        let rows = self.link.query_rows(&select, &values, read_row).await?;
        let open = |row: &ClientRow| row.open(&self.keyring).ok_or(crate::store::Error::CannotUnseal);
        Ok(rows.first().map(open).transpose()?)
    }

    pub(in crate::store) async fn load_clients(
        &self,
        incarnation: &Incarnation,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let select = format!(
            "SELECT {COLUMNS} FROM tenantd.clients WHERE tenant = $1 AND incarnation = $2 ORDER BY id"
        );
        let values = [Value::Text(incarnation.tenant()), Value::Bytes(incarnation.id_bytes())];
        let rows = self.link.query_rows(&select, &values, read_row).await?;
        let open = |row: ClientRow| Some((row.id.clone(), row.open(&self.keyring)?));
        let opened: Option<Vec<_>> = rows.into_iter().map(open).collect();
        opened.ok_or_else(|| crate::store::Error::CannotUnseal.into())
    }

    pub(in crate::store) async fn count_clients(&self, incarnation: &Incarnation) -> Result<usize, Error> {
        const COUNT: &str = "SELECT id FROM tenantd.clients WHERE tenant = $1 AND incarnation = $2";
        let values = [Value::Text(incarnation.tenant()), Value::Bytes(incarnation.id_bytes())];
        Ok(self.link.query(COUNT, &values).await?.len())
    }

    pub(in crate::store) async fn delete_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<bool, Error> {
        const DELETE: &str =
            "DELETE FROM tenantd.clients WHERE tenant = $1 AND incarnation = $2 AND id = $3 RETURNING id";
        let values =
            [Value::Text(incarnation.tenant()), Value::Bytes(incarnation.id_bytes()), Value::Text(id)];
        // Once: the second time it would not know that there was one.
        Ok(!self.link.query_once(DELETE, &values).await?.is_empty())
    }

    pub(in crate::store) async fn mark_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        const INSERT: &str = "
            INSERT INTO tenantd.removed_clients (tenant, incarnation, client, removed_at, seal)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let client = Digest::of(id.as_bytes());
        let row = RemovedClientRow::seal(&self.keyring, incarnation, client, now.as_second());
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Bytes(&row.client),
            Value::Number(row.removed_at),
            Value::Bytes(&row.seal),
        ];
        Ok(self.link.query(INSERT, &values).await.map(drop)?)
    }

    pub(in crate::store) async fn is_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<bool, Error> {
        const SELECT: &str = "SELECT client FROM tenantd.removed_clients
                              WHERE tenant = $1 AND incarnation = $2 AND client = $3";
        let client = Digest::of(id.as_bytes());
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Bytes(client.as_bytes()),
        ];
        Ok(!self.link.query(SELECT, &values).await?.is_empty())
    }

    pub(super) async fn tenants_with_unreadable_removals(&self) -> Result<Vec<Arc<str>>, Error> {
        let select = format!("SELECT {REMOVED_COLUMNS} FROM tenantd.removed_clients");
        let rows = self.link.query_rows(&select, &[], read_removed_row).await?;
        let unreadable = rows.iter().filter(|row| !row.is_intact(&self.keyring));
        let tenants: BTreeSet<_> = unreadable.map(|row| Arc::clone(row.incarnation.tenant())).collect();
        Ok(tenants.into_iter().collect())
    }

    pub(in crate::store) async fn use_assertion(
        &self,
        assertion: Digest,
        expires_at: Timestamp,
    ) -> Result<bool, Error> {
        const INSERT: &str = "INSERT INTO tenantd.used_assertions (digest, expires_at, attempt)
                              VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING digest";
        const IS_OURS: &str = "SELECT digest FROM tenantd.used_assertions WHERE digest = $1 AND attempt = $3 AND $2 IS NOT NULL";
        let attempt = random::bytes::<16>();
        let values = [
            Value::Bytes(assertion.as_bytes()),
            Value::Number(expires_at.as_second()),
            Value::Bytes(&attempt),
        ];
        // The statement may have been sent twice, and have done its work the first time.
        Ok(!self.link.query(INSERT, &values).await?.is_empty()
            || !self.link.query(IS_OURS, &values).await?.is_empty())
    }
}

pub(super) fn read_row(row: &Row) -> Result<ClientRow, ReadError> {
    let incarnation = read_incarnation(row, 0, 1)?;
    Ok(ClientRow { incarnation, id: row.try_get(2)?, document: row.try_get(3)? })
}

pub(super) fn read_removed_row(row: &Row) -> Result<RemovedClientRow, ReadError> {
    let client: &[u8] = row.try_get(2)?;
    Ok(RemovedClientRow {
        incarnation: read_incarnation(row, 0, 1)?,
        client: client.try_into()?,
        removed_at: row.try_get(3)?,
        seal: row.try_get(4)?,
    })
}
