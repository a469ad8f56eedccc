//! Owned tasks. No code calls `tokio::spawn` directly: every task is named, tracked and shut down
//! in order.
//!
//! A panic is counted by task name and logged. A task that must run as long as the gateway is
//! supervised: it is restarted after a panic, and until then the gateway reports that it is not
//! ready.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::accept::AcceptGate;
use super::backoff::Backoff;
use super::heartbeat::Heartbeats;
use super::panic::{Panicked, catch_panic};
use super::sync::lock;

/// The pause before a supervised task is restarted; it doubles with each further panic.
const RESTART_BACKOFF: Backoff = Backoff::new(FIRST_PAUSE, Duration::from_secs(60));
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The tasks of one gateway and the two signals that end them.
///
/// `shutdown` asks a task to finish its current work and take on nothing new; `abort` drops it at
/// once.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    abort: CancellationToken,
    panics: PanicCounts,
    heartbeats: Heartbeats,
    accept_gate: AcceptGate,
}

/// The panics so far, by task name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PanicCounts(Arc<Mutex<BTreeMap<&'static str, TaskHealth>>>);

/// The health of the tasks of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskHealth {
    /// Panics since the process started.
    pub panics: u64,
    /// Whether the task panicked and is not running now.
    pub is_down: bool,
}

impl PanicCounts {
    /// Counts a panic of a task that continues, or that nothing depends on.
    pub fn record(&self, task: &'static str) {
        tracing::error!(task, fault = "panic", "a task of tenantd panicked; please report the lines above");
        self.update(task, |health| health.panics += 1);
    }

    /// Returns all tasks that ever panicked.
    pub fn by_task(&self) -> Vec<(&'static str, TaskHealth)> {
        lock(&self.0).iter().map(|(task, health)| (*task, *health)).collect()
    }

    fn set_down(&self, task: &'static str, is_down: bool) {
        self.update(task, |health| health.is_down = is_down);
    }

    fn update(&self, task: &'static str, change: impl FnOnce(&mut TaskHealth)) {
        change(lock(&self.0).entry(task).or_default());
    }
}

impl Tasks {
    /// Creates an empty set of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a named task. The abort signal drops it at its next await.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(self.watch_task(name, task)))
    }

    /// Spawns a named task that draining does not wait for, because it serves observers of the
    /// draining.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_detached<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(tokio::spawn(self.watch_task(name, task)));
    }

    /// Spawns a named task that goes on when draining is over, because its last work comes after
    /// that. It ends by itself, or with the process.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_beyond_drain<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let panics = self.panics.clone();
        let task = async move {
            if catch_panic(task).await == Err(Panicked) {
                panics.record(name);
            }
        };
        drop(tokio::spawn(task.instrument(tracing::debug_span!("task", name))));
    }

    /// Runs the task that `start` creates for as long as the gateway runs, restarting it after a
    /// panic with growing pauses. The caller must spawn the returned future.
    ///
    /// Use it where `start` recreates all state of the task, or where a panic leaves that state
    /// intact.
    pub fn supervise<F, S>(&self, name: &'static str, start: S) -> impl Future<Output = ()> + Send + use<F, S>
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn() -> F + Send + 'static,
    {
        let (panics, shutdown) = (self.panics.clone(), self.shutdown.clone());
        async move {
            let mut restarts = 0_u32;
            while catch_panic(start()).await == Err(Panicked) {
                panics.record(name);
                panics.set_down(name, true);
                if shutdown
                    .run_until_cancelled(tokio::time::sleep(RESTART_BACKOFF.pause_after(restarts)))
                    .await
                    .is_none()
                {
                    return;
                }
                panics.set_down(name, false);
                restarts = restarts.saturating_add(1);
            }
        }
    }

    /// Returns the panics so far.
    pub fn panics(&self) -> &PanicCounts {
        &self.panics
    }

    /// Returns the loops that prove that they go on.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// Returns the gate of all loops that accept connections.
    pub fn accept_gate(&self) -> &AcceptGate {
        &self.accept_gate
    }

    fn watch_task<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (abort, panics) = (self.abort.clone(), self.panics.clone());
        let task = async move {
            tokio::select! {
                ended = catch_panic(task) => if ended == Err(Panicked) { panics.record(name) },
                () = abort.cancelled() => {}
            }
        };
        task.instrument(tracing::debug_span!("task", name))
    }

    /// Returns the signal that asks tasks to finish.
    pub fn shutdown_signal(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Returns the signal that drops tasks.
    pub fn abort_signal(&self) -> &CancellationToken {
        &self.abort
    }

    /// Asks every task to finish, waits up to `timeout`, then drops the rest. Returns whether all
    /// finished on their own.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        let finished = tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok();
        self.abort.cancel();
        self.tracker.wait().await;
        finished
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_by_its_task_and_ends_no_other() {
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") }).await.expect("the panic stays inside");
        tasks.spawn("good", async {}).await.expect("it ends");
        let bad = TaskHealth { panics: 1, is_down: false };
        assert_eq!(tasks.panics().by_task(), [("bad", bad)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_draining_drops_all_tasks_but_those_that_go_beyond_it() {
        let tasks = Tasks::new();
        let (detached, beyond) = (Arc::new(()), Arc::new(()));
        let hold = |held: &Arc<()>| {
            let held = Arc::clone(held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        };
        tasks.spawn_detached("detached", hold(&detached));
        tasks.spawn_beyond_drain("beyond", hold(&beyond));
        tokio::task::yield_now().await;
        assert!(tasks.drain(Duration::from_secs(1)).await);
        tokio::task::yield_now().await;
        assert_eq!((Arc::strong_count(&detached), Arc::strong_count(&beyond)), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervised_task_is_down_after_a_panic_and_runs_again_after_a_pause() {
        let (tasks, runs) = (Tasks::new(), Arc::new(AtomicU32::new(0)));
        let counter = Arc::clone(&runs);
        let start = move || {
            let run = counter.fetch_add(1, Ordering::Relaxed);
            async move { if run < 3 { panic!("on purpose") } else { std::future::pending().await } }
        };
        let task = tasks.supervise("worker", start);
        tasks.spawn("worker", task);
        let health = |tasks: &Tasks| tasks.panics().by_task().first().map(|(_, health)| *health);
        tokio::time::sleep(FIRST_PAUSE / 2).await;
        assert_eq!(health(&tasks), Some(TaskHealth { panics: 1, is_down: true }));
        tokio::time::sleep(FIRST_PAUSE * 7).await;
        assert_eq!(health(&tasks), Some(TaskHealth { panics: 3, is_down: false }));
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        assert!(!tasks.drain(Duration::from_secs(1)).await, "it runs until it is cut");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_at_each_start_does_not_hold_up_the_end() {
        let tasks = Tasks::new();
        let task = tasks.supervise("worker", || async { panic!("on purpose") });
        tasks.spawn("worker", task);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(tasks.drain(Duration::from_secs(1)).await);
        let (_, health) = tasks.panics().by_task()[0];
        assert!((10..30).contains(&health.panics), "the pause grows: {health:?}");
    }
}
