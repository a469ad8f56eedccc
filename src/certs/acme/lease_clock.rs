//! Whether a lease is held, by the clock of this gateway.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::base::clock::Clock;
use crate::base::sync::lock_unpoisoned;

/// Runs until the end of a lease, which its holder moves.
#[derive(Clone)]
pub(super) struct LeaseClock {
    clock: Arc<dyn Clock>,
    end: Arc<Mutex<Instant>>,
}

impl LeaseClock {
    pub(super) fn new(clock: Arc<dyn Clock>, end: Arc<Mutex<Instant>>) -> Self {
        Self { clock, end }
    }

    pub(super) fn is_running(&self) -> bool {
        self.clock.monotonic() < *lock_unpoisoned(&self.end)
    }
}
