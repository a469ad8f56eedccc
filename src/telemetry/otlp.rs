//! Traces for an OpenTelemetry receiver, over OTLP (HTTP, protobuf).
//!
//! The names are those of OpenTelemetry's conventions for MCP (semantic-conventions-genai). Spans
//! wait in a bounded queue for one task that sends them, so no call waits for a receiver, and what
//! a dead one does not take is dropped and counted. Arguments and results are never in a span.
//!
//! Only this module names the crates of OTLP: the official message types, which our own task sends
//! over `reqwest`. The SDK's exporters would bring threads of their own.

mod exporter;
mod ids;
mod queue;
mod span;

use std::path::PathBuf;
use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1 as proto;

pub use self::exporter::{ExportError, Exporter};
pub use self::ids::SpanIds;
use self::queue::ExportQueue;
pub use self::span::{AttributeValue, RemoteSpans, SpanParent, TraceSpan, Tracer};
use crate::base::clock::Clock;

/// Some seconds of a busy gateway; about 4 MB.
const MAX_WAITING_SPANS: usize = 4096;

/// What is exported, and to where.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpConfig {
    /// The base URL of the receiver; `/v1/traces` is appended.
    pub endpoint: String,
    /// The file with headers for the receiver, one `name: value` on a line.
    pub headers_file: Option<PathBuf>,
    /// The share of calls that is recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// Whether the callers' own decision to record a trace counts.
    pub trust_sampled: bool,
    /// Whether spans name the addresses of clients.
    pub client_address: bool,
}

/// What spans and their exporter share.
#[derive(Debug)]
struct TracerState {
    config: OtlpConfig,
    clock: Arc<dyn Clock>,
    spans: ExportQueue<proto::Span>,
}

/// How many spans were sent, and how many were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Spans that the receiver took.
    pub sent: u64,
    /// Spans that had no room, or that the receiver did not want.
    pub dropped: u64,
}

impl Tracer {
    /// Creates the tracer of a gateway and what sends its spans.
    ///
    /// # Errors
    /// No HTTP client can be created.
    pub fn new(config: OtlpConfig, clock: Arc<dyn Clock>) -> Result<(Self, Exporter), ExportError> {
        let shared = Arc::new(TracerState { config, clock, spans: ExportQueue::new(MAX_WAITING_SPANS) });
        let exporter = Exporter::new(Arc::clone(&shared))?;
        Ok((Self(Some(shared)), exporter))
    }

    /// Returns what was sent and dropped; `None` if nothing is exported.
    pub fn export_counts(&self) -> Option<ExportCounts> {
        let (sent, dropped) = self.0.as_ref()?.spans.counts();
        Some(ExportCounts { sent, dropped })
    }
}
