//! Work on large answers: away from the tasks that serve everybody, and one piece at a time for each tenant.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Error;

/// Work on answers from here on is for the bench: less takes less time than going there.
const LARGE: usize = 128 << 10;
/// How long a piece of work waits for its turn.
const WAIT: Duration = Duration::from_secs(10);

/// One tenant's place for work that computes for long. However much of it there is, it takes one thread.
#[derive(Debug, Clone)]
pub(super) struct Workbench(Arc<Semaphore>);

impl Workbench {
    /// Does work on so many bytes: here if that is little, else on a blocking thread when it is its turn.
    ///
    /// # Errors
    /// [`Error::Busy`] if its turn does not come within ten seconds, [`Error::TimedOut`] if not by the deadline.
    pub(super) async fn work<T, F>(&self, bytes: usize, deadline: Instant, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if bytes < LARGE {
            return Ok(work());
        }
        let turn = tokio::time::timeout(WAIT, Arc::clone(&self.0).acquire_owned());
        let turn = tokio::time::timeout_at(deadline.into(), turn).await.map_err(|_| Error::TimedOut)?;
        let turn = turn.map_err(|_| Error::Busy)?.expect("nobody closes this semaphore");
        // The turn ends with the work, even if nobody waits for it any more.
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        Ok(working.await.unwrap_or_else(|error| resume_unwind(error.into_panic())))
    }
}

impl Default for Workbench {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}
