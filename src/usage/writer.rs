//! Writes usage to the store every few seconds, and reads reports from there.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::period::Period;
use super::traffic::HOURS;
use super::{Ledger, Usage};
use crate::base::sync::lock;
use crate::base::task::Tasks;
use crate::store::{self, LocalStore, UsagePer, UsageQuery, UsageSum};

/// How often usage is written: a killed process forgets at most the calls of so long, and of the
/// write that it was in.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// How many hours of tenants a start reads at most: those of ten thousand busy ones.
const MAX_RESTORED_HOURS: usize = 240_000;
/// How often old rows are deleted: once for so many writes.
const PRUNE_EVERY: u32 = 720;

impl Usage {
    /// Starts the task that writes usage. What is counted after it has ended is for
    /// [`flush`](Self::flush).
    pub fn start_writing(self: &Arc<Self>, tasks: &Tasks) {
        if self.store.is_none() {
            return;
        }
        let (usage, stop) = (Arc::clone(self), tasks.shutdown_signal().clone());
        let work = move || {
            let (usage, stop) = (Arc::clone(&usage), stop.clone());
            async move { _ = stop.run_until_cancelled(usage.keep_writing()).await }
        };
        tasks.spawn("usage", tasks.supervise("usage", work));
    }

    async fn keep_writing(&self) {
        for round in 0_u32.. {
            if round.is_multiple_of(PRUNE_EVERY) {
                self.prune().await;
            }
            tokio::time::sleep(WRITE_INTERVAL).await;
            self.flush().await;
        }
    }

    /// Writes what is not stored yet. Returns whether everything is stored; what is not waits for
    /// the next time.
    pub async fn flush(&self) -> bool {
        let Some(store) = &self.store else { return false };
        match store {
            Ledger::File(store) => self.write_to_file(store).await,
            Ledger::Shared(shared) => self.exchange(shared).await,
        }
    }

    /// Moves what the tenants have collected to what waits for the next write.
    pub(super) fn collect(&self) {
        let mut backlog = lock(&self.backlog);
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        let is_shared = matches!(self.store, Some(Ledger::Shared(_)));
        dirty.iter().for_each(|tenant| tenant.collect(&mut backlog, is_shared));
    }

    async fn write_to_file(&self, store: &LocalStore) -> bool {
        let _writing = self.writing.lock().await;
        self.collect();
        let batch = lock(&self.backlog).take();
        if batch.is_empty() {
            return true;
        }
        // A caller that stops waiting does not stop the write.
        let batch = Arc::new(batch);
        let written = store.write_usage(Arc::clone(&batch)).await;
        if let Err(error) = &written {
            tracing::debug!(%error, "usage cannot be written; it waits for the next time");
            lock(&self.backlog).put_back(Arc::unwrap_or_clone(batch));
        }
        written.is_ok()
    }

    /// Returns what was used, up to now.
    ///
    /// # Errors
    /// The store cannot be read. Without a store the report is empty.
    pub async fn report(&self, query: UsageQuery) -> Result<Vec<UsageSum>, store::Error> {
        self.flush().await;
        match &self.store {
            Some(store) => store.query_usage(query).await,
            None => Ok(Vec::new()),
        }
    }

    /// Goes on where the counters in the store stand.
    pub(super) async fn restore(&self) -> Result<(), store::Error> {
        match &self.store {
            Some(Ledger::File(store)) => {
                self.restore_quotas(store).await?;
                self.restore_traffic().await
            }
            Some(Ledger::Shared(shared)) => self.restore_shared(shared).await,
            None => Ok(()),
        }
    }

    /// Puts the counts of quotas in force that the file has.
    async fn restore_quotas(&self, store: &LocalStore) -> Result<(), store::Error> {
        let month = Period::from_time(self.clock.now()).month;
        for quota in store.load_quotas(month).await? {
            self.tenant(&quota.tenant.as_str().into()).restore(&quota);
        }
        Ok(())
    }

