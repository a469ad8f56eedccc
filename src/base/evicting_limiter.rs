//! Connection places: a limit for all connections and one for each client network. When all places
//! are taken, an idle connection is closed to make room for the next one.
//!
//! Connections without a credential are closed first. Among the oldest, the choice falls on the
//! network with the most connections. A client that fills all places thus locks out no other
//! client, and a request in progress is never cut off.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::net::client_network;
use super::sync::lock;

/// The number of connections examined to find one to close, which bounds the cost of making room.
const LOOKS: usize = 64;
/// How often to look again while no connection can be closed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The state of a connection that decides whether it can be closed.
pub trait Evictable: Send + Sync {
    /// Whether the connection is idle: no response is in progress and the client's next request is
    /// awaited.
    fn waits(&self) -> bool;
    /// Whether the caller presented a valid credential.
    fn has_credential(&self) -> bool;
}

/// The places of one listener, or shared by several.
#[derive(Debug)]
pub struct EvictingLimiter<O> {
    permits: Arc<Semaphore>,
    per_party: usize,
    crowd: Mutex<PermitTable<O>>,
}

#[derive(Debug)]
struct PermitTable<O> {
    parties: HashMap<IpAddr, usize>,
    /// By age, oldest first. Entries of ended connections are dropped when they are encountered.
    unknown: VecDeque<Weak<PermitState<O>>>,
    known: VecDeque<Weak<PermitState<O>>>,
}

#[derive(Debug)]
struct PermitState<O> {
    party: IpAddr,
    occupant: Arc<O>,
    taken_away: CancellationToken,
}

/// The place of one connection; returned when dropped.
#[derive(Debug)]
pub struct EvictablePermit<O> {
    seat: Arc<PermitState<O>>,
    places: Arc<EvictingLimiter<O>>,
    _permit: OwnedSemaphorePermit,
}

/// The right to accept one more connection.
#[derive(Debug)]
pub struct AcceptPermit(OwnedSemaphorePermit);

impl<O: Evictable> EvictingLimiter<O> {
    /// Creates `places` places, of which one client network may take `per_party`.
    pub fn new(places: usize, per_party: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        let crowd = PermitTable { parties: HashMap::new(), unknown: VecDeque::new(), known: VecDeque::new() };
        Arc::new(Self { permits, per_party, crowd: Mutex::new(crowd) })
    }

    /// Whether all places are taken.
    pub fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Waits until one more connection may be accepted; further connections queue in the kernel.
    ///
    /// While all places are taken, idle connections are asked to close; `made_room` is called for
    /// each.
    pub async fn acquire(&self, made_room: impl Fn()) -> AcceptPermit {
        loop {
            if self.is_full() && self.make_room() {
                made_room();
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, permit).await {
                return AcceptPermit(permit.expect("the semaphore is never closed"));
            }
        }
    }

    /// Gives a place to a connection from `address`, or returns `None` if its network has its
    /// maximum.
    pub fn admit(
        self: &Arc<Self>,
        AcceptPermit(permit): AcceptPermit,
        address: IpAddr,
        occupant: Arc<O>,
    ) -> Option<EvictablePermit<O>> {
        let party = client_network(address);
        let seat = Arc::new(PermitState { party, occupant, taken_away: CancellationToken::new() });
        lock(&self.crowd).enter(&seat, self.per_party)?;
        Some(EvictablePermit { seat, places: Arc::clone(self), _permit: permit })
    }

    /// Asks one connection to close. Returns whether there was a candidate.
    fn make_room(&self) -> bool {
        let chosen = lock(&self.crowd).choose();
        if let Some(seat) = &chosen {
            seat.taken_away.cancel();
        }
        chosen.is_some()
    }
}

impl<O> PermitTable<O> {
    fn enter(&mut self, seat: &Arc<PermitState<O>>, per_party: usize) -> Option<()> {
        let count = self.parties.entry(seat.party).or_insert(0);
        if *count >= per_party {
            return None;
        }
        *count += 1;
        if self.unknown.len() == self.unknown.capacity() {
            // Drop entries of ended connections before the queue grows. Reserving as much again
            // keeps this rare.
            self.unknown.retain(|seat| seat.strong_count() > 0);
            self.unknown.reserve(self.unknown.len() + 1);
        }
        self.unknown.push_back(Arc::downgrade(seat));
        Some(())
    }

    fn leave(&mut self, party: IpAddr) {
        if let Some(count) = self.parties.get_mut(&party) {
            *count -= 1;
            if *count == 0 {
                self.parties.remove(&party);
            }
        }
    }
}

impl<O: Evictable> PermitTable<O> {
    fn choose(&mut self) -> Option<Arc<PermitState<O>>> {
        self.choose_unknown().or_else(|| self.choose_known())
    }

    fn choose_unknown(&mut self) -> Option<Arc<PermitState<O>>> {
        let mut waiting = Vec::new();
        for _ in 0..LOOKS.min(self.unknown.len()) {
            let Some(seat) = self.unknown.pop_front().as_ref().and_then(Weak::upgrade) else { continue };
            match &seat.occupant {
                _ if seat.taken_away.is_cancelled() => {}
                occupant if occupant.has_credential() => self.known.push_back(Arc::downgrade(&seat)),
                occupant if occupant.waits() => waiting.push(seat),
                _ => self.unknown.push_back(Arc::downgrade(&seat)),
            }
        }
        let chosen = largest(&self.parties, &mut waiting);
        waiting.iter().rev().for_each(|seat| self.unknown.push_front(Arc::downgrade(seat)));
        chosen
    }

