//! Counts the requests in flight at a server, streams included.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of requests in flight.
#[derive(Debug, Default)]
pub(in crate::mcp) struct InFlightCounter(Arc<AtomicUsize>);

/// One request in flight, until dropped.
#[derive(Debug)]
pub(in crate::mcp) struct InFlightGuard(Arc<AtomicUsize>);

impl InFlightCounter {
    pub(in crate::mcp) fn enter(&self) -> InFlightGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(Arc::clone(&self.0))
    }

    pub(in crate::mcp) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
