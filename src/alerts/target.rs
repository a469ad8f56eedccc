//! One target of `notify`: a task tells it what it does not know yet, and tries again while it
//! does not answer. A target that hangs delays no other.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::command;
use super::condition::Conditions;
use super::delivery::DeliveryFailure;
use super::event::{Event, EventContext};
use super::teller::Teller;
use super::telling::{Change, Telling, told_file};
use super::webhook::Webhook;
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::disk;
use crate::base::sync::lock;
use crate::settings::{NotifyChannel, NotifyTarget};
use crate::spec::AlertKind;
use crate::telemetry::metrics::Metrics;

const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The pause before an event is sent again.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);

/// What all targets share.
#[derive(Clone)]
pub(super) struct TargetDeps {
    /// The public base URL of the gateway.
    pub(super) gateway: String,
    /// Where it is kept what targets were told; `None` if nothing can be kept.
    pub(super) folder: Option<PathBuf>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    /// The name of this gateway, if there are several.
    pub(super) node: Option<String>,
    /// Who tells what is the same on all gateways.
    pub(super) teller: Teller,
}

/// One target.
pub(super) struct Target {
    name: String,
    kinds: Vec<AlertKind>,
    channel: Channel,
    deps: TargetDeps,
    health: Mutex<Health>,
    /// Held while an event is sent, so that a command runs once at a time.
    sending: tokio::sync::Mutex<()>,
    /// Notified when a test arrived, so that what waits is sent at once.
    is_well_again: Notify,
    /// Cancelled when its task has ended, and all that it was told is kept.
    ended: CancellationToken,
}

enum Channel {
    Webhook(Webhook),
    Command(Vec<String>),
}

#[derive(Debug, Default)]
struct Health {
    last_success: Option<Timestamp>,
    last_failure: Option<FailureRecord>,
    /// Failures in a row.
    failures: u32,
    waiting: usize,
}

/// A failure, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub why: String,
}

/// The state of a target, for people and machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// Where it is, without what may be a secret.
    pub to: String,
    /// The kinds of trouble that it is told of.
    pub on: Vec<AlertKind>,
    /// When an event last arrived.
    pub last_success: Option<Timestamp>,
    /// The last failure, if there was one since the start.
    pub last_failure: Option<FailureRecord>,
    /// Failures in a row.
    pub failures: u32,
    /// How many conditions wait to be told.
    pub waiting: usize,
}

/// What a test of one target came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestResult {
    /// The target's name.
    pub target: String,
    /// Whether the test event arrived.
    pub ok: bool,
    /// What the target answered, or why it did not.
    pub answer: String,
}

impl Target {
    pub(super) fn new(settings: NotifyTarget, deps: TargetDeps) -> Self {
        let channel = match settings.channel {
            NotifyChannel::Webhook(webhook) => Channel::Webhook(Webhook::new(webhook)),
            NotifyChannel::Command(arguments) => Channel::Command(arguments),
        };
        Self {
            name: settings.name,
            kinds: settings.kinds,
            channel,
            deps,
            health: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            is_well_again: Notify::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns what is cancelled when its task has ended.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Returns what it was told before the last restart, or by the last task. Blocks.
    pub(super) fn load_told(&self) -> Telling {
        let mut telling = Telling::new(self.kinds.clone());
        self.deps.folder.iter().for_each(|folder| telling.load(&told_file(folder, &self.name)));
        telling
    }

    /// Tells the target of everything, until it is stopped. What has arrived is kept before that.
    pub(super) async fn run(
        &self,
        mut telling: Telling,
        mut settled: watch::Receiver<Option<Arc<Conditions>>>,
        stop: &CancellationToken,
    ) {
        while !stop.is_cancelled() {
            let current = settled.borrow_and_update().clone();
            if let Some(current) = current {
                let current = self.deps.teller.select(&mut telling, current);
                self.note(&mut telling, &current);
                if let Some(change) = telling.next_change(&current) {
                    self.tell(&mut telling, change, &mut settled, stop).await;
                    continue;
                }
            }
            // An error means that the gateway is shutting down.
            if !matches!(stop.run_until_cancelled(settled.changed()).await, Some(Ok(()))) {
                return;
            }
        }
    }

    /// Tells the target of one change, until it has arrived or nobody is to be told any more.
    async fn tell(
        &self,
        telling: &mut Telling,
        change: Change,
        settled: &mut watch::Receiver<Option<Arc<Conditions>>>,
        stop: &CancellationToken,
    ) {
        let missed = telling.missed();
        let event = self.event(&change, missed);
        let mut failures = 0;
        let arrival = async {
            while let Err(failure) = self.send(&event).await {
                let pause = RETRY_BACKOFF.pause_after(failures).max(failure.retry_after.unwrap_or_default());
                self.pause(pause.min(LONGEST_PAUSE), telling, settled).await;
                failures = failures.saturating_add(1);
            }
        };
        if stop.run_until_cancelled(arrival).await.is_none() {
            return;
        }
        telling.record(change, missed);
        lock(&self.health).waiting = telling.waiting_count();
        self.keep(telling).await;
    }

    /// Waits before the next attempt, and counts what comes and goes meanwhile.
    async fn pause(
        &self,
        pause: Duration,
        telling: &mut Telling,
        settled: &mut watch::Receiver<Option<Arc<Conditions>>>,
    ) {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.is_well_again.notified() => return,
                // An error means that the gateway is shutting down.
                changed = settled.changed() => if changed.is_err() { over.as_mut().await },
            }
            let current = settled.borrow_and_update().clone();
            if let Some(current) = current {
                let current = self.deps.teller.select(telling, current);
                self.note(telling, &current);
            }
        }
    }

