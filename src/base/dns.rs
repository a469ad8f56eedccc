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

/// The numbers of threads that look up operators' names, and names that callers bring.
const PLACES: u64 = 48;
const PLACES_OF_CALLERS: u64 = 20;
/// Enough for the system's resolver, which keeps its buffers on the stack.
const STACK: usize = 512 << 10;

/// How long a caller waits, without and with an older result at hand.
const PATIENCE: Duration = Duration::from_millis(2500);
const PATIENCE_WITH_STALE: Duration = Duration::from_millis(500);
/// How long a caller waits for a name that it brought: longer, since the result is not cached.
pub const PATIENCE_ONCE: Duration = Duration::from_secs(4);
/// How long a result, and a failure, is reused without another lookup.
const FRESH: Duration = Duration::from_secs(5);
const FAILED: Duration = Duration::from_secs(2);
/// A name that hung is not asked for again for as long as it hung, at most this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a result remains usable while no name server answers (RFC 8767).
const STALE: Duration = Duration::from_secs(3600);
/// The maximum number of addresses used of one name; no honest name server lists more.
const MOST_ADDRESSES: usize = 32;
/// The maximum number of names remembered; those that can be asked for again are dropped first.
const MOST_NAMES: usize = 8192;

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
    places: Arc<Budget>,
    places_of_callers: Arc<Budget>,
    /// Notified when a slot was released.
    freed: Notify,
    clock: Arc<dyn Clock>,
    system: SystemLookup,
}

/// The state of one name.
#[derive(Default)]
struct HostRecord {
    found: Option<(Instant, Arc<[IpAddr]>)>,
    /// Until when the failure is reused, and the failure.
    failed: Option<(Instant, LookupError)>,
    /// Closes when the lookup in progress ends.
    flight: Option<watch::Receiver<()>>,
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
    began: Instant,
    outcome: Option<io::Result<Vec<IpAddr>>>,
    place: Reservation,
    _landed: watch::Sender<()>,
}

impl DnsResolver {
    /// Returns the resolver of this process. There is only one, since its threads are bounded per
    /// process.
    pub fn global() -> &'static Self {
        static RESOLVER: OnceLock<DnsResolver> = OnceLock::new();
        RESOLVER.get_or_init(|| Self::over(Box::new(ask_the_system), SystemClock::shared()))
    }

    fn over(system: SystemLookup, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(ResolverInner {
            names: Mutex::default(),
            places: Budget::new(PLACES),
            places_of_callers: Budget::new(PLACES_OF_CALLERS),
            freed: Notify::new(),
            clock,
            system,
        }))
    }

    /// Creates a resolver that calls a test's function.
    #[cfg(test)]
    pub fn asking(system: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self::over(Box::new(system), SystemClock::shared())
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
        let stale = self.0.stale(&host);
        let patience = if stale.is_some() { PATIENCE_WITH_STALE } else { PATIENCE };
        let landed = tokio::time::timeout(patience, self.landed(&host)).await;
        match landed.unwrap_or(Err(LookupError::TimedOut)) {
            Err(LookupError::TimedOut) => stale.ok_or(LookupError::TimedOut),
            said => said,
        }
    }

    /// Returns the slots for names that callers bring.
    pub fn places_of_callers(&self) -> &Arc<Budget> {
        &self.0.places_of_callers
    }

    /// Resolves a name that a caller brought, without caching the result. The slot `place` is
    /// occupied until the system's resolver returns, even if the caller has given up.
    ///
    /// # Errors
    /// The name has no address, or no name server answered in time.
    pub async fn lookup_once(&self, host: &str, place: Reservation) -> Result<Vec<IpAddr>, LookupError> {
        let (tell, told) = oneshot::channel();
        let (inner, host) = (Arc::clone(&self.0), host.to_owned());
        let begun = on_a_thread(move || {
            let found = (inner.system)(&host);
            drop(place);
            // The caller may have given up.
            let _gone = tell.send(found);
        });
        begun.map_err(|error| LookupError::failed(&error))?;
        match tokio::time::timeout(PATIENCE_ONCE, told).await {
            Ok(Ok(Ok(found))) => Ok(found.into_iter().take(MOST_ADDRESSES).collect()),
            Ok(Ok(Err(error))) => Err(LookupError::failed(&error)),
            Ok(Err(error)) => Err(LookupError::Failed(error.to_string().into())),
            Err(_) => Err(LookupError::TimedOut),
        }
    }

    /// Waits for the lookup of this name, whichever caller started it.
    async fn landed(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, LookupError> {
        loop {
            // Subscribed before checking, so that no freed thread goes unnoticed.
            let freed = self.0.freed.notified();
            match self.0.step(host) {
                LookupStep::Found(found) => return Ok(found),
                LookupStep::Failed(fault) => return Err(fault),
                // The sender is dropped when the lookup ends, which ends this wait.
                LookupStep::InFlight(mut flight) => while flight.changed().await.is_ok() {},
                LookupStep::Start(flight) => flight.take_off(),
                LookupStep::AtCapacity => freed.await,
            }
        }
    }
}

