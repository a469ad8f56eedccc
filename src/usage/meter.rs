//! The meter of one tenant, and the calls that it counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Usage;
use super::allowance::CallTime;
use super::caller::{CallerKey, UsageCaller};
use super::limit::{LimitReached, QuotaStatus};
use super::period::Period;
use super::quotas::{Admission, LimitedCall};
use super::tenant_usage::{CallToRecord, TenantUsage};
use super::traffic::{CallEnd, TrafficReport};
use crate::base::live_nodes::LiveNodes;
use crate::spec::UsageLimits;

/// Counts the calls of one tenant, under the limits of one revision. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UsageMeter(Arc<MeterParts>);

/// What a meter and its calls have in common: a call takes one reference to it.
#[derive(Debug)]
struct MeterParts {
    usage: Arc<Usage>,
    tenant: Arc<TenantUsage>,
    limits: UsageLimits,
}

impl UsageMeter {
    pub(super) fn new(usage: Arc<Usage>, tenant: Arc<TenantUsage>, limits: UsageLimits) -> Self {
        Self(Arc::new(MeterParts { usage, tenant, limits }))
    }

    /// Begins a call of a tool whose request came in at `started`.
    pub fn begin(&self, started: Instant, caller: UsageCaller, tool: Arc<str>) -> MeteredCall {
        self.0.tenant.begin_call();
        MeteredCall {
            meter: Arc::clone(&self.0),
            started,
            caller,
            tool,
            admission: None,
            end: None,
            bytes: 0,
        }
    }

    /// Counts a request that was turned down before it reached a tool.
    pub fn record_refusal(&self) {
        let MeterParts { usage, tenant, .. } = &*self.0;
        let call = usage.ended_call(CallEnd::Refused, Duration::ZERO, 0);
        usage.record(tenant, &CallToRecord { call, admitted: None, ledger_entry: None });
    }

    /// Waits before a request that a limit refuses is answered, if its caller was refused many
    /// times in this minute, so that a flood of refused requests takes no time from others.
    pub async fn pace_refusal(&self, caller: CallerKey) {
        let delay = self.0.tenant.refusal_delay(caller, self.0.usage.clock.monotonic());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Returns the gateways that live, among which rates are shared.
    pub fn live_nodes(&self) -> &LiveNodes {
        &self.0.usage.nodes
    }

    /// Returns the tenant's traffic of the last 24 hours, and how much of its quotas is used.
    pub fn traffic(&self) -> TrafficReport {
        TrafficReport { quotas: self.quotas(), ..self.0.usage.tenant_traffic(self.0.tenant.name()) }
    }

    /// Returns how much of the tenant's and its tools' quotas is used.
    pub fn quotas(&self) -> Vec<QuotaStatus> {
        let MeterParts { usage, tenant, limits } = &*self.0;
        tenant.quota_statuses(limits, Period::from_time(usage.clock.now()))
    }
}

/// A call that is under way; it is counted when it is dropped. One without an end, since its client
/// went away, counts as answered without bytes.
#[derive(Debug)]
pub struct MeteredCall {
    meter: Arc<MeterParts>,
    started: Instant,
    caller: UsageCaller,
    tool: Arc<str>,
    admission: Option<Admission>,
    /// How it ended, as soon as that is certain.
    end: Option<CallEnd>,
    bytes: u64,
}

impl MeteredCall {
    /// Takes the call from all quotas that it concerns, or from none.
    ///
    /// # Errors
    /// Returns the first limit that is reached: the tenant's, the tool's, or the caller's.
    pub fn admit(&mut self) -> Result<(), LimitReached> {
        let MeterParts { usage, tenant, limits } = &*self.meter;
        if limits.is_empty() {
            return Ok(());
        }
        let now = usage.clock.now();
        let (monotonic, period) = (usage.clock.monotonic(), Period::from_time(now));
        let at = CallTime { now, monotonic, period, nodes: &usage.nodes };
        let call = LimitedCall { limits, tool: &self.tool, caller: &self.caller };
        let admitted = tenant.admit(call, &at);
        let (admission, crossings) = admitted.inspect_err(|_| self.end = Some(CallEnd::Refused))?;
        self.admission = Some(admission);
        usage.warn(tenant, crossings, now);
        Ok(())
    }

    /// Ends the call, whose result has so many bytes.
    pub fn finish(mut self, end: CallEnd, bytes: u64) {
        self.end = Some(end);
        self.bytes = bytes;
    }

