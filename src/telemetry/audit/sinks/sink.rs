//! One sink: its spool, and the task that sends what is in it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::channel::{SendFailure, SinkChannel};
use super::config::{ChannelConfig, SinkConfig};
use super::spool::{BatchEnd, Spool, SpoolBatch};
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::sync::lock;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause before a batch is sent again.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
/// How long a receiver may ask to be left alone.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long a connection must last after a batch before that counts as taken.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
/// How long ago a line may have been dropped for the sink to be in trouble.
const DROP_MEMORY: Duration = Duration::from_secs(600);

/// A receiver and what waits for it.
pub(in crate::telemetry::audit) struct Sink {
    name: String,
    /// Where lines go now. It changes while the gateway runs; `name` never does.
    channel: ArcSwap<ChannelConfig>,
    spool: Spool,
    /// Notified when lines were appended.
    arrived: Notify,
    /// Whether `channel` was replaced, and the task does not use the new one yet.
    is_reconfigured: AtomicBool,
    /// Notified when it was.
    reconfigured: Notify,
    health: Mutex<SinkHealth>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    ending: CancellationToken,
    ended: CancellationToken,
    /// The settings no longer have this sink.
    is_removed: AtomicBool,
}

#[derive(Debug, Default)]
struct SinkHealth {
    /// Failures in a row.
    failures: u32,
    failing_since: Option<Timestamp>,
    last_failure: String,
    last_drop: Option<Instant>,
    /// Lines are dropped, and the log says so.
    is_dropping: bool,
    /// The disk takes nothing, and the log says so.
    is_disk_failing: bool,
}

/// What is wrong with a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkTrouble {
    /// The sink's name.
    pub sink: String,
    /// Where its receiver is, without what may be a secret.
    pub to: String,
    /// Since when the receiver takes nothing, and why; `None` if it takes lines.
    pub failing: Option<(Timestamp, String)>,
    /// Whether lines were dropped in the last minutes.
    pub is_dropping: bool,
}

/// A batch that was written, and may still be lost with its connection.
type WrittenBatch = (BatchEnd, Instant);

