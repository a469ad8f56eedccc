//! A bounded cache of fetched values, and of failures to fetch. Concurrent requests for an address
//! share one fetch.
//!
//! An entry counts against the tenant and the network of the requester that had it fetched. A
//! requester that has used up a share evicts an entry of its own for a new one, so that no one can
//! evict what others use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::base::budget::{Budget, Consumer, Exhausted, Reservation};
use crate::base::sync::lock_unpoisoned;

/// How long after its expiry a value stays usable while no fetch is permitted.
const STALE_IF_ERROR: Duration = Duration::from_secs(3600);

/// The value at an address, or that there is none now.
pub(super) type LookupResult<T> = Option<Arc<T>>;

/// By address. Each entry has a lock of its own, held during its fetch.
pub(super) struct DocumentCache<T> {
    slots: Mutex<HashMap<Arc<str>, Arc<CacheSlot<T>>>>,
    budget: Arc<Budget>,
    /// The weight of one entry.
    bytes_per_slot: u64,
}

/// The entry of one address.
pub(super) struct CacheSlot<T> {
    lookup: tokio::sync::Mutex<Option<CachedLookup<T>>>,
    requester: Requester,
    created_at: Instant,
    _reservation: Option<Reservation>,
}

/// The tenant and network on whose account an entry was fetched first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requester {
    pub(super) tenant: Arc<str>,
    pub(super) network: std::net::IpAddr,
    pub(super) is_vouched_for: bool,
}

struct CachedLookup<T> {
    result: LookupResult<T>,
    expires_at: Instant,
}

impl<T> DocumentCache<T> {
    /// Creates a cache of `max_slots` entries, of `bytes_per_slot` bytes each.
    pub(super) fn new(max_slots: u64, weight: u64) -> Self {
        Self { slots: Mutex::default(), budget: Budget::new(max_slots * weight), bytes_per_slot: weight }
    }

    /// Returns the entry of an address.
    pub(super) fn find(&self, address: &str) -> Option<Arc<CacheSlot<T>>> {
        self.lock().get(address).map(Arc::clone)
    }

