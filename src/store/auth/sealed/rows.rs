//! All rows of an auth store.

use super::{BlockRow, ClientRow, GrantRow, IncarnationRow, RemovedClientRow, RevocationRow, SigningKeyRow};
use crate::store::keyring::Keyring;

/// All rows, to copy them from one database to another.
#[derive(Debug, Default)]
pub(in crate::store) struct AuthRows {
    pub(in crate::store) incarnations: Vec<IncarnationRow>,
    pub(in crate::store) grants: Vec<GrantRow>,
    pub(in crate::store) revocations: Vec<RevocationRow>,
    pub(in crate::store) signing_keys: Vec<SigningKeyRow>,
    pub(in crate::store) clients: Vec<ClientRow>,
    pub(in crate::store) removed_clients: Vec<RemovedClientRow>,
    pub(in crate::store) blocks: Vec<BlockRow>,
}

/// How many rows of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthCounts {
    /// Incarnations of tenants.
    pub incarnations: usize,
    /// Grants of all tenants.
    pub grants: usize,
    /// Revocations of access tokens.
    pub revocations: usize,
    /// Signing keys of all tenants.
    pub signing_keys: usize,
    /// Clients that operators entered.
    pub clients: usize,
    /// Clients that operators removed.
    pub removed_clients: usize,
    /// Blocks of people.
    pub blocks: usize,
}

impl AuthRows {
    pub(in crate::store) fn counts(&self) -> AuthCounts {
        AuthCounts {
            incarnations: self.incarnations.len(),
            grants: self.grants.len(),
            revocations: self.revocations.len(),
            signing_keys: self.signing_keys.len(),
            clients: self.clients.len(),
            removed_clients: self.removed_clients.len(),
            blocks: self.blocks.len(),
        }
    }

    /// Returns whether every row opens.
    pub(in crate::store) fn is_intact(&self, keyring: &Keyring) -> bool {
        self.incarnations.iter().all(|row| row.open(keyring).is_some())
            && self.grants.iter().all(|row| row.is_intact(keyring))
            && self.revocations.iter().all(|row| row.open(keyring).is_some())
            && self.signing_keys.iter().all(|row| row.open(keyring).is_some())
            && self.clients.iter().all(|row| row.open(keyring).is_some())
            && self.removed_clients.iter().all(|row| row.is_intact(keyring))
            && self.blocks.iter().all(|row| row.open(keyring).is_some())
    }
}

impl AuthCounts {
    /// Returns whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
