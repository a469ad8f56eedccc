//! The counters of each tenant: calls, errors, refusals, logins, tokens.
//!
//! Only tenants that were added are counted, so a call that ends after its tenant was removed
//! brings no series back. A tenant costs nothing before its first event, and the values of all
//! labels are words of this program, so that its series stay few.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, RwLock};

use dashmap::DashMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// What is counted of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TenantFamily {
    Calls,
    CallErrors,
    Refusals,
    Logins,
    Tokens,
}

impl TenantFamily {
    const ALL: [Self; 5] = [Self::Calls, Self::CallErrors, Self::Refusals, Self::Logins, Self::Tokens];

    fn name(self) -> &'static str {
        match self {
            Self::Calls => "tenantd_tool_calls",
            Self::CallErrors => "tenantd_tool_call_errors",
            Self::Refusals => "tenantd_requests_refused",
            Self::Logins => "tenantd_logins",
            Self::Tokens => "tenantd_tokens",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Calls => "Tool calls by tenant and outcome",
            Self::CallErrors => "Tool calls that failed, by tenant and kind of error",
            Self::Refusals => "Requests refused before they reached the tenant's tools",
            Self::Logins => "Logins that ended, by tenant and outcome",
            Self::Tokens => "Token requests by tenant, grant type and outcome",
        }
    }

    /// Returns the names of the labels besides `tenant`; the second may be unused.
    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Calls | Self::Logins => ["outcome", ""],
            Self::CallErrors => ["kind", ""],
            Self::Refusals => ["reason", ""],
            Self::Tokens => ["grant_type", "outcome"],
        }
    }
}

/// The values of a family's labels.
type LabelValues = [&'static str; 2];

/// The counters of all tenants.
#[derive(Debug, Default)]
pub(super) struct TenantCounters(DashMap<Box<str>, LazyCounters>);

type LazyCounters = OnceLock<Box<RwLock<Counters>>>;
/// A handful, so a search is faster than hashing.
type Counters = Vec<(TenantFamily, LabelValues, AtomicU64)>;

impl TenantCounters {
    /// Counts events of this tenant from now on.
    pub(super) fn add(&self, tenant: &str) {
        if !self.0.contains_key(tenant) {
            self.0.entry(tenant.into()).or_default();
        }
    }

    /// Forgets a tenant and what was counted of it.
    pub(super) fn remove(&self, tenant: &str) {
        self.0.remove(tenant);
    }

    /// Counts an event of a tenant that was added.
    pub(super) fn count(&self, tenant: &str, family: TenantFamily, values: LabelValues) {
        let Some(counters) = self.0.get(tenant) else { return };
        let counters = counters.get_or_init(Box::default);
        let known = counters.read().expect("no holder of this lock panics");
        if increment(&known, family, values) {
            return;
        }
        drop(known);
        let mut counters = counters.write().expect("no holder of this lock panics");
        if !increment(&counters, family, values) {
            counters.push((family, values, AtomicU64::new(1)));
        }
    }

    /// Returns each tenant's counters of a family that are not zero.
    fn collect(&self, family: TenantFamily) -> Vec<(Box<str>, LabelValues, u64)> {
        let mut samples = Vec::new();
        for tenant in &self.0 {
            let Some(counters) = tenant.value().get() else { continue };
            let counters = counters.read().expect("no holder of this lock panics");
            for (_, values, count) in counters.iter().filter(|(counted, ..)| *counted == family) {
                samples.push((tenant.key().clone(), *values, count.load(Ordering::Relaxed)));
            }
        }
        samples
    }
}

/// Increments a counter, if there is one.
fn increment(counters: &Counters, family: TenantFamily, values: LabelValues) -> bool {
    let counter = counters.iter().find(|(known, labels, _)| (*known, *labels) == (family, values));
    counter.map(|(.., count)| count.fetch_add(1, Ordering::Relaxed)).is_some()
}

/// Encodes the counters of all tenants, without copies of empty families.
#[derive(Debug)]
pub(super) struct TenantCollector(pub(super) std::sync::Arc<TenantCounters>);

impl Collector for TenantCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in TenantFamily::ALL {
            let samples = self.0.collect(family);
            if samples.is_empty() {
                continue;
            }
            let mut metric =
                encoder.encode_descriptor(family.name(), family.help(), None, MetricType::Counter)?;
            let [first, second] = family.labels();
            for (tenant, values, count) in samples {
                let mut labels = vec![("tenant", &*tenant), (first, values[0])];
                labels.extend((!second.is_empty()).then_some((second, values[1])));
                metric
                    .encode_family(&labels.as_slice())?
                    .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    #[test]
    fn a_removed_tenant_leaves_no_series_and_gets_none_back() {
        let metrics = Metrics::new();
        let record = |tenant| {
            metrics.record_tool_call(tenant, CallOutcome::Busy, Some("busy"), Duration::from_millis(3));
            metrics.record_refusal(tenant, "rate_limited");
            metrics.record_login(tenant, "ok");
            metrics.record_token(tenant, "refresh_token", "ok");
        };
        for tenant in ["acme", "beta", "idle"] {
            metrics.add_tenant(tenant);
        }
        record("acme");
        record("beta");
        let text = metrics.encode();
        for line in [
            r#"tenantd_tool_calls_total{tenant="acme",outcome="busy"} 1"#,
            r#"tenantd_tool_call_errors_total{tenant="acme",kind="busy"} 1"#,
            r#"tenantd_requests_refused_total{tenant="acme",reason="rate_limited"} 1"#,
            r#"tenantd_logins_total{tenant="acme",outcome="ok"} 1"#,
            r#"tenantd_tokens_total{tenant="acme",grant_type="refresh_token",outcome="ok"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("idle"), "no series before the first event");
        metrics.remove_tenant("acme");
        metrics.remove_tenant("idle");
        record("acme");
        let text = metrics.encode();
        assert!(!text.contains("acme"), "a late call brings nothing back:\n{text}");
        assert!(text.contains(r#"tenantd_logins_total{tenant="beta",outcome="ok"} 1"#));
        metrics.add_tenant("acme");
        metrics.add_tenant("beta");
        record("acme");
        let text = metrics.encode();
        assert!(
            text.contains(r#"tenantd_logins_total{tenant="acme",outcome="ok"} 1"#),
            "begins anew\n{text}"
        );
        assert!(text.contains(r#"tenantd_logins_total{tenant="beta",outcome="ok"} 1"#), "goes on\n{text}");
    }
}
