//! Resolves names to addresses on threads of its own; no other module calls the system's resolver.
//!
//! The system's resolver (`getaddrinfo`) blocks a thread, for half a minute when no name server
//! answers, and cannot be cancelled. Its threads are therefore few and separate from the blocking
//! pool, so that the store and file access never wait for a name. A lookup occupies its thread
//! until the system returns, even if no caller waits for it any longer.
//!
//! Results for names from operators (settings, tenants' files) are cached; results for names that
//! callers bring ([`DnsResolver::lookup_once`]) are not, and those lookups have slots of their own,
//! shared fairly among the callers. Concurrent lookups of one operator's name are merged, so a name
//! that hangs takes one slot. The last fifth of the slots is reserved for names that resolved
//! before. Results are kept only for seconds, since addresses change, and longer while no name
//! server answers (RFC 8767). The user of a result judges on each use whether the address is
//! allowed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use super::budget::{Budget, Reservation};
use super::clock::{Clock, SystemClock};
use super::sync::lock_unpoisoned;

/// The numbers of threads that look up operators' names, and names that callers bring.
const MAX_LOOKUPS: u64 = 48;
const MAX_CALLER_LOOKUPS: u64 = 20;
/// Enough for the system's resolver, which keeps its buffers on the stack.
const STACK_BYTES: usize = 512 << 10;

/// How long a caller waits, without and with an older result at hand.
const TIMEOUT: Duration = Duration::from_millis(2500);
const TIMEOUT_WITH_STALE: Duration = Duration::from_millis(500);
/// How long a caller waits for a name that it brought: longer, since the result is not cached.
pub const CALLER_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a result, and a failure, is reused without another lookup.
const FRESH_TTL: Duration = Duration::from_secs(5);
const MIN_FAILURE_TTL: Duration = Duration::from_secs(2);
/// A name that hung is not asked for again for as long as it hung, at most this long.
const MAX_FAILURE_TTL: Duration = Duration::from_secs(30);
/// How long a result remains usable while no name server answers (RFC 8767).
const STALE_TTL: Duration = Duration::from_secs(3600);
/// The maximum number of addresses used of one name; no honest name server lists more.
const MAX_ADDRESSES: usize = 32;
/// The maximum number of names remembered; those that can be asked for again are dropped first.
const MAX_NAMES: usize = 8192;

/// The reason why a name has no addresses at present.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("{0}")]
    Failed(Arc<str>),
    #[error("no name server answered in time")]
    TimedOut,
}

/// A caching resolver. Cheap to clone.
#[derive(Clone)]
pub struct DnsResolver(Arc<ResolverInner>);

type SystemLookup = Box<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

struct ResolverInner {
    names: Mutex<HashMap<Arc<str>, HostRecord>>,
    slots: Arc<Budget>,
    caller_slots: Arc<Budget>,
    /// Notified when a slot was released.
    slot_released: Notify,
    clock: Arc<dyn Clock>,
    system: SystemLookup,
}

/// The state of one name.
#[derive(Default)]
struct HostRecord {
    addresses: Option<(Instant, Arc<[IpAddr]>)>,
    /// Until when the failure is reused, and the failure.
    failure: Option<(Instant, LookupError)>,
    /// Closes when the lookup in progress ends.
    in_progress: Option<watch::Receiver<()>>,
}

/// The next step of a lookup.
enum LookupStep {
    Found(Arc<[IpAddr]>),
    Failed(LookupError),
    InFlight(watch::Receiver<()>),
    Start(Lookup),
    /// All threads are busy.
    AtCapacity,
}

/// A lookup in progress. However it ends, dropping it frees the thread and wakes the waiting
/// callers.
struct Lookup {
    inner: Arc<ResolverInner>,
    host: Arc<str>,
    started_at: Instant,
    result: Option<io::Result<Vec<IpAddr>>>,
    slot: Reservation,
    _done: watch::Sender<()>,
}