impl Sink {
    pub(super) fn open(
        config: SinkConfig,
        folder: PathBuf,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.add_audit_sink(&config.name);
        let spool = Spool::open(folder, config.spool_bytes);
        Self {
            name: config.name,
            channel: ArcSwap::from_pointee(config.channel),
            spool,
            arrived: Notify::new(),
            is_reconfigured: AtomicBool::new(false),
            reconfigured: Notify::new(),
            health: Mutex::default(),
            clock,
            metrics,
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
            is_removed: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes over what the settings say of this sink now.
    pub(super) fn reconfigure(&self, config: SinkConfig) {
        self.spool.set_max_bytes(config.spool_bytes);
        if **self.channel.load() != config.channel {
            self.channel.store(Arc::new(config.channel));
            self.is_reconfigured.store(true, Ordering::Release);
            self.reconfigured.notify_one();
        }
    }

    /// Appends lines to the spool. Blocks.
    pub(super) fn append(&self, lines: &[Vec<u8>]) {
        let outcome = self.spool.append(lines, self.clock.now());
        self.record_dropped(outcome.dropped);
        let mut health = lock(&self.health);
        match outcome.disk_error {
            None => health.is_disk_failing = false,
            Some(error) if !std::mem::replace(&mut health.is_disk_failing, true) => tracing::error!(
                sink = self.name,
                %error,
                "the spool of a sink of the audit cannot be written: its lines wait in memory, and are lost if \
                 the process ends or memory has no room"
            ),
            Some(_) => {}
        }
        drop(health);
        self.arrived.notify_one();
        self.metrics.set_audit_sink_waiting(&self.name, self.spool.waiting_bytes());
    }

    /// Sends what waits, and what comes, until the sink is ended.
    pub(super) async fn run(self: Arc<Self>, audit: Audit) {
        let mut channel = SinkChannel::new(&self.channel.load());
        let mut written = VecDeque::new();
        self.rewind(&mut written).await;
        while !self.ending.is_cancelled() {
            if self.is_reconfigured.swap(false, Ordering::Acquire) {
                self.leave(&mut channel, &mut written).await;
                let config = self.channel.load_full();
                tracing::info!(sink = self.name, to = %config, "a sink of the audit has another receiver");
                channel = SinkChannel::new(&config);
            }
            match self.send_waiting(&mut channel, &mut written).await {
                Ok(()) => {
                    self.record_success();
                    self.state_dropped(&audit).await;
                    self.wait(&mut channel, &mut written).await;
                }
                Err(failure) => self.retreat(failure, &mut written).await,
            }
        }
        if lock(&self.health).failures == 0 && self.send_waiting(&mut channel, &mut written).await.is_ok() {
            self.finish(&mut channel, &mut written).await;
        }
        if self.is_removed.load(Ordering::Relaxed) {
            self.tell_of_rest();
        }
        self.ended.cancel();
    }

    /// Ends the connection, and forgets what the receiver has read of it.
    async fn finish(self: &Arc<Self>, channel: &mut SinkChannel, written: &mut VecDeque<WrittenBatch>) {
        if channel.finish().await
            && let Some((end, _)) = written.drain(..).next_back()
        {
            self.confirm(end).await;
        }
    }

    /// Ends sending to a receiver that another one replaces, which gets what this one did not take.
    async fn leave(self: &Arc<Self>, channel: &mut SinkChannel, written: &mut VecDeque<WrittenBatch>) {
        if lock(&self.health).failures == 0 {
            self.finish(channel, written).await;
        }
        self.rewind(written).await;
        let mut health = lock(&self.health);
        (health.failures, health.failing_since) = (0, None);
        self.metrics.set_audit_sink_failing(&self.name, false);
    }

    /// Ends a sink that the settings no longer have.
    pub(in crate::telemetry::audit) fn remove(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
        self.end();
    }

    /// Says what became of a removed sink's lines.
    fn tell_of_rest(&self) {
        self.metrics.remove_audit_sink(&self.name);
        match self.spool.waiting_bytes() {
            0 => tracing::info!(
                sink = self.name,
                "a sink of the audit was removed; its receiver has every line"
            ),
            bytes => tracing::warn!(
                sink = self.name,
                bytes,
                "a sink of the audit was removed, and its receiver has not taken every line; the rest stays in the \
                 sink's spool until audit_sinks names the sink again, or you delete the spool"
            ),
        }
    }

    /// Has the task send what waits, and end.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    /// Waits for the end of the task.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Returns what is wrong, if anything is.
    pub(super) fn trouble(&self) -> Option<SinkTrouble> {
        let health = lock(&self.health);
        let failing = health.failing_since.map(|since| (since, health.last_failure.clone()));
        let now = self.clock.monotonic();
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= DROP_MEMORY;
        let is_dropping = health.last_drop.is_some_and(is_recent);
        (failing.is_some() || is_dropping).then(|| SinkTrouble {
            sink: self.name.clone(),
            to: self.channel.load().to_string(),
            failing,
            is_dropping,
        })
    }

    /// Sends batches until nothing waits, one fails, or there is another receiver for the rest.
    async fn send_waiting(
        self: &Arc<Self>,
        channel: &mut SinkChannel,
        written: &mut VecDeque<WrittenBatch>,
    ) -> Result<(), SendFailure> {
        self.confirm_written(written).await;
        while !self.is_reconfigured.load(Ordering::Acquire)
            && let Some(batch) = self.next_batch(channel.max_lines()).await?
        {
            let delivery = channel.send(&batch.lines).await?;
            let count = batch.lines.len() as u64;
            self.metrics.record_audit_lines_sent(&self.name, count - delivery.oversized);
            if delivery.oversized > 0 {
                let (lines, at) = (delivery.oversized, self.clock.now());
                self.on_disk(move |sink| sink.spool.count_dropped(lines, at)).await?;
                self.record_dropped(lines);
            }
            match delivery.is_confirmed || matches!(batch.end, BatchEnd::Memory(_)) {
                true => self.confirm(batch.end).await,
                false => written.push_back((batch.end, self.clock.monotonic())),
            }
        }
        Ok(())
    }

    /// Runs what uses the spool, whose disk may hang.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let sink = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&sink)).await
    }

    async fn next_batch(self: &Arc<Self>, max_lines: usize) -> Result<Option<SpoolBatch>, SendFailure> {
        let batch = self.on_disk(move |sink| sink.spool.next_batch(max_lines)).await?;
        batch.map_err(|error| SendFailure::new(format!("the spool cannot be read: {error}")))
    }

    async fn confirm(self: &Arc<Self>, end: BatchEnd) {
        let confirming = self.on_disk(move |sink| {
            sink.spool.confirm(end);
            sink.metrics.set_audit_sink_waiting(&sink.name, sink.spool.waiting_bytes());
        });
        // It fails only at the end of the process; then the lines are sent again.
        let _confirmed = confirming.await;
    }

    /// Has everything that was not confirmed sent again.
    async fn rewind(self: &Arc<Self>, written: &mut VecDeque<WrittenBatch>) {
        written.clear();
        let _rewound = self.on_disk(|sink| sink.spool.rewind()).await;
    }

    /// Takes note of a failure, and waits before the next attempt.
    async fn retreat(self: &Arc<Self>, failure: SendFailure, written: &mut VecDeque<WrittenBatch>) {
        let pause = self.record_failure(failure);
        self.rewind(written).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.ending.cancelled() => {}
            () = self.reconfigured.notified() => {}
        }
    }

