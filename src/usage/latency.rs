//! A small histogram of how long calls took, from which percentiles are estimated.

use std::time::Duration;

/// The upper ends of the buckets in milliseconds, six to a decade; a last bucket has the rest.
const ENDS_MS: [u64; 33] = [
    1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 400, 500, 700, 1_000, 1_500, 2_000,
    3_000, 5_000, 7_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 3_600_000,
];

/// How many calls took how long.
#[derive(Debug, Clone)]
pub(super) struct Latencies([u32; ENDS_MS.len() + 1]);

impl Default for Latencies {
    fn default() -> Self {
        Self([0; ENDS_MS.len() + 1])
    }
}

impl Latencies {
    pub(super) fn record(&mut self, elapsed: Duration) {
        let elapsed_ms = elapsed.as_micros().div_ceil(1_000);
        let bucket = ENDS_MS.partition_point(|&end| u128::from(end) < elapsed_ms);
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    /// Returns the end of the bucket in which this percentage of the calls is reached: as many took
    /// at most so long. `None` without calls.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.0.iter().map(|&count| u64::from(count)).sum();
        let wanted = (total * percent).div_ceil(100);
        let mut reached = 0;
        let found = self.0.iter().position(|&count| {
            reached += u64::from(count);
            reached >= wanted && total > 0
        });
        found.map(|bucket| ENDS_MS[bucket.min(ENDS_MS.len() - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_at_most_a_bucket_too_high() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50), None);
        for milliseconds in 1..=100 {
            latencies.record(Duration::from_millis(milliseconds));
        }
        assert_eq!((latencies.percentile(50), latencies.percentile(95)), (Some(50), Some(100)));
        latencies.record(Duration::from_secs(7_200));
        assert_eq!(latencies.percentile(100), Some(3_600_000));
    }

    #[test]
    fn a_call_of_less_than_a_millisecond_counts() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_micros(30));
        assert_eq!(latencies.percentile(95), Some(1));
    }
}