    fn record(&self) {
        let (end, bytes) = (self.end.unwrap_or(CallEnd::Answered), self.bytes);
        let MeterParts { usage, tenant, limits } = &*self.meter;
        let limited = LimitedCall { limits, tool: &self.tool, caller: &self.caller };
        let elapsed = usage.clock.monotonic().saturating_duration_since(self.started);
        let is_in_ledger = usage.has_ledger() && end != CallEnd::Refused;
        usage.record(
            tenant,
            &CallToRecord {
                call: usage.ended_call(end, elapsed, bytes),
                admitted: self.admission.as_ref().map(|admission| (limited, admission)),
                ledger_entry: is_in_ledger.then_some((&self.caller, &self.tool)),
            },
        );
    }
}

impl Drop for MeteredCall {
    fn drop(&mut self) {
        self.record();
        self.meter.tenant.end_call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};
    use crate::spec::{CallLimits, TenantName};
    use crate::store::{KeySource, Store, UsageBy, UsageQuery};

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at("2026-11-26T10:00:00Z".parse().expect("a time")))
    }

    fn meter(usage: &Arc<Usage>, name: &str, limits: UsageLimits) -> UsageMeter {
        usage.meter(&TenantName::parse(name).expect("a name"), limits)
    }

    fn begin(meter: &UsageMeter, person: &str) -> MeteredCall {
        let caller =
            UsageCaller { key: CallerKey::User(person.into()), name: Some(person.into()), client: None };
        meter.begin(meter.0.usage.clock.monotonic(), caller, "search".into())
    }

    fn a_day(calls: u64) -> UsageLimits {
        let tenant = CallLimits { calls_per_day: Some(calls), ..CallLimits::default() };
        UsageLimits { tenant, ..UsageLimits::default() }
    }

    fn call(meter: &UsageMeter) -> Result<(), LimitReached> {
        let mut call = begin(meter, "ann");
        call.admit()?;
        call.finish(CallEnd::Answered, 10);
        Ok(())
    }

    #[test]
    fn calls_are_counted_for_their_tenant_and_for_the_gateway() {
        let clock = clock();
        let usage = Usage::new(clock.clone());
        let acme = meter(&usage, "acme", UsageLimits::default());
        let beta = meter(&usage, "beta", UsageLimits::default());
        let call = begin(&acme, "ann");
        clock.advance(Duration::from_millis(30));
        assert_eq!((acme.traffic().in_flight, usage.traffic().in_flight), (1, 1));
        call.finish(CallEnd::Failed, 7);
        beta.record_refusal();
        drop(begin(&acme, "ann"));
        let last = |report: TrafficReport| report.hours.last().cloned().expect("24 hours");
        let (of_acme, of_all) = (last(acme.traffic()), last(usage.traffic()));
        assert_eq!((of_acme.calls, of_acme.errors, of_acme.refused, of_acme.bytes), (2, 1, 0, 7));
        assert_eq!((of_all.calls, of_all.errors, of_all.refused), (2, 1, 1));
        assert_eq!((of_acme.p50_ms, of_acme.p95_ms), (Some(1), Some(30)));
        assert_eq!(usage.traffic().in_flight, 0);
        let again = meter(&usage, "acme", UsageLimits::default());
        assert_eq!(last(again.traffic()).calls, 2, "a reload goes on counting");
    }

    #[test]
    fn two_tenants_have_quotas_of_their_own_and_a_warning_comes_at_four_fifths() {
        let usage = Usage::new(clock());
        let mut warnings = usage.subscribe_warnings();
        let (acme, beta) = (meter(&usage, "acme", a_day(5)), meter(&usage, "beta", a_day(5)));
        for _ in 0..5 {
            assert_eq!(call(&acme), Ok(()));
        }
        assert!(call(&acme).is_err());
        assert_eq!(call(&beta), Ok(()));
        let warning = warnings.try_recv().expect("a warning");
        assert_eq!((&*warning.tenant, warning.used, warning.of), ("acme", 4, 5));
        assert!(warnings.try_recv().is_err(), "one is enough");
        let raised = meter(&usage, "acme", a_day(6));
        assert_eq!(raised.quotas()[0].used, 5, "a reload goes on counting");
        assert_eq!(call(&raised), Ok(()), "under the new limit");
        assert!(call(&raised).is_err());
    }

    #[test]
    fn the_answers_to_a_caller_that_is_refused_all_the_time_wait_and_nobody_elses() {
        let clock = clock();
        let acme = meter(&Usage::new(clock.clone()), "acme", a_day(0));
        let delay = |who: &str| acme.0.tenant.refusal_delay(CallerKey::User(who.into()), clock.monotonic());
        for _ in 0..60 {
            assert_eq!(delay("ann"), Duration::ZERO);
        }
        assert_eq!(delay("ann"), Duration::from_millis(500));
        assert_eq!(delay("ben"), Duration::ZERO);
        clock.advance(Duration::from_secs(60));
        assert_eq!(delay("ann"), Duration::ZERO, "a minute later");
    }

    #[tokio::test]
    async fn quotas_and_the_ledger_outlive_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = clock();
        for round in 1..=2 {
            let store = Store::open(folder.path(), &KeySource::State).expect("opened");
            let usage = Usage::start(clock.clone(), Some((&store).into())).await.expect("read");
            let acme = meter(&usage, "acme", a_day(3));
            assert_eq!(call(&acme), Ok(()));
            assert_eq!(call(&acme).is_err(), round == 2, "the third call is the last");
            assert!(usage.flush().await);
            let hours = acme.traffic().hours;
            assert_eq!(hours[23].calls, if round == 1 { 2 } else { 3 }, "the last hours are known again");
            let query =
                UsageQuery { to: i64::MAX, limit: 10, by: Some(UsageBy::Person), ..UsageQuery::default() };
            let sums = usage.report(query).await.expect("read");
            let calls: Vec<_> = sums.iter().map(|sum| (sum.name.as_deref(), sum.counts.calls)).collect();
            assert_eq!(calls, [(Some("ann"), if round == 1 { 2 } else { 3 })]);
        }
    }
}
