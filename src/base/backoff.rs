//! Pauses between attempts that keep failing.

use std::time::Duration;

/// A pause that doubles with each failure in a row, up to a longest one.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Creates a backoff from its first and its longest pause.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// Returns the pause before the next attempt, after a failure that `previous_failures`
    /// others preceded.
    pub fn pause_after(&self, previous_failures: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(previous_failures)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_until_it_is_the_longest() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses = [0, 1, 2, 3, 4, 31, 32, u32::MAX]
            .map(|previous_failures| backoff.pause_after(previous_failures).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
    }
}
