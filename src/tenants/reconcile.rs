//! The one task that changes the published state: it scans, loads, decides, builds, publishes and
//! announces.

mod commands;
mod history;
mod pass;
mod persist;
mod publish;
mod read;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use self::commands::{Command, CommandError, CommandOutcome};
pub use self::history::{Revision, RevisionComparison};
use self::pass::Reconciler;
use super::build::TenantDeps;
use super::registry::Registry;
use super::status::TenantStatus;
use super::upload;
use super::watch::WatchQueue;
use crate::base::panic::{Panicked, catch_panic};
use crate::base::task::{PanicCounts, Tasks};
use crate::bundle;
use crate::settings::WatchMode;
use crate::store::{Store, StoredEntry};

/// The longest time that a reload waits for files that are still being written.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a step that panicked.
const PANIC_BACKOFF: Duration = Duration::from_secs(1);
/// The name of the task.
const TASK: &str = "reconcile";

/// The handle on the task.
#[derive(Clone)]
pub struct ReconcilerHandle {
    watch_queue: WatchQueue,
    reloads: mpsc::Sender<oneshot::Sender<u64>>,
    commands: mpsc::Sender<QueuedCommand>,
    shared: Arc<ReconcilerShared>,
}

/// An order, the entry that it is for, and the channel for the answer.
type QueuedCommand = (String, Command, oneshot::Sender<Result<CommandOutcome, CommandError>>);

/// The state that answers requests without the task.
struct ReconcilerShared {
    folder: PathBuf,
    context: Arc<bundle::LoadContext>,
    registry: Registry,
    store: Option<Arc<Store>>,
}

/// The configuration and dependencies of the reconciler.
pub struct ReconcilerConfig {
    /// The tenants folder.
    pub folder: PathBuf,
    /// How the folder is watched.
    pub watch: WatchMode,
    /// The context of loading.
    pub context: Arc<bundle::LoadContext>,
    /// The dependencies of tenants.
    pub tenant_deps: TenantDeps,
    /// Where tables are published.
    pub registry: Registry,
    /// The persistent store, if there is one.
    pub store: Option<Arc<Store>>,
    /// The store's record of each entry.
    pub stored_entries: Vec<StoredEntry>,
}

impl ReconcilerHandle {
    /// Starts the task. Its first pass takes the folder as it is.
    pub fn start(ground: ReconcilerConfig, tasks: &Tasks) -> Self {
        let bell = WatchQueue::new(Arc::clone(&ground.tenant_deps.clock));
        // A full queue holds many requests for a full scan: one scan serves them all.
        let (requests, asked) = mpsc::channel(16);
        let (orders, ordered) = mpsc::channel(16);
        let site = Arc::new(ReconcilerShared {
            folder: ground.folder.clone(),
            context: Arc::clone(&ground.context),
            registry: ground.registry.clone(),
            store: ground.store.clone(),
        });
        let worker = Reconciler::new(ground, bell.clone(), tasks);
        let stop = tasks.soft().clone();
        let work = run(worker, bell.clone(), asked, ordered, tasks.panics().clone());
        tasks.spawn(TASK, async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
        Self { watch_queue: bell, reloads: requests, commands: orders, shared: site }
    }

    /// Requests a full scan.
    pub fn request_scan(&self) {
        self.watch_queue.notify_all();
    }

    /// Runs a full scan, waits until its entries have settled (at most five seconds), and returns
    /// the current generation; `None` on shutdown.
    pub async fn reload(&self) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.reloads.send(reply).await.ok()?;
        answer.await.ok()
    }

    /// Carries out an order about the entry with this name or stem.
    ///
    /// # Errors
    /// Returns the reason why the order was not carried out, for instance that there is no such
    /// entry, or `Refused::ShuttingDown` on shutdown.
    pub async fn execute(&self, name: &str, order: Command) -> Result<CommandOutcome, CommandError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send((name.to_owned(), order, reply)).await;
        sent.map_err(|_| CommandError::ShuttingDown)?;
        answer.await.map_err(|_| CommandError::ShuttingDown)?
    }

    /// Validates a file, puts it into the folder, and returns the status of its entry after a
    /// reload.
    ///
    /// # Errors
    /// Fails if the name is not a tenant file's, if the file exists and `replace` is false, if the
    /// tenant would be refused, or if the folder cannot be written.
    pub async fn upload(
        &self,
        name: String,
        bytes: Vec<u8>,
        replace: bool,
    ) -> Result<Option<TenantStatus>, upload::UploadError> {
        let site = Arc::clone(&self.shared);
        let adding = move || upload::store_file(&site.folder, &name, bytes, replace, &site.context);
        let added = tokio::task::spawn_blocking(adding).await;
        let stem = added.map_err(|error| upload::UploadError::Io(std::io::Error::other(error)))??;
        self.reload().await;
        Ok(self.shared.registry.load().entries.get(stem.as_str()).map(|entry| entry.status()))
    }
}

/// Runs the task. A panic ends only the current step: the published table stays consistent, since
/// it is swapped as a whole, and the next tick scans everything again.
async fn run(
    mut worker: Reconciler,
    bell: WatchQueue,
    mut asked: mpsc::Receiver<oneshot::Sender<u64>>,
    mut ordered: mpsc::Receiver<QueuedCommand>,
    panics: PanicCounts,
) {
    if catch_panic(worker.first_pass()).await == Err(Panicked) {
        panics.record(TASK);
    }
    let mut waiting = ReloadWaiters::default();
    loop {
        let step = catch_panic(step(&mut worker, &bell, &mut asked, &mut ordered, &mut waiting));
        if step.await == Err(Panicked) {
            panics.record(TASK);
            // A fault that recurs at once must not cause a busy loop.
            tokio::time::sleep(PANIC_BACKOFF).await;
        }
        waiting.answer_due(worker.is_stable(), worker.generation(), worker.now());
    }
}

/// Waits for the next event and handles it.
async fn step(
    worker: &mut Reconciler,
    bell: &WatchQueue,
    asked: &mut mpsc::Receiver<oneshot::Sender<u64>>,
    ordered: &mut mpsc::Receiver<QueuedCommand>,
    waiting: &mut ReloadWaiters,
) {
    tokio::select! {
        look = bell.next_scan() => worker.run_pass(look).await,
        () = worker.until_recheck_due() => worker.recheck_unstable().await,
        () = worker.until_full_scan_due() => worker.scan_all().await,
        Some((name, order, reply)) = ordered.recv() => {
            // The sender may have given up.
            let _unheard = reply.send(worker.execute(&name, order).await);
        }
        Some(reply) = asked.recv() => {
            worker.scan_all().await;
            waiting.add(reply, worker.now());
        }
    }
}

/// The senders of reload requests that were not answered yet.
#[derive(Default)]
struct ReloadWaiters(Vec<(Instant, oneshot::Sender<u64>)>);

impl ReloadWaiters {
    fn add(&mut self, reply: oneshot::Sender<u64>, now: Instant) {
        self.0.push((now + RELOAD_TIMEOUT, reply));
    }

    /// Answers all requests once everything has settled, and before that those whose time is up.
    fn answer_due(&mut self, settled: bool, generation: u64, now: Instant) {
        for (_, reply) in self.0.extract_if(.., |(until, _)| settled || *until <= now) {
            // The sender may have given up.
            let _unheard = reply.send(generation);
        }
    }
}
