//! A bulkhead: a limit on one tenant's calls in flight, so that its slow backend cannot exhaust the
//! process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

/// How long a call waits for a place.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The bulkhead of one tenant. It outlives reloads; a lowered limit takes effect as calls end.
#[derive(Debug)]
pub(super) struct Bulkhead {
    permits: Arc<Semaphore>,
    limit: Mutex<usize>,
    /// Places removed by a lowered limit while calls still occupied them.
    owed: Arc<AtomicUsize>,
}

/// The place of one call; returned when dropped.
#[derive(Debug)]
pub(super) struct BulkheadPermit {
    permit: Option<OwnedSemaphorePermit>,
    owed: Arc<AtomicUsize>,
}

impl Bulkhead {
    /// Creates a bulkhead without places.
    pub(super) fn with_no_permits() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)), limit: Mutex::new(0), owed: Arc::default() }
    }

    /// Changes the limit.
    pub(super) fn resize(&self, limit: usize) {
        let mut current = self.limit.lock().expect("no holder of this lock panics");
        if limit > *current {
            self.grow(limit - *current);
        } else {
            let surplus = *current - limit;
            let taken = self.permits.forget_permits(surplus);
            self.owed.fetch_add(surplus - taken, Ordering::AcqRel);
        }
        *current = limit;
    }

    fn grow(&self, by: usize) {
        let forgiven = self
            .owed
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| Some(owed.saturating_sub(by)))
            .map_or(0, |owed| owed.min(by));
        self.permits.add_permits(by - forgiven);
    }

    /// Takes a place, waiting for one for up to a second.
    pub(super) async fn acquire(&self) -> Result<BulkheadPermit, Error> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(MAX_WAIT, self.permits.clone().acquire_owned())
                .await
                .map_err(|_| Error::Busy)?
                .expect("nobody closes this semaphore"),
        };
        Ok(BulkheadPermit { permit: Some(permit), owed: self.owed.clone() })
    }
}

impl Drop for BulkheadPermit {
    fn drop(&mut self) {
        let pay = |owed: usize| owed.checked_sub(1);
        if self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay).is_ok()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulkhead(limit: usize) -> Bulkhead {
        let bulkhead = Bulkhead::with_no_permits();
        bulkhead.resize(limit);
        bulkhead
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_bulkhead_waits_a_second_then_refuses() {
        let bulkhead = bulkhead(1);
        let permit = bulkhead.acquire().await.expect("the first place");
        let (refused, ()) = tokio::join!(bulkhead.acquire(), tokio::time::sleep(MAX_WAIT / 2));
        assert_eq!(refused.err(), Some(Error::Busy));
        drop(permit);
        assert!(bulkhead.acquire().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_call_takes_the_place_that_becomes_free() {
        let bulkhead = bulkhead(1);
        let permit = bulkhead.acquire().await.expect("the first place");
        let release_permit = async {
            tokio::task::yield_now().await;
            drop(permit);
        };
        let (entered, ()) = tokio::join!(bulkhead.acquire(), release_permit);
        assert!(entered.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lowered_limit_takes_effect_as_calls_end() {
        let bulkhead = bulkhead(3);
        let mut permits = Vec::new();
        for _ in 0..3 {
            permits.push(bulkhead.acquire().await.expect("a place"));
        }
        bulkhead.resize(1);
        permits.pop();
        permits.pop();
        assert!(bulkhead.acquire().await.is_err(), "two of three ended, but one is the new limit");
        permits.pop();
        let _place = bulkhead.acquire().await.expect("the one place");
        assert!(bulkhead.acquire().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_raised_limit_forgives_what_is_owed() {
        let bulkhead = bulkhead(2);
        let _two = (bulkhead.acquire().await.expect("a place"), bulkhead.acquire().await.expect("a place"));
        bulkhead.resize(1);
        bulkhead.resize(3);
        let _third = bulkhead.acquire().await.expect("the third place");
        assert!(bulkhead.acquire().await.is_err());
    }
}
