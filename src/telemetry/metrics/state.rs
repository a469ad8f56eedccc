//! Metrics that are read from the gateway's parts when they are collected: the states of tenants,
//! breakers, the expiry of certificates and secrets.
//!
//! Nobody has to keep them up to date, so they are as true as what they are read from, and go with
//! it.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::base::sync::lock;
use crate::telemetry::otlp::SignalCounts;

/// What metrics read from the gateway's parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CollectedState {
    /// How many tenants are in each state.
    pub tenants: Vec<(&'static str, i64)>,
    /// How many routing tables were published.
    pub generation: u64,
    /// Each tenant whose breaker is not closed, and the breaker's state.
    pub breakers: Vec<(Box<str>, &'static str)>,
    /// The certificates.
    pub certificates: Vec<CertificateGauges>,
    /// The secrets that expire.
    pub secrets: Vec<SecretExpiry>,
    /// The quotas of tenants and of their tools.
    pub quotas: Vec<QuotaGauges>,
    /// The tenants on which the gateways of a cluster disagree, if this is one of several.
    pub disagreeing: Option<usize>,
    /// What was sent to an OTLP receiver, for each signal.
    pub exported: Vec<SignalCounts>,
    /// How often each task has panicked.
    pub panics: Vec<(&'static str, u64)>,
}

/// What metrics say of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateGauges {
    /// Its name, or its names.
    pub name: String,
    /// When it expires, in seconds since 1970; 0 if there is none yet.
    pub not_after: i64,
    /// Failed attempts in a row to obtain or renew it.
    pub failures: u32,
}

/// A secret of a tenant that expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretExpiry {
    /// The tenant.
    pub tenant: Box<str>,
    /// What kind of secret it is.
    pub kind: &'static str,
    /// The operator's name for it.
    pub label: Box<str>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
}

/// What metrics say of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaGauges {
    /// The tenant.
    pub tenant: Box<str>,
    /// Whose calls are limited: `tenant`, or `tool NAME`.
    pub scope: Box<str>,
    /// The limit, named as in the tenant's file.
    pub limit: &'static str,
    /// How much is used.
    pub used: u64,
    /// How much it allows.
    pub of: u64,
}

/// Reads the state; called with every collection.
pub type StateReader = Arc<dyn Fn() -> CollectedState + Send + Sync>;

/// Encodes what the reader returns.
#[derive(Default)]
pub(super) struct StateCollector(Mutex<Option<StateReader>>);

impl StateCollector {
    pub(super) fn set_reader(&self, reader: Option<StateReader>) {
        *lock(&self.0) = reader;
    }
}

impl fmt::Debug for StateCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StateCollector").field(&lock(&self.0).is_some()).finish()
    }
}

/// A family of gauges, without its samples.
type Family = (&'static str, &'static str);
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(read) = lock(&self.0).clone() else { return Ok(()) };
        let state = read();
        encode_tenants(&mut encoder, &state)?;
        encode_certificates(&mut encoder, &state.certificates)?;
        let secrets = state.secrets.iter().map(|secret| {
            let labels =
                vec![("tenant", &*secret.tenant), ("secret", secret.kind), ("label", &*secret.label)];
            (labels, secret.expires)
        });
        let family = (
            "tenantd_secret_expires_timestamp_seconds",
            "When a tenant's secret expires, in seconds since 1970",
        );
        encode_gauges(&mut encoder, family, secrets.collect())?;
        encode_quotas(&mut encoder, &state.quotas)?;
        encode_disagreeing(&mut encoder, state.disagreeing)?;
        encode_exported(&mut encoder, &state.exported)?;
        encode_panics(&mut encoder, &state.panics)
    }
}

fn encode_tenants(encoder: &mut DescriptorEncoder<'_>, state: &CollectedState) -> Result<(), fmt::Error> {
    let tenants = state.tenants.iter().map(|(state, count)| (vec![("state", *state)], *count));
    encode_gauges(encoder, ("tenantd_tenants", "Tenants by state"), tenants.collect())?;
    let family = ("tenantd_generation", "Routing tables published since the start");
    let generation = i64::try_from(state.generation).unwrap_or(i64::MAX);
    encode_gauges(encoder, family, vec![(Labels::new(), generation)])?;
    let breakers =
        state.breakers.iter().map(|(tenant, state)| (vec![("tenant", &**tenant), ("state", *state)], 1));
    let family = (
        "tenantd_backend_breaker",
        "1 for each tenant whose backend failed so often that calls to it are paused, and what it waits for",
    );
    encode_gauges(encoder, family, breakers.collect())
}

fn encode_certificates(
    encoder: &mut DescriptorEncoder<'_>,
    certificates: &[CertificateGauges],
) -> Result<(), fmt::Error> {
    // Two certificates of the same names (RSA and ECDSA) are one series: the first to expire.
    let mut first_to_expire: Vec<&CertificateGauges> = certificates.iter().collect();
    first_to_expire.sort_by(|a, b| (&a.name, a.not_after).cmp(&(&b.name, b.not_after)));
    first_to_expire.dedup_by(|later, first| later.name == first.name);
    let mut encode = |family, value: fn(&CertificateGauges) -> i64| {
        let samples = first_to_expire.iter().map(|it| (vec![("name", &*it.name)], value(it)));
        encode_gauges(encoder, family, samples.collect())
    };
    let family = (
        "tenantd_certificate_not_after_timestamp_seconds",
        "When a certificate ends, in seconds since 1970; 0 if there is none yet",
    );
    encode(family, |it| it.not_after)?;
    let family =
        ("tenantd_certificate_failures", "Failed attempts in a row to obtain or renew a certificate");
    encode(family, |it| it.failures.into())
}

