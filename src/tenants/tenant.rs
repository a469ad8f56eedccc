//! A live tenant: immutable, everything needed to answer one prefix.

use std::sync::Arc;

use crate::backend;
use crate::mcp::McpServer;
use crate::oauth::bearer::BearerCheck;
use crate::spec::TenantSpec;

/// A live tenant.
pub struct Tenant {
    pub spec: TenantSpec,
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
}
