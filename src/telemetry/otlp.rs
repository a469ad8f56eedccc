//! Traces, logs and metrics for an OpenTelemetry receiver, over OTLP (HTTP, protobuf).
//!
//! The names are those of OpenTelemetry's conventions for MCP (semantic-conventions-genai). Spans
//! and log records wait in bounded queues for the tasks that send them, so no call waits for a
//! receiver, and what a dead one does not take is dropped and counted. Metrics are read from the
//! one registry that Prometheus reads, too. Arguments and results are never in a span.
//!
//! Only this module names the crates of OTLP: the official message types, which our own tasks send
//! over `reqwest`. The SDK's exporters would bring threads of their own.

mod attribute;
mod current_span;
mod exporter;
mod health;
mod ids;
mod logs;
mod metrics;
mod openmetrics;
mod queue;
mod receiver;
mod series_starts;
mod signal;
mod span;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::attribute::AttributeValue;
pub use self::current_span::in_span;
pub use self::exporter::Exporter;
pub use self::ids::SpanIds;
pub(super) use self::logs::export_event;
pub use self::queue::SignalCounts;
pub use self::receiver::ExportError;
pub use self::span::{RemoteSpans, SpanParent, TraceSpan, Tracer};

/// The attribute of the resource that tells one gateway from another.
pub const INSTANCE_ID: &str = "service.instance.id";

/// What is exported, and to where.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpConfig {
    /// The base URL of the receiver; `/v1/traces` and so on are appended.
    pub endpoint: String,
    /// The file with headers for the receiver, one `name: value` on a line.
    pub headers_file: Option<PathBuf>,
    /// Attributes of the resource besides the program's own, which they may replace.
    pub resource: BTreeMap<String, String>,
    /// Which calls are traced, if any.
    pub traces: Option<TraceConfig>,
    /// Whether the lines of the log are sent.
    pub logs: bool,
    /// How often metrics are sent, if at all.
    pub metrics_interval: Option<Duration>,
}

/// Which calls are traced, and what spans say.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// The share of calls that is recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// Whether the callers' own decision to record a trace counts.
    pub trust_sampled: bool,
    /// Whether spans name the addresses of clients.
    pub client_address: bool,
}

/// Returns the metrics as OpenMetrics text.
pub type MetricsReader = Arc<dyn Fn() -> String + Send + Sync>;
