//! A bounded cache of fetched values, and of failures to fetch. Concurrent requests for an address
//! share one fetch.
//!
//! An entry counts against the tenant and the network of the requester that had it fetched. A
//! requester that has used up a share evicts an entry of its own for a new one, so that no one can
//! evict what others use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::base::budget::{Budget, Exhausted, Hold};

/// How long after its expiry a value stays usable while no fetch is permitted.
const STALE: Duration = Duration::from_secs(3600);

/// The value at an address, or that there is none now.
pub(super) type Known<T> = Option<Arc<T>>;

/// By address. Each entry has a lock of its own, held during its fetch.
pub(super) struct Cache<T> {
    slots: Mutex<HashMap<Arc<str>, Arc<Slot<T>>>>,
    room: Arc<Budget>,
    /// The weight of one entry.
    weight: u64,
}

/// The entry of one address.
pub(super) struct Slot<T> {
    known: tokio::sync::Mutex<Option<Entry<T>>>,
    party: Party,
    begun: Instant,
    _place: Option<Hold>,
}

/// The party that had the entry fetched first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) tenant: Arc<str>,
    pub(super) network: std::net::IpAddr,
    pub(super) is_known: bool,
}

struct Entry<T> {
    known: Known<T>,
    until: Instant,
}

impl<T> Cache<T> {
    /// Creates a cache of `places` entries, of `weight` bytes each.
    pub(super) fn of(places: u64, weight: u64) -> Self {
        Self { slots: Mutex::default(), room: Budget::new(places * weight), weight }
    }

    /// Returns the entry of an address.
    pub(super) fn find(&self, address: &str) -> Option<Arc<Slot<T>>> {
        self.lock().get(address).map(Arc::clone)
    }