impl LookupError {
    fn failed(error: &io::Error) -> Self {
        Self::Failed(error.to_string().into())
    }
}

impl ResolverInner {
    fn step(self: &Arc<Self>, host: &Arc<str>) -> LookupStep {
        let now = self.clock.monotonic();
        let mut names = self.names();
        let entry = names.get(host);
        if let Some((at, found)) = entry.and_then(|entry| entry.found.as_ref())
            && now.saturating_duration_since(*at) < FRESH
        {
            return LookupStep::Found(Arc::clone(found));
        }
        if let Some(flight) = entry.and_then(|entry| entry.flight.as_ref()) {
            return LookupStep::InFlight(flight.clone());
        }
        if let Some((until, fault)) = entry.and_then(|entry| entry.failed.as_ref())
            && now < *until
        {
            return LookupStep::Failed(fault.clone());
        }
        // Opens the reserve to names that resolved before.
        let was_found = entry.is_some_and(|entry| entry.found.is_some());
        let mut place = self.places.new_reservation(None, None, was_found);
        if place.try_grow(1).is_err() {
            return LookupStep::AtCapacity;
        }
        make_room(&mut names, now);
        let (landed, flight) = watch::channel(());
        names.entry(Arc::clone(host)).or_default().flight = Some(flight);
        let (inner, host) = (Arc::clone(self), Arc::clone(host));
        LookupStep::Start(Lookup { inner, host, began: now, outcome: None, place, _landed: landed })
    }

    /// Returns the older result of a name, if it is recent enough to be used.
    fn stale(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let now = self.clock.monotonic();
        let (at, found) = self.names().get(host)?.found.clone()?;
        (now.saturating_duration_since(at) < STALE).then_some(found)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, HostRecord>> {
        self.names.lock().expect("no holder of this lock panics")
    }
}

impl Lookup {
    /// Calls the system's resolver on a new thread. The lookup fails if no thread can be started.
    fn take_off(self) {
        if let Err(error) = on_a_thread(move || self.fly()) {
            tracing::debug!(%error, "no thread is available for a DNS lookup");
        }
    }

    fn fly(mut self) {
        self.outcome = Some((self.inner.system)(&self.host));
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let now = self.inner.clock.monotonic();
        let took = now.saturating_duration_since(self.began);
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err(io::Error::other("no thread is left for it")));
        if let Some(entry) = self.inner.names().get_mut(&self.host) {
            entry.flight = None;
            match outcome {
                Ok(found) => {
                    entry.failed = None;
                    entry.found = Some((now, found.into_iter().take(MOST_ADDRESSES).collect()));
                }
                Err(error) => {
                    let fault =
                        if took < PATIENCE { LookupError::failed(&error) } else { LookupError::TimedOut };
                    entry.failed = Some((now + took.clamp(FAILED, LONGEST_PAUSE), fault));
                }
            }
        }
        self.place.release();
        self.inner.freed.notify_waiters();
    }
}

