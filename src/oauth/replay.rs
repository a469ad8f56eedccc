//! Used assertions (`jti`, RFC 7523 section 3): each is accepted once.
//!
//! They are remembered in memory until they expire, under a budget with shares: a client that uses
//! up its share must wait, and affects no other. Within ten minutes after a restart an assertion
//! could be replayed, by a party that can read a client's connections to us.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::base::budget::{Budget, Consumer, Exhausted, Reservation};
use crate::base::digest::Digest;
use crate::base::log_limiter::LogLimiter;
use crate::base::net::client_network;
use crate::base::sync::lock_unpoisoned;

/// Room for about a hundred thousand. Only assertions with a valid signature get here, so it is
/// ample.
const BUDGET_MIB: usize = 24;
/// The bytes of one assertion, spare capacity of the collections included.
const BYTES_PER_ASSERTION: u64 = 256;
/// The limit on expired assertions removed per new one. More than one, so that memory shrinks;
/// bounded, so that no request waits for a long sweep.
const EVICTIONS_PER_INSERT: usize = 4;

/// Used assertions, until they expire.
#[derive(Debug)]
pub(super) struct ReplayCache {
    used: Mutex<UsedAssertions>,
    budget: Arc<Budget>,
    /// Limits the log lines about missing room.
    full_log_limiter: LogLimiter,
}

#[derive(Debug, Default)]
struct UsedAssertions {
    digests: HashSet<Digest>,
    /// The first to expire is on top.
    by_expiry: BinaryHeap<Reverse<UsedAssertion>>,
}

#[derive(Debug)]
struct UsedAssertion {
    expires_at: Timestamp,
    digest: Digest,
    _reservation: Reservation,
}

/// The client of an assertion.
#[derive(Debug, Clone, Copy)]
pub(super) struct AssertionSource<'a> {
    pub(super) tenant: &'a Arc<str>,
    pub(super) client: &'a Arc<str>,
    pub(super) source: IpAddr,
    /// Whether the operator or this program vouches for the client; otherwise it introduced itself.
    pub(super) is_vouched_for: bool,
}

/// Why an assertion is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplayError {
    /// It was used before.
    AlreadyUsed,
    /// There is no room to remember it, so it is neither accepted nor used up: a later attempt can
    /// succeed.
    CacheFull(Exhausted),
}

impl Default for ReplayCache {
    fn default() -> Self {
        Self::with_budget(Budget::from_mib(BUDGET_MIB))
    }
}

impl ReplayCache {
    fn with_budget(budget: Arc<Budget>) -> Self {
        Self { used: Mutex::default(), budget, full_log_limiter: LogLimiter::new(Duration::from_secs(60)) }
    }

    /// Records the use of an assertion that is valid until `expires_at`.
    pub(super) fn consume(
        &self,
        assertion: Digest,
        expires_at: Timestamp,
        now: Timestamp,
        source: AssertionSource<'_>,
    ) -> Result<(), ReplayError> {
        let mut used = self.lock();
        used.evict_expired(now, EVICTIONS_PER_INSERT);
        if used.digests.contains(&assertion) {
            return Err(ReplayError::AlreadyUsed);
        }
        let mut reservation = self.new_reservation(source);
        if reservation.try_grow(BYTES_PER_ASSERTION).is_err() {
            // Each expired assertion is removed once, so a flood pays for its own sweep only.
            used.evict_expired(now, usize::MAX);
            reservation.try_grow(BYTES_PER_ASSERTION).map_err(ReplayError::CacheFull)?;
        }
        used.digests.insert(assertion);
        used.by_expiry.push(Reverse(UsedAssertion {
            expires_at,
            digest: assertion,
            _reservation: reservation,
        }));
        Ok(())
    }

    /// Forgets expired assertions.
    pub(super) fn remove_expired(&self, now: Timestamp) {
        self.lock().evict_expired(now, usize::MAX);
    }

    /// Whether to log that there is no room: see [`LogLimiter::check`].
    pub(super) fn check_full_log(&self, now: std::time::Instant) -> Option<u64> {
        self.full_log_limiter.check(now)
    }

