//! One life of a tenant: the scope of grants, signing keys, clients and revocations.

use std::fmt;
use std::sync::Arc;

use crate::base::{hex, random};

/// The id of one life of a tenant. It is never disclosed, so what it is mixed into cannot be
/// guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IncarnationId(pub(super) [u8; 16]);

impl IncarnationId {
    /// Returns the bytes, to mix them into values that belong to the life.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A tenant in one of its lives. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Incarnation {
    pub(super) tenant: Arc<str>,
    pub(super) id: IncarnationId,
}

impl Incarnation {
    /// Begins a new life of the tenant of this name.
    pub fn new(tenant: &Arc<str>) -> Self {
        Self::from_parts(tenant, IncarnationId(random::bytes()))
    }

    /// Builds the life with this id.
    pub fn from_parts(tenant: &Arc<str>, id: IncarnationId) -> Self {
        Self { tenant: Arc::clone(tenant), id }
    }

    /// Returns the tenant's name.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Returns the id of the life.
    pub fn id(&self) -> IncarnationId {
        self.id
    }

    /// Returns the id as it is stored.
    pub(super) fn id_bytes(&self) -> &[u8] {
        &self.id.0
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl fmt::Debug for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LifeId")
    }
}

impl fmt::Display for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