impl DnsResolver {
    /// Returns the resolver of this process. There is only one, since its threads are bounded per
    /// process.
    pub fn global() -> &'static Self {
        static RESOLVER: OnceLock<DnsResolver> = OnceLock::new();
        RESOLVER.get_or_init(|| Self::with_system_lookup(Box::new(lookup_in_system), SystemClock::shared()))
    }

    fn with_system_lookup(system: SystemLookup, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(ResolverInner {
            names: Mutex::default(),
            slots: Budget::new(MAX_LOOKUPS),
            caller_slots: Budget::new(MAX_CALLER_LOOKUPS),
            slot_released: Notify::new(),
            clock,
            system,
        }))
    }

    /// Creates a resolver that calls a test's function.
    #[cfg(test)]
    pub fn with_lookup(system: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self::with_system_lookup(Box::new(system), SystemClock::shared())
    }

    /// Returns the addresses of a host in the system's order (RFC 6724); an IP literal is returned
    /// as it is. Ends within a bounded time.
    ///
    /// # Errors
    /// The name has no address, or no name server answered in time.
    pub async fn lookup(&self, host: &str) -> Result<Arc<[IpAddr]>, LookupError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok([address].into());
        }
        let host: Arc<str> = host.to_ascii_lowercase().into();
        let stale = self.0.find_stale(&host);
        let timeout = if stale.is_some() { TIMEOUT_WITH_STALE } else { TIMEOUT };
        let waited = tokio::time::timeout(timeout, self.wait_for_result(&host)).await;
        match waited.unwrap_or(Err(LookupError::TimedOut)) {
            Err(LookupError::TimedOut) => stale.ok_or(LookupError::TimedOut),
            result => result,
        }
    }

    /// Returns the slots for names that callers bring.
    pub fn caller_slots(&self) -> &Arc<Budget> {
        &self.0.caller_slots
    }

    /// Resolves a name that a caller brought, without caching the result. `slot` is occupied until
    /// the system's resolver returns, even if the caller has given up.
    ///
    /// # Errors
    /// The name has no address, or no name server answered in time.
    pub async fn lookup_once(&self, host: &str, slot: Reservation) -> Result<Vec<IpAddr>, LookupError> {
        let (sender, receiver) = oneshot::channel();
        let (inner, host) = (Arc::clone(&self.0), host.to_owned());
        let spawned = spawn_thread(move || {
            let addresses = (inner.system)(&host);
            drop(slot);
            // The caller may have given up.
            let _gone = sender.send(addresses);
        });
        spawned.map_err(|error| LookupError::from_io(&error))?;
        match tokio::time::timeout(CALLER_TIMEOUT, receiver).await {
            Ok(Ok(Ok(addresses))) => Ok(addresses.into_iter().take(MAX_ADDRESSES).collect()),
            Ok(Ok(Err(error))) => Err(LookupError::from_io(&error)),
            Ok(Err(error)) => Err(LookupError::Failed(error.to_string().into())),
            Err(_) => Err(LookupError::TimedOut),
        }
    }

    /// Waits for the lookup of this name, whichever caller started it.
    async fn wait_for_result(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, LookupError> {
        loop {
            // Subscribed before checking, so that no freed thread goes unnoticed.
            let slot_released = self.0.slot_released.notified();
            match self.0.next_step(host) {
                LookupStep::Found(addresses) => return Ok(addresses),
                LookupStep::Failed(error) => return Err(error),
                // The sender is dropped when the lookup ends, which ends this wait.
                LookupStep::InFlight(mut lookup) => while lookup.changed().await.is_ok() {},
                LookupStep::Start(lookup) => lookup.spawn(),
                LookupStep::AtCapacity => slot_released.await,
            }
        }
    }
}

impl LookupError {
    fn from_io(error: &io::Error) -> Self {
        Self::Failed(error.to_string().into())
    }
}

