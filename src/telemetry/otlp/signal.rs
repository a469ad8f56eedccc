//! The signals that wait in a queue: what each is called and how its messages look.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::receiver::{Receiver, RejectedItems, scope};

/// A signal of which single items are sent.
pub(super) trait QueuedSignal {
    /// What waits.
    type Item: Clone;

    /// The signal's name in the log.
    const NAME: &'static str;
    /// Where the receiver takes it.
    const PATH: &'static str;

    /// Returns the message with these items.
    fn encode(receiver: &Receiver, items: &[Self::Item]) -> Vec<u8>;

    /// Reads what the receiver did not take from its answer.
    fn read_rejected(answer: &[u8]) -> RejectedItems;
}

/// Spans.
#[derive(Debug)]
pub(super) struct SpanSignal;

impl QueuedSignal for SpanSignal {
    type Item = Span;

    const NAME: &'static str = "traces";
    const PATH: &'static str = "/v1/traces";

    fn encode(receiver: &Receiver, items: &[Span]) -> Vec<u8> {
        let spans = ScopeSpans { scope: scope("tenantd"), spans: items.to_vec(), ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: receiver.resource(),
            scope_spans: vec![spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    }

    fn read_rejected(answer: &[u8]) -> RejectedItems {
        let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        to_rejected(partial.rejected_spans, partial.error_message)
    }
}

/// Log records, each with the module that it comes from.
#[derive(Debug)]
pub(super) struct LogSignal;

impl QueuedSignal for LogSignal {
    type Item = (&'static str, LogRecord);

    const NAME: &'static str = "logs";
    const PATH: &'static str = "/v1/logs";

    fn encode(receiver: &Receiver, items: &[Self::Item]) -> Vec<u8> {
        let mut by_module: BTreeMap<&str, Vec<LogRecord>> = BTreeMap::new();
        for (module, record) in items {
            by_module.entry(module).or_default().push(record.clone());
        }
        let scope_logs = by_module.into_iter().map(|(module, log_records)| ScopeLogs {
            scope: scope(module),
            log_records,
            ..ScopeLogs::default()
        });
        let resource_logs = ResourceLogs {
            resource: receiver.resource(),
            scope_logs: scope_logs.collect(),
            ..ResourceLogs::default()
        };
        ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec()
    }

    fn read_rejected(answer: &[u8]) -> RejectedItems {
        let answer = ExportLogsServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        to_rejected(partial.rejected_log_records, partial.error_message)
    }
}

pub(super) fn to_rejected(count: i64, reason: String) -> RejectedItems {
    RejectedItems { count: u64::try_from(count).unwrap_or(0), reason }
}
