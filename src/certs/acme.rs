//! `--tls acme`: certificates obtained automatically from a public or private CA, one per name.
//!
//! One task owns all state: the wanted names, and for each the certificate held and what is
//! remembered about it. Orders run in separate tasks, a few at a time, and report back. A new
//! certificate is verified, then stored, then served. The current one stays until a better one is
//! there: nothing that a CA, a disk or a clock does takes a certificate away.

mod account;
mod account_locks;
mod attempt;
mod bootstrap;
pub(super) mod check;
mod eab;
mod fault;
mod help;
mod http;
mod job;
mod names;
mod order;
mod patience;
mod proof;
mod set;
pub(super) mod status;
mod store;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};

use self::account_locks::AccountLocks;
use self::attempt::{Attempt, Purpose};
use self::bootstrap::Bootstrap;
use self::job::Outcome;
pub(super) use self::job::Report;
use self::set::Set;
use self::store::{Loaded, Store, Unusable};
use super::challenges::Challenges;
use super::schedule::{Next, Step};
use super::table::Table;
use super::{Error, Status};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings;
use crate::spec::HostName;
use crate::telemetry::metrics::Metrics;

/// The number of orders that may run at once.
const AT_ONCE: usize = 4;
/// The longest sleep of the scheduler, because the wall clock may jump.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_secs(30);

/// Receives the outcome of an order that an operator asked for; an error is worded for people.
pub(super) type Reply = oneshot::Sender<Result<(), String>>;

/// The dependencies of the mode.
pub(super) struct Parts {
    pub(super) settings: Arc<settings::Acme>,
    pub(super) folder: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    /// Whether a listener of this process can answer HTTP-01.
    pub(super) http01: bool,
}

/// The state of the mode.
pub(super) struct Acme {
    parts: Parts,
    store: Arc<Store>,
    account_locks: Arc<AccountLocks>,
    /// Why the folder cannot be written, if it cannot.
    unwritable: Option<String>,
    /// In the order of preference; the first is the default certificate.
    wanted: Vec<String>,
    sets: BTreeMap<String, Set>,
    bootstrap: Bootstrap,
    /// Outcomes to report to operators, once the new table is served.
    told: Vec<(Reply, Result<(), String>)>,
    reports: mpsc::Sender<Report>,
}

