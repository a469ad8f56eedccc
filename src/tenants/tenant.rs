//! A live tenant: immutable, with everything needed to answer one prefix.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;

use crate::backend;
use crate::base::digest::Digest;
use crate::base::sync::lock;
use crate::mcp::McpServer;
use crate::oauth::authorization_server::AuthServer;
use crate::oauth::bearer::{AccessRevocations, BearerCheck};
use crate::spec::{Degradation, TenantSpec};
use crate::usage::UsageMeter;

/// A live tenant.
pub struct Tenant {
    /// The specification that it was built from.
    pub spec: TenantSpec,
    /// The digest of everything that it was built from.
    pub revision: Digest,
    /// The state that outlives reloads.
    pub slot: Arc<TenantSlot>,
    /// Counts its calls.
    pub usage: UsageMeter,
    /// The MCP server.
    pub mcp: McpServer,
    /// The check of callers' credentials.
    pub bearer: BearerCheck,
    /// The tenant's authorization server, if it has a login and there is a store for grants that has
    /// been read.
    pub login: Option<AuthServer>,
    /// Why it has none although it requires one, and since when.
    pub login_absence: Option<Degradation>,
    /// The tenant's page for people, rendered on the first request.
    pub page: OnceLock<Bytes>,
}

impl Tenant {
    /// Returns why the tenant is degraded, if it is: because its login is not available or its listener
    /// not open, because of its backend, or else of its login at the provider.
    pub fn degradation(&self) -> Option<Degradation> {
        let of_login = || self.login.as_ref().and_then(AuthServer::degradation);
        let absent = self.login_absence.clone();
        absent.or_else(|| self.listener_degradation()).or_else(|| self.mcp.degradation()).or_else(of_login)
    }

    /// Returns why no person can log in, if that is because the provider refuses the tenant's app.
    pub fn login_refusal(&self) -> Option<Degradation> {
        self.login.as_ref().and_then(AuthServer::app_refusal)
    }

    /// Returns why its own listener is not open, if that is so.
    fn listener_degradation(&self) -> Option<Degradation> {
        let (address, degradation) = lock(&self.slot.closed_listener).clone()?;
        (self.spec.listener() == Some(address)).then_some(degradation)
    }

    /// Whether the tenant requires a login that is not available; then it answers no calls.
    pub fn is_login_unavailable(&self) -> bool {
        self.login_absence.is_some()
    }
}

/// The state of a tenant that outlives its reloads.
#[derive(Debug, Default)]
pub struct TenantSlot {
    /// The state of the backend client.
    pub backend: Arc<backend::BackendState>,
    /// The callers' rate limits.
    pub rate_limit: crate::usage::rate_limit::RateBuckets,
    /// The rate limits of logins, tokens and registrations, by address.
    pub login_rates: LoginRates,
    /// The permissions in use, which a later revision can revoke.
    pub access_revocations: AccessRevocations,
    /// The listener that cannot be opened, and why.
    closed_listener: Mutex<Option<(SocketAddr, Degradation)>>,
    closed: AtomicBool,
    has_told_of_strangers: AtomicBool,
}

/// Separate rate limits, so that refreshing tokens keeps no one from logging in.
#[derive(Debug, Default)]
pub struct LoginRates {
    /// Requests that begin a login.
    pub logins: crate::usage::rate_limit::RateBuckets,
    /// Token requests.
    pub tokens: crate::usage::rate_limit::RateBuckets,
    /// Client registrations.
    pub registrations: crate::usage::rate_limit::RateBuckets,
}

impl TenantSlot {
    /// Whether the tenant answers 503 until its operator repairs it: its last change was refused,
    /// and may concern who may call.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sets why this listener cannot be opened, or that it is open (`None`). Returns whether that
    /// is news; what goes on keeps the time when it began.
    pub fn set_listener_state(&self, address: SocketAddr, degradation: Option<Degradation>) -> bool {
        let mut closed = lock(&self.closed_listener);
        let reason = |it: &Degradation| it.reason.clone();
        let known = closed.as_ref().filter(|(known, _)| *known == address).map(|(_, it)| reason(it));
        let is_news = known != degradation.as_ref().map(reason);
        if is_news {
            *closed = degradation.map(|degradation| (address, degradation));
        }
        is_news
    }

    /// Whether this is the first caller from outside that the open tenant refuses: its operator is
    /// told once.
    pub fn tells_of_stranger(&self) -> bool {
        !self.has_told_of_strangers.swap(true, Ordering::Relaxed)
    }

    pub(super) fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }
}
