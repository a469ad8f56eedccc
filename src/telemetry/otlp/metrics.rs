//! The metrics as OTLP messages: the families that Prometheus reads, from the same registry, so
//! that both say the same.
//!
//! Names and units are those of OpenTelemetry's conventions where there are any; else `tenantd.`
//! stands for `tenantd_`. A collector that turns them into Prometheus' names makes the original
//! ones again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use prost::Message;
use tokio::sync::Mutex;

use super::MetricsReader;
use super::attribute::key_value;
use super::health::ExportHealth;
use super::openmetrics::{self, MetricFamily, MetricSample};
use super::queue::SignalCounts;
use super::receiver::{ExportError, Receiver, scope};
use super::series_starts::SeriesStarts;
use super::signal::to_rejected;
use crate::base::clock::Clock;

const PATH: &str = "/v1/metrics";
/// How many data points a message has at most; about a megabyte.
const MAX_POINTS: usize = 8_000;

/// Names and units of the conventions, for families that have others in Prometheus.
const CONVENTIONS: [(&str, &str, &str); 4] = [
    ("http_server_request_duration", "http.server.request.duration", "s"),
    ("mcp_server_operation_duration", "mcp.server.operation.duration", "s"),
    ("process_cpu_seconds", "process.cpu.time", "s"),
    ("process_resident_memory_bytes", "process.memory.usage", "By"),
];

/// Sends the metrics at intervals. What a receiver does not take is not kept: the next message has
/// newer numbers of the same.
pub(super) struct MetricExporter {
    receiver: Arc<Receiver>,
    interval: Duration,
    clock: Arc<dyn Clock>,
    read: MetricsReader,
    sending: Mutex<MetricState>,
    sent: AtomicU64,
    dropped: AtomicU64,
}

struct MetricState {
    health: ExportHealth,
    starts: SeriesStarts,
}

impl fmt::Debug for MetricExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricExporter").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl MetricExporter {
    pub(super) fn new(
        receiver: Arc<Receiver>,
        interval: Duration,
        clock: Arc<dyn Clock>,
        read: MetricsReader,
    ) -> Self {
        let starts = SeriesStarts::new(nanoseconds(&*clock));
        let state = MetricState { health: ExportHealth::new("metrics"), starts };
        Self {
            receiver,
            interval,
            clock,
            read,
            sending: Mutex::new(state),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) async fn run(&self) {
        let mut pause = self.interval;
        loop {
            tokio::time::sleep(pause).await;
            pause = self.send().await;
        }
    }

    pub(super) fn counts(&self, items: &'static str) -> SignalCounts {
        let (sent, dropped) = (self.sent.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed));
        SignalCounts { items, sent, dropped }
    }

    /// Sends the metrics as they are now. Returns how long to pause then.
    pub(super) async fn send(&self) -> Duration {
        let mut state = self.sending.lock().await;
        let read = Arc::clone(&self.read);
        // With ten thousand tenants it takes a while.
        let Ok(text) = tokio::task::spawn_blocking(move || read()).await else { return self.interval };
        let now = nanoseconds(&*self.clock);
        let metrics = convert(&openmetrics::parse(&text), &mut state.starts, now);
        drop(text);
        for batch in split(metrics, MAX_POINTS) {
            let count = batch.iter().map(count_points).sum::<usize>() as u64;
            let answer = self.receiver.post(PATH, self.encode(batch)).await;
            let outcome = answer.map(|answer| {
                let answer = ExportMetricsServiceResponse::decode(&*answer).unwrap_or_default();
                let partial = answer.partial_success.unwrap_or_default();
                to_rejected(partial.rejected_data_points, partial.error_message)
            });
            state.health.record(&outcome);
            let rejected = outcome.as_ref().map_or(count, |rejected| rejected.count.min(count));
            self.sent.fetch_add(count - rejected, Ordering::Relaxed);
            self.dropped.fetch_add(rejected, Ordering::Relaxed);
            if matches!(&outcome, Err(error) if !matches!(error, ExportError::Refused(_))) {
                break;
            }
        }
        state.health.pause(self.interval)
    }

    fn encode(&self, metrics: Vec<Metric>) -> Vec<u8> {
        let scope_metrics = ScopeMetrics { scope: scope("tenantd"), metrics, ..ScopeMetrics::default() };
        let resource_metrics = ResourceMetrics {
            resource: self.receiver.resource(),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
    }
}

fn nanoseconds(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.now().as_nanosecond()).unwrap_or_default()
}

