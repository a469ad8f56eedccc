//! Fetches contexts in the background: when a tenant goes live, and when its context is stale.
//!
//! A single task schedules the fetches of all tenants. A limited number of fetches starts at once,
//! at most half of them for one origin. Fetches that take long move to a larger pool of slow ones,
//! or are postponed if that is full, so that hanging backends do not delay the first context of
//! other tenants. While a backend is down, its fetch is repeated with growing pauses until it
//! succeeds or the tenant is removed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::client::ClientInner;
use super::{BackendClient, CallContext, Error};
use crate::base::budget::{Budget, Consumer, Exhausted, Reservation};
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::task::Tasks;
use crate::spec::TenantName;
use crate::store::ContextStore;

/// The number of fetches that may start at once: half of them for one origin, the last fifth for
/// contexts that were not tried before.
const BRISK: u64 = 16;
/// A fetch that takes longer than this is slow; `SLOW` of them may continue, divided likewise.
const BRISK_TIME: Duration = Duration::from_secs(3);
const SLOW: u64 = 64;
/// The timeout of one fetch.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The scheduler of background fetches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContextRefresher(Arc<RefreshQueue>);

#[derive(Debug)]
struct RefreshQueue {
    due: Mutex<BinaryHeap<Reverse<RefreshJob>>>,
    rung: Notify,
    brisk: Arc<Budget>,
    slow: Arc<Budget>,
    /// Errands that are due but whose origin has its maximum of fetches in progress.
    parked: Mutex<HashMap<Arc<str>, VecDeque<RefreshJob>>>,
    /// Notified when a place among the brisk fetches becomes free.
    freed: Notify,
    clock: Arc<dyn Clock>,
    store: Option<ContextStore>,
}

/// A place among the brisk fetches; returned when dropped.
struct FetchSlot {
    queue: Arc<RefreshQueue>,
    origin: Arc<str>,
    hold: Reservation,
}

/// A scheduled fetch.
#[derive(Debug)]
struct RefreshJob {
    due: Instant,
    failures: u32,
    tenant: TenantName,
    client: Weak<BackendClient>,
    /// The origin under which it was parked before, if it was.
    parked_at: Option<Arc<str>>,
}

/// A client's handle for requesting fetches.
#[derive(Debug)]
pub(super) struct RefreshHandle {
    queue: Weak<RefreshQueue>,
    tenant: TenantName,
    client: Weak<BackendClient>,
    /// Whether a fetch is already scheduled or in progress.
    asked: AtomicBool,
}

