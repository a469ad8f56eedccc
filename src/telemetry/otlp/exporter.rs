//! Sends each signal to the receiver in a loop of its own, so that none waits for another.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::health::ExportHealth;
use super::logs::LogExport;
use super::metrics::MetricExporter;
use super::queue::{ExportQueue, SignalCounts};
use super::receiver::{ExportError, Receiver};
use super::signal::{LogSignal, QueuedSignal, SpanSignal};
use super::span::TracerState;
use super::{MetricsReader, OtlpConfig, Tracer};
use crate::base::clock::Clock;

/// How long spans and log records are gathered.
const INTERVAL: Duration = Duration::from_secs(1);
const BATCH: usize = 512;

/// Sends what one gateway exports.
#[derive(Debug)]
pub struct Exporter {
    tracer: Tracer,
    spans: Option<QueueExporter<SpanSignal>>,
    logs: Option<QueueExporter<LogSignal>>,
    metrics: Option<MetricExporter>,
}

impl Exporter {
    /// Creates what the settings ask for. From now on the log is exported, if it is to be.
    ///
    /// # Errors
    /// No HTTP client can be created.
    pub fn new(
        config: &OtlpConfig,
        clock: &Arc<dyn Clock>,
        read_metrics: MetricsReader,
    ) -> Result<Self, ExportError> {
        let receiver = Arc::new(Receiver::new(config)?);
        let tracer =
            config.traces.clone().map(|traces| Arc::new(TracerState::new(traces, Arc::clone(clock))));
        let spans = tracer
            .as_ref()
            .map(|tracer| QueueExporter::new(Arc::clone(&receiver), Arc::clone(&tracer.spans)));
        let logs = config.logs.then(|| {
            let export = LogExport::install(Arc::clone(clock));
            QueueExporter::new(Arc::clone(&receiver), export)
        });
        let metrics = config.metrics_interval.map(|interval| {
            MetricExporter::new(Arc::clone(&receiver), interval, Arc::clone(clock), read_metrics)
        });
        Ok(Self { tracer: Tracer(tracer), spans, logs, metrics })
    }

    /// Returns what starts spans.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Returns what was sent and dropped of each signal that is exported.
    pub fn counts(&self) -> Vec<SignalCounts> {
        let spans = self.spans.as_ref().map(|it| it.queue.counts("spans"));
        let logs = self.logs.as_ref().map(|it| it.queue.counts("log_records"));
        let points = self.metrics.as_ref().map(|it| it.counts("data_points"));
        [spans, logs, points].into_iter().flatten().collect()
    }

    /// Sends everything as it comes, until it is dropped.
    pub async fn run(&self) {
        let spans = async {
            if let Some(spans) = &self.spans {
                spans.run().await
            }
        };
        let logs = async {
            if let Some(logs) = &self.logs {
                logs.run().await
            }
        };
        let metrics = async {
            if let Some(metrics) = &self.metrics {
                metrics.run().await
            }
        };
        tokio::join!(spans, logs, metrics);
    }

    /// Sends what waits now, for a limited time, and says if something is left.
    pub async fn flush(&self, patience: Duration) {
        let sending = async {
            let spans = async {
                if let Some(spans) = &self.spans {
                    spans.send_waiting().await;
                }
            };
            let logs = async {
                if let Some(logs) = &self.logs {
                    logs.send_waiting().await;
                }
            };
            let metrics = async {
                if let Some(metrics) = &self.metrics {
                    metrics.send().await;
                }
            };
            tokio::join!(spans, logs, metrics);
        };
        if tokio::time::timeout(patience, sending).await.is_err() {
            tracing::warn!("the OTLP receiver did not take the last of what it is sent in time");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(logs) = &self.logs {
            LogExport::remove(&logs.queue);
        }
    }
}

/// Sends what waits in a queue, in batches, and again later what was not taken.
#[derive(Debug)]
struct QueueExporter<S: QueuedSignal> {
    receiver: Arc<Receiver>,
    queue: Arc<ExportQueue<S::Item>>,
    /// One batch at a time, so that the last one waits for the one under way.
    sending: Mutex<ExportHealth>,
}

impl<S: QueuedSignal> QueueExporter<S> {
    fn new(receiver: Arc<Receiver>, queue: Arc<ExportQueue<S::Item>>) -> Self {
        Self { receiver, queue, sending: Mutex::new(ExportHealth::new(S::NAME)) }
    }

    async fn run(&self) {
        loop {
            let pause = self.send_waiting().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends batches until none waits or one fails. Returns how long to pause then.
    async fn send_waiting(&self) -> Duration {
        let mut health = self.sending.lock().await;
        loop {
            let batch = self.queue.take(BATCH);
            if batch.is_empty() {
                return health.pause(INTERVAL);
            }
            let count = batch.len() as u64;
            let answer = self.receiver.post(S::PATH, S::encode(&self.receiver, &batch)).await;
            let outcome = answer.map(|answer| S::read_rejected(&answer));
            health.record(&outcome);
            match outcome {
                Ok(rejected) => self.queue.record_sent(count, rejected.count),
                Err(ExportError::Refused(_)) => self.queue.record_dropped(count),
                Err(_) => {
                    self.queue.put_back(batch);
                    return health.pause(INTERVAL);
                }
            }
        }
    }
}
