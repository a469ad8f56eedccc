//! The meter of one tenant, and the calls that it counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Usage;
use super::tenant_usage::TenantUsage;
use super::traffic::{CallEnd, TrafficReport};

/// Counts the calls of one tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UsageMeter {
    usage: Arc<Usage>,
    tenant: Arc<TenantUsage>,
}

impl UsageMeter {
    pub(super) fn new(usage: Arc<Usage>, tenant: Arc<TenantUsage>) -> Self {
        Self { usage, tenant }
    }

    /// Begins a call whose request came in at `started`.
    pub fn begin(&self, started: Instant) -> MeteredCall {
        self.tenant.begin_call();
        MeteredCall { meter: self.clone(), started, is_finished: false }
    }

    /// Counts a request that was turned down before it reached the tenant's server.
    pub fn record_refusal(&self) {
        self.usage.record(&self.tenant, CallEnd::Refused, Duration::ZERO, 0);
    }

    /// Returns the tenant's traffic of the last 24 hours.
    pub fn traffic(&self) -> TrafficReport {
        self.tenant.traffic(self.usage.clock.now())
    }
}

/// A call that is under way. One that is dropped, since its client went away, counts as answered
/// without bytes.
#[derive(Debug)]
pub struct MeteredCall {
    meter: UsageMeter,
    started: Instant,
    is_finished: bool,
}

impl MeteredCall {
    /// Ends the call, whose result has so many bytes.
    pub fn finish(mut self, end: CallEnd, bytes: u64) {
        self.record(end, bytes);
    }

    fn record(&mut self, end: CallEnd, bytes: u64) {
        self.is_finished = true;
        let usage = &self.meter.usage;
        let elapsed = usage.clock.monotonic().saturating_duration_since(self.started);
        usage.record(&self.meter.tenant, end, elapsed, bytes);
    }
}

impl Drop for MeteredCall {
    fn drop(&mut self) {
        if !self.is_finished {
            self.record(CallEnd::Answered, 0);
        }
        self.meter.tenant.end_call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};
    use crate::spec::TenantName;

    fn name(text: &str) -> TenantName {
        TenantName::parse(text).expect("a name")
    }

    #[test]
    fn calls_are_counted_for_their_tenant_and_for_the_gateway() {
        let clock = Arc::new(ManualClock::at("2026-11-26T10:00:00Z".parse().expect("a time")));
        let usage = Usage::new(clock.clone());
        let (acme, beta) = (usage.meter(&name("acme")), usage.meter(&name("beta")));
        let call = acme.begin(clock.monotonic());
        clock.advance(Duration::from_millis(30));
        assert_eq!((acme.traffic().in_flight, usage.traffic().in_flight), (1, 1));
        call.finish(CallEnd::Failed, 7);
        beta.record_refusal();
        drop(acme.begin(clock.monotonic()));
        let last = |report: TrafficReport| report.hours.last().cloned().expect("24 hours");
        let (of_acme, of_all) = (last(acme.traffic()), last(usage.traffic()));
        assert_eq!((of_acme.calls, of_acme.errors, of_acme.refused, of_acme.bytes), (2, 1, 0, 7));
        assert_eq!((of_all.calls, of_all.errors, of_all.refused), (2, 1, 1));
        assert_eq!((of_acme.p50_ms, of_acme.p95_ms), (Some(1), Some(30)));
        assert_eq!(usage.traffic().in_flight, 0);
        assert_eq!(last(usage.meter(&name("acme")).traffic()).calls, 2, "a reload goes on counting");
    }
}