    /// Adds the entry of an address, and evicts others of the same party if necessary. Returns
    /// `None` if the party has no room.
    pub(super) fn begin(&self, address: &str, party: Party, now: Instant) -> Option<Arc<Slot<T>>> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(address) {
            return Some(Arc::clone(slot));
        }
        let mut place = party.hold(&self.room);
        if place.grow(self.weight).is_err() {
            slots.retain(|_, slot| slot.is_of_use(now));
        }
        if place.weight() == 0
            && let Err(bound) = place.grow(self.weight)
        {
            drop_oldest(&mut slots, bound, &party);
            place.grow(self.weight).ok()?;
        }
        let slot = Slot { known: tokio::sync::Mutex::default(), party, begun: now, _place: Some(place) };
        Some(Arc::clone(slots.entry(address.into()).or_insert(Arc::new(slot))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Slot<T>>>> {
        self.slots.lock().expect("no holder of this lock panics")
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Evicts the oldest entry that counts against the same bound. The scan is acceptable because it
/// runs only before a fetch, and fetches are limited.
fn drop_oldest<T>(slots: &mut HashMap<Arc<str>, Arc<Slot<T>>>, bound: Exhausted, party: &Party) {
    let same = |slot: &Slot<T>| match bound {
        Exhausted::Tenant => slot.party.tenant == party.tenant,
        Exhausted::Network => slot.party.network == party.network,
        Exhausted::Client | Exhausted::Origin | Exhausted::Budget => !slot.party.is_known,
    };
    let counted = slots.iter().filter(|(_, slot)| same(slot) && (party.is_known || !slot.party.is_known));
    let oldest = counted.min_by_key(|(_, slot)| slot.begun).map(|(address, _)| Arc::clone(address));
    oldest.into_iter().for_each(|address| drop(slots.remove(&address)));
}

impl Party {
    /// Returns a reservation that counts against the shares of this party.
    pub(super) fn hold(&self, budget: &Arc<Budget>) -> Hold {
        use crate::base::budget::Party as Of;
        let tenant = budget.share(Of::Tenant(Arc::clone(&self.tenant)));
        let network = budget.share(Of::Network(self.network));
        budget.hold(Some(tenant), Some(network), self.is_known)
    }
}

impl<T> Slot<T> {
    /// Returns the fresh value, or the one that `fetch` returns with its lifetime. While no fetch
    /// is permitted, the previous value is used for a while.
    pub(super) async fn known<F, E>(&self, now: Instant, fetch: F) -> Result<Known<T>, E>
    where
        F: Future<Output = Result<(Known<T>, Duration), E>>,
    {
        let mut entry = self.known.lock().await;
        if let Some(entry) = entry.as_ref().filter(|entry| now < entry.until) {
            return Ok(entry.known.clone());
        }
        match fetch.await {
            Ok((known, keep)) => {
                *entry = Some(Entry { known: known.clone(), until: now + keep });
                Ok(known)
            }
            Err(refused) => {
                let stale = entry.as_ref().filter(|entry| now < entry.until + STALE);
                stale.and_then(|entry| entry.known.clone()).map(Some).ok_or(refused)
            }
        }
    }

    /// Returns the fresh value without waiting; `None` also during a fetch.
    pub(super) fn at_hand(&self, now: Instant) -> Option<Known<T>> {
        let entry = self.known.try_lock().ok()?;
        entry.as_ref().filter(|entry| now < entry.until).map(|entry| entry.known.clone())
    }

    /// Whether the entry is being fetched, has a usable value, or a recent failure.
    fn is_of_use(&self, now: Instant) -> bool {
        let is_of_use = |entry: &Entry<T>| match entry.known {
            Some(_) => now < entry.until + STALE,
            None => now < entry.until,
        };
        self.known.try_lock().map_or(true, |entry| entry.as_ref().is_some_and(is_of_use))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    const MINUTE: Duration = Duration::from_secs(60);

    fn party(tenant: &str, last: u8) -> Party {
        Party { tenant: tenant.into(), network: [192, 0, 2, last].into(), is_known: false }
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn what_is_known_is_asked_for_once_until_it_is_old() {
        let (cache, clock) = (Cache::of(100, 1), clock());
        let found = || async { Ok::<_, Infallible>((Some(Arc::new(1)), MINUTE)) };
        let never = || async { panic!("it is known") };
        assert!(cache.find("a").is_none());
        let slot = cache.begin("a", party("t", 1), clock.monotonic()).expect("room");
        assert!(slot.at_hand(clock.monotonic()).is_none());
        assert!(slot.known(clock.monotonic(), found()).await.expect("found").is_some());
        let same = cache.find("a").expect("a place");
        assert!(same.known::<_, Infallible>(clock.monotonic(), never()).await.expect("known").is_some());
        clock.advance(MINUTE);
        let gone = async { Ok::<_, Infallible>((None, MINUTE)) };
        assert!(slot.known(clock.monotonic(), gone).await.expect("asked").is_none());
        assert!(matches!(slot.at_hand(clock.monotonic()), Some(None)), "that there is none is known too");
    }

    #[tokio::test]
    async fn while_nothing_may_be_fetched_what_was_known_counts_for_an_hour() {
        let (cache, clock) = (Cache::of(100, 1), clock());
        let slot = cache.begin("a", party("t", 1), clock.monotonic()).expect("room");
        let refused = || async { Err::<(Known<u8>, _), _>("full") };
        assert_eq!(slot.known(clock.monotonic(), refused()).await, Err("full"));
        let found = async { Ok::<_, &str>((Some(Arc::new(7)), MINUTE)) };
        assert!(slot.known(clock.monotonic(), found).await.is_ok());
        clock.advance(MINUTE * 10);
        assert_eq!(
            slot.known(clock.monotonic(), refused()).await.map(|known| known.map(|it| *it)),
            Ok(Some(7))
        );
        clock.advance(STALE);
        assert_eq!(slot.known(clock.monotonic(), refused()).await, Err("full"));
    }

    #[tokio::test]
    async fn a_flood_of_addresses_pushes_out_nobody_elses() {
        let (cache, clock) = (Cache::of(100, 1), clock());
        let keep = async |address: &str, party| {
            let slot = cache.begin(address, party, clock.monotonic())?;
            let found = async { Ok::<_, Infallible>((Some(Arc::new(1)), MINUTE * 60)) };
            slot.known(clock.monotonic(), found).await.ok()
        };
        assert!(keep("https://good.example/c", party("b", 200)).await.is_some());
        for number in 0..1000 {
            keep(&format!("https://{number}.example/c"), party("a", (number % 50) as u8)).await;
            assert!(cache.len() <= 100);
        }
        assert!(cache.find("https://good.example/c").is_some());
        assert!(keep("https://other.example/c", party("b", 201)).await.is_some());
        assert!(cache.find("https://999.example/c").is_some(), "the flood's own make room for each other");
    }
}
