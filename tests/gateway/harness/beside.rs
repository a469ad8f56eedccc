//! A good tenant that is called again and again while something happens to its neighbour.

use std::time::Duration;

use tenantd::base::clock::{Clock, SystemClock};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::client::{Client, Era};

/// Calls under way; [`Beside::finish`] says how they fared.
pub(crate) struct Beside {
    stop: oneshot::Sender<()>,
    calls: JoinSet<Fared>,
}

/// How the calls of the good tenant fared.
#[derive(Debug, Default)]
pub(crate) struct Fared {
    /// The time that each good call took, shortest first.
    pub(crate) took: Vec<Duration>,
    /// What each bad call was answered.
    pub(crate) failed: Vec<String>,
}

impl Beside {
    /// Searches at a tenant's prefix, one call after another, until it is to finish.
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

    /// Ends the calls after the one under way.
    pub(crate) async fn finish(mut self) -> Fared {
        // It can only have ended by a panic, which is seen next.
        let _gone = self.stop.send(());
        self.calls.join_next().await.expect("one task").expect("the calls do not panic")
    }
}

impl Fared {
    /// So many calls, one after another, while nothing happens: what to compare with.
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

    /// No call failed, and there were some. Prints how long they took; time is for people to judge.
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

    /// So many in a hundred calls took no longer.
    pub(crate) fn part(&self, percent: usize) -> Duration {
        self.took
            .get((self.took.len() * percent / 100).min(self.took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}
