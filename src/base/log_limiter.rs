//! Rate limiting of repetitive log lines. Each logged line can state how many were suppressed;
//! metrics stay exact.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::sync::lock;

/// The rate limit of one log line.
#[derive(Debug)]
pub struct LogLimiter {
    interval: Duration,
    state: Mutex<LimiterState>,
}

#[derive(Debug, Default)]
struct LimiterState {
    last: Option<Instant>,
    /// Lines suppressed since then.
    suppressed: u64,
}

impl LogLimiter {
    /// Allows one line per `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Returns the number of lines suppressed since the last one if a line may be logged at `now`,
    /// else counts one more as suppressed and returns `None`.
    pub fn check(&self, now: Instant) -> Option<u64> {
        // No code panics while holding this lock.
        let mut state = lock(&self.state);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[test]
    fn suppressed_lines_are_counted() {
        let (seldom, clock) =
            (LogLimiter::new(Duration::from_secs(60)), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(seldom.check(clock.monotonic()), Some(0));
        for _ in 0..3 {
            clock.advance(Duration::from_secs(15));
            assert_eq!(seldom.check(clock.monotonic()), None);
        }
        clock.advance(Duration::from_secs(15));
        assert_eq!(seldom.check(clock.monotonic()), Some(3));
        clock.advance(Duration::from_secs(60));
        assert_eq!(seldom.check(clock.monotonic()), Some(0));
    }
}
