//! Blocks in PostgreSQL.

use tokio_postgres::Row;

use super::PostgresEngine;
use super::grants::read_id;
use super::link::ReadError;
use super::value::Value;
use crate::store::auth::Error;
use crate::store::auth::block::{BlockId, StoredBlocks};
use crate::store::auth::sealed::BlockRow;

impl PostgresEngine {
    pub(in crate::store) async fn save_block(&self, id: BlockId, details: Vec<u8>) -> Result<(), Error> {
        const SAVE: &str = "
            WITH saved AS (
                INSERT INTO tenantd.blocks (id, details) VALUES ($1, $2)
                ON CONFLICT (id) DO UPDATE SET details = excluded.details
            )
            SELECT tenantd.record_change('block', '', $1)";
        let row = BlockRow::seal(&self.keyring, id, &details);
        let values = [Value::Bytes(&row.id.0), Value::Bytes(&row.details)];
        Ok(self.link.query(SAVE, &values).await.map(drop)?)
    }

    pub(in crate::store) async fn delete_block(&self, id: BlockId) -> Result<(), Error> {
        const DELETE: &str = "
            WITH deleted AS (DELETE FROM tenantd.blocks WHERE id = $1)
            SELECT tenantd.record_change('block', '', $1)";
        let values = [Value::Bytes(&id.0)];
        Ok(self.link.query(DELETE, &values).await.map(drop)?)
    }

    /// Returns the blocks with these ids, as far as there are some.
    pub(in crate::store) async fn load_blocks_of(&self, ids: &[BlockId]) -> Result<StoredBlocks, Error> {
        const SELECT: &str = "SELECT id, details FROM tenantd.blocks WHERE id = ANY ($1)";
        let values = [Value::ByteStrings(ids.iter().map(|id| &id.0[..]).collect())];
        let rows = self.link.query_rows_as_follower(SELECT, &values, read_row).await?;
        Ok(BlockRow::open_all(rows, &self.keyring))
    }

    pub(super) async fn load_blocks(&self) -> Result<StoredBlocks, Error> {
        Ok(BlockRow::open_all(self.read_blocks().await?, &self.keyring))
    }

    /// Seals blocks anew that an older master key sealed, so that its line can be removed. If they
    /// cannot be written now, the next start tries again.
    pub(super) async fn reseal_blocks(&self) {
        let outdated = self.read_blocks().await.unwrap_or_default();
        for row in outdated.iter().filter(|row| !self.keyring.is_current(&row.details)) {
            let Some(details) = row.open(&self.keyring) else { continue };
            if let Err(error) = self.save_block(row.id, details).await {
                tracing::warn!(%error, "blocks cannot be encrypted with the new master key; keep the line of \
                                        the old key");
                return;
            }
        }
    }

    async fn read_blocks(&self) -> Result<Vec<BlockRow>, Error> {
        let select = "SELECT id, details FROM tenantd.blocks ORDER BY id";
        Ok(self.link.query_rows(select, &[], read_row).await?)
    }
}

pub(super) fn read_row(row: &Row) -> Result<BlockRow, ReadError> {
    Ok(BlockRow { id: BlockId(read_id(row, 0)?), details: row.try_get(1)? })
}
