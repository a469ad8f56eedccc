//! Tasks with owners. Nobody calls `tokio::spawn`: a task is named, tracked and told when to end.
//!
//! A panic in a task is counted by the task's name and logged. A task that must run as long as the gateway does is
//! supervised: after a panic it is started again, and until it runs again the gateway is not ready.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::panic::{Panicked, caught};

/// The pause before a supervised task is started again; doubled with each further panic.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The tasks of one gateway, and the two signals that end them.
///
/// `soft` asks a task to finish what it does and take nothing new; `hard` drops it where it stands.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    soft: CancellationToken,
    hard: CancellationToken,
    panics: Panics,
}

/// What has panicked so far, by the task's name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Panics(Arc<Mutex<BTreeMap<&'static str, TaskHealth>>>);

/// How one kind of task fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskHealth {
    /// Panics since the process started.
    pub panics: u64,
    /// It panicked and does not run now.
    pub is_down: bool,
}

impl Panics {
    /// Counts a panic of a task that goes on, or that nothing waits for.
    pub fn record(&self, task: &'static str) {
        tracing::error!(task, fault = "panic", "a task of tenantd panicked; please report the lines above");
        self.update(task, |health| health.panics += 1);
    }

    /// Every task that ever panicked.
    pub fn by_task(&self) -> Vec<(&'static str, TaskHealth)> {
        self.lock().iter().map(|(task, health)| (*task, *health)).collect()
    }

    fn set_down(&self, task: &'static str, is_down: bool) {
        self.update(task, |health| health.is_down = is_down);
    }

    fn update(&self, task: &'static str, change: impl FnOnce(&mut TaskHealth)) {
        change(self.lock().entry(task).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, TaskHealth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a named task. It is dropped at its next await when the hard signal comes.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(self.counted(name, task)))
    }

    /// Starts a named task that draining does not wait for: it serves those who watch the draining.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_detached<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(tokio::spawn(self.counted(name, task)));
    }

    /// Runs what `start` makes for as long as the gateway runs: after a panic it is made and run again, after a pause
    /// that grows. Spawn what this returns. Use it where `start` can make the whole state of the task anew, or where
    /// a panic leaves that state whole.
    pub fn supervised<F, S>(
        &self,
        name: &'static str,
        start: S,
    ) -> impl Future<Output = ()> + Send + use<F, S>
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn() -> F + Send + 'static,
    {
        let (panics, soft) = (self.panics.clone(), self.soft.clone());
        async move {
            let mut pause = FIRST_PAUSE;
            while caught(start()).await == Err(Panicked) {
                panics.record(name);
                panics.set_down(name, true);
                if soft.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                panics.set_down(name, false);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// What has panicked so far.
    pub fn panics(&self) -> &Panics {
        &self.panics
    }

    fn counted<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (hard, panics) = (self.hard.clone(), self.panics.clone());
        let task = async move {
            tokio::select! {
                ended = caught(task) => if ended == Err(Panicked) { panics.record(name) },
                () = hard.cancelled() => {}
            }
        };
        task.instrument(tracing::debug_span!("task", name))
    }

    /// Fires when tasks should finish.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Fires when tasks are dropped.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Asks every task to finish, waits at most `patience`, then drops the rest. Says whether all finished by themselves.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.soft.cancel();
        self.tracker.close();
        let finished = tokio::time::timeout(patience, self.tracker.wait()).await.is_ok();
        self.hard.cancel();
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
    async fn a_supervised_task_is_down_after_a_panic_and_runs_again_after_a_pause() {
        let (tasks, runs) = (Tasks::new(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&runs);
        let start = move || {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move { if run < 3 { panic!("on purpose") } else { std::future::pending().await } }
        };
        let task = tasks.supervised("worker", start);
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
        let task = tasks.supervised("worker", || async { panic!("on purpose") });
        tasks.spawn("worker", task);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(tasks.drain(Duration::from_secs(1)).await);
        let (_, health) = tasks.panics().by_task()[0];
        assert!((10..30).contains(&health.panics), "the pause grows: {health:?}");
    }
}