fn encode_quotas(encoder: &mut DescriptorEncoder<'_>, quotas: &[QuotaGauges]) -> Result<(), fmt::Error> {
    let mut encode = |family, value: fn(&QuotaGauges) -> u64| {
        let samples = quotas.iter().map(|it| {
            let labels = vec![("tenant", &*it.tenant), ("scope", &*it.scope), ("limit", it.limit)];
            (labels, i64::try_from(value(it)).unwrap_or(i64::MAX))
        });
        encode_gauges(encoder, family, samples.collect())
    };
    encode(("tenantd_quota_used", "How much of a limit of a day or month is used"), |it| it.used)?;
    encode(("tenantd_quota_limit", "How much a limit of a day or month allows"), |it| it.of)
}

fn encode_disagreeing(encoder: &mut DescriptorEncoder<'_>, count: Option<usize>) -> Result<(), fmt::Error> {
    let family = (
        "tenantd_cluster_disagreeing_tenants",
        "Tenants that are not the same on all live gateways of the cluster for longer than a minute",
    );
    let count = count.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    encode_gauges(encoder, family, count.map(|count| (Labels::new(), count)).into_iter().collect())
}

fn encode_exported(encoder: &mut DescriptorEncoder<'_>, exported: &[SignalCounts]) -> Result<(), fmt::Error> {
    for SignalCounts { items, sent, dropped } in exported {
        let counters = [
            ("sent", "What the OTLP receiver took", sent),
            ("dropped", "What the OTLP receiver did not take in time or at all", dropped),
        ];
        for (end, help, count) in counters {
            let name = format!("tenantd_otlp_{items}_{end}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, u64, u64>(count, None)?;
        }
    }
    Ok(())
}

fn encode_panics(encoder: &mut DescriptorEncoder<'_>, panics: &[(&str, u64)]) -> Result<(), fmt::Error> {
    if panics.is_empty() {
        return Ok(());
    }
    let help = "Panics inside tenantd by task; please report each of them";
    let mut metric = encoder.encode_descriptor("tenantd_task_panics", help, None, MetricType::Counter)?;
    for (task, count) in panics {
        metric
            .encode_family(&[("task", *task)].as_slice())?
            .encode_counter::<NoLabelSet, u64, u64>(count, None)?;
    }
    Ok(())
}

/// Encodes a family of gauges, if it has any.
pub(super) fn encode_gauges<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): Family,
    samples: Vec<(Labels<'_>, V)>,
) -> Result<(), fmt::Error> {
    if samples.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        match labels.is_empty() {
            true => metric.encode_gauge(&value)?,
            false => metric.encode_family(&labels.as_slice())?.encode_gauge(&value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn certificate(name: &str, not_after: i64, failures: u32) -> CertificateGauges {
        CertificateGauges { name: name.to_owned(), not_after, failures }
    }

    #[test]
    fn what_was_read_is_shown_and_nothing_else_stays() {
        let metrics = Metrics::new();
        let state = Arc::new(std::sync::Mutex::new(CollectedState {
            tenants: vec![("serving", 2), ("degraded", 1)],
            generation: 7,
            breakers: vec![("acme".into(), "open")],
            certificates: vec![
                certificate("a.example", 2000, 0),
                certificate("b.example", 0, 3),
                certificate("a.example", 1000, 1),
            ],
            secrets: vec![SecretExpiry {
                tenant: "acme".into(),
                kind: "api_key",
                label: "the \"old\" one\n".into(),
                expires: 1_800_000_000,
            }],
            quotas: vec![QuotaGauges {
                tenant: "acme".into(),
                scope: "tool search".into(),
                limit: "calls_per_day",
                used: 4,
                of: 5,
            }],
            disagreeing: Some(2),
            exported: vec![SignalCounts { items: "spans", sent: 3, dropped: 2 }],
            panics: vec![("reconcile", 1)],
        }));
        let shared = Arc::clone(&state);
        metrics.set_state_reader(Arc::new(move || shared.lock().expect("no panic").clone()));
        let text = metrics.encode();
        for line in [
            r#"tenantd_tenants{state="degraded"} 1"#,
            "tenantd_generation 7",
            r#"tenantd_backend_breaker{tenant="acme",state="open"} 1"#,
            r#"tenantd_certificate_not_after_timestamp_seconds{name="a.example"} 1000"#,
            r#"tenantd_certificate_not_after_timestamp_seconds{name="b.example"} 0"#,
            r#"tenantd_certificate_failures{name="b.example"} 3"#,
            r#"tenantd_secret_expires_timestamp_seconds{tenant="acme",secret="api_key",label="the \"old\" one\n"} 1800000000"#,
            r#"tenantd_quota_used{tenant="acme",scope="tool search",limit="calls_per_day"} 4"#,
            r#"tenantd_quota_limit{tenant="acme",scope="tool search",limit="calls_per_day"} 5"#,
            "tenantd_cluster_disagreeing_tenants 2",
            "tenantd_otlp_spans_sent_total 3",
            "tenantd_otlp_spans_dropped_total 2",
            r#"tenantd_task_panics_total{task="reconcile"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(
            !text.contains(r#"{name="a.example"} 2000"#),
            "a series twice would make the whole scrape fail\n{text}"
        );
        *state.lock().expect("no panic") = CollectedState::default();
        let text = metrics.encode();
        assert!(!text.contains("acme") && !text.contains("example"), "{text}");
    }
}
