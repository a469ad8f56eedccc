//! A live tenant: immutable, everything needed to answer one prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend;
use crate::base::digest::Digest;
use crate::mcp::McpServer;
use crate::oauth::bearer::{BearerCheck, Leaves};
use crate::spec::TenantSpec;

/// A live tenant.
pub struct Tenant {
    pub spec: TenantSpec,
    /// Of all that it was made from.
    pub revision: Digest,
    pub slot: Arc<TenantSlot>,
    pub backend: Arc<backend::Client>,
    pub mcp: McpServer,
    pub bearer: BearerCheck,
}

/// What outlives a tenant's reloads.
#[derive(Debug, Default)]
pub struct TenantSlot {
    pub backend: Arc<backend::Lasting>,
    /// What each caller has left of the tenant's allowance.
    pub rate: super::rate::Buckets,
    /// By what callers are under way.
    pub leaves: Leaves,
    closed: AtomicBool,
}

impl TenantSlot {
    /// Whether the tenant answers 503 until its operator repairs it: its last change was refused, and may have been
    /// about who may call.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }
}