    /// Adds the last hours that the ledger has to the traffic.
    pub(super) async fn restore_traffic(&self) -> Result<(), store::Error> {
        let Some(store) = &self.store else { return Ok(()) };
        let hour = self.clock.now().as_second().div_euclid(3_600);
        let query = UsageQuery {
            from: (hour + 1 - HOURS as i64) * 3_600,
            to: (hour + 1) * 3_600,
            per: Some(UsagePer::Hour),
            limit: MAX_RESTORED_HOURS,
            ..UsageQuery::default()
        };
        for sum in store.query_usage(query).await? {
            let starts = Timestamp::from_second(sum.starts.unwrap_or_default()).unwrap_or_default();
            self.tenant(&sum.tenant.as_str().into()).restore_hour(starts, &sum.counts);
            lock(&self.traffic).restore(starts, &sum.counts);
        }
        Ok(())
    }

    /// Deletes what is older than it is kept, and forgets tenants that are gone.
    async fn prune(&self) {
        let now = self.clock.now();
        lock(&self.tenants).retain(|_, tenant| Arc::strong_count(tenant) > 1 || tenant.is_worth_keeping(now));
        let Some(store) = &self.store else { return };
        if let Err(error) = store.prune_usage(now.as_second(), Period::from_time(now).month).await {
            tracing::debug!(%error, "old usage cannot be deleted");
        }
    }
}

impl Ledger {
    async fn query_usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, store::Error> {
        match self {
            Self::File(store) => store.query_usage(query).await,
            Self::Shared(shared) => shared.store.query_usage(&query).await,
        }
    }

    async fn prune_usage(&self, now: i64, month: i64) -> Result<(), store::Error> {
        match self {
            Self::File(store) => store.prune_usage(now, month).await,
            Self::Shared(shared) => shared.store.prune_usage(now, month).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::spec::{CallLimits, TenantName, UsageLimits};
    use crate::store::testkit::{execute, new_store};
    use crate::usage::traffic::CallEnd;
    use crate::usage::{CallerKey, UsageCaller};

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at("2026-11-26T10:00:00Z".parse().expect("a time")))
    }

    /// Makes a call of a tenant, which is gone afterwards.
    fn call(usage: &Arc<Usage>, tenant: &str, limits: UsageLimits) {
        let meter = usage.meter(&TenantName::parse(tenant).expect("a name"), limits);
        let caller = UsageCaller { key: CallerKey::User("ann".into()), name: None, client: None };
        let mut call = meter.begin(usage.clock.monotonic(), caller, "search".into());
        call.admit().expect("it is allowed");
        call.finish(CallEnd::Answered, 1);
    }

    #[tokio::test]
    async fn a_removed_tenant_is_forgotten_after_a_day_unless_its_quotas_count() {
        let clock = clock();
        let usage = Usage::new(clock.clone());
        let a_day = CallLimits { calls_per_day: Some(3), ..CallLimits::default() };
        call(&usage, "free", UsageLimits::default());
        call(&usage, "limited", UsageLimits { tenant: a_day, ..UsageLimits::default() });
        let known = || {
            let mut names: Vec<_> = lock(&usage.tenants).keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        usage.prune().await;
        assert_eq!(known(), ["free", "limited"]);
        clock.advance(Duration::from_secs(25 * 3_600));
        usage.prune().await;
        assert_eq!(known(), ["limited"]);
    }

    #[tokio::test]
    async fn what_the_store_does_not_take_is_written_later() {
        let (_folder, store) = new_store();
        let usage = Usage::start(clock(), Some((&store).into())).await.expect("read");
        call(&usage, "acme", UsageLimits::default());
        execute(&store, "CREATE TRIGGER full BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'full'); END");
        assert!(!usage.flush().await);
        call(&usage, "acme", UsageLimits::default());
        execute(&store, "DROP TRIGGER full");
        let sums = usage.report(UsageQuery { to: i64::MAX, limit: 9, ..UsageQuery::default() }).await;
        let calls: Vec<_> = sums.expect("read").iter().map(|sum| sum.counts.calls).collect();
        assert_eq!(calls, [2]);
    }
}
