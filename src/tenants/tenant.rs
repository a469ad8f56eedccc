//! A live tenant: immutable, everything needed to answer one prefix.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;

use crate::backend;
use crate::base::digest::Digest;
use crate::mcp::McpServer;
use crate::oauth::authorization_server::AuthorizationServer;
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
    /// Its own authorization server, if it has a login and there is a store to keep grants in.
    pub login: Option<AuthorizationServer>,
    /// Its page for people, written when it is first asked for.
    pub page: OnceLock<Bytes>,
}

impl Tenant {
    /// What keeps it from serving as it should: its backend's trouble, or else the login's.
    pub fn trouble(&self) -> Option<String> {
        let login = || self.login.as_ref().and_then(AuthorizationServer::trouble);
        self.backend.trouble().or_else(login)
    }

    /// Since when that is so.
    pub fn trouble_since(&self) -> Option<Timestamp> {
        let login = || self.login.as_ref().and_then(AuthorizationServer::trouble_since);
        self.backend.trouble_since().or_else(login)
    }

    /// Whether it asks for a login that cannot be had: then nobody is answered, for as long as that is so.
    pub fn lacks_its_login(&self) -> bool {
        self.spec.access.login.is_some() && self.login.is_none()
    }
}

/// What outlives a tenant's reloads.
#[derive(Debug, Default)]
pub struct TenantSlot {
    pub backend: Arc<backend::Lasting>,
    /// What each caller has left of the tenant's allowance.
    pub rate: super::rate::Buckets,
    /// What each address has left of logins, tokens and registrations.
    pub login_rates: LoginRates,
    /// By what callers are under way.
    pub leaves: Leaves,
    closed: AtomicBool,
}

/// Allowances apart from each other, so that nobody who refreshes tokens keeps others from logging in.
#[derive(Debug, Default)]
pub struct LoginRates {
    pub logins: super::rate::Buckets,
    pub tokens: super::rate::Buckets,
    pub registrations: super::rate::Buckets,
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