    fn choose_known(&mut self) -> Option<Arc<PermitState<O>>> {
        let mut waiting = Vec::new();
        for _ in 0..LOOKS.min(self.known.len()) {
            let Some(seat) = self.known.pop_front().as_ref().and_then(Weak::upgrade) else { continue };
            match seat.occupant.waits() {
                _ if seat.taken_away.is_cancelled() => {}
                true => waiting.push(seat),
                false => self.known.push_back(Arc::downgrade(&seat)),
            }
        }
        let chosen = largest(&self.parties, &mut waiting);
        waiting.iter().rev().for_each(|seat| self.known.push_front(Arc::downgrade(seat)));
        chosen
    }
}

/// Removes and returns the oldest seat of the network with the most connections.
fn largest<O>(
    parties: &HashMap<IpAddr, usize>,
    waiting: &mut Vec<Arc<PermitState<O>>>,
) -> Option<Arc<PermitState<O>>> {
    let count = |seat: &Arc<PermitState<O>>| parties.get(&seat.party).copied().unwrap_or_default();
    // `max_by_key` returns the last maximum, which in reversed order is the oldest seat.
    let (at, _) = waiting.iter().enumerate().rev().max_by_key(|(_, seat)| count(seat))?;
    Some(waiting.remove(at))
}

impl<O> EvictablePermit<O> {
    /// Completes once the place has been given to another connection; this one must close at once.
    pub async fn evicted(&self) {
        self.seat.taken_away.cancelled().await;
    }
}

impl<O> Drop for EvictablePermit<O> {
    fn drop(&mut self) {
        lock(&self.places.crowd).leave(self.seat.party);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct FakeConnection {
        works: AtomicBool,
        has_credential: AtomicBool,
    }

    impl Evictable for FakeConnection {
        fn waits(&self) -> bool {
            !self.works.load(Ordering::Relaxed)
        }

        fn has_credential(&self) -> bool {
            self.has_credential.load(Ordering::Relaxed)
        }
    }

    async fn enter(
        places: &Arc<EvictingLimiter<FakeConnection>>,
        address: &str,
    ) -> Option<EvictablePermit<FakeConnection>> {
        let permit = places.acquire(|| {}).await;
        places.admit(permit, address.parse().expect("an address"), Arc::default())
    }

    fn gave_way(place: &EvictablePermit<FakeConnection>) -> bool {
        place.seat.taken_away.is_cancelled()
    }

    #[tokio::test]
    async fn one_party_has_its_share_and_gets_it_back() {
        let places = EvictingLimiter::new(10, 2);
        let one = enter(&places, "2001:db8::1").await.expect("a place");
        let two = enter(&places, "2001:db8::2").await.expect("a place");
        assert!(enter(&places, "2001:db8::3").await.is_none());
        assert!(enter(&places, "2001:db8:0:1::3").await.is_some());
        drop(one);
        assert!(enter(&places, "2001:db8::3").await.is_some());
        drop(two);
        assert!(lock(&places.crowd).parties.is_empty());
        assert_eq!(places.permits.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_accepted_beyond_the_cap_while_all_are_at_work() {
        let places = EvictingLimiter::new(1, 10);
        let place = enter(&places, "192.0.2.1").await.expect("a place");
        place.seat.occupant.works.store(true, Ordering::Relaxed);
        let waiting = tokio::time::timeout(Duration::from_secs(9), places.acquire(|| {})).await;
        assert!(waiting.is_err() && !gave_way(&place));
        place.seat.occupant.works.store(false, Ordering::Relaxed);
        let next = tokio::time::timeout(Duration::from_secs(9), places.acquire(|| {}));
        let ended = async {
            place.evicted().await;
            drop(place);
        };
        assert!(tokio::join!(next, ended).0.is_ok());
    }

    #[tokio::test]
    async fn of_those_who_wait_the_oldest_of_the_largest_party_gives_way_and_credentials_last() {
        let places = EvictingLimiter::new(5, 10);
        let mut all = Vec::new();
        for address in ["192.0.2.1", "192.0.2.9", "192.0.2.9", "192.0.2.9", "192.0.2.2"] {
            all.push(enter(&places, address).await.expect("a place"));
        }
        all[1].seat.occupant.works.store(true, Ordering::Relaxed);
        all[2].seat.occupant.has_credential.store(true, Ordering::Relaxed);
        let mut order = Vec::new();
        while places.make_room() {
            let new: Vec<_> =
                (0..all.len()).filter(|at| gave_way(&all[*at]) && !order.contains(at)).collect();
            order.extend(new);
        }
        // The third of the three at 192.0.2.9 goes first, then the rest by age: the one with a
        // credential last, the busy one never.
        assert_eq!(order, [3, 0, 4, 2]);
    }

    #[tokio::test]
    async fn what_ended_is_forgotten() {
        let places = EvictingLimiter::new(10, 10);
        for _ in 0..10_000 {
            enter(&places, "192.0.2.1").await.expect("a place");
        }
        assert!(lock(&places.crowd).unknown.capacity() < 100, "{}", lock(&places.crowd).unknown.capacity());
    }
}
