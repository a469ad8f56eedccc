//! One life of a tenant: the identity that grants, signing keys, clients and revocations belong to.

use std::fmt;
use std::sync::Arc;

use crate::base::{hex, random};

/// Names one of a tenant's lives. Told to nobody: what it is mixed into cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LifeId(pub(super) [u8; 16]);

impl LifeId {
    /// The bytes, to be mixed into what belongs to the life.
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
    /// A new life of the tenant of this name.
    pub fn begin(tenant: &Arc<str>) -> Self {
        Self::of(tenant, LifeId(random::bytes()))
    }

    /// The life of this id.
    pub fn of(tenant: &Arc<str>, id: LifeId) -> Self {
        Self { tenant: Arc::clone(tenant), id }
    }

    /// The tenant's name.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Which of its lives.
    pub fn id(&self) -> LifeId {
        self.id
    }

    /// The same as it lies in the store.
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
