//! One life of a tenant: the scope of grants, signing keys, clients and revocations.

use std::fmt;
use std::sync::Arc;

use crate::base::{hex, random};

/// The id of one life of a tenant. It is never disclosed, so what it is mixed into cannot be
/// guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LifeId(pub(super) [u8; 16]);

impl LifeId {
    /// Returns the bytes, to mix them into values that belong to the life.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A tenant in one of its lives. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Life {
    pub(super) tenant: Arc<str>,
    pub(super) id: LifeId,
}

impl Life {
    /// Begins a new life of the tenant of this name.
    pub fn begin(tenant: &Arc<str>) -> Self {
        Self::of(tenant, LifeId(random::bytes()))
    }

    /// Builds the life with this id.
    pub fn of(tenant: &Arc<str>, id: LifeId) -> Self {
        Self { tenant: Arc::clone(tenant), id }
    }

    /// Returns the tenant's name.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Returns the id of the life.
    pub fn id(&self) -> LifeId {
        self.id
    }

    /// Returns the id as it is stored.
    pub(super) fn id_bytes(&self) -> &[u8] {
        &self.id.0
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl fmt::Debug for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LifeId")
    }
}

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