impl ContextRefresher {
    /// Starts the scheduler, which ends with the tasks' soft signal. With a store, contexts survive
    /// restarts.
    pub fn start(tasks: &Tasks, clock: Arc<dyn Clock>, store: Option<ContextStore>) -> Self {
        let queue = Arc::new(RefreshQueue {
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
        tasks.spawn("warm-up", tasks.supervise("warm-up", run));
        Self(queue)
    }

    /// Registers a tenant that went live.
    ///
    /// Its context is fetched now, unless an earlier revision left a fresh one, and from then on
    /// whenever it is requested while stale.
    pub fn enqueue(&self, tenant: TenantName, client: &Arc<BackendClient>) {
        let refresher = RefreshHandle {
            queue: Arc::downgrade(&self.0),
            tenant,
            client: Arc::downgrade(client),
            asked: AtomicBool::new(false),
        };
        let refresher = client.attach_refresher(refresher);
        if !client.inner().has_fresh_context() {
            refresher.request();
        }
    }

    /// Deletes the stored contexts of removed tenants.
    pub async fn remove_stored(&self, tenants: Vec<TenantName>) {
        if let Some(store) = &self.0.store {
            store.remove(tenants).await;
        }
    }

    /// Returns the number of fetches that are due or waiting for a retry.
    pub fn pending_count(&self) -> usize {
        self.0.due().len() + self.0.parked().values().map(VecDeque::len).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn recheck_due(&self) {
        self.0.rung.notify_one();
    }
}

impl RefreshHandle {
    /// Requests a fetch; returns whether there will be one.
    pub(super) fn request(&self) -> bool {
        let Some(queue) = self.queue.upgrade() else { return false };
        if !self.asked.swap(true, Ordering::AcqRel) {
            let (tenant, client) = (self.tenant.clone(), self.client.clone());
            queue.push(RefreshJob {
                due: queue.clock.monotonic(),
                failures: 0,
                tenant,
                client,
                parked_at: None,
            });
        }
        true
    }

    fn done(&self) {
        self.asked.store(false, Ordering::Release);
    }
}

impl RefreshQueue {
    async fn run(self: Arc<Self>, tasks: &Tasks) {
        loop {
            let errand = self.next().await;
            let Some(route) = errand.client.upgrade().map(|client| client.inner().clone()) else {
                // The errand takes no place and so returns none; pass its turn to the next one.
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

    /// Waits for a place for an errand. Parks it instead if its origin has its maximum.
    async fn begin(
        self: &Arc<Self>,
        errand: RefreshJob,
        route: &ClientInner,
    ) -> Option<(RefreshJob, FetchSlot)> {
        loop {
            // Subscribed before checking, so that no freed place goes unnoticed.
            let freed = self.freed.notified();
            {
                // A freed place unparks errands after it is returned, so parking under this lock is
                // never missed.
                let mut parked = self.parked();
                match self.place(&self.brisk, &errand, route.origin()) {
                    Ok(hold) => {
                        let place = FetchSlot { queue: self.clone(), origin: route.origin().clone(), hold };
                        return Some((errand, place));
                    }
                    Err(Exhausted::Origin) => {
                        let errand = RefreshJob { parked_at: Some(route.origin().clone()), ..errand };
                        parked.entry(route.origin().clone()).or_default().push_back(errand);
                        return None;
                    }
                    Err(_) => {}
                }
            }
            freed.await;
        }
    }

    fn place(
        &self,
        places: &Arc<Budget>,
        errand: &RefreshJob,
        origin: &Arc<str>,
    ) -> Result<Reservation, Exhausted> {
        let share = places.share(Consumer::Origin(origin.clone()));
        let mut hold = places.new_reservation(Some(share), None, errand.failures == 0);
        hold.try_grow(1).map(|()| hold)
    }

    /// Reschedules the next parked errand of an origin.
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
    async fn next(&self) -> RefreshJob {
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

    async fn fetch(&self, errand: RefreshJob, route: Arc<ClientInner>, place: FetchSlot) {
        let outcome = tokio::select! {
            outcome = self.warm_in_place(&route, &errand, place) => outcome,
            () = route.closed() => return,
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

    /// Runs a fetch. One that exceeds `BRISK_TIME` continues in the slow pool, if that has room.
    async fn warm_in_place(
        &self,
        route: &ClientInner,
        errand: &RefreshJob,
        place: FetchSlot,
    ) -> Result<(), Error> {
        let mut warming = std::pin::pin!(self.warm(route, errand));
        if let Ok(outcome) = tokio::time::timeout(BRISK_TIME, &mut warming).await {
            return outcome;
        }
        let _slow = self.place(&self.slow, errand, route.origin()).map_err(|_| Error::TimedOut)?;
        drop(place);
        warming.await
    }

    async fn warm(&self, route: &ClientInner, errand: &RefreshJob) -> Result<(), Error> {
        let tenant = errand.tenant.as_str();
        if let (None, Some(store)) = (route.cached_context(), &self.store)
            && let Some(context) = store.load(&errand.tenant, route.backend()).await
        {
            route.restore_context(context);
        }
        tracing::info!(tenant, "Starting semantic context warmup");
        let started = self.clock.monotonic();
        let context = route.refresh(&CallContext::internal(started + PATIENCE)).await?;
        let elapsed_ms = self.clock.monotonic().saturating_duration_since(started).as_millis() as u64;
        tracing::info!(tenant, elapsed_ms, "Semantic context warmup completed");
        if let Some(store) = &self.store {
            store.save(&errand.tenant, route.backend(), Arc::clone(context.document())).await;
        }
        Ok(())
    }

    fn postpone(&self, errand: RefreshJob, error: &Error) {
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
        self.push(RefreshJob { due, failures: errand.failures.saturating_add(1), ..errand });
    }

    fn push(&self, errand: RefreshJob) {
        self.due().push(Reverse(errand));
        self.rung.notify_one();
    }

    fn parked(&self) -> MutexGuard<'_, HashMap<Arc<str>, VecDeque<RefreshJob>>> {
        self.parked.lock().expect("no holder of this lock panics")
    }

    fn due(&self) -> MutexGuard<'_, BinaryHeap<Reverse<RefreshJob>>> {
        self.due.lock().expect("no holder of this lock panics")
    }
}

impl Drop for FetchSlot {
    fn drop(&mut self) {
        self.hold.release();
        self.queue.unpark(&self.origin);
        self.queue.freed.notify_waiters();
    }
}

/// Returns the pause after `failures` failures: doubling from 5 s to 10 minutes, less up to a fifth
/// at random, so that tenants of one backend do not retry in step.
fn pause_after(failures: u32, [chance]: [u8; 1]) -> Duration {
    let whole = (FIRST_PAUSE * (1 << failures.min(8))).min(LONGEST_PAUSE);
    whole - whole.mul_f64(f64::from(chance) / 256.0 / 5.0)
}

impl Ord for RefreshJob {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due).then_with(|| self.tenant.cmp(&other.tenant))
    }
}

impl PartialOrd for RefreshJob {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RefreshJob {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for RefreshJob {}

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
