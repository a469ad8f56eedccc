//! Drains revisions that were replaced or removed: calls in flight finish, streams are notified,
//! and after the drain period the rest is closed. One task for all of them.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::tenant::Tenant;
use crate::base::clock::Clock;
use crate::base::task::Tasks;

/// The interval at which draining revisions are checked for being idle.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The draining revisions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Drain {
    retired: Arc<Mutex<Vec<RetiredRevision>>>,
    wakeup: Arc<Notify>,
    clock: Arc<dyn Clock>,
    period: Duration,
}

/// A revision, and when it is closed regardless of its calls.
struct RetiredRevision {
    tenant: Arc<Tenant>,
    deadline: Instant,
}

impl Drain {
    pub(super) fn start(tasks: &Tasks, clock: Arc<dyn Clock>, period: Duration) -> Self {
        let drain = Self { retired: Arc::default(), wakeup: Arc::default(), clock, period };
        let (runner, stop) = (drain.clone(), tasks.shutdown_signal().clone());
        let work = move || {
            let (runner, stop) = (runner.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = runner.run() => {}
                    () = stop.cancelled() => runner.close_all(),
                }
            }
        };
        tasks.spawn("drain", tasks.supervise("drain", work));
        drain
    }

    /// Starts to drain a revision.
    pub(super) fn retire(&self, tenant: Arc<Tenant>) {
        if tenant.mcp.in_flight_count() == 0 {
            return tenant.mcp.close();
        }
        let deadline = self.clock.monotonic() + self.period;
        self.lock_retired().push(RetiredRevision { tenant, deadline });
        self.wakeup.notify_one();
    }

    async fn run(&self) {
        loop {
            self.wakeup.notified().await;
            while !self.close_due() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    /// Closes revisions that are idle or due. Returns whether none is left.
    fn close_due(&self) -> bool {
        let now = self.clock.monotonic();
        let mut retired = self.lock_retired();
        let is_due = |revision: &mut RetiredRevision| {
            revision.deadline <= now || revision.tenant.mcp.in_flight_count() == 0
        };
        for revision in retired.extract_if(.., is_due) {
            revision.tenant.mcp.close();
        }
        retired.is_empty()
    }

    fn close_all(&self) {
        self.lock_retired().drain(..).for_each(|revision| revision.tenant.mcp.close());
    }

    fn lock_retired(&self) -> MutexGuard<'_, Vec<RetiredRevision>> {
        self.retired.lock().expect("no holder of this lock panics")
    }
}
