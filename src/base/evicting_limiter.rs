//! Connection permits: a limit for all connections and one for each client network. When all
//! permits are taken, an idle connection is closed to make room for the next one.
//!
//! Connections without a credential are closed first. Among the oldest, the choice falls on the
//! network with the most connections. A client that takes all permits thus locks out no other
//! client, and a request in progress is never cut off.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::net::client_network;
use super::sync::lock;

/// The number of connections examined to find one to close, which bounds the cost of making room.
const MAX_EXAMINED: usize = 64;
/// How often to look again while no connection can be closed.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The state of a connection that decides whether it can be closed.
pub trait Evictable: Send + Sync {
    /// Whether the connection is idle: no response is in progress and the client's next request is
    /// awaited.
    fn is_waiting(&self) -> bool;
    /// Whether the caller presented a valid credential.
    fn has_credential(&self) -> bool;
}

/// The permits of one listener, or of several that share them.
#[derive(Debug)]
pub struct EvictingLimiter<O> {
    permits: Arc<Semaphore>,
    capacity: Mutex<Capacity>,
    per_network: AtomicUsize,
    table: Mutex<PermitTable<O>>,
}

/// How many permits there are.
#[derive(Debug)]
struct Capacity {
    max: usize,
    /// How many permits in use are too many since the limit was lowered; each goes when it is
    /// returned.
    excess: usize,
}

#[derive(Debug)]
struct PermitTable<O> {
    network_counts: HashMap<IpAddr, usize>,
    /// By age, oldest first. Entries of ended connections are dropped when they are encountered.
    without_credential: VecDeque<Weak<PermitState<O>>>,
    with_credential: VecDeque<Weak<PermitState<O>>>,
}

#[derive(Debug)]
struct PermitState<O> {
    network: IpAddr,
    connection: Arc<O>,
    evicted: CancellationToken,
}

/// The permit of one connection; returned when dropped.
#[derive(Debug)]
pub struct EvictablePermit<O> {
    state: Arc<PermitState<O>>,
    limiter: Arc<EvictingLimiter<O>>,
    _permit: OwnedSemaphorePermit,
}

/// The right to accept one more connection.
#[derive(Debug)]
pub struct AcceptPermit(OwnedSemaphorePermit);

impl<O: Evictable> EvictingLimiter<O> {
    /// Creates `max` permits, of which one client network may hold `per_network`.
    pub fn new(max: usize, per_network: usize) -> Arc<Self> {
        let max = max.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max));
        let table = PermitTable {
            network_counts: HashMap::new(),
            without_credential: VecDeque::new(),
            with_credential: VecDeque::new(),
        };
        let capacity = Mutex::new(Capacity { max, excess: 0 });
        Arc::new(Self { permits, capacity, per_network: per_network.into(), table: Mutex::new(table) })
    }

    /// Changes how many permits there are. Those in use stay, even if they are more than that; as
    /// long as they are, idle connections are closed for each that wants to come.
    pub fn set_max(&self, max: usize) {
        let max = max.min(Semaphore::MAX_PERMITS);
        let mut capacity = lock(&self.capacity);
        if let Some(more) = max.checked_sub(capacity.max) {
            let kept = more.min(capacity.excess);
            capacity.excess -= kept;
            self.permits.add_permits(more - kept);
        } else {
            let fewer = capacity.max - max;
            capacity.excess += fewer - self.permits.forget_permits(fewer);
        }
        capacity.max = max;
    }

    /// Takes a permit out of use if there are too many. Returns it otherwise.
    fn keep_if_allowed(&self, permit: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        let mut capacity = lock(&self.capacity);
        if capacity.excess == 0 {
            return Some(permit);
        }
        capacity.excess -= 1;
        permit.forget();
        None
    }

    /// Changes how many permits one client network may hold. Those it holds stay.
    pub fn set_per_network(&self, per_network: usize) {
        self.per_network.store(per_network, Ordering::Relaxed);
    }

    /// Whether all permits are taken.
    pub fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Whether any connection waits for its client's next request.
    pub fn has_waiting(&self) -> bool {
        let table = lock(&self.table);
        let all = table.without_credential.iter().chain(&table.with_credential);
        all.filter_map(Weak::upgrade).any(|state| state.connection.is_waiting())
    }

    /// Waits until one more connection may be accepted; further connections queue in the kernel.
    ///
    /// While all permits are taken, idle connections are asked to close; `on_eviction` is called
    /// for each.
    pub async fn acquire(&self, on_eviction: impl Fn()) -> AcceptPermit {
        loop {
            if self.is_full() && self.evict_one() {
                on_eviction();
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(RETRY_INTERVAL, permit).await {
                let permit = self.keep_if_allowed(permit.expect("the semaphore is never closed"));
                if let Some(permit) = permit {
                    return AcceptPermit(permit);
                }
            }
        }
    }

    /// Gives a permit to a connection from `address`, or returns `None` if its network has its
    /// maximum.
    pub fn admit(
        self: &Arc<Self>,
        AcceptPermit(permit): AcceptPermit,
        address: IpAddr,
        connection: Arc<O>,
    ) -> Option<EvictablePermit<O>> {
        let network = client_network(address);
        let state = Arc::new(PermitState { network, connection, evicted: CancellationToken::new() });
        lock(&self.table).insert(&state, self.per_network.load(Ordering::Relaxed))?;
        Some(EvictablePermit { state, limiter: Arc::clone(self), _permit: permit })
    }

    /// Asks one connection to close. Returns whether there was a candidate.
    fn evict_one(&self) -> bool {
        let candidate = lock(&self.table).take_candidate();
        if let Some(state) = &candidate {
            state.evicted.cancel();
        }
        candidate.is_some()
    }
}

