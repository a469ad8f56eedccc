//! The only source of time in this crate, so that tests can control it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::sync::lock_unpoisoned;

/// How many seconds an hour has.
pub const SECONDS_PER_HOUR: i64 = 3_600;

/// A source of wall-clock and monotonic time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns the wall-clock time, for expiry dates, status files and logs. It may jump.
    fn now(&self) -> Timestamp;
    /// Returns the monotonic time, for deadlines and ages. It never jumps.
    fn monotonic(&self) -> Instant;
}

/// Returns the hour of a time, counted from 1970.
pub fn hour_number(time: Timestamp) -> i64 {
    time.as_second().div_euclid(SECONDS_PER_HOUR)
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the system clock behind the shared handle that other modules take.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one source of monotonic time")]
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock for tests that only moves when [`ManualClock::advance`] is called.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    epoch: Timestamp,
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// Creates a clock that stands at `epoch`.
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin to count from")]
    pub fn at(epoch: Timestamp) -> Self {
        Self { start: Instant::now(), epoch, elapsed: Mutex::new(Duration::ZERO) }
    }

    /// Moves wall-clock and monotonic time forward.
    pub fn advance(&self, by: Duration) {
        *lock_unpoisoned(&self.elapsed) += by;
    }

    fn elapsed(&self) -> Duration {
        *lock_unpoisoned(&self.elapsed)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.elapsed()
    }

    fn monotonic(&self) -> Instant {
        self.start + self.elapsed()
    }
}
