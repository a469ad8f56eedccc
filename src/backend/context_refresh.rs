//! Fetches the semantic contexts (what each backend says its dataset can be asked) in the
//! background: when a tenant goes live, and when its context is stale.
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

use tokio::sync::{Notify, watch};

use super::client::{ClientInner, RefreshScheduler};
use super::{BackendClient, CallContext, Error};
use crate::base::backoff::Backoff;
use crate::base::budget::{Budget, Consumer, Exhausted, Reservation};
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::task::Tasks;
use crate::spec::TenantName;
use crate::store::ContextStore;

/// The number of fetches that may start at once: half of them for one origin, the last fifth for
/// contexts that were not tried before.
const MAX_FAST: u64 = 16;
/// A fetch that takes longer than this is slow; `MAX_SLOW` of them may continue, divided likewise.
const FAST_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_SLOW: u64 = 64;
/// The timeout of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(600));

/// The scheduler of background fetches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContextRefresher(Arc<RefreshQueue>);

#[derive(Debug)]
struct RefreshQueue {
    due: Mutex<BinaryHeap<Reverse<RefreshJob>>>,
    job_added: Notify,
    fast: Arc<Budget>,
    slow: Arc<Budget>,
    /// Jobs that are due but whose origin has its maximum of fetches in progress.
    parked: Mutex<HashMap<Arc<str>, VecDeque<RefreshJob>>>,
    /// Notified when a slot among the fast fetches becomes free.
    slot_freed: Notify,
    clock: Arc<dyn Clock>,
    store: Option<ContextStore>,
    /// The number of fetches that ended, well or not.
    attempts: watch::Sender<u64>,
}

/// A slot among the fast fetches; returned when dropped.
struct FetchSlot {
    queue: Arc<RefreshQueue>,
    origin: Arc<str>,
    reservation: Reservation,
}

/// A scheduled fetch.
#[derive(Debug)]
struct RefreshJob {
    due_at: Instant,
    failures: u32,
    target: Arc<RefreshTarget>,
    /// The origin under which it was parked before, if it was.
    parked_at: Option<Arc<str>>,
}

/// The client whose context is fetched.
#[derive(Debug)]
struct RefreshTarget {
    tenant: TenantName,
    client: Weak<BackendClient>,
    /// Whether a fetch is already scheduled or in progress.
    is_requested: AtomicBool,
    queue: Weak<RefreshQueue>,
}

impl ContextRefresher {
    /// Starts the scheduler, which ends with the tasks' shutdown signal. With a store, contexts
    /// survive restarts.
    pub fn start(tasks: &Tasks, clock: Arc<dyn Clock>, store: Option<ContextStore>) -> Self {
        let queue = Arc::new(RefreshQueue {
            due: Mutex::default(),
            job_added: Notify::new(),
            fast: Budget::new(MAX_FAST),
            slow: Budget::new(MAX_SLOW),
            parked: Mutex::default(),
            slot_freed: Notify::new(),
            clock,
            store,
            attempts: watch::Sender::new(0),
        });
        let (shared, spawner) = (queue.clone(), tasks.clone());
        let run = move || {
            let (queue, tasks) = (shared.clone(), spawner.clone());
            async move {
                let shutdown = tasks.shutdown_signal().clone();
                shutdown.run_until_cancelled(queue.run(&tasks)).await;
            }
        };
        tasks.spawn("context refresh", tasks.supervise("context refresh", run));
        Self(queue)
    }

    /// Registers a tenant that went live.
    ///
    /// Its context is fetched now, unless an earlier revision left a fresh one, and from then on
    /// whenever it is requested while stale.
    pub fn register(&self, tenant: TenantName, client: &Arc<BackendClient>) {
        client.attach_refresher(Arc::new(RefreshTarget {
            tenant,
            client: Arc::downgrade(client),
            is_requested: AtomicBool::new(false),
            queue: Arc::downgrade(&self.0),
        }));
        if !client.inner().has_fresh_context() {
            client.request_refresh();
        }
    }