impl<O> PermitTable<O> {
    fn insert(&mut self, state: &Arc<PermitState<O>>, per_network: usize) -> Option<()> {
        let count = self.network_counts.entry(state.network).or_insert(0);
        if *count >= per_network {
            return None;
        }
        *count += 1;
        if self.without_credential.len() == self.without_credential.capacity() {
            // Drop entries of ended connections before the queue grows. Reserving as much again
            // keeps this rare.
            self.without_credential.retain(|state| state.strong_count() > 0);
            self.without_credential.reserve(self.without_credential.len() + 1);
        }
        self.without_credential.push_back(Arc::downgrade(state));
        Some(())
    }

    fn remove(&mut self, network: IpAddr) {
        if let Some(count) = self.network_counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.network_counts.remove(&network);
            }
        }
    }
}

impl<O: Evictable> PermitTable<O> {
    fn take_candidate(&mut self) -> Option<Arc<PermitState<O>>> {
        self.take_without_credential().or_else(|| self.take_with_credential())
    }

    fn take_without_credential(&mut self) -> Option<Arc<PermitState<O>>> {
        let mut waiting = Vec::new();
        for _ in 0..MAX_EXAMINED.min(self.without_credential.len()) {
            let Some(state) = self.without_credential.pop_front().as_ref().and_then(Weak::upgrade) else {
                continue;
            };
            match &state.connection {
                _ if state.evicted.is_cancelled() => {}
                connection if connection.has_credential() => {
                    self.with_credential.push_back(Arc::downgrade(&state))
                }
                connection if connection.is_waiting() => waiting.push(state),
                _ => self.without_credential.push_back(Arc::downgrade(&state)),
            }
        }
        let candidate = take_from_largest_network(&self.network_counts, &mut waiting);
        waiting.iter().rev().for_each(|state| self.without_credential.push_front(Arc::downgrade(state)));
        candidate
    }

    fn take_with_credential(&mut self) -> Option<Arc<PermitState<O>>> {
        let mut waiting = Vec::new();
        for _ in 0..MAX_EXAMINED.min(self.with_credential.len()) {
            let Some(state) = self.with_credential.pop_front().as_ref().and_then(Weak::upgrade) else {
                continue;
            };
            match state.connection.is_waiting() {
                _ if state.evicted.is_cancelled() => {}
                true => waiting.push(state),
                false => self.with_credential.push_back(Arc::downgrade(&state)),
            }
        }
        let candidate = take_from_largest_network(&self.network_counts, &mut waiting);
        waiting.iter().rev().for_each(|state| self.with_credential.push_front(Arc::downgrade(state)));
        candidate
    }
}

/// Removes and returns the oldest permit of the network with the most connections.
fn take_from_largest_network<O>(
    network_counts: &HashMap<IpAddr, usize>,
    waiting: &mut Vec<Arc<PermitState<O>>>,
) -> Option<Arc<PermitState<O>>> {
    let count = |state: &Arc<PermitState<O>>| network_counts.get(&state.network).copied().unwrap_or_default();
    // `max_by_key` returns the last maximum, which in reversed order is the oldest.
    let (index, _) = waiting.iter().enumerate().rev().max_by_key(|(_, state)| count(state))?;
    Some(waiting.remove(index))
}

impl<O> EvictablePermit<O> {
    /// Completes once the permit has been given to another connection; this one must close at once.
    pub async fn evicted(&self) {
        self.state.evicted.cancelled().await;
    }
}

