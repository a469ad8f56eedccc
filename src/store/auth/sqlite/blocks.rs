//! Blocks: whom operators keep out. They belong to no incarnation of a tenant, so they outlast all.

use rusqlite::{Row, params};

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::block::{BlockId, StoredBlocks};
use crate::store::auth::sealed::BlockRow;

impl AuthTables {
    /// Stores a block, in place of the one with the same id. `details` are sealed before they reach
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn save_block(&self, id: BlockId, details: &[u8]) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO blocks (id, details) VALUES (?1, ?2)
                              ON CONFLICT (id) DO UPDATE SET details = ?2";
        let row = BlockRow::seal(&self.keyring, id, details);
        self.database
            .commit(move |connection| connection.execute(INSERT, params![row.id.0, row.details]).map(drop))
    }

    /// Deletes a block.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn delete_block(&self, id: BlockId) -> Result<(), Error> {
        self.database.commit(move |connection| {
            connection.execute("DELETE FROM blocks WHERE id = ?1", params![id.0]).map(drop)
        })
    }

    /// Returns all blocks.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn load_blocks(&self) -> Result<StoredBlocks, Error> {
        Ok(BlockRow::open_all(self.read_blocks()?, &self.keyring))
    }

    /// Seals blocks anew that an older master key sealed, so that its line can be removed. If they
    /// cannot be written now, the next start tries again.
    pub(in crate::store) fn reseal_blocks(&self) {
        let outdated = self.read_blocks().unwrap_or_default();
        for row in outdated.into_iter().filter(|row| !self.keyring.is_current(&row.details)) {
            let details = row.open(&self.keyring);
            if let Some(Err(error)) = details.map(|details| self.save_block(row.id, &details)) {
                tracing::warn!(%error, "blocks cannot be encrypted with the new master key; keep the line of \
                                        the old key");
                return;
            }
        }
    }

    /// Opens every block and returns how many there are.
    pub(in crate::store) fn verify_blocks(&self) -> Result<usize, Error> {
        let all = self.load_blocks()?;
        if all.unreadable.is_empty() { Ok(all.known.len()) } else { Err(Error::CannotUnseal) }
    }

    fn read_blocks(&self) -> Result<Vec<BlockRow>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT id, details FROM blocks ORDER BY id")?;
            let read_row = |row: &Row<'_>| Ok(BlockRow { id: BlockId(row.get(0)?), details: row.get(1)? });
            select.query_map([], read_row)?.collect()
        };
        read().map_err(self.database.error())
    }
}
