//! Since when this node may not know what others changed. Calls read it, so it is a few atomics.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a node can vouch for what it last heard.
pub const MAX_SILENCE: Duration = Duration::from_secs(10);

/// When a node last had everything that the database has.
#[derive(Debug)]
pub struct Freshness {
    /// What times are counted from.
    start: Instant,
    /// In milliseconds.
    heard_at: AtomicU64,
    /// How many other nodes were live then, which could have changed something since. A node that is
    /// alone vouches for itself, since all changes are its own.
    other_nodes: AtomicU32,
}

impl Freshness {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, heard_at: AtomicU64::new(0), other_nodes: AtomicU32::new(0) }
    }

    /// Records that everything until `asked_at` is known, and how many other nodes were live.
    pub fn record(&self, asked_at: Instant, other_nodes: u32) {
        let elapsed = asked_at.saturating_duration_since(self.start).as_millis();
        self.other_nodes.store(other_nodes, Ordering::Relaxed);
        self.heard_at.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Returns for how long nothing was heard.
    pub fn silence(&self, now: Instant) -> Duration {
        let heard_at = self.start + Duration::from_millis(self.heard_at.load(Ordering::Acquire));
        now.saturating_duration_since(heard_at)
    }

    /// Returns how many other nodes were live when the database was last heard of.
    pub fn other_nodes(&self) -> u32 {
        self.other_nodes.load(Ordering::Relaxed)
    }

    /// Whether another node may have changed what is not known here.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.silence(now) > MAX_SILENCE && self.other_nodes() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, SystemClock};

    #[test]
    fn a_node_among_others_is_stale_after_ten_silent_seconds() {
        let start = SystemClock.monotonic();
        let freshness = Freshness::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!freshness.is_stale(after(60)), "it is alone");
        freshness.record(after(1), 1);
        assert_eq!(freshness.silence(after(4)), Duration::from_secs(3));
        assert!(!freshness.is_stale(after(11)));
        assert!(freshness.is_stale(after(12)));
        freshness.record(after(12), 2);
        assert!(!freshness.is_stale(after(12)));
        freshness.record(after(13), 0);
        assert!(!freshness.is_stale(after(60)), "the others left");
    }
}
