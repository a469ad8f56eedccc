//! The lines of the log as log records: what the log writes, no more (its filter and its limits
//! apply, and secrets are redacted in its values already).
//!
//! The log is the process's, so what is exported of it is, too.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::attribute::{AttributeValue, key_value};
use super::current_span::current_span;
use super::queue::ExportQueue;
use crate::base::clock::Clock;

/// Some seconds of a busy gateway's log; at most 16 MB.
const MAX_WAITING: usize = 2048;
/// The longest text of a record's fields and message together, in characters.
const MAX_TEXT: usize = 2048;

static EXPORT: ArcSwapOption<LogExport> = ArcSwapOption::const_empty();

/// Log records, each with the module that it comes from.
type LogQueue = ExportQueue<(&'static str, LogRecord)>;

/// Where the lines of the log go.
#[derive(Debug)]
pub(super) struct LogExport {
    clock: Arc<dyn Clock>,
    records: Arc<LogQueue>,
}

impl LogExport {
    /// Has the log exported from now on; returns the queue of its records.
    pub(super) fn install(clock: Arc<dyn Clock>) -> Arc<LogQueue> {
        let records = Arc::new(ExportQueue::new(MAX_WAITING));
        EXPORT.store(Some(Arc::new(Self { clock, records: Arc::clone(&records) })));
        records
    }

    /// Has the log exported no longer, unless another has taken over.
    pub(super) fn remove(queue: &Arc<LogQueue>) {
        if EXPORT.load().as_ref().is_some_and(|export| Arc::ptr_eq(&export.records, queue)) {
            EXPORT.store(None);
        }
    }
}

/// Exports an event that the log writes, and how many of its kind were suppressed before it.
pub(in crate::telemetry) fn export_event(event: &Event<'_>, left_out: u64) {
    let export = EXPORT.load();
    let Some(export) = export.as_ref() else { return };
    let (level, module) = (*event.metadata().level(), event.metadata().target());
    // Sending records makes an HTTP client log details, which would be records again.
    if level > Level::INFO && !module.starts_with("tenantd") {
        return;
    }
    let now = u64::try_from(export.clock.now().as_nanosecond()).unwrap_or_default();
    export.records.push((module, to_record(event, left_out, now)));
}

fn to_record(event: &Event<'_>, left_out: u64, now: u64) -> LogRecord {
    let mut fields = RecordFields { message: None, attributes: Vec::new(), room: MAX_TEXT };
    event.record(&mut fields);
    if left_out > 0 {
        fields.attributes.push(key_value("left_out", i64::try_from(left_out).unwrap_or(i64::MAX)));
    }
    let (severity, severity_text) = severity(*event.metadata().level());
    let span = current_span();
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        body: fields.message.map(AttributeValue::into_any),
        attributes: fields.attributes,
        flags: u32::from(span.is_some()),
        trace_id: span.map(|ids| ids.trace.to_vec()).unwrap_or_default(),
        span_id: span.map(|ids| ids.span.to_vec()).unwrap_or_default(),
        ..LogRecord::default()
    }
}

fn severity(level: Level) -> (SeverityNumber, &'static str) {
    match level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    }
}

/// The message and the other fields of an event.
struct RecordFields {
    message: Option<AttributeValue>,
    attributes: Vec<KeyValue>,
    /// How many characters there is still room for.
    room: usize,
}

impl RecordFields {
    fn add(&mut self, field: &Field, value: AttributeValue) {
        match field.name() {
            "message" => self.message = Some(value),
            name => self.attributes.push(key_value(name, value)),
        }
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        let value = AttributeValue::text(text, self.room);
        self.room = self.room.saturating_sub(text.chars().count());
        self.add(field, value);
    }
}

impl Visit for RecordFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, i64::try_from(value).unwrap_or(i64::MAX).into());
    }

    /// Takes milliseconds, which `Duration` has as such numbers.
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(field, i64::try_from(value).unwrap_or(i64::MAX).into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::super::{SpanIds, in_span};
    use super::*;
    use crate::base::clock::SystemClock;
    use crate::base::secret::Secret;

    struct ExportLayer;

    impl<S: tracing::Subscriber> Layer<S> for ExportLayer {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            export_event(event, 3);
        }
    }

    #[tokio::test]
    async fn a_line_is_a_record_with_its_fields_and_its_span_and_no_secret() {
        let queue = LogExport::install(SystemClock::shared());
        let ids = SpanIds { trace: [7; 16], span: [8; 8], sampled: true };
        let subscriber = tracing_subscriber::registry().with(ExportLayer);
        let _guard = tracing::subscriber::set_default(subscriber);
        let key = Secret::new("hidden-from-all");
        in_span(
            Some(ids),
            Box::pin(async {
                tracing::warn!(tenant = "acme", count = 2_u128, ?key, "some\nthing {}", "failed")
            }),
        )
        .await;
        tracing::debug!(target: "hyper::client", "a detail of the sending itself");
        tracing::info!("{}", "x".repeat(3 * MAX_TEXT));
        let records = queue.take(9);
        let [(module, failed), (_, long)] = &records[..] else { panic!("{records:?}") };
        assert_eq!(*module, module_path!());
        assert_eq!((failed.severity_number, &*failed.severity_text), (13, "WARN"));
        assert_eq!((&*failed.trace_id, &*failed.span_id), (&[7; 16][..], &[8; 8][..]));
        assert_eq!(failed.body, Some(AttributeValue::from("some\u{fffd}thing failed").into_any()));
        for wanted in [key_value("tenant", "acme"), key_value("count", 2_i64), key_value("left_out", 3_i64)] {
            assert!(failed.attributes.contains(&wanted), "{failed:?}");
        }
        assert!(!format!("{failed:?}").contains("hidden"), "{failed:?}");
        assert!(long.trace_id.is_empty() && format!("{long:?}").len() < 2 * MAX_TEXT);
        LogExport::remove(&queue);
        tracing::warn!("to nobody");
        assert!(queue.take(1).is_empty());
    }
}
