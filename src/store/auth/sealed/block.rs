//! Blocks, sealed.

use crate::store::auth::block::{BlockId, StoredBlocks};
use crate::store::keyring::{Keyring, SealContext};

/// A block as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct BlockRow {
    pub(in crate::store) id: BlockId,
    pub(in crate::store) details: Vec<u8>,
}

impl BlockRow {
    pub(in crate::store) fn seal(keyring: &Keyring, id: BlockId, details: &[u8]) -> Self {
        Self { id, details: keyring.seal(&seal_context(&id.to_string()), details) }
    }

    pub(in crate::store) fn open(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        keyring.open(&seal_context(&self.id.to_string()), &self.details)
    }

    /// Opens all rows, and tells which do not open.
    pub(in crate::store) fn open_all(rows: Vec<Self>, keyring: &Keyring) -> StoredBlocks {
        let mut all = StoredBlocks::default();
        for row in rows {
            match row.open(keyring) {
                Some(details) => all.known.push((row.id, details)),
                None => all.unreadable.push(row.id),
            }
        }
        all
    }
}

fn seal_context(row: &str) -> SealContext<'_> {
    SealContext { purpose: "block", tenant: "", row }
}
