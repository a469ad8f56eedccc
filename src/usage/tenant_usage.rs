//! The counters of one tenant, which outlive its revisions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::allowance::CallTime;
use super::caller::{CallerKey, UsageCaller};
use super::ledger::{Backlog, EndedCall, TenantLedger, UnsavedCounts};
use super::limit::{LimitReached, QuotaStatus};
use super::period::Period;
use super::quotas::{Admission, Crossings, LimitedCall, Quotas};
use super::rate_limit::{RateBuckets, RateShare};
use super::traffic::{HourTraffic, Traffic};
use crate::base::sync::lock;
use crate::spec::UsageLimits;
use crate::store::{QuotaUse, StoredQuota, UsageCounts};

/// How many refusals of a minute each caller hears of at once.
const PROMPT_REFUSALS_PER_MINUTE: u32 = 60;
/// How long each further one waits. A client that asks again without pause then costs two requests
/// a second for each of its connections, not as many as the gateway can refuse.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

/// The counters of one tenant. They take little memory until its first call.
#[derive(Debug)]
pub(super) struct TenantUsage {
    name: Arc<str>,
    calls_in_flight: AtomicUsize,
    refusals: RateBuckets,
    state: Mutex<UsageState>,
}

#[derive(Debug, Default)]
struct UsageState {
    traffic: Traffic,
    /// Created with the first call that has limits.
    quotas: Option<Box<Quotas>>,
    ledger: TenantLedger,
    /// Whether the next write collects from here.
    is_dirty: bool,
}

/// A call that ends, for the counters.
pub(super) struct CallToRecord<'a> {
    pub(super) call: EndedCall,
    /// The call for its limits, if it was admitted under any.
    pub(super) admitted: Option<(LimitedCall<'a>, &'a Admission)>,
    /// Who called which tool; `None` if the ledger does not have the call.
    pub(super) ledger_entry: Option<(&'a UsageCaller, &'a Arc<str>)>,
}

/// What follows from a call that was recorded.
pub(super) struct Recorded {
    pub(super) crossings: Crossings,
    /// Whether the tenant has to be written from now on.
    pub(super) became_dirty: bool,
}

impl TenantUsage {
    pub(super) fn new(name: Arc<str>) -> Self {
        let (calls_in_flight, refusals) = (AtomicUsize::new(0), RateBuckets::default());
        Self { name, calls_in_flight, refusals, state: Mutex::default() }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn begin_call(&self) {
        self.calls_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_call(&self) {
        self.calls_in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn calls_in_flight(&self) -> usize {
        self.calls_in_flight.load(Ordering::Relaxed)
    }

    /// Takes one call from all allowances that it concerns, or from none.
    pub(super) fn admit(
        &self,
        call: LimitedCall<'_>,
        at: &CallTime<'_>,
    ) -> Result<(Admission, Crossings), LimitReached> {
        lock(&self.state).quotas.get_or_insert_default().admit(call, at)
    }

    /// Returns how long the answer to a refused request waits.
    pub(super) fn refusal_delay(&self, caller: CallerKey, now: Instant) -> Duration {
        match self.refusals.acquire(caller, RateShare::whole(PROMPT_REFUSALS_PER_MINUTE), now) {
            Ok(()) => Duration::ZERO,
            Err(_) => REFUSAL_DELAY,
        }
    }

    /// Counts a call that ended.
    pub(super) fn record(&self, ended: &CallToRecord<'_>) -> Recorded {
        let call = &ended.call;
        let mut state = lock(&self.state);
        state.traffic.record(call.now, call.end, call.elapsed, call.bytes);
        if let Some((caller, tool)) = ended.ledger_entry {
            state.ledger.record(caller, tool, call);
        }
        let crossings = match (ended.admitted, &mut state.quotas) {
            (Some((limited, admission)), Some(quotas)) => {
                quotas.end(limited, admission, call.bytes, Period::from_time(call.now))
            }
            _ => Crossings::new(),
        };
        let is_news = ended.ledger_entry.is_some() || ended.admitted.is_some();
        let became_dirty = is_news && !std::mem::replace(&mut state.is_dirty, true);
        Recorded { crossings, became_dirty }
    }

    /// Moves what is not stored yet to what waits for the next write.
    pub(super) fn collect(&self, backlog: &mut Backlog, is_shared: bool) {
        let mut state = lock(&self.state);
        state.is_dirty = false;
        let mut counts = UnsavedCounts::default();
        match &mut state.quotas {
            Some(quotas) if is_shared => counts.uses = quotas.take_uses(&self.name),
            Some(quotas) => counts.quotas = quotas.take_unsaved(&self.name),
            None => {}
        }
        backlog.collect(&self.name, &mut state.ledger, counts);
    }

    /// Puts what all gateways used together in force.
    pub(super) fn absorb(&self, sum: &QuotaUse) {
        lock(&self.state).quotas.get_or_insert_default().absorb(sum);
    }

    /// Puts the counts of an earlier process in force.
    pub(super) fn restore(&self, stored: &StoredQuota) {
        lock(&self.state).quotas.get_or_insert_default().restore(stored);
    }

    /// Adds what an earlier process counted in an hour.
    pub(super) fn restore_hour(&self, starts: Timestamp, counts: &UsageCounts) {
        lock(&self.state).traffic.restore(starts, counts);
    }

    pub(super) fn last_hours(&self, now: Timestamp) -> Vec<HourTraffic> {
        lock(&self.state).traffic.last_hours(now)
    }

    /// Returns how much of the tenant's and its tools' quotas is used.
    pub(super) fn quota_statuses(&self, limits: &UsageLimits, period: Period) -> Vec<QuotaStatus> {
        if limits.is_empty() {
            return Vec::new();
        }
        lock(&self.state).quotas.get_or_insert_default().statuses(limits, period)
    }

    /// Whether there is something that a tenant of this name would miss.
    pub(super) fn is_worth_keeping(&self, now: Timestamp) -> bool {
        let state = lock(&self.state);
        state.is_dirty || state.quotas.is_some() || !state.traffic.is_over(now)
    }
}
