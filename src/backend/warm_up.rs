//! Warm-up: a new tenant's context is fetched in the background, a bounded number at once, and tried again with
//! growing pauses while its backend is down. One task for all tenants.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Call, Client};
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::task::Tasks;
use crate::spec::TenantName;

/// Contexts fetched at once: ten thousand tenants must not open ten thousand connections at start.
const AT_ONCE: usize = 8;
const FETCH_DEADLINE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The queue of contexts to fetch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WarmUp {
    queue: Arc<Mutex<BinaryHeap<Reverse<Due>>>>,
    bell: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    tenant: TenantName,
    /// Gone when the tenant is.
    client: Weak<Client>,
    failures: u32,
}

impl WarmUp {
    /// Starts the task.
    pub fn start(tasks: &Tasks, clock: Arc<dyn Clock>) -> Self {
        let warm_up = Self { queue: Arc::default(), bell: Arc::default(), clock };
        let (runner, stop) = (warm_up.clone(), tasks.soft().clone());
        tasks.spawn("warm-up", async move {
            tokio::select! {
                () = runner.run() => {}
                () = stop.cancelled() => {}
            }
        });
        warm_up
    }

    /// Asks for one tenant's context to be fetched soon.
    pub fn enqueue(&self, tenant: TenantName, client: &Arc<Client>) {
        self.push(Due { at: self.clock.monotonic(), tenant, client: Arc::downgrade(client), failures: 0 });
    }

    fn push(&self, due: Due) {
        self.queue.lock().expect("no holder of this lock panics").push(Reverse(due));
        self.bell.notify_one();
    }

    async fn run(&self) {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(due) = self.take_due()
            {
                under_way.spawn(fetch(due));
            }
            tokio::select! {
                Some(ended) = under_way.join_next() => {
                    if let Ok(Some(failed)) = ended {
                        self.push_again(failed);
                    }
                }
                () = self.bell.notified() => {}
                () = tokio::time::sleep(self.until_next()) => {}
            }
        }
    }

    fn take_due(&self) -> Option<Due> {
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        let due = queue.peek().is_some_and(|Reverse(due)| due.at <= self.clock.monotonic());
        due.then(|| queue.pop().map(|Reverse(due)| due)).flatten()
    }

    /// A bell or a finished fetch wakes the task earlier; with all places taken there is nothing to be early for.
    fn until_next(&self) -> Duration {
        let queue = self.queue.lock().expect("no holder of this lock panics");
        let at_least = Duration::from_millis(10);
        let next = queue.peek().map(|Reverse(due)| due.at.saturating_duration_since(self.clock.monotonic()));
        next.unwrap_or(LONGEST_PAUSE).max(at_least)
    }

    fn push_again(&self, due: Due) {
        let at = self.clock.monotonic() + pause(due.failures);
        self.push(Due { at, ..due });
    }
}

/// Fetches one context; gives the entry back when it has to be tried again.
async fn fetch(due: Due) -> Option<Due> {
    let client = due.client.upgrade()?;
    tracing::info!(tenant = %due.tenant, "Starting semantic context warmup");
    let call = Call {
        request_id: format!("warmup-{}", random::hex::<4>()),
        deadline: client.now() + FETCH_DEADLINE,
        user: None,
        traceparent: None,
        tracestate: None,
    };
    match client.context(&call).await {
        Ok(_) => {
            tracing::info!(tenant = %due.tenant, "Semantic context warmup completed");
            None
        }
        Err(error) => {
            let failures = due.failures + 1;
            tracing::warn!(tenant = %due.tenant, %error, failures, "Semantic context warmup failed; it is tried again");
            Some(Due { failures, ..due })
        }
    }
}

/// Doubles from five seconds to ten minutes, with up to a fifth of chance so that tenants of one backend spread out.
fn pause(failures: u32) -> Duration {
    let pause = (FIRST_PAUSE * 2_u32.pow(failures.saturating_sub(1).min(10))).min(LONGEST_PAUSE);
    let [random] = random::bytes::<1>();
    pause + pause.mul_f64(f64::from(random) / 255.0 / 5.0)
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, &self.tenant).cmp(&(other.at, &other.tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_minutes() {
        assert!((FIRST_PAUSE..FIRST_PAUSE * 2).contains(&pause(1)));
        assert!((LONGEST_PAUSE..=LONGEST_PAUSE + LONGEST_PAUSE / 5).contains(&pause(50)));
    }
}