    /// Confirms what was written long enough ago.
    async fn confirm_written(self: &Arc<Self>, written: &mut VecDeque<WrittenBatch>) {
        let now = self.clock.monotonic();
        let is_due = |(_, at): &WrittenBatch| now.saturating_duration_since(*at) >= CONFIRM_AFTER;
        let due = written.iter().take_while(|batch| is_due(batch)).count();
        if let Some((end, _)) = written.drain(..due).next_back() {
            self.confirm(end).await;
        }
    }

    /// Waits for lines, or for what else there is to do.
    async fn wait(self: &Arc<Self>, channel: &mut SinkChannel, written: &mut VecDeque<WrittenBatch>) {
        let gather_interval = channel.gather_interval();
        let arrival = async {
            self.arrived.notified().await;
            tokio::time::sleep(gather_interval).await;
        };
        let oldest = written.front().map(|(_, at)| *at);
        let confirmation = async {
            match oldest {
                None => std::future::pending().await,
                Some(at) => {
                    let age = self.clock.monotonic().saturating_duration_since(at);
                    tokio::time::sleep(CONFIRM_AFTER.saturating_sub(age)).await;
                }
            }
        };
        let is_lost = tokio::select! {
            () = arrival => false,
            () = confirmation => false,
            () = channel.closed() => !written.is_empty(),
            () = self.ending.cancelled() => false,
            () = self.reconfigured.notified() => false,
        };
        if is_lost {
            // What the receiver had not read by then is gone.
            let failure = SendFailure::new("it closed the connection soon after it was sent lines");
            self.retreat(failure, written).await;
        }
    }

    fn record_failure(&self, failure: SendFailure) -> Duration {
        let name = &self.name;
        let mut health = lock(&self.health);
        if health.failures == 0 {
            tracing::warn!(
                sink = name,
                to = %self.channel.load(),
                error = failure.why,
                "a sink of the audit takes no lines; they wait on the disk, up to its `spool`"
            );
            health.failing_since = Some(self.clock.now());
            self.metrics.set_audit_sink_failing(name, true);
        }
        let pause = RETRY_BACKOFF.pause_after(health.failures);
        health.failures = health.failures.saturating_add(1);
        health.last_failure = failure.why;
        pause.max(failure.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
    }

    fn record_success(&self) {
        let mut health = lock(&self.health);
        if health.failures > 0 {
            tracing::info!(sink = self.name, "a sink of the audit takes lines again");
            (health.failures, health.failing_since) = (0, None);
            self.metrics.set_audit_sink_failing(&self.name, false);
        }
    }

    fn record_dropped(&self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.metrics.record_audit_lines_dropped(&self.name, lines);
        let mut health = lock(&self.health);
        health.last_drop = Some(self.clock.monotonic());
        if !std::mem::replace(&mut health.is_dropping, true) {
            tracing::error!(
                sink = self.name,
                "a sink of the audit drops lines, because its receiver takes none and its spool is full; a line \
                 of the audit will state their number"
            );
        }
    }

    /// Has a line of the audit state what was dropped, once the receiver has everything else.
    async fn state_dropped(self: &Arc<Self>, audit: &Audit) {
        let audit = audit.clone();
        let stating = self.on_disk(move |sink| {
            let Some(dropped) = sink.spool.dropped() else { return };
            if audit.record_dropped(&sink.name, dropped) {
                sink.spool.forget_dropped(dropped);
                lock(&sink.health).is_dropping = false;
            }
        });
        let _stated = stating.await;
    }
}