impl<O> Drop for EvictablePermit<O> {
    fn drop(&mut self) {
        lock(&self.limiter.table).remove(self.state.network);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct FakeConnection {
        is_working: AtomicBool,
        has_credential: AtomicBool,
    }

    impl Evictable for FakeConnection {
        fn is_waiting(&self) -> bool {
            !self.is_working.load(Ordering::Relaxed)
        }

        fn has_credential(&self) -> bool {
            self.has_credential.load(Ordering::Relaxed)
        }
    }

    async fn insert(
        limiter: &Arc<EvictingLimiter<FakeConnection>>,
        address: &str,
    ) -> Option<EvictablePermit<FakeConnection>> {
        let permit = limiter.acquire(|| {}).await;
        limiter.admit(permit, address.parse().expect("an address"), Arc::default())
    }

    fn is_evicted(permit: &EvictablePermit<FakeConnection>) -> bool {
        permit.state.evicted.is_cancelled()
    }

    #[tokio::test]
    async fn a_network_has_its_own_limit_and_gets_permits_back() {
        let limiter = EvictingLimiter::new(10, 2);
        let one = insert(&limiter, "2001:db8::1").await.expect("a permit");
        let two = insert(&limiter, "2001:db8::2").await.expect("a permit");
        assert!(insert(&limiter, "2001:db8::3").await.is_none());
        assert!(insert(&limiter, "2001:db8:0:1::3").await.is_some());
        drop(one);
        assert!(insert(&limiter, "2001:db8::3").await.is_some());
        drop(two);
        assert!(lock(&limiter.table).network_counts.is_empty());
        assert_eq!(limiter.permits.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_accepted_beyond_the_limit_while_all_connections_are_busy() {
        let limiter = EvictingLimiter::new(1, 10);
        let permit = insert(&limiter, "192.0.2.1").await.expect("a permit");
        permit.state.connection.is_working.store(true, Ordering::Relaxed);
        let waiting = tokio::time::timeout(Duration::from_secs(9), limiter.acquire(|| {})).await;
        assert!(waiting.is_err() && !is_evicted(&permit));
        permit.state.connection.is_working.store(false, Ordering::Relaxed);
        let next = tokio::time::timeout(Duration::from_secs(9), limiter.acquire(|| {}));
        let ended = async {
            permit.evicted().await;
            drop(permit);
        };
        assert!(tokio::join!(next, ended).0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_limit_closes_idle_connections_for_new_ones_and_a_higher_one_has_room() {
        let limiter = EvictingLimiter::new(3, 10);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(insert(&limiter, "192.0.2.1").await.expect("a permit"));
        }
        limiter.set_max(2);
        let next = limiter.acquire(|| {});
        let closed = async {
            // One to come down to two, and one in exchange.
            for permit in held.drain(..2) {
                permit.evicted().await;
            }
            held.len()
        };
        let (permit, left) = tokio::join!(next, closed);
        assert_eq!((left, limiter.permits.available_permits()), (1, 0));
        let network = "192.0.2.2".parse().expect("an address");
        held.push(limiter.admit(permit, network, Arc::default()).expect("admitted"));

        limiter.set_max(4);
        assert_eq!(limiter.permits.available_permits(), 2);
        limiter.set_max(1);
        limiter.set_max(2);
        held.clear();
        let _one = limiter.acquire(|| {}).await;
        let _two = limiter.acquire(|| {}).await;
        assert!(limiter.is_full(), "lowered below what was held, and raised again");
    }

    #[tokio::test]
    async fn the_oldest_idle_connection_of_the_largest_network_is_evicted_and_credentials_last() {
        let limiter = EvictingLimiter::new(5, 10);
        let mut all = Vec::new();
        for address in ["192.0.2.1", "192.0.2.9", "192.0.2.9", "192.0.2.9", "192.0.2.2"] {
            all.push(insert(&limiter, address).await.expect("a permit"));
        }
        all[1].state.connection.is_working.store(true, Ordering::Relaxed);
        all[2].state.connection.has_credential.store(true, Ordering::Relaxed);
        let mut order = Vec::new();
        while limiter.evict_one() {
            let new: Vec<_> =
                (0..all.len()).filter(|index| is_evicted(&all[*index]) && !order.contains(index)).collect();
            order.extend(new);
        }
        // The third of the three at 192.0.2.9 goes first, then the rest by age: the one with a
        // credential last, the busy one never.
        assert_eq!(order, [3, 0, 4, 2]);
    }

    #[tokio::test]
    async fn ended_connections_are_forgotten() {
        let limiter = EvictingLimiter::new(10, 10);
        for _ in 0..10_000 {
            insert(&limiter, "192.0.2.1").await.expect("a permit");
        }
        assert!(
            lock(&limiter.table).without_credential.capacity() < 100,
            "{}",
            lock(&limiter.table).without_credential.capacity()
        );
    }
}
