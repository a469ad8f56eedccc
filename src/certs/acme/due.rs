//! What is due: the jobs of certificates, and reads of what gateways share. Each runs in a task of its
//! own and reports back.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::AcmeManager;
use super::job::{self, JobReport};
use super::order_attempt::{OrderAttempt, OrderPurpose};
use super::shared_order::SharedOrder;
use crate::certs::schedule::{RenewalStep, ScheduledStep};
use crate::settings;

/// The number of orders that may run at once.
pub(super) const MAX_CONCURRENT_ORDERS: usize = 4;
/// The longest sleep of the scheduler, because the wall clock may jump.
const MAX_SLEEP: SignedDuration = SignedDuration::from_secs(30);

impl AcmeManager {
    /// Starts the jobs that are due, and returns when the next one is.
    pub(in crate::certs) fn start_due(&mut self) -> Timestamp {
        let now = self.now();
        self.retry_unwritable_folder();
        self.certificates.iter_mut().for_each(|(name, managed)| managed.log_expiry(name, now));
        let (mut due, wake) = self.collect_due(now);
        let wake = wake.min(self.read_shared_if_due(now));
        // What gateways share is not lost with the folder.
        if self.unwritable_reason.is_some() && self.shared_reads.is_none() {
            return wake;
        }
        due.sort_by_key(|(at, ..)| *at);
        let busy = self.certificates.values().filter(|managed| managed.running_step.is_some()).count();
        for (_, name, step) in due.into_iter().take(MAX_CONCURRENT_ORDERS.saturating_sub(busy)) {
            self.spawn_job(name, step);
        }
        wake
    }

    /// Returns the jobs that are due, and when the next one is.
    fn collect_due(&mut self, now: Timestamp) -> (Vec<(Timestamp, String, RenewalStep)>, Timestamp) {
        let cas = self.deps.settings.cas.len();
        let mut wake = now + MAX_SLEEP;
        let mut due = Vec::new();
        let is_sharing = self.shared_reads.is_some();
        if self.shared_reads.as_ref().is_some_and(|reads| reads.trouble.is_some()) {
            return (due, wake);
        }
        for (name, managed) in
            self.certificates.iter_mut().filter(|(_, managed)| managed.running_step.is_none())
        {
            managed.repair(now, cas);
            let ScheduledStep { step, mut at } = managed.next_step(now);
            if is_sharing {
                let Some(free_at) = managed.shared.free_at(now) else { continue };
                at = at.max(free_at);
            }
            if at <= now {
                due.push((at, name.clone(), step));
            } else {
                wake = wake.min(at);
            }
        }
        (due, wake)
    }

    fn spawn_job(&mut self, name: String, step: RenewalStep) {
        let Some(managed) = self.certificates.get(&name) else { return };
        let Some(ca) = self.deps.settings.cas.get(managed.renewal.ca).cloned() else { return };
        let attempt = self.new_attempt(name.clone(), ca);
        let Some(managed) = self.certificates.get_mut(&name) else { return };
        managed.running_step = Some(step);
        let held = managed.current.as_ref().and_then(|current| current.certified_key.cert.first().cloned());
        let renewal = managed.renewal.clone();
        let (cluster, is_requested) = (self.deps.cluster.clone(), managed.shared.is_requested);
        // An order that shutdown aborts stays counted.
        self.spawn_reporting("certificate order", async move {
            match cluster {
                Some(store) => job::run_shared_step(attempt, store, step, is_requested).await,
                None => JobReport::Step(Box::new(job::run_step(attempt, step, renewal, held).await)),
            }
        });
    }

    pub(super) fn new_attempt(&self, name: String, ca: settings::Ca) -> OrderAttempt {
        OrderAttempt {
            name,
            ca,
            acme: self.deps.settings.clone(),
            folder: self.certs_folder.clone(),
            account_locks: self.account_locks.clone(),
            challenges: self.deps.challenges.clone(),
            clock: self.deps.clock.clone(),
            is_http01_available: self.deps.is_http01_available,
            purpose: OrderPurpose::Serve,
            // An order shares more once it has its lease.
            shared: self.deps.cluster.clone().map(|store| SharedOrder::new(store, None, None)),
        }
    }

    /// Spawns a job that reports back, unless shutdown ends it.
    pub(super) fn spawn_reporting(
        &self,
        task: &'static str,
        job: impl Future<Output = JobReport> + Send + 'static,
    ) {
        let (reports, shutdown) = (self.reports.clone(), self.deps.tasks.shutdown_signal().clone());
        self.deps.tasks.spawn(task, async move {
            let Some(report) = shutdown.run_until_cancelled(job).await else { return };
            // The receiver is gone only at shutdown.
            _ = reports.send(report).await;
        });
    }

    /// Reads what gateways share, if that is due, and returns when it is next.
    fn read_shared_if_due(&mut self, now: Timestamp) -> Timestamp {
        let Some(reads) = &mut self.shared_reads else { return Timestamp::MAX };
        if reads.is_running {
            return Timestamp::MAX;
        }
        // Whoever orders may have extended its lease, or be gone.
        let waiting = self.certificates.iter().filter(|(_, managed)| managed.running_step.is_none());
        let ends = waiting.filter_map(|(name, managed)| Some((managed.shared.holder.as_ref()?.1, name)));
        let over: BTreeSet<_> =
            ends.clone().filter(|(end, _)| *end <= now).map(|(_, name)| name.clone()).collect();
        if !over.is_empty() {
            reads.note_changes(Some(over));
        }
        let next_end = ends.map(|(end, _)| end).filter(|end| *end > now).min();
        let due_at = reads.due_at(now).min(next_end.unwrap_or(Timestamp::MAX));
        if due_at > now {
            return due_at;
        }
        let (changed, store) = (reads.begin(now), reads.store.clone());
        let is_wanted = |name: &String| changed.as_ref().is_none_or(|changed| changed.contains(name));
        let wanted = self.certificates.iter().filter(|(name, _)| is_wanted(name));
        let asked: Vec<_> = wanted.map(|(name, managed)| managed.ask(name)).collect();
        let folder = Arc::clone(&self.certs_folder);
        self.spawn_reporting("shared certificates", job::read_shared(store, folder, asked));
        Timestamp::MAX
    }

    /// Remembers that other gateways changed what is shared about these names, or about all.
    pub(in crate::certs) fn note_shared_changes(&mut self, names: Option<BTreeSet<String>>) {
        if let Some(reads) = &mut self.shared_reads {
            reads.note_changes(names);
        }
    }
}
