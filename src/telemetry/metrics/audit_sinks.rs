//! What is counted of the sinks of the audit. A sink's name is the operator's.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

/// The families of all sinks.
#[derive(Debug, Default)]
pub(super) struct AuditSinkMetrics {
    sent: Family<SinkLabels, Counter>,
    dropped: Family<SinkLabels, Counter>,
    waiting_bytes: Family<SinkLabels, Gauge>,
    failing: Family<SinkLabels, Gauge>,
}

impl AuditSinkMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let sent = "Audit lines that a sink's receiver took";
        registry.register("tenantd_audit_sink_lines_sent", sent, self.sent.clone());
        let dropped = "Audit lines that a sink dropped, because its spool was full";
        registry.register("tenantd_audit_sink_lines_dropped", dropped, self.dropped.clone());
        let waiting = "Bytes of audit lines that wait for a sink's receiver";
        registry.register("tenantd_audit_sink_waiting_bytes", waiting, self.waiting_bytes.clone());
        let failing = "1 while a sink's receiver takes no audit lines";
        registry.register("tenantd_audit_sink_failing", failing, self.failing.clone());
    }
}

impl Metrics {
    /// Shows a sink from now on, also before anything happens to it.
    pub fn add_audit_sink(&self, sink: &str) {
        self.record_audit_lines_sent(sink, 0);
        self.record_audit_lines_dropped(sink, 0);
        self.set_audit_sink_failing(sink, false);
    }

    /// Shows a sink no longer.
    pub fn remove_audit_sink(&self, sink: &str) {
        let labels = SinkLabels::new(sink);
        let AuditSinkMetrics { sent, dropped, waiting_bytes, failing } = &self.audit_sinks;
        sent.remove(&labels);
        dropped.remove(&labels);
        waiting_bytes.remove(&labels);
        failing.remove(&labels);
    }

    /// Counts lines that a sink's receiver took.
    pub fn record_audit_lines_sent(&self, sink: &str, lines: u64) {
        self.audit_sinks.sent.get_or_create(&SinkLabels::new(sink)).inc_by(lines);
    }

    /// Counts lines that a sink dropped.
    pub fn record_audit_lines_dropped(&self, sink: &str, lines: u64) {
        self.audit_sinks.dropped.get_or_create(&SinkLabels::new(sink)).inc_by(lines);
    }

    /// Sets how much waits for a sink's receiver.
    pub fn set_audit_sink_waiting(&self, sink: &str, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.audit_sinks.waiting_bytes.get_or_create(&SinkLabels::new(sink)).set(bytes);
    }

    /// Sets whether a sink's receiver takes no lines.
    pub fn set_audit_sink_failing(&self, sink: &str, is_failing: bool) {
        self.audit_sinks.failing.get_or_create(&SinkLabels::new(sink)).set(is_failing.into());
    }
}

impl SinkLabels {
    fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned() }
    }
}
