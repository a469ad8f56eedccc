//! Floor 5: tells an operator of trouble: the setting `notify`.
//!
//! An observer looks every two seconds at what the other modules know (tenants, certificates,
//! store, disks, audit, what expires) and names what is wrong: the *conditions*. They settle, so
//! that what flaps is no news. A task for each target tells it what it does not know yet.
//!
//! Nobody waits for a target: calls, the reconciler and other targets know nothing of it. Each
//! state is told once in each direction, also over restarts; an event whose receipt is in doubt is
//! sent again under the same id.

mod command;
mod condition;
mod delivery;
mod disk_space;
mod event;
mod observer;
mod settling;
mod target;
mod teller;
mod telling;
mod webhook;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::condition::{Condition, ConditionKey, Conditions, Subject, SubjectKind};
pub use self::observer::Observed;
pub use self::target::{FailureRecord, TargetStatus, TestResult};
pub use self::teller::Teller;

use self::observer::Observer;
use self::settling::Settling;
use self::target::{Target, TargetDeps};
use self::telling::Telling;
use crate::base::sync::lock;
use crate::base::task::Tasks;
use crate::settings::NotifyTarget;

/// How often everything is looked at.
const OBSERVATION_INTERVAL: Duration = Duration::from_secs(2);

/// The folder, in the state folder, where it is kept what targets were told.
const TOLD_FOLDER: &str = "notify";

/// What alerts are made of.
pub struct AlertsConfig {
    /// What is looked at.
    pub observed: Observed,
    /// Who is told.
    pub targets: Vec<NotifyTarget>,
    /// How long what may flap must last.
    pub hold: Duration,
    /// The public base URL of the gateway.
    pub gateway: String,
    /// The state folder, if there is one.
    pub state: Option<PathBuf>,
    /// The name of this gateway, if there are several.
    pub node: Option<String>,
    /// Whether this gateway tells what is the same on all of them.
    pub teller: Teller,
}

/// The alerts of one gateway.
pub struct Alerts {
    settled: watch::Receiver<Option<Arc<Conditions>>>,
    deps: TargetDeps,
    tasks: Tasks,
    running: Mutex<RunningTargets>,
    /// How long what may flap must last.
    hold: watch::Sender<Duration>,
}

/// The targets, and the signal that ends their tasks.
#[derive(Default)]
struct RunningTargets {
    targets: Vec<Arc<Target>>,
    stop: CancellationToken,
}

/// What is wrong, and who is told: `GET /api/notify`.
#[derive(Debug, Serialize)]
pub struct AlertsStatus {
    /// The targets.
    pub targets: Vec<TargetStatus>,
    /// What is wrong now.
    pub conditions: Vec<CurrentCondition>,
}

/// A condition with its kind.
#[derive(Debug, Serialize)]
pub struct CurrentCondition {
    /// The kind.
    pub kind: crate::spec::AlertKind,
    /// The rest.
    #[serde(flatten)]
    pub condition: Condition,
}

/// The error of a target that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTarget {
    #[error("the setting `notify` names no target; see docs/notifications.md")]
    None,
    #[error("no target of `notify` is called {name:?}; there are {}", .known.join(", "))]
    NotFound { name: String, known: Vec<String> },
}

impl Alerts {
    /// Starts to look and to tell. Reads a few small files.
    pub fn start(config: AlertsConfig, tasks: &Tasks) -> Arc<Self> {
        let AlertsConfig { observed, targets, hold, gateway, state, node, teller } = config;
        let deps = TargetDeps {
            gateway,
            folder: state.map(|state| state.join(TOLD_FOLDER)),
            metrics: Arc::clone(&observed.metrics),
            clock: Arc::clone(&observed.clock),
            node,
            teller: teller.clone(),
        };
        let (publisher, settled) = watch::channel(None);
        let (hold, current_hold) = watch::channel(hold);
        let alerts = Self { settled, deps, tasks: tasks.clone(), running: Mutex::default(), hold };
        alerts.set_targets(targets);
        let told: Vec<Telling> = alerts.targets().iter().map(|target| target.load_told()).collect();
        let known: Conditions = told.iter().flat_map(Telling::conditions).collect();
        let (observed, publisher) = (Arc::new(observed), Arc::new(publisher));
        let shutdown = tasks.shutdown_signal().clone();
        let observing = tasks.supervise("alerts", move || {
            let mut settling = Settling::new(current_hold.clone());
            let observer = Observer::new(Arc::clone(&observed));
            let before = publisher.borrow().clone();
            let before = before.map_or_else(|| known.clone(), |before| (*before).clone());
            settling.carry_over(before, observed.clock.monotonic());
            let (publisher, shutdown, teller) = (Arc::clone(&publisher), shutdown.clone(), teller.clone());
            async move {
                let observing = observe(observer, settling, teller, &publisher);
                let _stopped = shutdown.run_until_cancelled(observing).await;
            }
        });
        tasks.spawn("alerts", observing);
        Arc::new(alerts)
    }