    /// Adds the entry of an address, and evicts others of the same requester if necessary. Returns
    /// `None` if the requester has no room.
    pub(super) fn get_or_insert(
        &self,
        address: &str,
        requester: Requester,
        now: Instant,
    ) -> Option<Arc<CacheSlot<T>>> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(address) {
            return Some(Arc::clone(slot));
        }
        let mut reservation = requester.new_reservation(&self.budget);
        if reservation.try_grow(self.bytes_per_slot).is_err() {
            slots.retain(|_, slot| slot.is_in_use(now));
        }
        if reservation.weight() == 0
            && let Err(bound) = reservation.try_grow(self.bytes_per_slot)
        {
            evict_oldest(&mut slots, bound, &requester);
            reservation.try_grow(self.bytes_per_slot).ok()?;
        }
        let slot = CacheSlot {
            lookup: tokio::sync::Mutex::default(),
            requester,
            created_at: now,
            _reservation: Some(reservation),
        };
        Some(Arc::clone(slots.entry(address.into()).or_insert(Arc::new(slot))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<CacheSlot<T>>>> {
        lock_unpoisoned(&self.slots)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Evicts the oldest entry that counts against the same bound. The scan is acceptable because it
/// runs only before a fetch, and fetches are limited.
fn evict_oldest<T>(
    slots: &mut HashMap<Arc<str>, Arc<CacheSlot<T>>>,
    bound: Exhausted,
    requester: &Requester,
) {
    let is_counted_alike = |slot: &CacheSlot<T>| match bound {
        Exhausted::Tenant => slot.requester.tenant == requester.tenant,
        Exhausted::Network => slot.requester.network == requester.network,
        Exhausted::Client | Exhausted::Origin | Exhausted::Budget => !slot.requester.is_vouched_for,
    };
    let counted = slots.iter().filter(|(_, slot)| {
        is_counted_alike(slot) && (requester.is_vouched_for || !slot.requester.is_vouched_for)
    });
    let oldest = counted.min_by_key(|(_, slot)| slot.created_at).map(|(address, _)| Arc::clone(address));
    oldest.into_iter().for_each(|address| drop(slots.remove(&address)));
}

impl Requester {
    /// Returns a reservation that counts against the shares of this requester.
    pub(super) fn new_reservation(&self, budget: &Arc<Budget>) -> Reservation {
        let tenant = budget.share(Consumer::Tenant(Arc::clone(&self.tenant)));
        let network = budget.share(Consumer::Network(self.network));
        budget.new_reservation(Some(tenant), Some(network), self.is_vouched_for)
    }
}

impl<T> CacheSlot<T> {
    /// Returns the fresh value, or the one that `fetch` returns with its lifetime. While no fetch
    /// is permitted, the previous value is used for a while.
    pub(super) async fn get_or_fetch<F, E>(&self, now: Instant, fetch: F) -> Result<LookupResult<T>, E>
    where
        F: Future<Output = Result<(LookupResult<T>, Duration), E>>,
    {
        let mut entry = self.lookup.lock().await;
        if let Some(entry) = entry.as_ref().filter(|entry| now < entry.expires_at) {
            return Ok(entry.result.clone());
        }
        match fetch.await {
            Ok((known, keep)) => {
                *entry = Some(CachedLookup { result: known.clone(), expires_at: now + keep });
                Ok(known)
            }
            Err(refused) => {
                let stale = entry.as_ref().filter(|entry| now < entry.expires_at + STALE_IF_ERROR);
                stale.and_then(|entry| entry.result.clone()).map(Some).ok_or(refused)
            }
        }
    }

    /// Returns the fresh value without waiting; `None` also during a fetch.
    pub(super) fn get_fresh(&self, now: Instant) -> Option<LookupResult<T>> {
        let entry = self.lookup.try_lock().ok()?;
        entry.as_ref().filter(|entry| now < entry.expires_at).map(|entry| entry.result.clone())
    }

    /// Whether the entry is being fetched, has a usable value, or a recent failure.
    fn is_in_use(&self, now: Instant) -> bool {
        let is_of_use = |entry: &CachedLookup<T>| match entry.result {
            Some(_) => now < entry.expires_at + STALE_IF_ERROR,
            None => now < entry.expires_at,
        };
        self.lookup.try_lock().map_or(true, |entry| entry.as_ref().is_some_and(is_of_use))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    const MINUTE: Duration = Duration::from_secs(60);

    fn requester(tenant: &str, last: u8) -> Requester {
        Requester { tenant: tenant.into(), network: [192, 0, 2, last].into(), is_vouched_for: false }
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_value_is_fetched_once_until_it_expires() {
        let (cache, clock) = (DocumentCache::new(100, 1), clock());
        let found = || async { Ok::<_, Infallible>((Some(Arc::new(1)), MINUTE)) };
        let never = || async { panic!("it is known") };
        assert!(cache.find("a").is_none());
        let slot = cache.get_or_insert("a", requester("t", 1), clock.monotonic()).expect("room");
        assert!(slot.get_fresh(clock.monotonic()).is_none());
        assert!(slot.get_or_fetch(clock.monotonic(), found()).await.expect("found").is_some());
        let found = cache.find("a").expect("an entry");
        assert!(
            found.get_or_fetch::<_, Infallible>(clock.monotonic(), never()).await.expect("known").is_some()
        );
        clock.advance(MINUTE);
        let gone = async { Ok::<_, Infallible>((None, MINUTE)) };
        assert!(slot.get_or_fetch(clock.monotonic(), gone).await.expect("asked").is_none());
        assert!(matches!(slot.get_fresh(clock.monotonic()), Some(None)), "that there is none is known too");
    }

    #[tokio::test]
    async fn a_stale_value_is_used_for_an_hour_while_fetches_are_refused() {
        let (cache, clock) = (DocumentCache::new(100, 1), clock());
        let slot = cache.get_or_insert("a", requester("t", 1), clock.monotonic()).expect("room");
        let refused = || async { Err::<(LookupResult<u8>, _), _>("full") };
        assert_eq!(slot.get_or_fetch(clock.monotonic(), refused()).await, Err("full"));
        let found = async { Ok::<_, &str>((Some(Arc::new(7)), MINUTE)) };
        assert!(slot.get_or_fetch(clock.monotonic(), found).await.is_ok());
        clock.advance(MINUTE * 10);
        assert_eq!(
            slot.get_or_fetch(clock.monotonic(), refused()).await.map(|known| known.map(|it| *it)),
            Ok(Some(7))
        );
        clock.advance(STALE_IF_ERROR);
        assert_eq!(slot.get_or_fetch(clock.monotonic(), refused()).await, Err("full"));
    }

    #[tokio::test]
    async fn a_flood_of_addresses_evicts_no_entries_of_others() {
        let (cache, clock) = (DocumentCache::new(100, 1), clock());
        let keep = async |address: &str, requester| {
            let slot = cache.get_or_insert(address, requester, clock.monotonic())?;
            let found = async { Ok::<_, Infallible>((Some(Arc::new(1)), MINUTE * 60)) };
            slot.get_or_fetch(clock.monotonic(), found).await.ok()
        };
        assert!(keep("https://good.example/c", requester("b", 200)).await.is_some());
        for number in 0..1000 {
            keep(&format!("https://{number}.example/c"), requester("a", (number % 50) as u8)).await;
            assert!(cache.len() <= 100);
        }
        assert!(cache.find("https://good.example/c").is_some());
        assert!(keep("https://other.example/c", requester("b", 201)).await.is_some());
        assert!(cache.find("https://999.example/c").is_some(), "the flood's own make room for each other");
    }
}