    /// Deletes the stored contexts of removed tenants.
    pub async fn remove_stored(&self, tenants: Vec<TenantName>) {
        if let Some(store) = &self.0.store {
            store.remove(tenants).await;
        }
    }

    /// Returns the number of fetches that ended, well or not.
    pub fn attempts(&self) -> watch::Receiver<u64> {
        self.0.attempts.subscribe()
    }

    /// Returns the number of fetches that are due or waiting for a retry.
    pub fn pending_count(&self) -> usize {
        self.0.lock_due().len() + self.0.lock_parked().values().map(VecDeque::len).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn recheck_due(&self) {
        self.0.job_added.notify_one();
    }
}

impl RefreshScheduler for RefreshTarget {
    fn request(self: Arc<Self>) -> bool {
        let Some(queue) = self.queue.upgrade() else { return false };
        if !self.is_requested.swap(true, Ordering::AcqRel) {
            let due_at = queue.clock.monotonic();
            queue.push(RefreshJob { due_at, failures: 0, target: self, parked_at: None });
        }
        true
    }
}

impl RefreshQueue {
    async fn run(self: Arc<Self>, tasks: &Tasks) {
        loop {
            let job = self.next_due().await;
            let Some(client) = job.target.client.upgrade().map(|client| client.inner().clone()) else {
                // The job takes no slot and so returns none; pass its turn to the next one.
                job.parked_at.inspect(|origin| self.unpark(origin));
                continue;
            };
            let Some((job, slot)) = self.acquire_slot(job, &client).await else { continue };
            let (queue, shutdown) = (self.clone(), tasks.shutdown_signal().clone());
            tasks.spawn("context fetch", async move {
                shutdown.run_until_cancelled(queue.fetch(job, client, slot)).await;
            });
        }
    }

    /// Waits for a slot for a job. Parks it instead if its origin has its maximum.
    async fn acquire_slot(
        self: &Arc<Self>,
        job: RefreshJob,
        client: &ClientInner,
    ) -> Option<(RefreshJob, FetchSlot)> {
        loop {
            // Subscribed before checking, so that no freed slot goes unnoticed.
            let slot_freed = self.slot_freed.notified();
            {
                // A freed place unparks jobs after it is returned, so parking under this lock is
                // never missed.
                let mut parked = self.lock_parked();
                match self.reserve_slot(&self.fast, &job, client.origin()) {
                    Ok(reservation) => {
                        let slot =
                            FetchSlot { queue: self.clone(), origin: client.origin().clone(), reservation };
                        return Some((job, slot));
                    }
                    Err(Exhausted::Origin) => {
                        let job = RefreshJob { parked_at: Some(client.origin().clone()), ..job };
                        parked.entry(client.origin().clone()).or_default().push_back(job);
                        return None;
                    }
                    Err(_) => {}
                }
            }
            slot_freed.await;
        }
    }

    fn reserve_slot(
        &self,
        slots: &Arc<Budget>,
        job: &RefreshJob,
        origin: &Arc<str>,
    ) -> Result<Reservation, Exhausted> {
        let share = slots.share(Consumer::Origin(origin.clone()));
        let mut reservation = slots.new_reservation(Some(share), None, job.failures == 0);
        reservation.try_grow(1).map(|()| reservation)
    }

    /// Reschedules the next parked job of an origin.
    fn unpark(&self, origin: &Arc<str>) {
        let job = {
            let mut parked = self.lock_parked();
            let job = parked.get_mut(origin).and_then(VecDeque::pop_front);
            parked.retain(|_, jobs| !jobs.is_empty());
            job
        };
        if let Some(job) = job {
            self.push(job);
        }
    }

    /// Waits for the first job that is due.
    async fn next_due(&self) -> RefreshJob {
        loop {
            let wait = {
                let mut due = self.lock_due();
                let now = self.clock.monotonic();
                match due.peek() {
                    Some(Reverse(first)) if first.due_at <= now => {
                        break due.pop().expect("it was just peeked at").0;
                    }
                    first => first.map(|Reverse(first)| first.due_at - now),
                }
            };
            match wait {
                Some(wait) => _ = tokio::time::timeout(wait, self.job_added.notified()).await,
                None => self.job_added.notified().await,
            }
        }
    }

