//! One incarnation of a tenant: the scope of grants, signing keys, clients and revocations. It
//! begins when an entry of the tenants folder takes a name, and ends when another entry takes that
//! name or an operator removes the tenant. The database calls it `life`.

use std::fmt;
use std::sync::Arc;

use crate::base::digest::Hasher;
use crate::base::{hex, random};

/// The id of one incarnation of a tenant. It is never disclosed, so what it is mixed into cannot be
/// guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IncarnationId(pub(super) [u8; 16]);

impl IncarnationId {
    /// Returns the bytes, to mix them into values that belong to the incarnation.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A tenant in one of its incarnations. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Incarnation {
    pub(super) tenant: Arc<str>,
    pub(super) id: IncarnationId,
}

impl Incarnation {
    /// Begins a new incarnation of the tenant of this name.
    pub fn new(tenant: &Arc<str>) -> Self {
        Self::from_parts(tenant, IncarnationId(random::bytes()))
    }

    /// Derives the incarnation of a tenant of an entry that follows `last`. All who share `seed` come
    /// to the same.
    pub fn derive(seed: &[u8; 16], tenant: &Arc<str>, entry_id: &str, last: Option<IncarnationId>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update_field(b"incarnation");
        hasher.update_field(seed);
        hasher.update_field(tenant.as_bytes());
        hasher.update_field(entry_id.as_bytes());
        hasher.update_field(last.as_ref().map_or(&[], |last| &last.0[..]));
        let digest = hasher.finish();
        let (id, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self::from_parts(tenant, IncarnationId(*id))
    }

    /// Builds the incarnation with this id.
    pub fn from_parts(tenant: &Arc<str>, id: IncarnationId) -> Self {
        Self { tenant: Arc::clone(tenant), id }
    }

    /// Returns the tenant's name.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Returns the id of the incarnation.
    pub fn id(&self) -> IncarnationId {
        self.id
    }

    /// Returns the id as it is stored.
    pub(super) fn id_bytes(&self) -> &[u8] {
        &self.id.0
    }
}

/// An incarnation as it is stored.
#[derive(Debug, Clone)]
pub struct IncarnationRecord {
    /// The tenant and the id of the incarnation.
    pub incarnation: Incarnation,
    /// The entry that holds the name; none yet if an earlier version stored what belongs to the
    /// incarnation.
    pub entry_id: Option<Arc<str>>,
    /// Data of the caller, in the clear; it is sealed before it reaches the disk.
    pub payload: Vec<u8>,
}

/// The incarnations in the store.
#[derive(Debug, Default)]
pub struct StoredIncarnations {
    /// Those of tenants that have one.
    pub current: Vec<IncarnationRecord>,
    /// The last one of each tenant that ended, where the next one derives from it.
    pub ended: Vec<Incarnation>,
}

/// A change to the incarnation of a tenant.
#[derive(Debug, Clone)]
pub enum IncarnationChange {
    /// This incarnation begins, or stays; everything that belongs to another incarnation of the
    /// tenant is deleted.
    Begin(IncarnationRecord),
    /// The tenant has no incarnation any more: everything stored for its logins is deleted.
    End(Arc<str>),
}

impl IncarnationChange {
    /// Returns the tenant whose incarnation changes.
    pub fn tenant(&self) -> &Arc<str> {
        match self {
            Self::Begin(kept) => &kept.incarnation.tenant,
            Self::End(tenant) => tenant,
        }
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incarnation").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl fmt::Debug for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IncarnationId")
    }
}

impl fmt::Display for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
