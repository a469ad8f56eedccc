//! Clients that an operator entered or removed, sealed.

use crate::base::digest::Digest;
use crate::store::auth::incarnation::Incarnation;
use crate::store::keyring::{Keyring, SealContext};

/// A client that an operator entered, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct ClientRow {
    pub(in crate::store) incarnation: Incarnation,
    pub(in crate::store) id: String,
    pub(in crate::store) document: Vec<u8>,
}

/// A client that an operator removed, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct RemovedClientRow {
    pub(in crate::store) incarnation: Incarnation,
    /// The digest of its id.
    pub(in crate::store) client: [u8; 32],
    /// In seconds since 1970.
    pub(in crate::store) removed_at: i64,
    pub(in crate::store) seal: Vec<u8>,
}

impl ClientRow {
    pub(in crate::store) fn seal(
        keyring: &Keyring,
        incarnation: &Incarnation,
        id: &str,
        document: &[u8],
    ) -> Self {
        let document = keyring.seal_row(&seal_context(incarnation, id), &[incarnation.id_bytes()], document);
        Self { incarnation: incarnation.clone(), id: id.to_owned(), document }
    }

    pub(in crate::store) fn open(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        let Self { incarnation, id, document } = self;
        keyring.open_row(&seal_context(incarnation, id), &[incarnation.id_bytes()], document)
    }

    /// Opens the document of an earlier version, whose seal covered it alone.
    pub(in crate::store) fn open_legacy(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        keyring.open(&seal_context(&self.incarnation, &self.id), &self.document)
    }
}

impl RemovedClientRow {
    pub(in crate::store) fn seal(
        keyring: &Keyring,
        incarnation: &Incarnation,
        client: Digest,
        removed_at: i64,
    ) -> Self {
        let row = client.to_string();
        let seal = keyring.seal_row(
            &removed_seal_context(incarnation, &row),
            &removed_clear_columns(incarnation, removed_at),
            b"",
        );
        Self { incarnation: incarnation.clone(), client: *client.as_bytes(), removed_at, seal }
    }

    /// Returns whether the row is as it was written.
    pub(in crate::store) fn is_intact(&self, keyring: &Keyring) -> bool {
        let Self { incarnation, client, removed_at, seal } = self;
        let row = Digest::from_bytes(*client).to_string();
        let clear = removed_clear_columns(incarnation, *removed_at);
        keyring.open_row(&removed_seal_context(incarnation, &row), &clear, seal).is_some()
    }
}

fn seal_context<'a>(incarnation: &'a Incarnation, id: &'a str) -> SealContext<'a> {
    SealContext { purpose: "client", tenant: incarnation.tenant(), row: id }
}

fn removed_seal_context<'a>(incarnation: &'a Incarnation, client: &'a str) -> SealContext<'a> {
    SealContext { purpose: "denied", tenant: incarnation.tenant(), row: client }
}

/// The columns that the seal covers but does not encrypt.
fn removed_clear_columns(incarnation: &Incarnation, removed_at: i64) -> [Vec<u8>; 2] {
    [incarnation.id_bytes().to_vec(), removed_at.to_be_bytes().to_vec()]
}
