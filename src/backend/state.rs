//! The state of a tenant's backend that outlives reloads.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use jiff::Timestamp;

use super::Error;
use super::breaker::{Breaker, CircuitState};
use super::bulkhead::Bulkhead;
use super::context_cache::{CachedContext, ContextCache, ContextSlot, FetchedContext, SemanticContext};
use super::offload::Offloader;
use crate::base::digest::Digest;

/// The state of a tenant that outlives reloads: its bulkhead, circuit breaker, health and last good
/// context. All but the bulkhead belong to one backend and start afresh when a reload changes it.
#[derive(Debug)]
pub struct BackendState {
    pub(super) bulkhead: Bulkhead,
    pub(super) breaker: Breaker,
    /// Serializes work on large responses.
    pub(super) offloader: Offloader,
    pub(super) context: ContextSlot,
    per_backend: Mutex<PerBackendState>,
}

#[derive(Debug, Default)]
struct PerBackendState {
    /// The backend that the rest is about.
    backend: Option<Digest>,
    /// The current fault, and since when there has been one.
    failure: Option<(Error, Timestamp)>,
}

impl BackendState {
    /// Creates the state of a new tenant, with a closed bulkhead.
    pub fn new() -> Self {
        Self {
            bulkhead: Bulkhead::with_no_permits(),
            breaker: Breaker::default(),
            offloader: Offloader::default(),
            context: ContextSlot::default(),
            per_backend: Mutex::default(),
        }
    }

    /// Returns the state of the circuit breaker.
    pub fn circuit_state(&self, now: Instant) -> CircuitState {
        self.breaker.circuit_state(now)
    }

    /// Changes how many calls may be in flight at once.
    pub fn set_places(&self, places: usize) {
        self.bulkhead.resize(places.max(1));
    }

    /// Declares the backend in use; a different one resets the state that belongs to it.
    pub(super) fn switch_backend(&self, backend: Digest) {
        let mut per_backend = self.per_backend();
        if per_backend.backend != Some(backend) {
            *per_backend = PerBackendState { backend: Some(backend), ..PerBackendState::default() };
            self.context.clear();
            self.breaker.reset();
        }
    }

    pub(super) fn cached_context(&self, backend: Digest) -> Option<CachedContext> {
        self.context.cached_context(backend)
    }

    /// Keeps a context if it has room in the cache and its backend is still the one in use. Returns
    /// it in any case.
    pub(super) fn keep_context(
        &self,
        cache: &ContextCache,
        fetched: FetchedContext,
        tenant: Option<Arc<str>>,
    ) -> Arc<SemanticContext> {
        let per_backend = self.per_backend();
        if per_backend.backend != Some(fetched.backend) {
            return Arc::new(SemanticContext::unkept(fetched));
        }
        cache.keep(&self.context, fetched, tenant)
    }

    pub(super) fn failure(&self) -> Option<(Error, Timestamp)> {
        self.per_backend().failure.clone()
    }

    /// Records the health of the backend; returns whether it became unhealthy or recovered.
    pub(super) fn record_health(&self, backend: Digest, failure: Option<Error>, now: Timestamp) -> bool {
        let mut per_backend = self.per_backend();
        if per_backend.backend != Some(backend) {
            return false;
        }
        let failing_since = per_backend.failure.as_ref().map(|(_, since)| *since);
        let has_changed = failing_since.is_some() != failure.is_some();
        per_backend.failure = failure.map(|failure| (failure, failing_since.unwrap_or(now)));
        has_changed
    }

    fn per_backend(&self) -> MutexGuard<'_, PerBackendState> {
        self.per_backend.lock().expect("no holder of this lock panics")
    }
}

impl Default for BackendState {
    fn default() -> Self {
        Self::new()
    }
}