impl ResolverInner {
    fn next_step(self: &Arc<Self>, host: &Arc<str>) -> LookupStep {
        let now = self.clock.monotonic();
        let mut names = self.lock_names();
        let record = names.get(host);
        if let Some((at, addresses)) = record.and_then(|record| record.addresses.as_ref())
            && now.saturating_duration_since(*at) < FRESH_TTL
        {
            return LookupStep::Found(Arc::clone(addresses));
        }
        if let Some(in_progress) = record.and_then(|record| record.in_progress.as_ref()) {
            return LookupStep::InFlight(in_progress.clone());
        }
        if let Some((until, error)) = record.and_then(|record| record.failure.as_ref())
            && now < *until
        {
            return LookupStep::Failed(error.clone());
        }
        // Opens the reserve to names that resolved before.
        let was_found = record.is_some_and(|record| record.addresses.is_some());
        let mut slot = self.slots.new_reservation(None, None, was_found);
        if slot.try_grow(1).is_err() {
            return LookupStep::AtCapacity;
        }
        evict_names(&mut names, now);
        let (done, in_progress) = watch::channel(());
        names.entry(Arc::clone(host)).or_default().in_progress = Some(in_progress);
        let (inner, host) = (Arc::clone(self), Arc::clone(host));
        LookupStep::Start(Lookup { inner, host, started_at: now, result: None, slot, _done: done })
    }

    /// Returns the older result of a name, if it is recent enough to be used.
    fn find_stale(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let now = self.clock.monotonic();
        let (at, addresses) = self.lock_names().get(host)?.addresses.clone()?;
        (now.saturating_duration_since(at) < STALE_TTL).then_some(addresses)
    }

    fn lock_names(&self) -> MutexGuard<'_, HashMap<Arc<str>, HostRecord>> {
        lock_unpoisoned(&self.names)
    }
}

impl Lookup {
    /// Calls the system's resolver on a new thread. The lookup fails if no thread can be started.
    fn spawn(self) {
        if let Err(error) = spawn_thread(move || self.run()) {
            tracing::debug!(%error, "no thread is available for a DNS lookup");
        }
    }

    fn run(mut self) {
        self.result = Some((self.inner.system)(&self.host));
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let now = self.inner.clock.monotonic();
        let elapsed = now.saturating_duration_since(self.started_at);
        let result = self.result.take().unwrap_or_else(|| Err(io::Error::other("no thread is left for it")));
        if let Some(record) = self.inner.lock_names().get_mut(&self.host) {
            record.in_progress = None;
            match result {
                Ok(addresses) => {
                    record.failure = None;
                    record.addresses = Some((now, addresses.into_iter().take(MAX_ADDRESSES).collect()));
                }
                Err(error) => {
                    let error =
                        if elapsed < TIMEOUT { LookupError::from_io(&error) } else { LookupError::TimedOut };
                    record.failure = Some((now + elapsed.clamp(MIN_FAILURE_TTL, MAX_FAILURE_TTL), error));
                }
            }
        }
        self.slot.release();
        self.inner.slot_released.notify_waiters();
    }
}

/// Starts a detached thread.
fn spawn_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("resolve".to_owned()).stack_size(STACK_BYTES).spawn(work).map(drop)
}

/// Drops names that can be looked up again: first those that were not found, then all that are not
/// fresh.
fn evict_names(names: &mut HashMap<Arc<str>, HostRecord>, now: Instant) {
    if names.len() >= MAX_NAMES {
        names.retain(|_, record| record.in_progress.is_some() || record.addresses.is_some());
    }
    if names.len() >= MAX_NAMES {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH_TTL;
        names.retain(|_, record| {
            record.in_progress.is_some() || record.addresses.as_ref().is_some_and(|(at, _)| is_fresh(*at))
        });
    }
}

