//! Metric families. Names follow OpenTelemetry's MCP conventions where there is one, in Prometheus
//! form.
//!
//! Histograms have no tenant label, and the series of a removed tenant are dropped, so that the
//! cost of ten thousand tenants for a collector stays bounded. No label holds text that a client
//! sent.

mod audit_sinks;
mod budgets;
mod cluster;
mod health;
mod outcome;
mod process;
mod state;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::audit_sinks::AuditSinkMetrics;
use self::budgets::BudgetMetrics;
use self::cluster::ClusterMetrics;
pub use self::health::GatewayHealth;
pub use self::outcome::CallOutcome;
use self::process::ProcessCollector;
use self::state::StateCollector;
pub use self::state::{CertificateGauges, CollectedState, QuotaGauges, SecretExpiry, StateReader};
use self::tenants::{TenantCollector, TenantCounters, TenantFamily};
use super::log;
use crate::base::budget::Budget;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamespaceLabels {
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetOutcomeLabels {
    target: String,
    outcome: &'static str,
}

type HistogramConstructor = fn() -> Histogram;

/// All metric families of one gateway. Share it behind an `Arc`; the registry is not global, so
/// that tests can have several.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Gauge,
    refused: Family<ReasonLabels, Counter>,
    unknown_callers: Family<ReasonLabels, Counter>,
    answers: Family<ResponseLabels, Counter>,
    answer_seconds: Family<RouteLabels, Histogram, HistogramConstructor>,
    tool_seconds: Family<OutcomeLabels, Histogram, HistogramConstructor>,
    backend_seconds: Family<OutcomeLabels, Histogram, HistogramConstructor>,
    identity_seconds: Family<OutcomeLabels, Histogram, HistogramConstructor>,
    /// For gateways whose tenants come from Kubernetes only.
    kubernetes_connected: Family<NamespaceLabels, Gauge>,
    passes: Family<OutcomeLabels, Counter>,
    pass_seconds: Histogram,
    changes: Counter,
    last_pass_completed: Gauge,
    last_completed_at: Gauge<f64, AtomicU64>,
    unsettled: Gauge,
    notified: Gauge,
    store_writable: Gauge,
    cluster: ClusterMetrics,
    audit_lost: Counter,
    audit_counted: Counter,
    audit_sinks: AuditSinkMetrics,
    notifications: Family<TargetOutcomeLabels, Counter>,
    certificate_orders: Family<OutcomeLabels, Counter>,
    budgets: BudgetMetrics,
    tenant_counters: Arc<TenantCounters>,
    state: Arc<StateCollector>,
}

