//! Runs work on large responses on a blocking thread, one piece at a time for each tenant.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Error;

/// The size from which work goes to a blocking thread; below it, the work is quicker than the
/// switch.
const OFFLOAD_BYTES: usize = 128 << 10;
/// How long a piece of work waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The queue for one tenant's long computations. It occupies one thread, however many there are.
#[derive(Debug, Clone)]
pub(super) struct Offloader(Arc<Semaphore>);

impl Offloader {
    /// Runs work on `bytes` bytes: inline if that is little, else on a blocking thread in turn.
    ///
    /// # Errors
    /// [`Error::Busy`] if its turn does not come within ten seconds, [`Error::TimedOut`] if not by
    /// the deadline.
    pub(super) async fn run<T, F>(&self, bytes: usize, deadline: Instant, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if bytes < OFFLOAD_BYTES {
            return Ok(work());
        }
        let permit = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.0).acquire_owned());
        let permit = tokio::time::timeout_at(deadline.into(), permit).await.map_err(|_| Error::TimedOut)?;
        let permit = permit.map_err(|_| Error::Busy)?.expect("nobody closes this semaphore");
        // The turn lasts as long as the work, even if its caller no longer waits.
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        Ok(working.await.unwrap_or_else(|error| resume_unwind(error.into_panic())))
    }
}

impl Default for Offloader {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}