/// Calls the system's resolver. An empty answer counts as a failure.
#[expect(clippy::disallowed_methods, reason = "here, on a thread of its own")]
fn lookup_in_system(host: &str) -> io::Result<Vec<IpAddr>> {
    let addresses: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;
    use crate::base::clock::ManualClock;

    /// A name server that a test opens and shuts. While shut, names that contain `hang` block;
    /// names that contain `none` do not exist. It counts the queries.
    #[derive(Default)]
    struct FakeNameServer {
        open: Mutex<bool>,
        opened: Condvar,
        queries: Mutex<Vec<String>>,
        in_flight: watch::Sender<usize>,
    }

    impl FakeNameServer {
        fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            lock_unpoisoned(&self.queries).push(host.to_owned());
            if host.contains("hang") {
                self.in_flight.send_modify(|count| *count += 1);
                let open = lock_unpoisoned(&self.open);
                drop(self.opened.wait_while(open, |open| !*open).expect("no holder of this lock panics"));
                self.in_flight.send_modify(|count| *count -= 1);
            }
            match host.contains("none") {
                true => Err(io::Error::other("no such name")),
                false => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
            }
        }

        fn set_open(&self, open: bool) {
            *lock_unpoisoned(&self.open) = open;
            self.opened.notify_all();
        }

        fn query_count(&self) -> usize {
            lock_unpoisoned(&self.queries).len()
        }
    }

    fn new_resolver() -> (DnsResolver, Arc<FakeNameServer>, Arc<ManualClock>) {
        let system = Arc::new(FakeNameServer::default());
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let name_server = Arc::clone(&system);
        (
            DnsResolver::with_system_lookup(Box::new(move |host| name_server.resolve(host)), clock.clone()),
            system,
            clock,
        )
    }

    async fn count_addresses(resolver: &DnsResolver, host: &str) -> Result<usize, LookupError> {
        resolver.lookup(host).await.map(|addresses| addresses.len())
    }

    /// Starts lookups that hang, and waits until the expected number of them is in progress.
    async fn hang(resolver: &DnsResolver, system: &FakeNameServer, names: usize) {
        let mut in_flight = system.in_flight.subscribe();
        let before = *in_flight.borrow_and_update();
        for name in 0..names {
            let host: Arc<str> = format!("hang{name}.test").into();
            if let LookupStep::Start(lookup) = resolver.0.next_step(&host) {
                lookup.spawn();
            }
        }
        let expected = names.min((MAX_LOOKUPS - MAX_LOOKUPS / 5) as usize);
        in_flight.wait_for(|count| *count == before + expected).await.expect("as many as may be");
    }

    #[tokio::test]
    async fn a_fresh_result_is_reused() {
        let (resolver, system, clock) = new_resolver();
        system.set_open(true);
        for _ in 0..3 {
            assert_eq!(count_addresses(&resolver, "Portal.test").await, Ok(1));
        }
        assert_eq!(system.query_count(), 1);
        clock.advance(FRESH_TTL);
        assert_eq!(count_addresses(&resolver, "portal.test").await, Ok(1));
        assert_eq!(system.query_count(), 2, "addresses change");
        assert_eq!(count_addresses(&resolver, "192.0.2.7").await, Ok(1));
        assert_eq!(system.query_count(), 2, "an address is no name");
    }

    #[tokio::test]
    async fn a_name_that_hangs_takes_one_slot_however_many_callers_wait() {
        let (resolver, system, _) = new_resolver();
        let asked = (0..20).map(|_| {
            tokio::time::timeout(Duration::from_millis(50), count_addresses(&resolver, "hang.test"))
        });
        for result in futures_util::future::join_all(asked).await {
            assert!(result.is_err(), "it hangs");
        }
        assert_eq!((system.query_count(), resolver.0.slots.held()), (1, 1), "the lookup holds the slot");
        system.set_open(true);
        assert_eq!(count_addresses(&resolver, "hang.test").await, Ok(1));
        assert_eq!(resolver.0.slots.held(), 0);
    }

    #[tokio::test]
    async fn names_that_hang_leave_slots_to_names_that_resolved_before() {
        let (resolver, system, clock) = new_resolver();
        assert_eq!(count_addresses(&resolver, "portal.test").await, Ok(1));
        hang(&resolver, &system, 100).await;
        clock.advance(FRESH_TTL);
        assert_eq!(count_addresses(&resolver, "portal.test").await, Ok(1));
        assert_eq!(
            system.query_count(),
            1 + (MAX_LOOKUPS - MAX_LOOKUPS / 5) as usize + 1,
            "it was looked up again"
        );
        let new =
            tokio::time::timeout(Duration::from_millis(50), count_addresses(&resolver, "new.test")).await;
        assert!(new.is_err(), "a name that nobody has seen waits for a slot");
        system.set_open(true);
        assert_eq!(count_addresses(&resolver, "new.test").await, Ok(1));
    }

    #[tokio::test]
    async fn stale_addresses_serve_while_no_name_server_answers_and_not_after_a_failure() {
        let (resolver, system, clock) = new_resolver();
        system.set_open(true);
        assert_eq!(count_addresses(&resolver, "hang.test").await, Ok(1));
        system.set_open(false);
        clock.advance(FRESH_TTL);
        assert_eq!(count_addresses(&resolver, "hang.test").await, Ok(1), "no name server answers");
        clock.advance(STALE_TTL);
        assert_eq!(
            count_addresses(&resolver, "hang.test").await,
            Err(LookupError::TimedOut),
            "an hour is too long"
        );
        system.set_open(true);

        assert_eq!(
            count_addresses(&resolver, "none.test").await,
            Err(LookupError::Failed("no such name".into()))
        );
        let queries = system.query_count();
        assert_eq!(
            count_addresses(&resolver, "none.test").await,
            Err(LookupError::Failed("no such name".into()))
        );
        assert_eq!(system.query_count(), queries, "it is not asked for again at once");
        clock.advance(MIN_FAILURE_TTL);
        assert!(count_addresses(&resolver, "none.test").await.is_err());
        assert_eq!(system.query_count(), queries + 1);
    }

    #[tokio::test]
    async fn a_name_from_a_caller_takes_a_caller_slot_and_is_not_cached() {
        let (resolver, system, _) = new_resolver();
        let slot = || {
            let mut slot = resolver.caller_slots().new_reservation(None, None, false);
            slot.try_grow(1).expect("a slot");
            slot
        };
        let asked = resolver.lookup_once("hang.test", slot());
        assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err(), "it hangs");
        assert_eq!(resolver.caller_slots().held(), 1, "the caller is gone, the lookup is not");
        assert_eq!(resolver.0.slots.held(), 0);
        system.set_open(true);
        for _ in 0..2 {
            assert_eq!(
                resolver.lookup_once("portal.test", slot()).await.map(|addresses| addresses.len()),
                Ok(1)
            );
        }
        assert_eq!(system.query_count(), 3, "nothing of it is remembered");
        let none = resolver.lookup_once("none.test", slot()).await;
        assert_eq!(none, Err(LookupError::Failed("no such name".into())));
        assert!(resolver.0.lock_names().is_empty());
        system.in_flight.subscribe().wait_for(|count| *count == 0).await.expect("it ended");
        let free = async {
            while resolver.caller_slots().held() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), free).await.expect("its slot is free again");
    }

    #[test]
    fn names_without_fresh_addresses_are_evicted_first() {
        let now = SystemClock.monotonic();
        let mut names = HashMap::new();
        for number in 0..MAX_NAMES {
            let addresses = (number % 2 == 0).then(|| (now, Arc::from([])));
            names.insert(Arc::from(number.to_string()), HostRecord { addresses, ..HostRecord::default() });
        }
        evict_names(&mut names, now);
        assert_eq!(names.len(), MAX_NAMES / 2);
        for number in 0..MAX_NAMES {
            names.insert(
                Arc::from(number.to_string()),
                HostRecord { addresses: Some((now, Arc::from([]))), ..HostRecord::default() },
            );
        }
        evict_names(&mut names, now + FRESH_TTL);
        assert_eq!(names.len(), 0);
    }
}
