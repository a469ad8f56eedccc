//! What of a tenant's backend outlives a reload: bulkhead, breaker, last trouble, last good context.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::Error;
use super::breaker::Breaker;
use super::context::ContextCache;

/// The lasting part of one tenant's backend.
#[derive(Debug, Default)]
pub struct Lasting {
    bulkhead: Mutex<Option<(usize, Arc<Semaphore>)>>,
    pub(super) breaker: Breaker,
    trouble: Mutex<Option<Error>>,
    pub(super) context: ContextCache,
}

impl Lasting {
    /// A backend nobody has called yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The places for calls under way: the same as before while the limit is the same, else new ones.
    pub(super) fn bulkhead(&self, limit: usize) -> Arc<Semaphore> {
        let mut held = self.bulkhead.lock().expect("no holder of this lock panics");
        match held.as_ref() {
            Some((known, places)) if *known == limit => Arc::clone(places),
            _ => {
                let places = Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)));
                *held = Some((limit, Arc::clone(&places)));
                places
            }
        }
    }

    /// Takes note of how a call ended.
    pub(super) fn record(&self, error: Option<&Error>, now: Instant) {
        self.breaker.record(error, now);
        match error {
            None => *self.trouble() = None,
            Some(error) if error.is_backends_fault() => *self.trouble() = Some(error.clone()),
            Some(_) => {}
        }
    }

    /// The backend's last fault, until a call succeeds.
    pub(super) fn last_trouble(&self) -> Option<Error> {
        self.trouble().clone()
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.trouble.lock().expect("no holder of this lock panics")
    }
}
