//! Tasks with owners. Nobody calls `tokio::spawn`: a task is named, tracked and told when to end.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of one gateway, and the two signals that end them.
///
/// `soft` asks a task to finish what it does and take nothing new; `hard` drops it where it stands.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    soft: CancellationToken,
    hard: CancellationToken,
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
        let hard = self.hard.clone();
        let task = async move {
            tokio::select! {
                () = task => {}
                () = hard.cancelled() => {}
            }
        };
        tokio::spawn(self.tracker.track_future(task.instrument(tracing::debug_span!("task", name))))
    }

    /// Starts a named task that draining does not wait for: it serves whoever watches the draining.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_detached<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hard = self.hard.clone();
        let task = async move {
            tokio::select! {
                () = task => {}
                () = hard.cancelled() => {}
            }
        };
        drop(tokio::spawn(task.instrument(tracing::debug_span!("task", name))));
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