    fn note(&self, telling: &mut Telling, current: &Conditions) {
        telling.note(current);
        lock(&self.health).waiting = telling.waiting_count();
    }

    fn event(&self, change: &Change, missed: u64) -> Event {
        let context = EventContext { missed, ..self.context() };
        match change {
            Change::Raised(kind, conditions) => {
                let conditions: Vec<_> = conditions.iter().map(|(key, condition)| (key, condition)).collect();
                Event::raised(*kind, &conditions, context)
            }
            Change::Resolved(kind, subjects) => {
                let subjects: Vec<_> = subjects.iter().map(|(_, subject)| subject).collect();
                Event::resolved(*kind, &subjects, context)
            }
        }
    }

    fn context(&self) -> EventContext {
        let TargetDeps { gateway, node, clock, .. } = &self.deps;
        EventContext { at: clock.now(), gateway: gateway.clone(), node: node.clone(), missed: 0 }
    }

    /// Sends an event once, and records what came of it.
    async fn send(&self, event: &Event) -> Result<String, DeliveryFailure> {
        let outcome = {
            let _turn = self.sending.lock().await;
            match &self.channel {
                Channel::Webhook(webhook) => webhook.send(event, self.deps.clock.now()).await,
                Channel::Command(arguments) => command::run(arguments, event).await,
            }
        };
        self.deps.metrics.record_notification(&self.name, if outcome.is_ok() { "ok" } else { "failed" });
        self.record(outcome.as_ref().map(String::as_str));
        outcome
    }

    /// Logs when failures begin and when they end, not each one.
    fn record(&self, outcome: Result<&str, &DeliveryFailure>) {
        let (receiver, now) = (&*self.name, self.deps.clock.now());
        let mut health = lock(&self.health);
        match outcome {
            Ok(_) => {
                health.last_success = Some(now);
                let failures = std::mem::take(&mut health.failures);
                if failures > 0 {
                    tracing::info!(receiver, failures, "a target of `notify` takes events again");
                }
            }
            Err(DeliveryFailure { why, .. }) => {
                health.last_failure = Some(FailureRecord { at: now, why: why.clone() });
                health.failures = health.failures.saturating_add(1);
                if health.failures == 1 {
                    tracing::warn!(receiver, %why, "a target of `notify` did not take an event; it is sent again");
                }
            }
        }
    }

    /// Keeps what the target was told, so that a restart does not tell it again.
    async fn keep(&self, telling: &Telling) {
        let Some(folder) = self.deps.folder.clone() else { return };
        let (file, contents) = (told_file(&folder, &self.name), telling.encode());
        let writing = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            disk::replace(&file, &contents, 0o600)
        });
        if let Ok(Err(error)) = writing.await {
            let receiver = &*self.name;
            tracing::warn!(receiver, %error, "what a target of `notify` was told cannot be kept: after a restart \
                                              it is told again");
        }
    }

    /// Sends a test event. What waits is sent at once if it arrives.
    pub(super) async fn test(&self) -> TestResult {
        let outcome = self.send(&Event::test(self.context())).await;
        let ok = outcome.is_ok();
        if ok {
            // Wakes a pause under way, and keeps no permit for a later one.
            self.is_well_again.notify_waiters();
        }
        let answer = outcome.unwrap_or_else(|failure| failure.why);
        TestResult { target: self.name.clone(), ok, answer }
    }

    /// Returns its state.
    pub(super) fn status(&self) -> TargetStatus {
        let to = match &self.channel {
            Channel::Webhook(webhook) => webhook.describe(),
            // Arguments may be secrets.
            Channel::Command(arguments) => arguments.first().cloned().unwrap_or_default(),
        };
        let health = lock(&self.health);
        TargetStatus {
            name: self.name.clone(),
            to,
            on: self.kinds.clone(),
            last_success: health.last_success,
            last_failure: health.last_failure.clone(),
            failures: health.failures,
            waiting: health.waiting,
        }
    }
}