/// Converts all families. Their series begin as `starts` says.
fn convert(families: &[MetricFamily<'_>], starts: &mut SeriesStarts, now: u64) -> Vec<Metric> {
    let metrics = families.iter().filter(|family| !family.samples.is_empty());
    let metrics = metrics.map(|family| convert_family(family, starts, now)).collect();
    starts.finish_export(now);
    metrics
}

fn convert_family(family: &MetricFamily<'_>, starts: &mut SeriesStarts, now: u64) -> Metric {
    let data = match family.kind {
        "counter" => Data::Sum(Sum {
            data_points: numbers(family, now, |sample| {
                starts.find(family.name, &sample.labels, sample.number())
            }),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        "histogram" => Data::Histogram(Histogram {
            data_points: histograms(family, starts, now),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
        // Of an info, too, the value is 1.
        _ => Data::Gauge(Gauge { data_points: numbers(family, now, |_| 0) }),
    };
    let (name, unit) = to_conventions(family);
    Metric { name, description: family.help.to_owned(), unit, data: Some(data), ..Metric::default() }
}

/// Returns the name and the unit by the conventions.
fn to_conventions(family: &MetricFamily<'_>) -> (String, String) {
    let known = CONVENTIONS.iter().find(|(prometheus, ..)| *prometheus == family.name);
    if let Some((_, name, unit)) = known {
        return ((*name).to_owned(), (*unit).to_owned());
    }
    let name = match family.name.strip_prefix("tenantd_") {
        Some(own) => format!("tenantd.{own}"),
        None => family.name.to_owned(),
    };
    let unit = match family.unit {
        "seconds" => "s",
        _ if family.name.ends_with("_bytes") => "By",
        _ if family.name.ends_with("_seconds") => "s",
        other => other,
    };
    (name, unit.to_owned())
}

fn attributes<'a>(family: &str, labels: impl Iterator<Item = &'a (&'a str, String)>) -> Vec<KeyValue> {
    let mut attributes: Vec<KeyValue> = labels.map(|(name, value)| key_value(*name, &**value)).collect();
    if family == "mcp_server_operation_duration" {
        let outcome = attributes.iter().find(|attribute| attribute.key == "outcome").cloned();
        attributes.push(key_value("mcp.method.name", "tools/call"));
        attributes.push(key_value("gen_ai.operation.name", "execute_tool"));
        let failed = outcome.filter(|outcome| outcome.value != key_value("", "ok").value);
        attributes.extend(failed.map(|outcome| KeyValue { key: "error.type".to_owned(), ..outcome }));
    }
    attributes
}

fn numbers(
    family: &MetricFamily<'_>,
    now: u64,
    mut start: impl FnMut(&MetricSample<'_>) -> u64,
) -> Vec<NumberDataPoint> {
    let points = family.samples.iter().map(|sample| NumberDataPoint {
        attributes: attributes(family.name, sample.labels.iter()),
        start_time_unix_nano: start(sample),
        time_unix_nano: now,
        value: Some(match sample.value.parse() {
            Ok(whole) => Value::AsInt(whole),
            Err(_) => Value::AsDouble(sample.number()),
        }),
        ..NumberDataPoint::default()
    });
    points.collect()
}

/// Converts the samples of histograms, which follow one another: sum, count, buckets.
fn histograms(family: &MetricFamily<'_>, starts: &mut SeriesStarts, now: u64) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = Vec::new();
    let mut below = 0;
    for sample in &family.samples {
        match (sample.suffix, points.last_mut()) {
            ("_sum", _) => {
                below = 0;
                points.push(HistogramDataPoint {
                    attributes: attributes(family.name, sample.labels.iter()),
                    time_unix_nano: now,
                    sum: Some(sample.number()),
                    ..HistogramDataPoint::default()
                });
            }
            ("_count", Some(point)) => {
                point.count = sample.value.parse().unwrap_or_default();
                point.start_time_unix_nano = starts.find(family.name, &sample.labels, sample.number());
            }
            ("_bucket", Some(point)) => {
                // Prometheus' buckets contain the ones before them.
                let count: u64 = sample.value.parse().unwrap_or_default();
                point.bucket_counts.push(count.saturating_sub(below));
                below = count;
                let bound = sample.labels.iter().find(|(name, _)| *name == "le");
                let bound = bound.and_then(|(_, bound)| bound.parse().ok());
                point.explicit_bounds.extend(bound.filter(|bound: &f64| bound.is_finite()));
            }
            _ => {}
        }
    }
    points
}

fn count_points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    }
}

/// Splits metrics into messages of up to `max` data points.
fn split(metrics: Vec<Metric>, max: usize) -> Vec<Vec<Metric>> {
    let (mut batches, mut batch, mut room) = (Vec::new(), Vec::new(), max);
    for mut metric in metrics {
        loop {
            let rest = split_off(&mut metric, room);
            room -= count_points(&metric);
            batch.push(metric);
            let Some(rest) = rest else { break };
            batches.push(std::mem::take(&mut batch));
            (metric, room) = (rest, max);
        }
        if room == 0 {
            batches.push(std::mem::take(&mut batch));
            room = max;
        }
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}

/// Takes what is beyond `count` data points of a metric from it.
fn split_off(metric: &mut Metric, count: usize) -> Option<Metric> {
    fn beyond<T>(points: &mut Vec<T>, count: usize) -> Vec<T> {
        points.split_off(count.min(points.len()))
    }
    if count_points(metric) <= count {
        return None;
    }
    let data = match metric.data.as_mut()? {
        Data::Sum(sum) => Data::Sum(Sum { data_points: beyond(&mut sum.data_points, count), ..*sum }),
        Data::Gauge(gauge) => Data::Gauge(Gauge { data_points: beyond(&mut gauge.data_points, count) }),
        Data::Histogram(histogram) => Data::Histogram(Histogram {
            data_points: beyond(&mut histogram.data_points, count),
            aggregation_temporality: histogram.aggregation_temporality,
        }),
        _ => return None,
    };
    let (name, description, unit) = (metric.name.clone(), metric.description.clone(), metric.unit.clone());
    Some(Metric { name, description, unit, data: Some(data), ..Metric::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP tenantd_tool_calls Tool calls.\n# TYPE tenantd_tool_calls counter\n\
        tenantd_tool_calls_total{tenant=\"a\",outcome=\"ok\"} 3\n\
        # HELP mcp_server_operation_duration_seconds Took.\n\
        # TYPE mcp_server_operation_duration_seconds histogram\n\
        # UNIT mcp_server_operation_duration_seconds seconds\n\
        mcp_server_operation_duration_seconds_sum{outcome=\"busy\"} 1.5\n\
        mcp_server_operation_duration_seconds_count{outcome=\"busy\"} 5\n\
        mcp_server_operation_duration_seconds_bucket{le=\"0.1\",outcome=\"busy\"} 2\n\
        mcp_server_operation_duration_seconds_bucket{le=\"1.0\",outcome=\"busy\"} 4\n\
        mcp_server_operation_duration_seconds_bucket{le=\"+Inf\",outcome=\"busy\"} 5\n\
        # HELP tenantd_budget_held_bytes Held.\n# TYPE tenantd_budget_held_bytes gauge\n\
        tenantd_budget_held_bytes{budget=\"contexts\"} 7\n# EOF\n";

    fn attribute(attributes: &[KeyValue], key: &str) -> Option<KeyValue> {
        attributes.iter().find(|attribute| attribute.key == key).cloned()
    }

    #[test]
    fn counters_histograms_and_gauges_keep_their_numbers_and_get_their_names() {
        let metrics = convert(&openmetrics::parse(TEXT), &mut SeriesStarts::new(10), 20);
        let names: Vec<_> = metrics.iter().map(|metric| (&*metric.name, &*metric.unit)).collect();
        assert_eq!(
            names,
            [
                ("tenantd.tool_calls", ""),
                ("mcp.server.operation.duration", "s"),
                ("tenantd.budget_held_bytes", "By")
            ]
        );
        let Some(Data::Sum(calls)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert!(calls.is_monotonic && calls.aggregation_temporality == 2, "cumulative");
        let point = &calls.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (10, 20));
        assert_eq!(point.value, Some(Value::AsInt(3)));
        assert_eq!(attribute(&point.attributes, "tenant"), Some(key_value("tenant", "a")));
        let Some(Data::Histogram(took)) = &metrics[1].data else { panic!("{metrics:?}") };
        let point = &took.data_points[0];
        assert_eq!((point.count, point.sum), (5, Some(1.5)));
        assert_eq!((&*point.bucket_counts, &*point.explicit_bounds), (&[2, 2, 1][..], &[0.1, 1.0][..]));
        assert_eq!(point.start_time_unix_nano, 10);
        for (key, value) in [("mcp.method.name", "tools/call"), ("error.type", "busy")] {
            assert_eq!(attribute(&point.attributes, key), Some(key_value(key, value)));
        }
        assert!(matches!(&metrics[2].data, Some(Data::Gauge(gauge)) if gauge.data_points.len() == 1));
    }

    #[test]
    fn messages_have_a_bounded_number_of_points_and_lose_none() {
        let point = NumberDataPoint::default();
        let metric = |name: &str, count| Metric {
            name: name.to_owned(),
            data: Some(Data::Gauge(Gauge { data_points: vec![point.clone(); count] })),
            ..Metric::default()
        };
        let batches = split(vec![metric("a", 5), metric("b", 12), metric("c", 3)], 5);
        let sizes: Vec<Vec<_>> = batches
            .iter()
            .map(|batch| batch.iter().map(|it| (&*it.name, count_points(it))).collect())
            .collect();
        let expected = [vec![("a", 5)], vec![("b", 5)], vec![("b", 5)], vec![("b", 2), ("c", 3)]];
        assert_eq!(sizes, expected);
    }
}