/// Starts a detached thread.
fn on_a_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("resolve".to_owned()).stack_size(STACK).spawn(work).map(drop)
}

/// Drops names that can be looked up again: first those that were not found, then all that are not
/// fresh.
fn make_room(names: &mut HashMap<Arc<str>, HostRecord>, now: Instant) {
    if names.len() >= MOST_NAMES {
        names.retain(|_, entry| entry.flight.is_some() || entry.found.is_some());
    }
    if names.len() >= MOST_NAMES {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        names.retain(|_, entry| {
            entry.flight.is_some() || entry.found.as_ref().is_some_and(|(at, _)| is_fresh(*at))
        });
    }
}

/// Calls the system's resolver. An empty answer counts as a failure.
#[expect(clippy::disallowed_methods, reason = "here, on a thread of its own")]
fn ask_the_system(host: &str) -> io::Result<Vec<IpAddr>> {
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
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
        turned: Condvar,
        asked: Mutex<Vec<String>>,
        in_flight: watch::Sender<usize>,
    }

    impl FakeNameServer {
        fn ask(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            self.asked.lock().expect("whole").push(host.to_owned());
            if host.contains("hang") {
                self.in_flight.send_modify(|count| *count += 1);
                let open = self.open.lock().expect("whole");
                drop(self.turned.wait_while(open, |open| !*open).expect("whole"));
                self.in_flight.send_modify(|count| *count -= 1);
            }
            match host.contains("none") {
                true => Err(io::Error::other("no such name")),
                false => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
            }
        }

        fn open(&self, open: bool) {
            *self.open.lock().expect("whole") = open;
            self.turned.notify_all();
        }

        fn asked(&self) -> usize {
            self.asked.lock().expect("whole").len()
        }
    }

    fn bench() -> (DnsResolver, Arc<FakeNameServer>, Arc<ManualClock>) {
        let system = Arc::new(FakeNameServer::default());
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let asked = Arc::clone(&system);
        (DnsResolver::over(Box::new(move |host| asked.ask(host)), clock.clone()), system, clock)
    }

    async fn found(resolver: &DnsResolver, host: &str) -> Result<usize, LookupError> {
        resolver.lookup(host).await.map(|found| found.len())
    }

    /// Starts lookups that hang, and waits until the expected number of them is in progress.
    async fn hang(resolver: &DnsResolver, system: &FakeNameServer, names: usize) {
        let mut under_way = system.in_flight.subscribe();
        let before = *under_way.borrow_and_update();
        for name in 0..names {
            let host: Arc<str> = format!("hang{name}.test").into();
            if let LookupStep::Start(flight) = resolver.0.step(&host) {
                flight.take_off();
            }
        }
        let expected = names.min((PLACES - PLACES / 5) as usize);
        under_way.wait_for(|count| *count == before + expected).await.expect("as many as may be");
    }

    #[tokio::test]
    async fn one_lookup_serves_all_who_ask_and_a_moment_more() {
        let (resolver, system, clock) = bench();
        system.open(true);
        for _ in 0..3 {
            assert_eq!(found(&resolver, "Portal.test").await, Ok(1));
        }
        assert_eq!(system.asked(), 1);
        clock.advance(FRESH);
        assert_eq!(found(&resolver, "portal.test").await, Ok(1));
        assert_eq!(system.asked(), 2, "addresses change");
        assert_eq!(found(&resolver, "192.0.2.7").await, Ok(1));
        assert_eq!(system.asked(), 2, "an address is no name");
    }

    #[tokio::test]
    async fn a_name_that_hangs_takes_one_place_however_many_ask() {
        let (resolver, system, _) = bench();
        let asked =
            (0..20).map(|_| tokio::time::timeout(Duration::from_millis(50), found(&resolver, "hang.test")));
        for outcome in futures_util::future::join_all(asked).await {
            assert!(outcome.is_err(), "it hangs");
        }
        assert_eq!((system.asked(), resolver.0.places.held()), (1, 1), "the place is held by the lookup");
        system.open(true);
        assert_eq!(found(&resolver, "hang.test").await, Ok(1));
        assert_eq!(resolver.0.places.held(), 0);
    }

    #[tokio::test]
    async fn names_that_hang_leave_places_to_names_that_were_found() {
        let (resolver, system, clock) = bench();
        assert_eq!(found(&resolver, "portal.test").await, Ok(1));
        hang(&resolver, &system, 100).await;
        clock.advance(FRESH);
        assert_eq!(found(&resolver, "portal.test").await, Ok(1));
        assert_eq!(system.asked(), 1 + (PLACES - PLACES / 5) as usize + 1, "it was looked up again");
        let new = tokio::time::timeout(Duration::from_millis(50), found(&resolver, "new.test")).await;
        assert!(new.is_err(), "a name that nobody has seen waits for a place");
        system.open(true);
        assert_eq!(found(&resolver, "new.test").await, Ok(1));
    }

    #[tokio::test]
    async fn what_was_found_serves_while_nobody_answers_and_not_against_an_answer() {
        let (resolver, system, clock) = bench();
        system.open(true);
        assert_eq!(found(&resolver, "hang.test").await, Ok(1));
        system.open(false);
        clock.advance(FRESH);
        assert_eq!(found(&resolver, "hang.test").await, Ok(1), "no name server answers");
        clock.advance(STALE);
        assert_eq!(found(&resolver, "hang.test").await, Err(LookupError::TimedOut), "an hour is too long");
        system.open(true);

        assert_eq!(found(&resolver, "none.test").await, Err(LookupError::Failed("no such name".into())));
        let asked = system.asked();
        assert_eq!(found(&resolver, "none.test").await, Err(LookupError::Failed("no such name".into())));
        assert_eq!(system.asked(), asked, "it is not asked for again at once");
        clock.advance(FAILED);
        assert!(found(&resolver, "none.test").await.is_err());
        assert_eq!(system.asked(), asked + 1);
    }

    #[tokio::test]
    async fn a_name_that_a_caller_brings_keeps_its_own_place_and_none_of_the_operators() {
        let (resolver, system, _) = bench();
        let place = || {
            let mut place = resolver.places_of_callers().new_reservation(None, None, false);
            place.try_grow(1).expect("a place");
            place
        };
        let asked = resolver.lookup_once("hang.test", place());
        assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err(), "it hangs");
        assert_eq!(resolver.places_of_callers().held(), 1, "whoever asked is gone, the lookup is not");
        assert_eq!(resolver.0.places.held(), 0);
        system.open(true);
        for _ in 0..2 {
            assert_eq!(resolver.lookup_once("portal.test", place()).await.map(|found| found.len()), Ok(1));
        }
        assert_eq!(system.asked(), 3, "nothing of it is remembered");
        let none = resolver.lookup_once("none.test", place()).await;
        assert_eq!(none, Err(LookupError::Failed("no such name".into())));
        assert!(resolver.0.names().is_empty());
        system.in_flight.subscribe().wait_for(|count| *count == 0).await.expect("it ended");
        let free = async {
            while resolver.places_of_callers().held() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), free).await.expect("its place is free again");
    }

    #[test]
    fn names_that_can_be_asked_for_again_make_room() {
        let now = SystemClock.monotonic();
        let mut names = HashMap::new();
        for number in 0..MOST_NAMES {
            let found = (number % 2 == 0).then(|| (now, Arc::from([])));
            names.insert(Arc::from(number.to_string()), HostRecord { found, ..HostRecord::default() });
        }
        make_room(&mut names, now);
        assert_eq!(names.len(), MOST_NAMES / 2);
        for number in 0..MOST_NAMES {
            names.insert(
                Arc::from(number.to_string()),
                HostRecord { found: Some((now, Arc::from([]))), ..HostRecord::default() },
            );
        }
        make_room(&mut names, now + FRESH);
        assert_eq!(names.len(), 0);
    }
}
