//! The one task that changes the published state: it scans, loads, decides, builds, publishes and
//! announces.

mod commands;
mod folder;
mod history;
mod load;
mod order_book;
mod orders;
mod pass;
mod persist;
mod publish;
mod rebuild;
mod reconciler;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::commands::{Command, CommandError, CommandOutcome};
pub use self::history::{Revision, RevisionComparison};
use self::reconciler::Reconciler;
pub use self::upload::{CheckedUpload, MAX_UPLOAD_BYTES, UploadError};
use super::build::TenantDeps;
use super::registry::{Registry, TablePublisher};
use super::source::TenantsSource;
use super::watch::WatchQueue;
use crate::base::heartbeat::Beats;
use crate::base::panic::{Panicked, catch_panic};
use crate::base::task::{PanicCounts, Tasks};
use crate::bundle;
use crate::settings::WatchMode;
use crate::store::{ChangeBatch, ChangeSubscription, ClusterStore, LocalStore, StoredEntry};

/// The longest time that a reload waits for files that are still being written.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a step that panicked.
const PANIC_BACKOFF: Duration = Duration::from_secs(1);
/// How many rounds of heartbeats a pass or a command may take: ten of the watchdog's periods.
const LONGEST_PASS: u64 = 30;
/// The name of the task.
const TASK: &str = "reconcile";

/// The handle on the task.
#[derive(Clone)]
pub struct ReconcilerHandle {
    watch_queue: WatchQueue,
    reloads: mpsc::Sender<oneshot::Sender<u64>>,
    commands: mpsc::Sender<QueuedCommand>,
    contexts: watch::Sender<Arc<bundle::LoadContext>>,
    shared: Arc<ReconcilerShared>,
}

/// The entry that a command is about, the command, and the channel for the answer.
type QueuedCommand = (String, Command, oneshot::Sender<Result<CommandOutcome, CommandError>>);

/// The state that answers requests without the task.
struct ReconcilerShared {
    source: TenantsSource,
    context: watch::Receiver<Arc<bundle::LoadContext>>,
    registry: Registry,
    store: Option<LocalStore>,
}

/// The configuration and dependencies of the reconciler.
pub struct ReconcilerConfig {
    /// Where the entries are.
    pub source: TenantsSource,
    /// Fires once the entries may be read: copies must be there first.
    pub filled: CancellationToken,
    /// How the folder is watched.
    pub watch: WatchMode,
    /// The context of loading.
    pub context: Arc<bundle::LoadContext>,
    /// The dependencies of tenants.
    pub tenant_deps: TenantDeps,
    /// Where tables are published.
    pub publisher: TablePublisher,
    /// The persistent store, if there is one.
    pub store: Option<LocalStore>,
    /// The store's record of each entry.
    pub stored_entries: Vec<StoredEntry>,
    /// What it shares with other gateways, if it is one of a cluster.
    pub cluster: Option<ClusterStore>,
}

impl ReconcilerHandle {
    /// Starts the task. Its first pass takes the folder as it is.
    pub fn start(config: ReconcilerConfig, tasks: &Tasks) -> Self {
        let queue = WatchQueue::new(Arc::clone(&config.tenant_deps.clock));
        // A full queue holds many requests for a full scan: one scan serves them all.
        let (reloads, reload_requests) = mpsc::channel(16);
        let (commands, queued_commands) = mpsc::channel(16);
        let (context_sender, contexts) = watch::channel(Arc::clone(&config.context));
        let inbox = Inbox {
            contexts: contexts.clone(),
            queue: queue.clone(),
            reloads: reload_requests,
            commands: queued_commands,
            waiters: ReloadWaiters::default(),
            changes: config.cluster.as_ref().map(ClusterStore::subscribe),
            beats: tasks.heartbeats().register(TASK, LONGEST_PASS).beats(),
        };
        let shared = Arc::new(ReconcilerShared {
            source: config.source.clone(),
            context: contexts,
            registry: config.publisher.registry().clone(),
            store: config.store.clone(),
        });
        let filled = config.filled.clone();
        let reconciler = Reconciler::new(config, queue.clone(), tasks);
        let stop = tasks.shutdown_signal().clone();
        let work = run(reconciler, inbox, filled, tasks.panics().clone());
        tasks.spawn(TASK, async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
        Self { watch_queue: queue, reloads, commands, contexts: context_sender, shared }
    }

    /// Replaces the context of loading. Entries that are refused are read again by it; those in
    /// force stay as they are until their files change.
    pub fn change_context(&self, context: bundle::LoadContext) {
        self.contexts.send_replace(Arc::new(context));
    }

    /// Requests a full scan.
    pub fn request_scan(&self) {
        self.watch_queue.notify_all();
    }

    /// Runs a full scan, waits until its entries are stable (at most five seconds), and returns
    /// the current generation; `None` on shutdown.
    pub async fn reload(&self) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.reloads.send(reply).await.ok()?;
        answer.await.ok()
    }

