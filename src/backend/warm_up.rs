//! Fetches contexts in the background: after a tenant went live, and when a context is past its time.
//!
//! One task keeps all due moments, whatever the number of tenants. A few fetches begin at once, half of them from one
//! origin at most; those that take long go on among as many slow ones as there is room for, and are put off where there is
//! none. So backends that hang keep nobody else's first context waiting. While a backend is down its fetch is repeated
//! after growing pauses, until it works or the tenant goes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::client::Route;
use super::{Call, Client, ContextStore, Error};
use crate::base::budget::{Budget, Exhausted, Hold, Party};
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::task::Tasks;
use crate::spec::TenantName;

/// So many fetches begin at once: half of them from one origin, the last fifth for contexts that were not tried before.
const BRISK: u64 = 16;
/// A fetch that takes longer than this is slow; so many of those go on, divided alike.
const BRISK_TIME: Duration = Duration::from_secs(3);
const SLOW: u64 = 64;
/// One fetch may take so long.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The scheduler of background fetches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WarmUp(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    due: Mutex<BinaryHeap<Reverse<Errand>>>,
    rung: Notify,
    brisk: Arc<Budget>,
    slow: Arc<Budget>,
    /// Due, and their origin has as many fetches under way as it may.
    parked: Mutex<HashMap<Arc<str>, VecDeque<Errand>>>,
    /// A place among the brisk ones was given back.
    freed: Notify,
    clock: Arc<dyn Clock>,
    store: Option<ContextStore>,
}

/// A place among the brisk fetches; given back when dropped.
struct Place {
    queue: Arc<Queue>,
    origin: Arc<str>,
    hold: Hold,
}

/// A fetch to make.
#[derive(Debug)]
struct Errand {
    due: Instant,
    failures: u32,
    tenant: TenantName,
    client: Weak<Client>,
    /// Where it waited for a place before.
    parked_at: Option<Arc<str>>,
}

/// A client's way to ask for a fetch.
#[derive(Debug)]
pub(super) struct Refresher {
    queue: Weak<Queue>,
    tenant: TenantName,
    client: Weak<Client>,
    /// One is due or under way already.
    asked: AtomicBool,
}

impl WarmUp {
    /// Starts the scheduler; it ends with the tasks' soft signal. With a store, contexts outlive the process.
    pub fn start(tasks: &Tasks, clock: Arc<dyn Clock>, store: Option<ContextStore>) -> Self {
        let queue = Arc::new(Queue {
            due: Mutex::default(),
            rung: Notify::new(),
            brisk: Budget::new(BRISK),
            slow: Budget::new(SLOW),
            parked: Mutex::default(),
            freed: Notify::new(),
            clock,
            store,
        });
        let (running, spawner) = (queue.clone(), tasks.clone());
        let run = move || {
            let (queue, tasks) = (running.clone(), spawner.clone());
            async move {
                let soft = tasks.soft().clone();
                soft.run_until_cancelled(queue.run(&tasks)).await;
            }
        };
        tasks.spawn("warm-up", tasks.supervised("warm-up", run));
        Self(queue)
    }

    /// Has the context of a tenant that went live fetched, unless an earlier revision of it left a fresh one, and from
    /// now on refreshed when somebody wants it past its time.
    pub fn enqueue(&self, tenant: TenantName, client: &Arc<Client>) {
        let refresher = Refresher {
            queue: Arc::downgrade(&self.0),
            tenant,
            client: Arc::downgrade(client),
            asked: AtomicBool::new(false),
        };
        let refresher = client.attach(refresher);
        if !client.route().has_fresh_context() {
            refresher.ask();
        }
    }

    /// Forgets the stored context of a tenant that was removed. Reads and writes the disk.
    pub fn forget(&self, tenant: &TenantName) {
        if let Some(store) = &self.0.store {
            store.forget(tenant);
        }
    }

    /// How many fetches are due or wait for their next try.
    pub fn waiting(&self) -> usize {
        self.0.due().len() + self.0.parked().values().map(VecDeque::len).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn look_at_the_clock(&self) {
        self.0.rung.notify_one();
    }
}

impl Refresher {
    /// Asks for a fetch; says whether there will be one.
    pub(super) fn ask(&self) -> bool {
        let Some(queue) = self.queue.upgrade() else { return false };
        if !self.asked.swap(true, Ordering::AcqRel) {
            let (tenant, client) = (self.tenant.clone(), self.client.clone());
            queue.push(Errand { due: queue.clock.monotonic(), failures: 0, tenant, client, parked_at: None });
        }
        true
    }

    fn done(&self) {
        self.asked.store(false, Ordering::Release);
    }
}

impl Queue {
    async fn run(self: Arc<Self>, tasks: &Tasks) {
        loop {
            let errand = self.next().await;
            let Some(route) = errand.client.upgrade().map(|client| client.route().clone()) else {
                // It takes no place, so it gives none back: the next one's turn is now.
                errand.parked_at.inspect(|origin| self.unpark(origin));
                continue;
            };
            let Some((errand, place)) = self.begin(errand, &route).await else { continue };
            let (queue, soft) = (self.clone(), tasks.soft().clone());
            tasks.spawn("warm-up fetch", async move {
                soft.run_until_cancelled(queue.fetch(errand, route, place)).await;
            });
        }
    }

