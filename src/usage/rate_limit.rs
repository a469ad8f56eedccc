//! Rate limits: a generic cell rate algorithm (GCRA) for each caller of a tenant.
//!
//! The buckets are in the tenant's slot, so that a reload does not reset them; the allowance is a
//! parameter of each request, so that a reload that changes it is effective at once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::caller::CallerKey;
use crate::base::live_nodes::LiveNodes;
use crate::base::sync::lock;

/// The period of an allowance, and the time in which an empty bucket refills.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// The number of callers per minute that have a bucket of their own.
const MAX_TRACKED_CALLERS: usize = 10_000;
/// The number of buckets for all further callers.
const SHARED_BUCKETS: usize = 4_096;

/// The part of an allowance of requests a minute that this gateway gives.
#[derive(Debug, Clone, Copy)]
pub struct RateShare {
    per_minute: u32,
    nodes: u32,
}

impl RateShare {
    /// Returns an even share among the gateways that live.
    pub fn among(nodes: &LiveNodes, per_minute: u32) -> Self {
        Self { per_minute, nodes: nodes.count() }
    }

    /// Returns an allowance that each gateway gives for itself.
    pub fn whole(per_minute: u32) -> Self {
        Self { per_minute, nodes: 1 }
    }

    /// Returns the time in which one request is allowed.
    fn interval(self) -> Duration {
        WINDOW * self.nodes / self.per_minute.max(1)
    }
}

/// The buckets of one tenant.
///
/// At most [`MAX_TRACKED_CALLERS`] callers of a minute, and as many of the minute before it, have a
/// bucket of their own. All others share [`SHARED_BUCKETS`] buckets by their hash: memory and the
/// cost of a request stay constant however many addresses a caller has, and callers with a bucket
/// keep it.
#[derive(Debug, Default)]
pub struct RateBuckets {
    /// Created on first use: most tenants have no limit.
    buckets: Mutex<Option<Box<BucketGenerations>>>,
}

/// When each caller's bucket is full again. A bucket refills within [`WINDOW`], so one that was not
/// used for so long carries no information and is dropped with its generation.
#[derive(Debug)]
struct BucketGenerations {
    started: Instant,
    current: HashMap<CallerKey, Instant>,
    previous: HashMap<CallerKey, Instant>,
    /// For callers beyond those kept; indexed by a keyed hash that callers cannot predict.
    shared_buckets: Box<[Instant]>,
    hasher: RandomState,
}

impl RateBuckets {
    /// Takes one request of `caller` at `now`.
    ///
    /// # Errors
    /// Returns the time to wait if the allowance is used up.
    pub fn acquire(&self, caller: CallerKey, rate: RateShare, now: Instant) -> Result<(), Duration> {
        let mut buckets = lock(&self.buckets);
        let generations = buckets.get_or_insert_with(|| Box::new(BucketGenerations::new(now)));
        acquire_one(generations.bucket_mut(caller, now), rate, now)
    }
}

/// Applies the GCRA: after a minute without requests, a bucket holds a full minute's allowance, and
/// one request at least.
pub(super) fn acquire_one(full_at: &mut Instant, rate: RateShare, now: Instant) -> Result<(), Duration> {
    let next = next_full(*full_at, rate, now);
    match (next - now).checked_sub(WINDOW.max(rate.interval())) {
        None | Some(Duration::ZERO) => {
            *full_at = next;
            Ok(())
        }
        Some(wait) => Err(wait),
    }
}

/// Returns when a bucket is full again after one more request.
pub(super) fn next_full(full_at: Instant, rate: RateShare, now: Instant) -> Instant {
    full_at.max(now) + rate.interval()
}

