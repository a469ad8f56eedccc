//! The one task that changes the world: it looks, reads, judges, builds, publishes and announces.

mod keep;
mod pass;
mod read;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use self::pass::Worker;
use super::build::Parts;
use super::registry::Registry;
use super::watch::Doorbell;
use crate::base::task::Tasks;
use crate::bundle;
use crate::settings::WatchMode;
use crate::store::{Entry, Store};

/// The longest a reload waits for files that are still being written.
const PATIENCE: Duration = Duration::from_secs(5);

/// The handle on the task.
#[derive(Clone)]
pub struct Reconciler {
    bell: Doorbell,
    requests: mpsc::Sender<oneshot::Sender<u64>>,
}

/// What the reconciler needs.
pub struct Ground {
    pub folder: PathBuf,
    pub watch: WatchMode,
    pub context: Arc<bundle::Context>,
    pub parts: Parts,
    pub registry: Registry,
    /// What outlives the process, if anything does.
    pub store: Option<Arc<Store>>,
    /// What it kept of each entry.
    pub kept: Vec<Entry>,
}

impl Reconciler {
    /// Starts the task. Its first pass takes the folder as it is.
    pub fn start(ground: Ground, tasks: &Tasks) -> Self {
        let bell = Doorbell::new(Arc::clone(&ground.parts.clock));
        // A full queue means that many looks at all are asked for: one of them serves the rest.
        let (requests, asked) = mpsc::channel(16);
        let worker = Worker::new(ground, bell.clone(), tasks);
        let stop = tasks.soft().clone();
        let work = run(worker, bell.clone(), asked);
        tasks.spawn("reconcile", async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
        Self { bell, requests }
    }

    /// Asks for a look at all tenants.
    pub fn look_again(&self) {
        self.bell.ring_all();
    }

    /// Looks at all tenants, waits until what was found has settled (five seconds at most), and says which generation
    /// is in force then; `None` while shutting down.
    pub async fn reload(&self) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        answer.await.ok()
    }
}

async fn run(mut worker: Worker, bell: Doorbell, mut asked: mpsc::Receiver<oneshot::Sender<u64>>) {
    worker.first_pass().await;
    let mut waiting = Waiting::default();
    loop {
        tokio::select! {
            look = bell.next() => worker.pass(look).await,
            () = worker.until_second_look() => worker.second_look().await,
            () = worker.until_tick() => worker.look_at_all().await,
            Some(reply) = asked.recv() => {
                worker.look_at_all().await;
                waiting.add(reply, worker.now());
            }
        }
        waiting.answer(worker.has_settled(), worker.generation(), worker.now());
    }
}

/// Who asked for a reload and has not been answered.
#[derive(Default)]
struct Waiting(Vec<(Instant, oneshot::Sender<u64>)>);

impl Waiting {
    fn add(&mut self, reply: oneshot::Sender<u64>, now: Instant) {
        self.0.push((now + PATIENCE, reply));
    }

    /// Answers all once everything has settled, until then those who have waited long enough.
    fn answer(&mut self, settled: bool, generation: u64, now: Instant) {
        for (_, reply) in self.0.extract_if(.., |(until, _)| settled || *until <= now) {
            // Who broke off is not told.
            let _unheard = reply.send(generation);
        }
    }
}
