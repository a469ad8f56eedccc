//! Since when this node may not know what others changed. Calls read it, so it is a few atomics.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a node can vouch for what it last heard.
pub const MAX_SILENCE: Duration = Duration::from_secs(10);
/// How long a node listens before it takes those for gone that say nothing: as long as a node counts
/// as live. While the database was away, nobody could say anything.
const SETTLING: Duration = Duration::from_secs(15);
/// After a silence of this length the node begins to listen anew. Those that are there say so every
/// three seconds, so a shorter one hides nobody for fifteen.
const BREAK: Duration = Duration::from_secs(5);

/// When a node last had everything that the database has.
#[derive(Debug)]
pub struct Freshness {
    /// What times are counted from.
    start: Instant,
    /// In milliseconds.
    heard_at: AtomicU64,
    /// In milliseconds: from then on there was no break until `heard_at`.
    listening_since: AtomicU64,
    /// How many other nodes could have changed something since. A node that is alone vouches for
    /// itself, since all changes are its own.
    other_nodes: AtomicU32,
    /// Whether all nodes that said nothing had the time to say something.
    is_settled: AtomicBool,
}

/// The other nodes that a database knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OtherNodes {
    /// Those that were heard of within 15 seconds.
    pub live: u32,
    /// Those that fell silent, and have not said that they leave.
    pub silent: u32,
}

impl Freshness {
    /// Creates it for a node that has not joined the others.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            heard_at: AtomicU64::new(0),
            listening_since: AtomicU64::new(0),
            other_nodes: AtomicU32::new(0),
            is_settled: AtomicBool::new(true),
        }
    }

    /// Records that the node has joined the others; how many they are will be heard.
    pub(super) fn join(&self, now: Instant) {
        let elapsed = self.millis(now);
        self.listening_since.store(elapsed, Ordering::Relaxed);
        self.other_nodes.store(1, Ordering::Relaxed);
        self.is_settled.store(false, Ordering::Relaxed);
        self.heard_at.store(elapsed, Ordering::Release);
    }

    /// Records that everything until `asked_at` is known, and which other nodes there were.
    pub fn record(&self, asked_at: Instant, others: OtherNodes) {
        if self.silence(asked_at) > BREAK {
            self.listening_since.store(self.millis(asked_at), Ordering::Relaxed);
        }
        let since = self.start + Duration::from_millis(self.listening_since.load(Ordering::Relaxed));
        let is_settled = others.silent == 0 || asked_at.saturating_duration_since(since) >= SETTLING;
        let silent = if is_settled { 0 } else { others.silent };
        self.other_nodes.store(others.live.saturating_add(silent), Ordering::Relaxed);
        self.is_settled.store(is_settled, Ordering::Relaxed);
        self.heard_at.store(self.millis(asked_at), Ordering::Release);
    }

    /// Returns for how long nothing was heard.
    pub fn silence(&self, now: Instant) -> Duration {
        let heard_at = self.start + Duration::from_millis(self.heard_at.load(Ordering::Acquire));
        now.saturating_duration_since(heard_at)
    }

    /// Returns how many other nodes were live when the database was last heard of, or may have been.
    pub fn other_nodes(&self) -> u32 {
        self.other_nodes.load(Ordering::Relaxed)
    }

    /// Whether another node may have changed what is not known here.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.silence(now) > MAX_SILENCE && self.other_nodes() > 0
    }

    /// Whether all nodes that are there had the time to say so.
    pub fn is_settled(&self, now: Instant) -> bool {
        self.silence(now) <= BREAK && self.is_settled.load(Ordering::Relaxed)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, SystemClock};

    const ALONE: OtherNodes = OtherNodes { live: 0, silent: 0 };

    #[test]
    fn a_node_among_others_is_stale_after_ten_silent_seconds() {
        let start = SystemClock.monotonic();
        let freshness = Freshness::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!freshness.is_stale(after(60)), "it has not joined");
        freshness.record(after(1), OtherNodes { live: 1, silent: 0 });
        assert_eq!(freshness.silence(after(4)), Duration::from_secs(3));
        assert!(!freshness.is_stale(after(11)));
        assert!(freshness.is_stale(after(12)));
        freshness.record(after(12), OtherNodes { live: 2, silent: 0 });
        assert!(!freshness.is_stale(after(12)));
        freshness.record(after(13), ALONE);
        assert!(!freshness.is_stale(after(60)), "the others left");
    }

    #[test]
    fn a_node_that_has_joined_is_not_alone_before_it_has_heard_so() {
        let start = SystemClock.monotonic();
        let freshness = Freshness::new(start);
        freshness.join(start);
        assert!(freshness.is_stale(start + Duration::from_secs(11)));
        freshness.record(start + Duration::from_secs(1), ALONE);
        assert!(!freshness.is_stale(start + Duration::from_secs(60)));
    }

    #[test]
    fn nodes_that_could_say_nothing_while_the_database_was_away_are_not_gone() {
        let start = SystemClock.monotonic();
        let freshness = Freshness::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        freshness.join(start);
        freshness.record(after(1), OtherNodes { live: 2, silent: 0 });
        assert!(freshness.is_settled(after(2)) && !freshness.is_settled(after(7)), "away");
        // The database is back after twenty seconds, and this node is the first to ask.
        let silent = OtherNodes { live: 0, silent: 2 };
        freshness.record(after(21), silent);
        assert!(!freshness.is_settled(after(21)) && freshness.other_nodes() == 2);
        assert!(freshness.is_stale(after(32)), "if it were cut off now, it would refuse");
        // Nobody says anything: after fifteen seconds without a break they are gone.
        for second in 22..36 {
            freshness.record(after(second), silent);
            assert!(!freshness.is_settled(after(second)), "{second}");
        }
        freshness.record(after(36), silent);
        assert!(freshness.is_settled(after(36)) && !freshness.is_stale(after(60)));
    }
}