impl BucketGenerations {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            current: HashMap::new(),
            previous: HashMap::new(),
            shared_buckets: Box::default(),
            hasher: RandomState::new(),
        }
    }

    /// Returns the caller's own bucket, or the shared one.
    fn bucket_mut(&mut self, caller: CallerKey, now: Instant) -> &mut Instant {
        self.rotate(now);
        if self.current.len() >= MAX_TRACKED_CALLERS && !self.current.contains_key(&caller) {
            return self.shared_bucket_mut(&caller, now);
        }
        let before = match self.previous.is_empty() {
            true => None,
            false => self.previous.remove(&caller),
        };
        self.current.entry(caller).or_insert(before.unwrap_or(now))
    }

    /// Drops the buckets that are full again by now.
    fn rotate(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.started);
        if age < WINDOW {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if age >= 2 * WINDOW {
            self.previous = HashMap::new();
        }
        self.started = now;
    }

    fn shared_bucket_mut(&mut self, caller: &CallerKey, now: Instant) -> &mut Instant {
        if self.shared_buckets.is_empty() {
            self.shared_buckets = vec![now; SHARED_BUCKETS].into_boxed_slice();
        }
        // A caller's level of the minute before carries over to the shared bucket.
        let before = self.previous.remove(caller);
        let at = self.hasher.hash_one(caller) as usize % SHARED_BUCKETS;
        let bucket = &mut self.shared_buckets[at];
        *bucket = before.map_or(*bucket, |before| before.max(*bucket));
        bucket
    }

    #[cfg(test)]
    fn callers(&self) -> usize {
        self.current.len() + self.previous.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn label(text: &str) -> CallerKey {
        CallerKey::Label(text.into())
    }

    #[test]
    fn the_allowance_comes_back_with_time() {
        let (buckets, clock) = (RateBuckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for _ in 0..6 {
            assert_eq!(buckets.acquire(label("a"), RateShare::whole(6), clock.monotonic()), Ok(()));
        }
        assert_eq!(
            buckets.acquire(label("a"), RateShare::whole(6), clock.monotonic()),
            Err(Duration::from_secs(10))
        );
        clock.advance(Duration::from_secs(10));
        assert_eq!(buckets.acquire(label("a"), RateShare::whole(6), clock.monotonic()), Ok(()));
        assert!(buckets.acquire(label("a"), RateShare::whole(6), clock.monotonic()).is_err());
    }

    #[test]
    fn callers_do_not_share_an_allowance() {
        let (buckets, clock) = (RateBuckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        assert!(buckets.acquire(label("a"), RateShare::whole(1), clock.monotonic()).is_ok());
        assert!(buckets.acquire(label("a"), RateShare::whole(1), clock.monotonic()).is_err());
        assert!(buckets.acquire(label("b"), RateShare::whole(1), clock.monotonic()).is_ok());
    }

    #[test]
    fn one_ipv6_customer_is_one_caller() {
        let caller = |text: &str| CallerKey::from_address(text.parse().expect("an address"));
        assert_eq!(caller("2001:db8:1:2::1"), caller("2001:db8:1:2:ffff::9"));
        assert_ne!(caller("2001:db8:1:2::1"), caller("2001:db8:1:3::1"));
        assert_eq!(caller("::ffff:192.0.2.1"), caller("192.0.2.1"));
        assert_ne!(caller("192.0.2.1"), caller("192.0.2.2"));
    }

    #[test]
    fn callers_long_gone_are_forgotten() {
        let (buckets, clock) = (RateBuckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for n in 0..MAX_TRACKED_CALLERS {
            assert!(buckets.acquire(label(&n.to_string()), RateShare::whole(60), clock.monotonic()).is_ok());
        }
        assert_eq!(callers(&buckets), MAX_TRACKED_CALLERS);
        clock.advance(WINDOW);
        assert!(buckets.acquire(label("new"), RateShare::whole(60), clock.monotonic()).is_ok());
        clock.advance(WINDOW);
        assert!(buckets.acquire(label("new"), RateShare::whole(60), clock.monotonic()).is_ok());
        assert_eq!(callers(&buckets), 1);
    }

    #[test]
    fn a_spray_of_addresses_is_bounded_and_costs_callers_with_a_bucket_nothing() {
        let (buckets, clock) = (RateBuckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let now = clock.monotonic();
        assert_eq!(buckets.acquire(label("early"), RateShare::whole(2), now), Ok(()));
        let refused = (0..MAX_TRACKED_CALLERS * 3)
            .filter(|n| buckets.acquire(label(&n.to_string()), RateShare::whole(2), now).is_err())
            .count();
        assert!(refused > MAX_TRACKED_CALLERS, "those beyond the bound share few buckets: {refused} refused");
        assert_eq!(callers(&buckets), MAX_TRACKED_CALLERS);
        assert_eq!(
            buckets.acquire(label("early"), RateShare::whole(2), now),
            Ok(()),
            "it has a bucket of its own"
        );
        assert!(buckets.acquire(label("early"), RateShare::whole(2), now).is_err());
    }

    #[test]
    fn an_allowance_that_is_used_up_stays_so_over_the_turn_of_a_generation() {
        let (buckets, clock) = (RateBuckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        assert!(buckets.acquire(label("first"), RateShare::whole(1), clock.monotonic()).is_ok());
        clock.advance(WINDOW - Duration::from_secs(1));
        assert!(buckets.acquire(label("a"), RateShare::whole(1), clock.monotonic()).is_ok());
        clock.advance(Duration::from_secs(2));
        assert_eq!(
            buckets.acquire(label("a"), RateShare::whole(1), clock.monotonic()),
            Err(WINDOW - Duration::from_secs(2))
        );
    }

    fn callers(buckets: &RateBuckets) -> usize {
        buckets.buckets.lock().expect("no holder of this lock panics").as_ref().map_or(0, |all| all.callers())
    }
}