    /// A place for an errand, as soon as there is one; an errand whose origin has as many as it may is parked.
    async fn begin(self: &Arc<Self>, errand: Errand, route: &Route) -> Option<(Errand, Place)> {
        loop {
            // Before looking, so that no place is given back unnoticed.
            let freed = self.freed.notified();
            {
                // Whoever gives a place back looks for parked errands after that, so none is parked unnoticed.
                let mut parked = self.parked();
                match self.place(&self.brisk, &errand, route.origin()) {
                    Ok(hold) => {
                        let place = Place { queue: self.clone(), origin: route.origin().clone(), hold };
                        return Some((errand, place));
                    }
                    Err(Exhausted::Origin) => {
                        let errand = Errand { parked_at: Some(route.origin().clone()), ..errand };
                        parked.entry(route.origin().clone()).or_default().push_back(errand);
                        return None;
                    }
                    Err(_) => {}
                }
            }
            freed.await;
        }
    }

    fn place(&self, places: &Arc<Budget>, errand: &Errand, origin: &Arc<str>) -> Result<Hold, Exhausted> {
        let share = places.share(Party::Origin(origin.clone()));
        let mut hold = places.hold(Some(share), None, errand.failures == 0);
        hold.grow(1).map(|()| hold)
    }

    /// The next of an origin's parked errands is due again.
    fn unpark(&self, origin: &Arc<str>) {
        let errand = {
            let mut parked = self.parked();
            let errand = parked.get_mut(origin).and_then(VecDeque::pop_front);
            parked.retain(|_, errands| !errands.is_empty());
            errand
        };
        if let Some(errand) = errand {
            self.push(errand);
        }
    }

    /// Waits for the first errand that is due.
    async fn next(&self) -> Errand {
        loop {
            let wait = {
                let mut due = self.due();
                let now = self.clock.monotonic();
                match due.peek() {
                    Some(Reverse(first)) if first.due <= now => {
                        break due.pop().expect("it was just peeked at").0;
                    }
                    first => first.map(|Reverse(first)| first.due - now),
                }
            };
            match wait {
                Some(wait) => _ = tokio::time::timeout(wait, self.rung.notified()).await,
                None => self.rung.notified().await,
            }
        }
    }

    async fn fetch(&self, errand: Errand, route: Arc<Route>, place: Place) {
        let outcome = tokio::select! {
            outcome = self.warm_in_place(&route, &errand, place) => outcome,
            () = route.gone() => return,
        };
        match outcome {
            Ok(()) => {
                if let Some(client) = errand.client.upgrade() {
                    client.refresher().inspect(|refresher| refresher.done());
                }
            }
            Err(error) => self.postpone(errand, &error),
        }
    }

    /// A fetch that is not brisk goes on among the slow ones, if there is room for it.
    async fn warm_in_place(&self, route: &Route, errand: &Errand, place: Place) -> Result<(), Error> {
        let mut warming = std::pin::pin!(self.warm(route, errand));
        if let Ok(outcome) = tokio::time::timeout(BRISK_TIME, &mut warming).await {
            return outcome;
        }
        let _slow = self.place(&self.slow, errand, route.origin()).map_err(|_| Error::TimedOut)?;
        drop(place);
        warming.await
    }

    async fn warm(&self, route: &Route, errand: &Errand) -> Result<(), Error> {
        let tenant = errand.tenant.as_str();
        if let (None, Some(store)) = (route.kept(), &self.store)
            && let Some(context) = store.load(&errand.tenant, route.backend()).await
        {
            route.restore(context);
        }
        tracing::info!(tenant, "Starting semantic context warmup");
        let started = self.clock.monotonic();
        let context = route.refresh(&Call::of_our_own(started + PATIENCE)).await?;
        let elapsed_ms = self.clock.monotonic().saturating_duration_since(started).as_millis() as u64;
        tracing::info!(tenant, elapsed_ms, "Semantic context warmup completed");
        if let Some(store) = &self.store {
            store.save(&errand.tenant, route.backend(), context).await;
        }
        Ok(())
    }

    fn postpone(&self, errand: Errand, error: &Error) {
        let pause = pause_after(errand.failures, random::bytes());
        let (tenant, fault) = (errand.tenant.as_str(), error.class());
        tracing::warn!(
            tenant,
            fault,
            retry_in_s = pause.as_secs(),
            "Semantic context warmup failed: {error}. {}",
            error.advice()
        );
        let due = self.clock.monotonic() + pause;
        self.push(Errand { due, failures: errand.failures.saturating_add(1), ..errand });
    }

    fn push(&self, errand: Errand) {
        self.due().push(Reverse(errand));
        self.rung.notify_one();
    }

    fn parked(&self) -> MutexGuard<'_, HashMap<Arc<str>, VecDeque<Errand>>> {
        self.parked.lock().expect("no holder of this lock panics")
    }

    fn due(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Errand>>> {
        self.due.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hold.release();
        self.queue.unpark(&self.origin);
        self.queue.freed.notify_waiters();
    }
}

/// Doubles from 5 s to 10 minutes; less up to a fifth of it, so that tenants of one backend don't come back together.
fn pause_after(failures: u32, [chance]: [u8; 1]) -> Duration {
    let whole = (FIRST_PAUSE * (1 << failures.min(8))).min(LONGEST_PAUSE);
    whole - whole.mul_f64(f64::from(chance) / 256.0 / 5.0)
}

impl Ord for Errand {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due).then_with(|| self.tenant.cmp(&other.tenant))
    }
}

impl PartialOrd for Errand {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Errand {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Errand {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_seconds_to_ten_minutes() {
        let longest: Vec<u64> = (0..9).map(|n| pause_after(n, [0]).as_secs()).collect();
        assert_eq!(longest, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert!(pause_after(0, [255]) >= Duration::from_secs(4));
        assert!(pause_after(u32::MAX, [9]) <= LONGEST_PAUSE);
    }
}