    fn new_reservation(&self, source: AssertionSource<'_>) -> Reservation {
        let tenant = self.budget.share(Consumer::Tenant(Arc::clone(source.tenant)));
        let network = self.budget.share(Consumer::Network(client_network(source.source)));
        let client = Consumer::Client { tenant: Arc::clone(source.tenant), id: Arc::clone(source.client) };
        let client = self.budget.share(client);
        self.budget
            .new_reservation(Some(tenant), Some(network), source.is_vouched_for)
            .with_client_share(client)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, UsedAssertions> {
        lock_unpoisoned(&self.used)
    }
}

impl UsedAssertions {
    /// Forgets at most `max_count` expired assertions.
    fn evict_expired(&mut self, now: Timestamp, max_count: usize) {
        for _ in 0..max_count {
            match self.by_expiry.peek() {
                Some(Reverse(assertion)) if assertion.expires_at <= now => {}
                _ => return,
            }
            if let Some(Reverse(assertion)) = self.by_expiry.pop() {
                self.digests.remove(&assertion.digest);
            }
        }
    }
}

impl PartialEq for UsedAssertion {
    fn eq(&self, other: &Self) -> bool {
        self.expires_at == other.expires_at
    }
}

impl Eq for UsedAssertion {}

impl PartialOrd for UsedAssertion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UsedAssertion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.expires_at.cmp(&other.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    /// Takes assertions of given clients, tenants and addresses.
    struct Taker {
        replay: ReplayCache,
        now: Timestamp,
        number: u64,
    }

    impl Taker {
        fn with_room_for(assertions: u64) -> Self {
            let replay = ReplayCache::with_budget(Budget::new(assertions * BYTES_PER_ASSERTION));
            Self { replay, now: Timestamp::UNIX_EPOCH, number: 0 }
        }

        fn take(
            &mut self,
            tenant: &str,
            client: &str,
            source: &str,
            is_vouched_for: bool,
        ) -> Result<(), ReplayError> {
            self.number += 1;
            let (tenant, client) = (tenant.into(), client.into());
            let source = source.parse().expect("an address");
            let source = AssertionSource { tenant: &tenant, client: &client, source, is_vouched_for };
            let digest = Digest::of(&self.number.to_be_bytes());
            self.replay.consume(digest, self.now + 1.minute(), self.now, source)
        }

        /// Returns how many assertions of a client are accepted before one is refused.
        fn fill(&mut self, tenant: &str, client: &str, source: &str, is_vouched_for: bool) -> u64 {
            (0..10_000)
                .find(|_| self.take(tenant, client, source, is_vouched_for).is_err())
                .expect("it is full")
        }
    }

    #[test]
    fn an_assertion_is_accepted_once() {
        let (replay, now) = (ReplayCache::default(), Timestamp::UNIX_EPOCH);
        let (tenant, client) = ("a".into(), "program".into());
        let source = "192.0.2.1".parse().expect("an address");
        let source = AssertionSource { tenant: &tenant, client: &client, source, is_vouched_for: true };
        let take = |text: &[u8], expires_at, now| replay.consume(Digest::of(text), expires_at, now, source);
        assert_eq!(take(b"a", now + 1.minute(), now), Ok(()));
        assert_eq!(take(b"a", now + 1.minute(), now), Err(ReplayError::AlreadyUsed));
        assert_eq!(take(b"b", now + 2.minutes(), now), Ok(()));
        replay.remove_expired(now + 1.minute());
        assert_eq!((replay.lock().digests.len(), replay.budget.held()), (1, BYTES_PER_ASSERTION));
        assert_eq!(take(b"b", now + 2.minutes(), now + 1.minute()), Err(ReplayError::AlreadyUsed));
    }

    #[test]
    fn a_client_that_fills_its_share_harms_only_itself() {
        let mut taker = Taker::with_room_for(400);
        assert_eq!(taker.fill("a", "flood", "192.0.2.1", true), 100);
        assert_eq!(
            taker.take("a", "flood", "192.0.2.9", true),
            Err(ReplayError::CacheFull(Exhausted::Client))
        );
        assert_eq!(taker.take("a", "other", "192.0.2.2", true), Ok(()));
        assert_eq!(taker.take("b", "program", "192.0.2.3", true), Ok(()));
    }

    #[test]
    fn clients_that_made_themselves_known_shut_out_nobody_whom_the_operator_knows() {
        let mut taker = Taker::with_room_for(400);
        for number in 0..40 {
            let (tenant, source) = (["a", "b", "c"][number % 3], format!("192.0.2.{number}"));
            taker.fill(tenant, &format!("https://n{number}.example/x"), &source, false);
        }
        for tenant in ["a", "b", "c", "d"] {
            let stranger = taker.take(tenant, "https://new.example/x", "198.51.100.1", false);
            assert!(matches!(stranger, Err(ReplayError::CacheFull(_))), "{tenant}: {stranger:?}");
            assert_eq!(taker.take(tenant, "program", "198.51.100.2", true), Ok(()), "{tenant}");
        }
    }

    #[test]
    fn all_addresses_of_a_network_share_its_limit() {
        let mut taker = Taker::with_room_for(400);
        let mut taken = 0;
        for number in 0..8 {
            let source = format!("2001:db8:0:1::{number:x}");
            taken += taker.fill(["a", "b"][number % 2], &format!("c{number}"), &source, true);
        }
        assert_eq!(taken, 200, "half of the room");
        let other = taker.take("b", "other", "2001:db8:0:2::1", true);
        assert!(other.is_ok(), "another network has room: {other:?}");
    }

    #[test]
    fn expired_assertions_are_evicted_before_one_is_refused() {
        let mut taker = Taker::with_room_for(400);
        taker.fill("a", "flood", "192.0.2.1", true);
        assert!(taker.take("a", "flood", "192.0.2.1", true).is_err());
        taker.now += 1.minute();
        assert_eq!(taker.fill("a", "flood", "192.0.2.1", true), 100);
        assert_eq!(taker.replay.lock().by_expiry.len(), 100);
    }
}
