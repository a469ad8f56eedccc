//! Blocks: whom operators keep out. They belong to no incarnation of a tenant, so they outlast all.

use rusqlite::params;

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::block::{BlockId, StoredBlocks};
use crate::store::keyring::SealContext;

impl AuthTables {
    /// Stores a block, in place of the one with the same id. `details` are sealed before they reach
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn save_block(&self, id: BlockId, details: &[u8]) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO blocks (id, details) VALUES (?1, ?2)
                              ON CONFLICT (id) DO UPDATE SET details = ?2";
        let sealed = self.keyring.seal(&seal_context(&id.to_string()), details);
        self.database.commit(move |connection| connection.execute(INSERT, params![id.0, sealed]).map(drop))
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
        let mut all = StoredBlocks::default();
        for (id, sealed) in self.read_blocks()? {
            match self.keyring.open(&seal_context(&id.to_string()), &sealed) {
                Some(details) => all.known.push((id, details)),
                None => all.unreadable.push(id),
            }
        }
        Ok(all)
    }

    /// Seals blocks anew that an older master key sealed, so that its line can be removed. If they
    /// cannot be written now, the next start tries again.
    pub(in crate::store) fn reseal_blocks(&self) {
        let outdated = self.read_blocks().unwrap_or_default();
        for (id, sealed) in outdated.into_iter().filter(|(_, sealed)| !self.keyring.is_current(sealed)) {
            let details = self.keyring.open(&seal_context(&id.to_string()), &sealed);
            if let Some(Err(error)) = details.map(|details| self.save_block(id, &details)) {
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

    fn read_blocks(&self) -> Result<Vec<(BlockId, Vec<u8>)>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT id, details FROM blocks ORDER BY id")?;
            select.query_map([], |row| Ok((BlockId(row.get(0)?), row.get(1)?)))?.collect()
        };
        read().map_err(self.database.error())
    }
}

fn seal_context(row: &str) -> SealContext<'_> {
    SealContext { purpose: "block", tenant: "", row }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testkit::new_auth_tables;

    #[test]
    fn a_block_is_sealed_and_one_that_was_changed_is_reported() {
        let (_folder, tables) = new_auth_tables();
        let [one, two] = [(); 2].map(|()| BlockId::random());
        tables.save_block(one, b"canary person").expect("saved");
        tables.save_block(two, b"canary other").expect("saved");
        tables.save_block(one, b"canary person again").expect("saved");
        let known = tables.load_blocks().expect("read").known;
        assert!(known.len() == 2 && known.contains(&(one, b"canary person again".to_vec())), "{known:?}");
        let sealed: Vec<u8> = tables
            .database
            .connection()
            .query_row("SELECT details FROM blocks WHERE id = ?1", params![one.0], |row| row.get(0))
            .expect("a row");
        assert!(!sealed.windows(6).any(|bytes| bytes == b"canary"));
        // A row that was moved does not open.
        let moved = "UPDATE blocks SET details = ?1 WHERE id = ?2";
        tables.database.connection().execute(moved, params![sealed, two.0]).expect("changed");
        assert_eq!(tables.load_blocks().expect("read").unreadable, [two]);
        assert!(tables.verify_blocks().is_err());
        tables.delete_block(two).expect("deleted");
        assert_eq!(tables.verify_blocks().expect("sound"), 1);
    }
}