    /// Executes a command about the entry with this name or id.
    ///
    /// # Errors
    /// Returns the reason why the command was not executed, for instance that there is no such
    /// entry, or [`CommandError::ShuttingDown`].
    pub async fn execute(&self, name: &str, command: Command) -> Result<CommandOutcome, CommandError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send((name.to_owned(), command, reply)).await;
        sent.map_err(|_| CommandError::ShuttingDown)?;
        answer.await.map_err(|_| CommandError::ShuttingDown)?
    }
}

/// What the task is asked to do.
struct Inbox {
    contexts: watch::Receiver<Arc<bundle::LoadContext>>,
    queue: WatchQueue,
    reloads: mpsc::Receiver<oneshot::Sender<u64>>,
    commands: mpsc::Receiver<QueuedCommand>,
    waiters: ReloadWaiters,
    changes: Option<ChangeSubscription>,
    beats: Beats,
}

/// Runs the task. A panic ends only the current step: the published table stays consistent, since
/// it is swapped as a whole, and the next tick scans everything again.
async fn run(mut reconciler: Reconciler, mut inbox: Inbox, filled: CancellationToken, panics: PanicCounts) {
    inbox.wait_until_filled(&filled).await;
    reconciler.read_first_orders().await;
    if catch_panic(reconciler.first_pass()).await == Err(Panicked) {
        panics.record(TASK);
    }
    loop {
        if catch_panic(inbox.handle_next(&mut reconciler)).await == Err(Panicked) {
            panics.record(TASK);
            // A fault that recurs at once must not cause a busy loop.
            tokio::time::sleep(PANIC_BACKOFF).await;
        }
        inbox.waiters.answer_due(reconciler.is_stable(), reconciler.generation(), reconciler.now());
    }
}

impl Inbox {
    /// Waits until the entries may be read. What it is asked to do meanwhile waits too.
    async fn wait_until_filled(&mut self, filled: &CancellationToken) {
        loop {
            tokio::select! {
                () = filled.cancelled() => return,
                () = self.beats.next() => {}
            }
        }
    }

    /// Waits for the next event and handles it.
    async fn handle_next(&mut self, reconciler: &mut Reconciler) {
        tokio::select! {
            request = self.queue.next_scan() => reconciler.run_pass(request).await,
            () = reconciler.until_recheck_due() => reconciler.recheck_unstable().await,
            () = reconciler.until_full_scan_due() => reconciler.scan_all().await,
            Some((name, command, reply)) = self.commands.recv() => {
                // The sender may have given up.
                let _unheard = reply.send(reconciler.execute(&name, command).await);
            }
            Some(reply) = self.reloads.recv() => {
                reconciler.scan_all().await;
                self.waiters.add(reply, reconciler.now());
            }
            superseded = reconciler.next_superseded() => reconciler.rebuild(superseded).await,
            Ok(()) = self.contexts.changed() => {
                let context = Arc::clone(&self.contexts.borrow_and_update());
                reconciler.change_context(context).await;
            }
            batch = next_changes(&mut self.changes) => reconciler.follow_changes(&batch).await,
            () = reconciler.until_orders_due() => reconciler.follow_unread_orders().await,
            () = self.beats.next() => {}
        }
    }
}

/// Waits for the next changes in a cluster; forever without one.
async fn next_changes(changes: &mut Option<ChangeSubscription>) -> ChangeBatch {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// The senders of reload requests that were not answered yet.
#[derive(Default)]
struct ReloadWaiters(Vec<(Instant, oneshot::Sender<u64>)>);

impl ReloadWaiters {
    fn add(&mut self, reply: oneshot::Sender<u64>, now: Instant) {
        self.0.push((now + RELOAD_TIMEOUT, reply));
    }

    /// Answers all requests once everything is stable, and before that those whose time is up.
    fn answer_due(&mut self, is_stable: bool, generation: u64, now: Instant) {
        for (_, reply) in self.0.extract_if(.., |(until, _)| is_stable || *until <= now) {
            // The sender may have given up.
            let _unheard = reply.send(generation);
        }
    }
}