impl Metrics {
    /// Creates all families at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            connections: Gauge::default(),
            refused: Family::default(),
            unknown_callers: Family::default(),
            answers: Family::default(),
            answer_seconds: Family::new_with_constructor(seconds),
            tool_seconds: Family::new_with_constructor(operation_seconds),
            backend_seconds: Family::new_with_constructor(seconds),
            identity_seconds: Family::new_with_constructor(seconds),
            kubernetes_connected: Family::default(),
            passes: Family::default(),
            pass_seconds: seconds(),
            changes: Counter::default(),
            last_pass_completed: Gauge::default(),
            last_completed_at: Gauge::default(),
            unsettled: Gauge::default(),
            notified: Gauge::default(),
            store_writable: Gauge::default(),
            cluster: ClusterMetrics::default(),
            audit_lost: Counter::default(),
            audit_counted: Counter::default(),
            audit_sinks: AuditSinkMetrics::default(),
            notifications: Family::default(),
            certificate_orders: Family::default(),
            budgets: BudgetMetrics::default(),
            tenant_counters: Arc::default(),
            state: Arc::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let registry = &mut self.registry;
        registry.register("tenantd_build", "The version of the program", build);
        registry.register("tenantd_connections", "Connections open", self.connections.clone());
        registry.register("tenantd_connections_refused", "Connections refused", self.refused.clone());
        registry.register(
            "tenantd_unknown_callers",
            "Requests of trusted proxies that do not tell who calls",
            self.unknown_callers.clone(),
        );
        registry.register("tenantd_http_answers", "Answers by route and status", self.answers.clone());
        registry.register_with_unit(
            "http_server_request_duration",
            "From the request's head to the answer's head",
            Unit::Seconds,
            self.answer_seconds.clone(),
        );
        registry.register_with_unit(
            "mcp_server_operation_duration",
            "Tool calls, backend included",
            Unit::Seconds,
            self.tool_seconds.clone(),
        );
        registry.register_with_unit(
            "tenantd_backend_call_duration",
            "Calls to tenants' backends",
            Unit::Seconds,
            self.backend_seconds.clone(),
        );
        registry.register_with_unit(
            "tenantd_identity_call_duration",
            "Logins and renewals at Microsoft's token endpoint",
            Unit::Seconds,
            self.identity_seconds.clone(),
        );
        self.register_life();
        self.register_certificates();
        self.budgets.register(&mut self.registry);
        self.audit_sinks.register(&mut self.registry);
        self.registry.register_collector(Box::new(TenantCollector(Arc::clone(&self.tenant_counters))));
        self.registry.register_collector(Box::new(Arc::clone(&self.state)));
        self.registry.register_collector(Box::new(ProcessCollector));
    }

    fn register_certificates(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "tenantd_certificate_orders",
            "Attempts to obtain a certificate by outcome",
            self.certificate_orders.clone(),
        );
    }

    fn register_life(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "tenantd_kubernetes_connected",
            "Whether the tenants' Secrets are followed: 0 while the API of Kubernetes does not answer",
            self.kubernetes_connected.clone(),
        );
        registry.register("tenantd_passes", "Passes over the tenants folder", self.passes.clone());
        registry.register_with_unit(
            "tenantd_pass_duration",
            "Passes over the tenants folder",
            Unit::Seconds,
            self.pass_seconds.clone(),
        );
        registry.register(
            "tenantd_tenant_changes",
            "Tenants added, changed and removed",
            self.changes.clone(),
        );
        registry.register(
            "tenantd_last_reload_successful",
            "1 if the last pass completed; a broken tenant does not change it",
            self.last_pass_completed.clone(),
        );
        registry.register(
            "tenantd_last_reload_success_timestamp_seconds",
            "When a pass last completed, in seconds since 1970",
            self.last_completed_at.clone(),
        );
        registry.register(
            "tenantd_entries_unsettled",
            "Entries that are being written or were just deleted, and will be checked again",
            self.unsettled.clone(),
        );
        registry.register(
            "tenantd_folder_notified",
            "1 if the system reports changes in the tenants folder, 0 if the folder is scanned every two \
             seconds",
            self.notified.clone(),
        );
        let writable = "1 while the store can be written";
        registry.register("tenantd_store_writable", writable, self.store_writable.clone());
        self.cluster.register(registry);
        let lost = "Audit lines that could not be written";
        registry.register("tenantd_audit_lost", lost, self.audit_lost.clone());
        let lost = "Log lines that standard error did not take";
        registry.register("tenantd_log_lines_lost", lost, super::log::lost_counter());
        let counted = "Audit lines beyond their tenant's share, which one line with their number replaces";
        registry.register("tenantd_audit_counted", counted, self.audit_counted.clone());
        let told = "Events to the targets of notify, by target and outcome";
        registry.register("tenantd_notifications", told, self.notifications.clone());
        let left_out = "Log lines that were suppressed, because there were many of their kind about one \
                        tenant";
        registry.register("tenantd_log_lines_left_out", left_out, log::omitted_counter());
    }

    /// Sets how the state of the gateway's parts is read with every collection. What the reader
    /// holds, the metrics hold, until [`remove_state_reader`](Self::remove_state_reader).
    pub fn set_state_reader(&self, reader: StateReader) {
        self.state.set_reader(Some(reader));
    }

    /// Drops the reader of the gateway's parts.
    pub fn remove_state_reader(&self) {
        self.state.set_reader(None);
    }

    /// Returns the exposition text (OpenMetrics).
    pub fn encode(&self) -> String {
        self.budgets.update();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a String takes what is written");
        text
    }

    /// Counts a connection that was accepted (`1`) or ended (`-1`).
    pub fn add_connections(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// Counts a connection that was refused or closed (`per_ip`, `handshake`, `header_timeout`,
    /// `stalled`, `accept_error`, and `gave_way` if it was evicted), or that had to wait (`cap`).
    pub fn record_refused_connection(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a request whose caller a trusted proxy does not tell: `not_forwarded`, `malformed`,
    /// `contradictory`, `too_few_hops`.
    pub fn record_unknown_caller(&self, reason: &'static str) {
        self.unknown_callers.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Exposes a budget that counts bytes from now on.
    pub fn register_budget(&self, name: &'static str, budget: Arc<Budget>) {
        self.budgets.add(name, budget);
    }

    /// Counts a refusal of a budget. `reason` is the limit that was reached: `all`, `tenant`,
    /// `network`, `client`.
    pub fn record_budget_rejection(&self, budget: &'static str, reason: &'static str) {
        self.budgets.record_rejection(budget, reason);
    }

    /// Records a response. `route` is one of a small fixed set.
    pub fn record_response(&self, route: &'static str, status: u16, elapsed: Duration) {
        self.answers.get_or_create(&ResponseLabels { route, status }).inc();
        self.answer_seconds.get_or_create(&RouteLabels { route }).observe(elapsed.as_secs_f64());
    }

    /// Counts events of this tenant from now on; those of others are not counted.
    pub fn add_tenant(&self, tenant: &str) {
        self.tenant_counters.add(tenant);
    }

    /// Drops the series of a removed tenant.
    pub fn remove_tenant(&self, tenant: &str) {
        self.tenant_counters.remove(tenant);
    }

    /// Records a finished tool call, and the kind of its error if it failed.
    pub fn record_tool_call(
        &self,
        tenant: &str,
        outcome: CallOutcome,
        error: Option<&'static str>,
        elapsed: Duration,
    ) {
        let outcome = outcome.label();
        self.tenant_counters.count(tenant, TenantFamily::Calls, [outcome, ""]);
        if let Some(kind) = error {
            self.tenant_counters.count(tenant, TenantFamily::CallErrors, [kind, ""]);
        }
        self.tool_seconds.get_or_create(&OutcomeLabels { outcome }).observe(elapsed.as_secs_f64());
    }

    /// Counts a request that was refused before it reached the tenant's tools.
    pub fn record_refusal(&self, tenant: &str, reason: &'static str) {
        self.tenant_counters.count(tenant, TenantFamily::Refusals, [reason, ""]);
    }

    /// Counts a login that ended; `outcome` is `ok` or the error's class.
    pub fn record_login(&self, tenant: &str, outcome: &'static str) {
        self.tenant_counters.count(tenant, TenantFamily::Logins, [outcome, ""]);
    }

    /// Counts a token request; `outcome` is `ok` or why no token was issued.
    pub fn record_token(&self, tenant: &str, grant_type: &'static str, outcome: &'static str) {
        self.tenant_counters.count(tenant, TenantFamily::Tokens, [grant_type, outcome]);
    }

    /// Records a finished backend call; `outcome` is `ok` or the error's class.
    pub fn record_backend_call(&self, outcome: &'static str, elapsed: Duration) {
        self.backend_seconds.get_or_create(&OutcomeLabels { outcome }).observe(elapsed.as_secs_f64());
    }

    /// Records a finished login or renewal at the identity provider; `outcome` is `ok`, `refused`,
    /// `ended`, `misconfigured` or `down`.
    pub fn record_identity_call(&self, outcome: &'static str, elapsed: Duration) {
        self.identity_seconds.get_or_create(&OutcomeLabels { outcome }).observe(elapsed.as_secs_f64());
    }

    /// Records a pass over the tenants folder that ended at `now` (seconds since 1970) and changed
    /// `changed` tenants.
    pub fn record_pass(&self, completed: bool, changed: usize, elapsed: Duration, now: f64) {
        let outcome = if completed { "ok" } else { "failed" };
        self.passes.get_or_create(&OutcomeLabels { outcome }).inc();
        self.pass_seconds.observe(elapsed.as_secs_f64());
        self.changes.inc_by(changed as u64);
        self.last_pass_completed.set(completed.into());
        if completed {
            self.last_completed_at.set(now);
        }
    }

    /// Sets whether the tenants' Secrets in a namespace are followed.
    pub fn set_kubernetes_state(&self, namespace: &str, connected: bool) {
        let labels = NamespaceLabels { namespace: namespace.to_owned() };
        self.kubernetes_connected.get_or_create(&labels).set(connected.into());
    }

    /// Sets whether the last write to the store succeeded.
    pub fn set_store_writable(&self, writable: bool) {
        self.store_writable.set(i64::from(writable));
    }

    /// Counts an audit line that was lost.
    pub fn record_lost_audit_line(&self) {
        self.audit_lost.inc();
    }

    /// Returns how many audit lines were lost since the start.
    pub fn lost_audit_lines(&self) -> u64 {
        self.audit_lost.get()
    }

    /// Counts an attempt to tell a target of `notify` of something; `outcome` is `ok` or `failed`.
    pub fn record_notification(&self, target: &str, outcome: &'static str) {
        self.notifications.get_or_create(&TargetOutcomeLabels { target: target.to_owned(), outcome }).inc();
    }

    /// Counts an audit line that only the number in another line stands for.
    pub fn record_omitted_audit_line(&self) {
        self.audit_counted.inc();
    }

    /// Sets how many entries have not settled, and whether the system notifies of changes.
    pub fn set_folder_state(&self, unsettled: usize, notified: bool) {
        self.unsettled.set(i64::try_from(unsettled).unwrap_or(i64::MAX));
        self.notified.set(notified.into());
    }

    /// Counts an attempt to obtain a certificate; `outcome` is `ok` or the fault's class.
    pub fn record_certificate_order(&self, outcome: &'static str) {
        self.certificate_orders.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates a histogram with the buckets of OpenTelemetry's MCP conventions
/// (`mcp.server.operation.duration`).
fn operation_seconds() -> Histogram {
    Histogram::new([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0])
}

/// Creates a histogram with buckets from the time of a cached page to that of the longest call.
fn seconds() -> Histogram {
    Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_as_open_metrics_wants() {
        let metrics = Metrics::new();
        metrics.record_response("mcp", 200, Duration::from_millis(1));
        let text = metrics.encode();
        assert!(text.contains(r#"tenantd_http_answers_total{route="mcp",status="200"} 1"#), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
