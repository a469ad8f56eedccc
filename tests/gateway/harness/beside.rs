//! A healthy tenant that is called continuously while something happens to its neighbour.

use std::time::Duration;

use tenantd::base::clock::{Clock, SystemClock};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::client::{Client, Era};

/// The calls in progress. [`Beside::finish`] returns their results.
pub(crate) struct Beside {
    stop: oneshot::Sender<()>,
    calls: JoinSet<Fared>,
}

/// The results of the calls to the healthy tenant.
#[derive(Debug, Default)]
pub(crate) struct Fared {
    /// The durations of the successful calls, ascending.
    pub(crate) took: Vec<Duration>,
    /// The response to each failed call.
    pub(crate) failed: Vec<String>,
}

impl Beside {
    /// Searches at a tenant's prefix, one call after another, until [`Beside::finish`].
    pub(crate) fn watch(client: Client, prefix: &str) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let prefix = prefix.to_owned();
        let mut calls = JoinSet::new();
        calls.spawn(async move {
            let mut fared = Fared::default();
            while stopped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty) {
                fared.call(&client, &prefix).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            fared.took.sort_unstable();
            fared
        });
        Self { stop, calls }
    }

    /// Stops after the current call.
    pub(crate) async fn finish(mut self) -> Fared {
        // Sending fails only if the task panicked, which the next line reports.
        let _gone = self.stop.send(());
        self.calls.join_next().await.expect("one task").expect("the calls do not panic")
    }
}

impl Fared {
    /// Makes this many calls in sequence while nothing else happens, as a baseline.
    pub(crate) async fn alone(client: &Client, prefix: &str, calls: usize) -> Self {
        let mut fared = Self::default();
        for _ in 0..calls {
            fared.call(client, prefix).await;
        }
        fared.took.sort_unstable();
        fared
    }

    async fn call(&mut self, client: &Client, prefix: &str) {
        let started = SystemClock.monotonic();
        let answer = client.search(Era::Modern, prefix, "q").await;
        match answer.status {
            200 if !answer.text.contains(r#""isError":true"#) => {
                self.took.push(SystemClock.monotonic() - started)
            }
            status => self.failed.push(format!("{status} {}", answer.text)),
        }
    }

    /// Asserts that there were calls and that none failed. Prints the durations, which are not
    /// asserted.
    pub(crate) fn assert_unharmed(&self, what: &str) {
        assert!(
            self.failed.is_empty(),
            "{what}: {} calls failed, first {:?}",
            self.failed.len(),
            self.failed[0]
        );
        assert!(!self.took.is_empty(), "{what}: there was no call");
        eprintln!("{what}: {} calls, p50 {:?}, p99 {:?}", self.took.len(), self.part(50), self.part(99));
    }

    /// Returns the duration that `percent` of the calls did not exceed.
    pub(crate) fn part(&self, percent: usize) -> Duration {
        self.took
            .get((self.took.len() * percent / 100).min(self.took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}