/// A request of an operator.
#[derive(Debug)]
pub(super) struct Renew {
    pub(super) name: String,
    /// Only tests whether an order would succeed: at the CA's staging directory if it has one, and
    /// without storing anything.
    pub(super) rehearsal: bool,
    pub(super) reply: Reply,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Acme {
    /// Takes the folder for this process. Fails if another process uses it; a folder that cannot be
    /// written is served from all the same.
    pub(super) fn open(parts: Parts) -> Result<(Self, mpsc::Receiver<Report>), Error> {
        let (store, unwritable) = match Store::open(&parts.folder) {
            Ok(store) => (store, None),
            Err(held @ Unusable::Held(_)) => return Err(Error(held.to_string())),
            Err(error) => (Store::read_only(&parts.folder), Some(error.to_string())),
        };
        if let Some(why) = &unwritable {
            tracing::error!(folder = %parts.folder.display(), "{why}");
        }
        let (reports, inbox) = mpsc::channel(AT_ONCE);
        let acme = Self {
            parts,
            store: Arc::new(store),
            account_locks: Arc::default(),
            unwritable,
            wanted: Vec::new(),
            sets: BTreeMap::new(),
            bootstrap: Bootstrap::default(),
            told: Vec::new(),
            reports,
        };
        Ok((acme, inbox))
    }

    /// Sets the wanted names, and loads what the folder has for new ones. Blocks on the disk.
    pub(super) fn want(&mut self, hosts: &[HostName]) {
        let now = self.now();
        self.wanted = hosts.iter().map(|host| host.bare().to_owned()).collect();
        let cas = &self.parts.settings.cas;
        let obtainable = self.wanted.iter().filter(|name| names::is_obtainable(name, cas));
        let ours: BTreeSet<String> = obtainable.cloned().collect();
        for gone in self.sets.keys().filter(|name| !ours.contains(*name)) {
            tracing::info!(name = gone, "a certificate is no longer wanted; it is not renewed any more");
            self.parts.metrics.forget_certificate(gone);
        }
        self.sets.retain(|name, _| ours.contains(name));
        for name in ours {
            if !self.sets.contains_key(&name) {
                let set = self.load(&name, now);
                self.sets.insert(name, set);
            }
        }
        self.bootstrap.renew();
    }

    fn load(&self, name: &str, now: Timestamp) -> Set {
        let Loaded { material, mut memory, exposed } = self.store.load(name, now);
        memory.mend(now, self.parts.settings.cas.len());
        if let Some(material) = &material {
            tracing::info!(name, until = %material.not_after, "serving a certificate from the certs folder");
            if exposed {
                tracing::error!(
                    name,
                    "others on this machine could read the key of this certificate; it is closed to them now, and a \
                     certificate with a new key is ordered"
                );
                memory.renew_now(now);
            }
        }
        Set { held: material, memory, ..Set::default() }
    }

    /// Builds the table: the certificates held, and an untrusted one for the remaining names.
    /// Generates a key if needed.
    pub(super) fn table(&mut self) -> Result<Table, Error> {
        let held = self.wanted.iter().filter_map(|name| self.sets.get(name)?.held.clone());
        let (addresses, names): (Vec<_>, Vec<_>) =
            held.partition(|material| material.names.iter().any(|name| name.parse::<IpAddr>().is_ok()));
        // Clients that connect by address send no SNI and get the first certificate.
        let mut served: Vec<_> = addresses.into_iter().chain(names).collect();
        let without: Vec<String> = self.wanted.iter().filter(|name| !self.holds(name)).cloned().collect();
        if !without.is_empty() || served.is_empty() {
            served.push(self.bootstrap.certificate(&without, self.parts.clock.now())?);
        }
        Ok(Table::new(served))
    }

    fn holds(&self, name: &str) -> bool {
        self.sets.get(name).is_some_and(|set| set.held.is_some())
    }

    /// Starts the jobs that are due, and returns when the next one is.
    pub(super) fn start_due(&mut self) -> Timestamp {
        let now = self.now();
        self.try_folder_again();
        self.sets.iter_mut().for_each(|(name, set)| set.remind(name, now));
        let (mut due, wake) = self.due(now);
        if self.unwritable.is_some() {
            return wake;
        }
        due.sort_by_key(|(at, ..)| *at);
        let busy = self.sets.values().filter(|set| set.busy.is_some()).count();
        for (_, name, step) in due.into_iter().take(AT_ONCE.saturating_sub(busy)) {
            self.start(name, step);
        }
        wake
    }

    /// Returns the jobs that are due, and when the next one is.
    fn due(&mut self, now: Timestamp) -> (Vec<(Timestamp, String, Step)>, Timestamp) {
        let cas = self.parts.settings.cas.len();
        let mut wake = now + LONGEST_SLEEP;
        let mut due = Vec::new();
        for (name, set) in self.sets.iter_mut().filter(|(_, set)| set.busy.is_none()) {
            set.memory.mend(now, cas);
            let Next { step, at } = set.next(now);
            if at <= now {
                due.push((at, name.clone(), step));
            } else {
                wake = wake.min(at);
            }
        }
        (due, wake)
    }

    fn start(&mut self, name: String, step: Step) {
        let Some(set) = self.sets.get(&name) else { return };
        let Some(ca) = self.parts.settings.cas.get(set.memory.ca).cloned() else { return };
        let attempt = self.attempt(name.clone(), ca);
        let Some(set) = self.sets.get_mut(&name) else { return };
        set.busy = Some(step);
        let held = set.held.as_ref().and_then(|held| held.key.cert.first().cloned());
        let (memory, reports) = (set.memory.clone(), self.reports.clone());
        let soft = self.parts.tasks.soft().clone();
        self.parts.tasks.spawn("certificate order", async move {
            // An order that shutdown aborts stays counted.
            let report = tokio::select! {
                report = job::run(attempt, step, memory, held) => report,
                () = soft.cancelled() => return,
            };
            // The receiver is gone only at shutdown.
            _ = reports.send(report).await;
        });
    }

    /// Records the outcome of a job, and returns whether there is something new to serve. Blocks on
    /// the disk.
    pub(super) fn finished(&mut self, report: Report) -> bool {
        let now = self.now();
        let cas = self.parts.settings.cas.len();
        let Report { name, memory, outcome } = report;
        let Some(set) = self.sets.get_mut(&name) else { return false };
        set.busy = None;
        set.memory = memory;
        let wanted_anew = std::mem::take(&mut set.wanted_anew);
        let mut changed = false;
        match outcome {
            Outcome::Ordered(Ok(obtained)) => {
                changed = true;
                self.parts.metrics.certificate_order("ok");
                set.install(&name, *obtained, now);
                self.told.extend(set.waiting.drain(..).map(|waiting| (waiting, Ok(()))));
                self.bootstrap.renew();
            }
            Outcome::Ordered(Err(failure)) => {
                self.parts.metrics.certificate_order(fault::word(failure.fault));
                self.told.extend(set.waiting.drain(..).map(|waiting| (waiting, Err(failure.said()))));
                set.fail(&name, failure, cas, now);
            }
            Outcome::Asked(answer) => {
                set.told(&name, answer, now);
                if wanted_anew {
                    set.memory.renew_now(now);
                }
            }
        }
        if let Err(error) = self.store.keep_memory(&name, &set.memory) {
            tracing::error!(name, %error, "what is known of a certificate cannot be kept");
        }
        changed
    }

    /// Reports finished orders to the operators who asked for them.
    pub(super) fn tell(&mut self) {
        for (waiting, outcome) in self.told.drain(..) {
            // The operator may have gone.
            _ = waiting.send(outcome);
        }
    }

    /// Schedules a renewal for an operator, or answers why there is none.
    pub(super) fn renew(&mut self, Renew { name, rehearsal, reply }: Renew) {
        let now = self.now();
        if rehearsal && self.unwritable.is_none() && self.sets.contains_key(&name) {
            return self.rehearse(name, reply);
        }
        let refusal = match (self.sets.get_mut(&name), &self.unwritable) {
            (None, _) => {
                format!("no certificate is obtained for {name}; `tenantd certs list` names them all")
            }
            (_, Some(why)) => why.clone(),
            (Some(set), None) if !set.memory.may_order(now) => {
                format!("too many orders for {name} came to nothing; the next is at {}", set.next(now).at)
            }
            (Some(set), None) => {
                set.memory.renew_now(now);
                set.wanted_anew = set.busy.is_some();
                return set.waiting.push(reply);
            }
        };
        // The operator may have gone.
        _ = reply.send(Err(refusal));
    }

    fn rehearse(&self, name: String, reply: Reply) {
        let Some(ca) = self.parts.settings.cas.first() else { return };
        let attempt = Attempt { purpose: Purpose::Show, ..self.attempt(name, ca.rehearsal()) };
        self.parts.tasks.spawn("certificate rehearsal", async move {
            // The operator may have gone.
            _ = reply.send(job::rehearse(attempt).await);
        });
    }

    fn attempt(&self, name: String, ca: settings::Ca) -> Attempt {
        Attempt {
            name,
            ca,
            acme: self.parts.settings.clone(),
            store: self.store.clone(),
            account_locks: self.account_locks.clone(),
            challenges: self.parts.challenges.clone(),
            clock: self.parts.clock.clone(),
            http01: self.parts.http01,
            purpose: Purpose::Serve,
        }
    }

    fn try_folder_again(&mut self) {
        if self.unwritable.is_none() {
            return;
        }
        match Store::open(&self.parts.folder) {
            Ok(store) => {
                tracing::info!(folder = %self.parts.folder.display(), "the certs folder can be written again");
                (self.store, self.unwritable) = (Arc::new(store), None);
            }
            Err(error) => self.unwritable = Some(error.to_string()),
        }
    }

    /// Returns the status of every certificate, and updates the metrics.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let surroundings = status::Surroundings {
            cas: &self.parts.settings.cas,
            unwritable: self.unwritable.as_ref(),
            now: self.now(),
        };
        let sets = self.wanted.iter().filter_map(|name| Some((name, self.sets.get(name)?)));
        let statuses: Vec<Status> = sets.map(|(name, set)| status::of(name, set, &surroundings)).collect();
        for status in &statuses {
            let until = status.not_after.map_or(0, Timestamp::as_second);
            self.parts.metrics.certificate(&status.name, until, status.failures);
        }
        statuses
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}
