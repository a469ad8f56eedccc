//! The one task that changes the published state: it scans, loads, decides, builds, publishes and
//! announces.

mod history;
mod keep;
mod orders;
mod pass;
mod read;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use self::history::{Comparison, Revision};
pub use self::orders::{Done, Order, Refused};
use self::pass::Worker;
use super::adding;
use super::build::Parts;
use super::registry::Registry;
use super::status::TenantStatus;
use super::watch::Doorbell;
use crate::base::panic::{Panicked, caught};
use crate::base::task::{Panics, Tasks};
use crate::bundle;
use crate::settings::WatchMode;
use crate::store::{Entry, Store};

/// The longest time that a reload waits for files that are still being written.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a step that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// The name of the task.
const TASK: &str = "reconcile";

/// The handle on the task.
#[derive(Clone)]
pub struct Reconciler {
    bell: Doorbell,
    requests: mpsc::Sender<oneshot::Sender<u64>>,
    orders: mpsc::Sender<Ordered>,
    site: Arc<Site>,
}

/// An order, the entry that it is for, and the channel for the answer.
type Ordered = (String, Order, oneshot::Sender<Result<Done, Refused>>);

/// The state that answers requests without the task.
struct Site {
    folder: PathBuf,
    context: Arc<bundle::Context>,
    registry: Registry,
    store: Option<Arc<Store>>,
}

/// The configuration and dependencies of the reconciler.
pub struct Ground {
    /// The tenants folder.
    pub folder: PathBuf,
    /// How the folder is watched.
    pub watch: WatchMode,
    /// The context of loading.
    pub context: Arc<bundle::Context>,
    /// The dependencies of tenants.
    pub parts: Parts,
    /// Where tables are published.
    pub registry: Registry,
    /// The persistent store, if there is one.
    pub store: Option<Arc<Store>>,
    /// The store's record of each entry.
    pub kept: Vec<Entry>,
}

impl Reconciler {
    /// Starts the task. Its first pass takes the folder as it is.
    pub fn start(ground: Ground, tasks: &Tasks) -> Self {
        let bell = Doorbell::new(Arc::clone(&ground.parts.clock));
        // A full queue holds many requests for a full scan: one scan serves them all.
        let (requests, asked) = mpsc::channel(16);
        let (orders, ordered) = mpsc::channel(16);
        let site = Arc::new(Site {
            folder: ground.folder.clone(),
            context: Arc::clone(&ground.context),
            registry: ground.registry.clone(),
            store: ground.store.clone(),
        });
        let worker = Worker::new(ground, bell.clone(), tasks);
        let stop = tasks.soft().clone();
        let work = run(worker, bell.clone(), asked, ordered, tasks.panics().clone());
        tasks.spawn(TASK, async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
        Self { bell, requests, orders, site }
    }

    /// Requests a full scan.
    pub fn look_again(&self) {
        self.bell.ring_all();
    }

    /// Runs a full scan, waits until its entries have settled (at most five seconds), and returns
    /// the current generation; `None` on shutdown.
    pub async fn reload(&self) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        answer.await.ok()
    }

    /// Carries out an order about the entry with this name or stem.
    ///
    /// # Errors
    /// Returns the reason why the order was not carried out, for instance that there is no such
    /// entry, or `Refused::Ending` on shutdown.
    pub async fn order(&self, name: &str, order: Order) -> Result<Done, Refused> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send((name.to_owned(), order, reply)).await;
        sent.map_err(|_| Refused::Ending)?;
        answer.await.map_err(|_| Refused::Ending)?
    }

    /// Validates a file, puts it into the folder, and returns the status of its entry after a
    /// reload.
    ///
    /// # Errors
    /// Fails if the name is not a tenant file's, if the file exists and `replace` is false, if the
    /// tenant would be refused, or if the folder cannot be written.
    pub async fn add(
        &self,
        name: String,
        bytes: Vec<u8>,
        replace: bool,
    ) -> Result<Option<TenantStatus>, adding::Refused> {
        let site = Arc::clone(&self.site);
        let adding = move || adding::add(&site.folder, &name, bytes, replace, &site.context);
        let added = tokio::task::spawn_blocking(adding).await;
        let stem = added.map_err(|error| adding::Refused::Io(std::io::Error::other(error)))??;
        self.reload().await;
        Ok(self.site.registry.load().entries.get(stem.as_str()).map(|entry| entry.status()))
    }
}

/// Runs the task. A panic ends only the current step: the published table stays consistent, since
/// it is swapped as a whole, and the next tick scans everything again.
async fn run(
    mut worker: Worker,
    bell: Doorbell,
    mut asked: mpsc::Receiver<oneshot::Sender<u64>>,
    mut ordered: mpsc::Receiver<Ordered>,
    panics: Panics,
) {
    if caught(worker.first_pass()).await == Err(Panicked) {
        panics.record(TASK);
    }
    let mut waiting = Waiting::default();
    loop {
        let step = caught(step(&mut worker, &bell, &mut asked, &mut ordered, &mut waiting));
        if step.await == Err(Panicked) {
            panics.record(TASK);
            // A fault that recurs at once must not cause a busy loop.
            tokio::time::sleep(AFTER_PANIC).await;
        }
        waiting.answer(worker.has_settled(), worker.generation(), worker.now());
    }
}

/// Waits for the next event and handles it.
async fn step(
    worker: &mut Worker,
    bell: &Doorbell,
    asked: &mut mpsc::Receiver<oneshot::Sender<u64>>,
    ordered: &mut mpsc::Receiver<Ordered>,
    waiting: &mut Waiting,
) {
    tokio::select! {
        look = bell.next() => worker.pass(look).await,
        () = worker.until_second_look() => worker.second_look().await,
        () = worker.until_tick() => worker.look_at_all().await,
        Some((name, order, reply)) = ordered.recv() => {
            // The sender may have given up.
            let _unheard = reply.send(worker.obey(&name, order).await);
        }
        Some(reply) = asked.recv() => {
            worker.look_at_all().await;
            waiting.add(reply, worker.now());
        }
    }
}

/// The senders of reload requests that were not answered yet.
#[derive(Default)]
struct Waiting(Vec<(Instant, oneshot::Sender<u64>)>);

impl Waiting {
    fn add(&mut self, reply: oneshot::Sender<u64>, now: Instant) {
        self.0.push((now + PATIENCE, reply));
    }

    /// Answers all requests once everything has settled, and before that those whose time is up.
    fn answer(&mut self, settled: bool, generation: u64, now: Instant) {
        for (_, reply) in self.0.extract_if(.., |(until, _)| settled || *until <= now) {
            // The sender may have given up.
            let _unheard = reply.send(generation);
        }
    }
}