    /// Replaces the targets, for instance because the settings were read again. Blocks briefly.
    pub fn set_targets(&self, targets: Vec<NotifyTarget>) {
        let targets = targets.into_iter().map(|target| Arc::new(Target::new(target, self.deps.clone())));
        let targets: Vec<_> = targets.collect();
        let stop = self.tasks.shutdown_signal().child_token();
        let next = RunningTargets { targets: targets.clone(), stop: stop.clone() };
        let before = std::mem::replace(&mut *lock(&self.running), next);
        before.stop.cancel();
        for target in targets {
            let earlier = before.targets.iter().find(|earlier| earlier.name() == target.name());
            self.run_target(target, earlier.cloned(), stop.clone());
        }
    }

    /// Changes how long what may flap must last.
    pub fn set_hold(&self, hold: Duration) {
        self.hold.send_replace(hold);
    }

    /// Starts the task of a target, with what it was told before, once the task of the earlier
    /// target with its name has kept that.
    fn run_target(&self, target: Arc<Target>, earlier: Option<Arc<Target>>, stop: CancellationToken) {
        let settled = self.settled.clone();
        self.tasks.spawn("notify", async move {
            let _ended = target.ended().clone().drop_guard();
            if let Some(earlier) = earlier {
                earlier.ended().cancelled().await;
            }
            let reading = Arc::clone(&target);
            let told = tokio::task::spawn_blocking(move || reading.load_told()).await;
            // An error would mean that reading panicked, which the log has.
            let Ok(telling) = told else { return };
            target.run(telling, settled, &stop).await;
        });
    }

    /// Returns what is wrong now; empty before the tenants were read.
    pub fn conditions(&self) -> Arc<Conditions> {
        self.settled.borrow().clone().unwrap_or_default()
    }

    /// Returns what is wrong, and the state of each target.
    pub fn status(&self) -> AlertsStatus {
        let targets = self.targets().iter().map(|target| target.status()).collect();
        let conditions = self.conditions();
        let current = |(key, condition): (&ConditionKey, &Condition)| CurrentCondition {
            kind: key.kind,
            condition: condition.clone(),
        };
        AlertsStatus { targets, conditions: conditions.iter().map(current).collect() }
    }

    /// Sends a test event to each target, or to the one of this name, and waits for the answers.
    ///
    /// # Errors
    /// There is no such target.
    pub async fn test(&self, name: Option<&str>) -> Result<Vec<TestResult>, UnknownTarget> {
        let all = self.targets();
        let named = |target: &&Arc<Target>| name.is_none_or(|name| target.name() == name);
        let chosen: Vec<_> = all.iter().filter(named).collect();
        match (chosen.is_empty(), name) {
            (true, Some(name)) if !all.is_empty() => {
                let known = all.iter().map(|target| target.name().to_owned()).collect();
                Err(UnknownTarget::NotFound { name: name.to_owned(), known })
            }
            (true, _) => Err(UnknownTarget::None),
            (false, _) => Ok(join_all(chosen.into_iter().map(|target| target.test())).await),
        }
    }

    fn targets(&self) -> Vec<Arc<Target>> {
        lock(&self.running).targets.clone()
    }
}

/// Looks at everything, time and again, and publishes what has settled.
async fn observe(
    mut observer: Observer,
    mut settling: Settling,
    mut teller: Teller,
    publisher: &watch::Sender<Option<Arc<Conditions>>>,
) {
    let mut ticks = tokio::time::interval(OBSERVATION_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let has_other_teller = tokio::select! {
            _ = ticks.tick() => false,
            () = teller.changed() => true,
        };
        let Some(seen) = observer.observe() else { continue };
        let has_changed = settling.update(seen, observer.now());
        if has_changed || has_other_teller || publisher.borrow().is_none() {
            publisher.send_replace(Some(Arc::new(settling.settled().clone())));
        }
    }
}
