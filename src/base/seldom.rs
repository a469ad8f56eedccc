//! Lines that could be many: one in a while is said, and how often it was not since. Numbers stay exact in metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The occasions to say one thing.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// Occasions that were passed over since.
    unsaid: u64,
}

impl Seldom {
    /// At most once in `every`.
    pub fn once_in(every: Duration) -> Self {
        Self { every, told: Mutex::default() }
    }

    /// Whether to say it at `now`: how many occasions were passed over since it was last said. `None` passes one over.
    pub fn occasion(&self, now: Instant) -> Option<u64> {
        // Nobody panics while holding it.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            told.unsaid += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[test]
    fn one_line_stands_for_many() {
        let (seldom, clock) =
            (Seldom::once_in(Duration::from_secs(60)), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(seldom.occasion(clock.monotonic()), Some(0));
        for _ in 0..3 {
            clock.advance(Duration::from_secs(15));
            assert_eq!(seldom.occasion(clock.monotonic()), None);
        }
        clock.advance(Duration::from_secs(15));
        assert_eq!(seldom.occasion(clock.monotonic()), Some(3));
        clock.advance(Duration::from_secs(60));
        assert_eq!(seldom.occasion(clock.monotonic()), Some(0));
    }
}
