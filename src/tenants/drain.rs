//! Drains revisions that were replaced or removed: calls in flight finish, streams are notified,
//! and after the drain period the rest is closed. One task for all of them.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::tenant::Tenant;
use crate::base::clock::Clock;
use crate::base::task::Tasks;

/// The interval at which draining revisions are checked for being idle.
const GLANCE: Duration = Duration::from_millis(250);

/// The draining revisions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Drain {
    leaving: Arc<Mutex<Vec<Leaving>>>,
    bell: Arc<Notify>,
    clock: Arc<dyn Clock>,
    period: Duration,
}

/// A revision, and when it is closed regardless of its calls.
struct Leaving {
    tenant: Arc<Tenant>,
    due: Instant,
}

impl Drain {
    pub(super) fn start(tasks: &Tasks, clock: Arc<dyn Clock>, period: Duration) -> Self {
        let drain = Self { leaving: Arc::default(), bell: Arc::default(), clock, period };
        let (runner, stop) = (drain.clone(), tasks.soft().clone());
        let work = move || {
            let (runner, stop) = (runner.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = runner.run() => {}
                    () = stop.cancelled() => runner.close_all(),
                }
            }
        };
        tasks.spawn("drain", tasks.supervised("drain", work));
        drain
    }

    /// Starts to drain a revision.
    pub(super) fn take(&self, tenant: Arc<Tenant>) {
        if tenant.mcp.under_way() == 0 {
            return tenant.mcp.close();
        }
        let due = self.clock.monotonic() + self.period;
        self.leaving().push(Leaving { tenant, due });
        self.bell.notify_one();
    }

    async fn run(&self) {
        loop {
            self.bell.notified().await;
            while !self.close_due() {
                tokio::time::sleep(GLANCE).await;
            }
        }
    }

    /// Closes revisions that are idle or due. Returns whether none is left.
    fn close_due(&self) -> bool {
        let now = self.clock.monotonic();
        let mut leaving = self.leaving();
        let is_due = |one: &mut Leaving| one.due <= now || one.tenant.mcp.under_way() == 0;
        for one in leaving.extract_if(.., is_due) {
            one.tenant.mcp.close();
        }
        leaving.is_empty()
    }

    fn close_all(&self) {
        self.leaving().drain(..).for_each(|one| one.tenant.mcp.close());
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Leaving>> {
        self.leaving.lock().expect("no holder of this lock panics")
    }
}