    async fn fetch(&self, job: RefreshJob, client: Arc<ClientInner>, slot: FetchSlot) {
        let outcome = tokio::select! {
            outcome = self.fetch_in_slot(&client, &job, slot) => outcome,
            () = client.closed() => return,
        };
        match outcome {
            Ok(()) => job.target.is_requested.store(false, Ordering::Release),
            Err(error) => self.postpone(job, &error),
        }
        self.attempts.send_modify(|attempts| *attempts += 1);
    }

    /// Runs a fetch. One that exceeds `FAST_TIMEOUT` continues in the slow pool, if that has room.
    async fn fetch_in_slot(
        &self,
        client: &ClientInner,
        job: &RefreshJob,
        slot: FetchSlot,
    ) -> Result<(), Error> {
        let mut refresh = std::pin::pin!(self.refresh_and_save(client, job));
        if let Ok(outcome) = tokio::time::timeout(FAST_TIMEOUT, &mut refresh).await {
            return outcome;
        }
        let _slow = self.reserve_slot(&self.slow, job, client.origin()).map_err(|_| Error::TimedOut)?;
        drop(slot);
        refresh.await
    }

    async fn refresh_and_save(&self, client: &ClientInner, job: &RefreshJob) -> Result<(), Error> {
        let tenant = job.target.tenant.as_str();
        if let (None, Some(store)) = (client.cached_context(), &self.store)
            && let Some(context) = store.load(&job.target.tenant, client.backend()).await
        {
            client.restore_context(context);
        }
        // The sentences about the warmup are the vendor's, which operators search for.
        tracing::info!(tenant, "Starting semantic context warmup");
        let started = self.clock.monotonic();
        let context = client.refresh(&CallContext::internal(started + FETCH_TIMEOUT)).await?;
        let elapsed_ms = self.clock.monotonic().saturating_duration_since(started).as_millis() as u64;
        tracing::info!(tenant, elapsed_ms, "Semantic context warmup completed");
        if let Some(store) = &self.store {
            store.save(&job.target.tenant, client.backend(), Arc::clone(context.document())).await;
        }
        Ok(())
    }

    fn postpone(&self, job: RefreshJob, error: &Error) {
        let pause = pause_after(job.failures, random::bytes());
        let (tenant, fault) = (job.target.tenant.as_str(), error.class());
        tracing::warn!(
            tenant,
            fault,
            retry_in_s = pause.as_secs(),
            "Semantic context warmup failed: {error}. {}",
            error.advice()
        );
        let due_at = self.clock.monotonic() + pause;
        self.push(RefreshJob { due_at, failures: job.failures.saturating_add(1), ..job });
    }

    fn push(&self, job: RefreshJob) {
        self.lock_due().push(Reverse(job));
        self.job_added.notify_one();
    }

    fn lock_parked(&self) -> MutexGuard<'_, HashMap<Arc<str>, VecDeque<RefreshJob>>> {
        self.parked.lock().expect("no holder of this lock panics")
    }

    fn lock_due(&self) -> MutexGuard<'_, BinaryHeap<Reverse<RefreshJob>>> {
        self.due.lock().expect("no holder of this lock panics")
    }
}

impl Drop for FetchSlot {
    fn drop(&mut self) {
        self.reservation.release();
        self.queue.unpark(&self.origin);
        self.queue.slot_freed.notify_waiters();
    }
}

/// Returns the pause after `failures` failures: doubling from 5 s to 10 minutes, less up to a fifth
/// at random, so that tenants of one backend do not retry in step.
fn pause_after(failures: u32, [chance]: [u8; 1]) -> Duration {
    let whole = RETRY_BACKOFF.pause_after(failures);
    whole - whole.mul_f64(f64::from(chance) / 256.0 / 5.0)
}

impl Ord for RefreshJob {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due_at.cmp(&other.due_at).then_with(|| self.target.tenant.cmp(&other.target.tenant))
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
        assert!(pause_after(u32::MAX, [9]) <= Duration::from_secs(600));
    }
}
