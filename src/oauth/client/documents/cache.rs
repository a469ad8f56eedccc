//! What was fetched lately, and what could not be: bounded, and asked for once however many want it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

const LARGEST: usize = 1000;

/// What is known of an address: its document, or that there is none now.
pub(super) type Known = Option<Arc<Value>>;

/// By address. Each has a lock of its own, held while it is fetched.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<Arc<str>, Arc<Slot>>>);

/// The place of one address.
#[derive(Default)]
pub(super) struct Slot {
    known: tokio::sync::Mutex<Option<Entry>>,
}

struct Entry {
    known: Known,
    until: Instant,
}

impl Cache {
    /// The place of an address; others make room for it.
    pub(super) fn slot(&self, address: &str, now: Instant) -> Arc<Slot> {
        let mut slots = self.0.lock().expect("no holder of this lock panics");
        if let Some(slot) = slots.get(address) {
            return Arc::clone(slot);
        }
        if slots.len() >= LARGEST {
            slots.retain(|_, slot| slot.is_of_use(now));
        }
        // Nobody may be able to fill it with what stays for a day, so somebody goes: whoever it is comes again.
        let surplus: Vec<_> = slots.keys().take((slots.len() + 1).saturating_sub(LARGEST)).cloned().collect();
        surplus.iter().for_each(|address| drop(slots.remove(address)));
        Arc::clone(slots.entry(address.into()).or_default())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().expect("no holder of this lock panics").len()
    }
}

impl Slot {
    /// What is known and fresh, or what `fetch` finds out, which says how long that holds.
    pub(super) async fn known<F>(&self, now: Instant, fetch: F) -> Known
    where
        F: Future<Output = (Known, Duration)>,
    {
        let mut entry = self.known.lock().await;
        if let Some(entry) = entry.as_ref().filter(|entry| now < entry.until) {
            return entry.known.clone();
        }
        let (known, keep) = fetch.await;
        *entry = Some(Entry { known: known.clone(), until: now + keep });
        known
    }

    /// What is known and fresh; `None` also while somebody is finding out.
    pub(super) fn at_hand(&self, now: Instant) -> Option<Known> {
        let entry = self.known.try_lock().ok()?;
        entry.as_ref().filter(|entry| now < entry.until).map(|entry| entry.known.clone())
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.known.try_lock().map_or(true, |entry| entry.as_ref().is_some_and(|entry| now < entry.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[tokio::test]
    async fn what_is_known_is_asked_for_once_until_it_is_old() {
        let (cache, clock) = (Cache::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let minute = Duration::from_secs(60);
        let found = || async { (Some(Arc::new(Value::from(1))), Duration::from_secs(60)) };
        let never = || async { panic!("it is known") };
        let slot = cache.slot("a", clock.monotonic());
        assert!(slot.at_hand(clock.monotonic()).is_none());
        assert!(slot.known(clock.monotonic(), found()).await.is_some());
        assert!(cache.slot("a", clock.monotonic()).known(clock.monotonic(), never()).await.is_some());
        clock.advance(minute);
        let gone = async { (None, minute) };
        assert!(slot.known(clock.monotonic(), gone).await.is_none());
        assert!(matches!(slot.at_hand(clock.monotonic()), Some(None)), "that there is none is known too");
    }

    #[tokio::test]
    async fn a_flood_of_addresses_takes_no_more_than_its_room() {
        let (cache, clock) = (Cache::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for number in 0..3 * LARGEST {
            let slot = cache.slot(&format!("https://{number}.example/c"), clock.monotonic());
            slot.known(clock.monotonic(), async { (None, Duration::from_secs(60)) }).await;
            assert!(cache.len() <= LARGEST);
        }
    }
}
