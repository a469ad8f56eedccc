//! Incarnations of tenants, sealed.

use std::sync::Arc;

use crate::store::auth::incarnation::{Incarnation, IncarnationChange, IncarnationRecord};
use crate::store::keyring::{Keyring, SealContext};

/// An incarnation as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct IncarnationRow {
    pub(in crate::store) incarnation: Incarnation,
    pub(in crate::store) entry_id: Option<Arc<str>>,
    pub(in crate::store) payload: Vec<u8>,
}

/// A change, sealed and ready to be written.
#[derive(Debug, Clone)]
pub(in crate::store) struct IncarnationChangeRow {
    pub(in crate::store) tenant: Arc<str>,
    /// `None` if the incarnation ends.
    pub(in crate::store) row: Option<IncarnationRow>,
}

impl IncarnationRow {
    pub(in crate::store) fn seal(keyring: &Keyring, record: &IncarnationRecord) -> Self {
        let IncarnationRecord { incarnation, entry_id, payload } = record;
        let clear = clear_columns(incarnation, entry_id.as_deref());
        let payload = keyring.seal_row(&seal_context(incarnation.tenant()), &clear, payload);
        Self { incarnation: incarnation.clone(), entry_id: entry_id.clone(), payload }
    }

    /// Opens the row. One that was tampered with is logged, and counts as none.
    pub(in crate::store) fn open(&self, keyring: &Keyring) -> Option<IncarnationRecord> {
        let Self { incarnation, entry_id, payload } = self;
        let clear = clear_columns(incarnation, entry_id.as_deref());
        let opened = keyring.open_row(&seal_context(incarnation.tenant()), &clear, payload);
        if opened.is_none() {
            tracing::error!(
                tenant = &**incarnation.tenant(),
                "the store's record of the owner of this name was changed, or encrypted with another key: \
                 its logins are no longer valid"
            );
        }
        let (incarnation, entry_id) = (incarnation.clone(), entry_id.clone());
        opened.map(|payload| IncarnationRecord { incarnation, entry_id, payload })
    }
}

impl IncarnationChangeRow {
    pub(in crate::store) fn seal(keyring: &Keyring, change: &IncarnationChange) -> Self {
        let row = match change {
            IncarnationChange::Begin(record) => Some(IncarnationRow::seal(keyring, record)),
            IncarnationChange::End(_) => None,
        };
        Self { tenant: Arc::clone(change.tenant()), row }
    }

    /// Returns the id of the incarnation whose rows stay; empty if none do.
    pub(in crate::store) fn id_bytes(&self) -> &[u8] {
        self.row.as_ref().map_or(&[], |row| row.incarnation.id_bytes())
    }
}

fn seal_context(tenant: &str) -> SealContext<'_> {
    SealContext { purpose: "life", tenant, row: "" }
}

/// The columns that the seal covers but does not encrypt.
fn clear_columns(incarnation: &Incarnation, entry_id: Option<&str>) -> [Vec<u8>; 2] {
    let entry_id = entry_id.map_or(Vec::new(), |entry_id| [b"=", entry_id.as_bytes()].concat());
    [incarnation.id_bytes().to_vec(), entry_id]
}
