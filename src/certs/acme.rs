//! `--tls acme`: certificates obtained automatically from a public or private CA, one per name.
//!
//! One task owns all state: the wanted names, and for each the certificate held and what is
//! remembered about it. Orders run in separate tasks, a few at a time, and report back. A new
//! certificate is verified, then stored, then served. The current one stays until a better one is
//! there: nothing that a CA, a disk or a clock does takes a certificate away.

mod account;
mod account_locks;
mod bad_nonce;
mod certs_folder;
mod domain_validation;
mod eab;
mod failure;
mod help;
mod http;
mod issuable;
mod job;
mod lease;
mod lease_clock;
mod managed_certificate;
mod order;
mod order_attempt;
mod pending_order;
mod placeholder;
pub(super) mod preflight;
mod renewal_info;
mod shared_account;
mod shared_order;
mod shared_state;
pub(super) mod status;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};

use self::account_locks::AccountLocks;
use self::certs_folder::{CertsFolder, CertsFolderError, LoadedCertificate};
pub(super) use self::job::JobReport;
use self::job::{JobOutcome, StepReport};
use self::managed_certificate::{ManagedCertificate, SharedView};
use self::order_attempt::{OrderAttempt, OrderPurpose};
use self::placeholder::PlaceholderCertificate;
use self::shared_order::SharedOrder;
use self::shared_state::{SharedReads, SharedState, UNKNOWN_VERSION};
use super::certificate_table::CertificateTable;
use super::challenges::ChallengeResponses;
use super::schedule::{RenewalState, RenewalStep, ScheduledStep};
use super::{CertificateStatus, Error};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings;
use crate::spec::HostName;
use crate::store::ClusterStore;
use crate::telemetry::metrics::Metrics;

/// The number of orders that may run at once.
const MAX_CONCURRENT_ORDERS: usize = 4;
/// The longest sleep of the scheduler, because the wall clock may jump.
const MAX_SLEEP: SignedDuration = SignedDuration::from_secs(30);

/// Receives the outcome of an order that an operator asked for; an error is worded for people.
pub(super) type RenewalReply = oneshot::Sender<Result<(), String>>;

/// The dependencies of the mode.
pub(super) struct AcmeDeps {
    pub(super) settings: Arc<settings::AcmeSettings>,
    pub(super) folder: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) challenges: Arc<ChallengeResponses>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    /// Whether a listener of this process can answer HTTP-01.
    pub(super) is_http01_available: bool,
    /// What this gateway shares with others; `None` if its store is a file.
    pub(super) cluster: Option<ClusterStore>,
}

/// The state of the mode.
pub(super) struct AcmeManager {
    deps: AcmeDeps,
    certs_folder: Arc<CertsFolder>,
    account_locks: Arc<AccountLocks>,
    /// Why the folder cannot be written, if it cannot.
    unwritable_reason: Option<String>,
    /// In the order of preference; the first is the default certificate.
    wanted_names: Vec<String>,
    certificates: BTreeMap<String, ManagedCertificate>,
    placeholder: PlaceholderCertificate,
    /// Outcomes to report to operators, once the new table is served.
    pending_replies: Vec<(RenewalReply, Result<(), String>)>,
    /// What is read of what gateways share; `None` if this one shares nothing.
    shared_reads: Option<SharedReads>,
    reports: mpsc::Sender<JobReport>,
}

/// A request of an operator.
#[derive(Debug)]
pub(super) struct RenewalRequest {
    pub(super) name: String,
    /// Only tests whether an order would succeed: at the CA's staging directory if it has one, and
    /// without storing anything.
    pub(super) is_dry_run: bool,
    pub(super) reply: RenewalReply,
}

impl std::fmt::Debug for AcmeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcmeManager").field("wanted", &self.wanted_names).finish_non_exhaustive()
    }
}

impl AcmeManager {
    /// Takes the folder for this process. Fails if another process uses it; a folder that cannot be
    /// written is served from all the same.
    pub(super) fn open(deps: AcmeDeps) -> Result<(Self, mpsc::Receiver<JobReport>), Error> {
        let (certs_folder, unwritable_reason) = match CertsFolder::open(&deps.folder) {
            Ok(certs_folder) => (certs_folder, None),
            Err(served_certificates @ CertsFolderError::InUse(_)) => {
                return Err(Error(served_certificates.to_string()));
            }
            Err(error) => (CertsFolder::read_only(&deps.folder), Some(error.to_string())),
        };
        if let Some(why) = &unwritable_reason {
            tracing::error!(folder = %deps.folder.display(), "{why}");
        }
        let (reports, inbox) = mpsc::channel(MAX_CONCURRENT_ORDERS);
        let acme = Self {
            shared_reads: deps.cluster.clone().map(SharedReads::new),
            deps,
            certs_folder: Arc::new(certs_folder),
            account_locks: Arc::default(),
            unwritable_reason,
            wanted_names: Vec::new(),
            certificates: BTreeMap::new(),
            placeholder: PlaceholderCertificate::default(),
            pending_replies: Vec::new(),
            reports,
        };
        Ok((acme, inbox))
    }

    /// Sets the wanted names, and loads what the folder has for new ones. Blocks on the disk.
    pub(super) fn set_wanted_hosts(&mut self, hosts: &[HostName]) {
        let now = self.now();
        self.wanted_names = hosts.iter().map(|host| host.without_brackets().to_owned()).collect();
        let cas = &self.deps.settings.cas;
        let issuable_names = self.wanted_names.iter().filter(|name| issuable::is_issuable(name, cas));
        let managed_names: BTreeSet<String> = issuable_names.cloned().collect();
        for removed in self.certificates.keys().filter(|name| !managed_names.contains(*name)) {
            tracing::info!(name = removed, "a certificate is no longer needed and is no longer renewed");
        }
        self.deps.challenges.set_names(managed_names.iter());
        self.certificates.retain(|name, _| managed_names.contains(name));
        let mut added = BTreeSet::new();
        for name in managed_names {
            if !self.certificates.contains_key(&name) {
                let managed = self.load(&name, now);
                added.insert(name.clone());
                self.certificates.insert(name, managed);
            }
        }
        self.note_shared_changes(Some(added));
        self.placeholder.invalidate();
    }

    fn load(&self, name: &str, now: Timestamp) -> ManagedCertificate {
        let LoadedCertificate { certificate, mut renewal, is_key_exposed } =
            self.certs_folder.load(name, now);
        renewal.repair(now, self.deps.settings.cas.len());
        if let Some(certificate) = &certificate {
            tracing::info!(name, until = %certificate.not_after, "serving a certificate from the certs folder");
            if is_key_exposed {
                tracing::error!(
                    name,
                    "other users of this machine could read the key of this certificate; it is protected \
                     now, and a certificate with a new key is ordered"
                );
                renewal.request_renewal(now);
            }
        }
        let shared = SharedView { is_requested: is_key_exposed, ..SharedView::default() };
        ManagedCertificate { current: certificate, renewal, shared, ..ManagedCertificate::default() }
    }

    /// Builds the table: the certificates held, and an untrusted one for the remaining names.
    /// Generates a key if needed.
    pub(super) fn build_table(&mut self) -> Result<CertificateTable, Error> {
        let served_certificates =
            self.wanted_names.iter().filter_map(|name| self.certificates.get(name)?.current.clone());
        let (addresses, names): (Vec<_>, Vec<_>) = served_certificates
            .partition(|certificate| certificate.names.iter().any(|name| name.parse::<IpAddr>().is_ok()));
        // Clients that connect by address send no SNI and get the first certificate.
        let mut served: Vec<_> = addresses.into_iter().chain(names).collect();
        let uncovered_names: Vec<String> =
            self.wanted_names.iter().filter(|name| !self.has_certificate(name)).cloned().collect();
        if !uncovered_names.is_empty() || served.is_empty() {
            served.push(self.placeholder.get_or_generate(&uncovered_names, self.deps.clock.now())?);
        }
        Ok(CertificateTable::new(served))
    }

    fn has_certificate(&self, name: &str) -> bool {
        self.certificates.get(name).is_some_and(|managed| managed.current.is_some())
    }

    /// Starts the jobs that are due, and returns when the next one is.
    pub(super) fn start_due(&mut self) -> Timestamp {
        let now = self.now();
        self.retry_unwritable_folder();
        self.certificates.iter_mut().for_each(|(name, managed)| managed.log_expiry(name, now));
        let (mut due, wake) = self.collect_due(now);
        let wake = wake.min(self.read_shared_if_due(now));
        // What gateways share is not lost with the folder.
        if self.unwritable_reason.is_some() && self.shared_reads.is_none() {
            return wake;
        }
        due.sort_by_key(|(at, ..)| *at);
        let busy = self.certificates.values().filter(|managed| managed.running_step.is_some()).count();
        for (_, name, step) in due.into_iter().take(MAX_CONCURRENT_ORDERS.saturating_sub(busy)) {
            self.spawn_job(name, step);
        }
        wake
    }

    /// Returns the jobs that are due, and when the next one is.
    fn collect_due(&mut self, now: Timestamp) -> (Vec<(Timestamp, String, RenewalStep)>, Timestamp) {
        let cas = self.deps.settings.cas.len();
        let mut wake = now + MAX_SLEEP;
        let mut due = Vec::new();
        let is_sharing = self.shared_reads.is_some();
        if self.shared_reads.as_ref().is_some_and(|reads| reads.trouble.is_some()) {
            return (due, wake);
        }
        for (name, managed) in
            self.certificates.iter_mut().filter(|(_, managed)| managed.running_step.is_none())
        {
            managed.renewal.repair(now, cas);
            let ScheduledStep { step, mut at } = managed.next_step(now);
            if is_sharing {
                let Some(free_at) = managed.shared.free_at(now) else { continue };
                at = at.max(free_at);
            }
            if at <= now {
                due.push((at, name.clone(), step));
            } else {
                wake = wake.min(at);
            }
        }
        (due, wake)
    }

    fn spawn_job(&mut self, name: String, step: RenewalStep) {
        let Some(managed) = self.certificates.get(&name) else { return };
        let Some(ca) = self.deps.settings.cas.get(managed.renewal.ca).cloned() else { return };
        let attempt = self.new_attempt(name.clone(), ca);
        let Some(managed) = self.certificates.get_mut(&name) else { return };
        managed.running_step = Some(step);
        let held = managed.current.as_ref().and_then(|current| current.certified_key.cert.first().cloned());
        let renewal = managed.renewal.clone();
        let (cluster, is_requested) = (self.deps.cluster.clone(), managed.shared.is_requested);
        // An order that shutdown aborts stays counted.
        self.spawn_reporting("certificate order", async move {
            match cluster {
                Some(store) => job::run_shared_step(attempt, store, step, is_requested).await,
                None => JobReport::Step(Box::new(job::run_step(attempt, step, renewal, held).await)),
            }
        });
    }

    /// Spawns a job that reports back, unless shutdown ends it.
    fn spawn_reporting(&self, task: &'static str, job: impl Future<Output = JobReport> + Send + 'static) {
        let (reports, shutdown) = (self.reports.clone(), self.deps.tasks.shutdown_signal().clone());
        self.deps.tasks.spawn(task, async move {
            let Some(report) = shutdown.run_until_cancelled(job).await else { return };
            // The receiver is gone only at shutdown.
            _ = reports.send(report).await;
        });
    }

    /// Reads what gateways share, if that is due, and returns when it is next.
    fn read_shared_if_due(&mut self, now: Timestamp) -> Timestamp {
        let Some(reads) = &mut self.shared_reads else { return Timestamp::MAX };
        if reads.is_running {
            return Timestamp::MAX;
        }
        // Whoever orders may have extended its lease, or be gone.
        let waiting = self.certificates.iter().filter(|(_, managed)| managed.running_step.is_none());
        let ends = waiting.filter_map(|(name, managed)| Some((managed.shared.holder.as_ref()?.1, name)));
        let over: BTreeSet<_> =
            ends.clone().filter(|(end, _)| *end <= now).map(|(_, name)| name.clone()).collect();
        if !over.is_empty() {
            reads.note_changes(Some(over));
        }
        let next_end = ends.map(|(end, _)| end).filter(|end| *end > now).min();
        let due_at = reads.due_at(now).min(next_end.unwrap_or(Timestamp::MAX));
        if due_at > now {
            return due_at;
        }
        let (changed, store) = (reads.begin(now), reads.store.clone());
        let is_wanted = |name: &String| changed.as_ref().is_none_or(|changed| changed.contains(name));
        let wanted = self.certificates.iter().filter(|(name, _)| is_wanted(name));
        let asked: Vec<_> = wanted.map(|(name, managed)| managed.ask(name)).collect();
        let folder = Arc::clone(&self.certs_folder);
        self.spawn_reporting("shared certificates", job::read_shared(store, folder, asked));
        Timestamp::MAX
    }

    /// Remembers that other gateways changed what is shared about these names, or about all.
    pub(super) fn note_shared_changes(&mut self, names: Option<BTreeSet<String>>) {
        if let Some(reads) = &mut self.shared_reads {
            reads.note_changes(names);
        }
    }

    /// Records the outcome of a job, and returns whether there is something new to serve. Blocks on
    /// the disk.
    pub(super) fn apply_report(&mut self, report: JobReport) -> bool {
        let now = self.now();
        match report {
            JobReport::Step(report) => self.apply_step(*report, now),
            JobReport::Read { asked, found } => self.apply_read(&asked, found, now),
            JobReport::NoLease { name, trouble } => {
                if let Some(managed) = self.certificates.get_mut(&name) {
                    managed.running_step = None;
                }
                self.refuse_requests(&trouble);
                if let Some(reads) = &mut self.shared_reads {
                    reads.fail(trouble, now);
                }
                false
            }
            JobReport::LeftToOthers { name } | JobReport::Shared { name } => {
                if let Some(managed) = self.certificates.get_mut(&name) {
                    managed.running_step = None;
                    // What is known may be old, and is read before the next step.
                    (managed.shared.version, managed.shared.is_read) = (UNKNOWN_VERSION, false);
                }
                self.note_shared_changes(Some(BTreeSet::from([name])));
                false
            }
        }
    }

    /// Tells operators whose orders have not begun that none can be placed.
    fn refuse_requests(&mut self, trouble: &str) {
        for managed in self.certificates.values_mut().filter(|managed| managed.running_step.is_none()) {
            managed.shared.is_requested = false;
            let refused = managed.pending_replies.drain(..).map(|reply| (reply, Err(trouble.to_owned())));
            self.pending_replies.extend(refused);
        }
    }

    /// Takes over what was read. Returns whether there is something new to serve.
    fn apply_read(
        &mut self,
        asked: &[String],
        found: Result<Vec<SharedState>, String>,
        now: Timestamp,
    ) -> bool {
        let trouble = found.as_ref().err().cloned();
        if let Some(trouble) = &trouble {
            self.refuse_requests(trouble);
        }
        if let Some(reads) = &mut self.shared_reads {
            reads.end(trouble, now);
        }
        let Ok(found) = found else { return false };
        for name in asked {
            if let Some(managed) = self.certificates.get_mut(name) {
                managed.shared.is_read = true;
                // Who has a lease is read each time, so what is not found is over.
                managed.shared.holder = None;
            }
        }
        let mut changed = false;
        for state in found {
            let name = state.name.clone();
            let Some(managed) = self.certificates.get_mut(&name) else { continue };
            if managed.running_step.is_some() {
                continue;
            }
            let pem = managed.adopt(state, now);
            changed |= pem.is_some();
            let renewal = managed.renewal.clone();
            self.keep_copy(&name, pem.as_deref(), &renewal);
        }
        if changed {
            self.placeholder.invalidate();
        }
        changed
    }

    /// Keeps what gateways share in the folder, for a start without the database.
    fn keep_copy(&self, name: &str, pem: Option<&str>, renewal: &RenewalState) {
        if self.unwritable_reason.is_some() {
            return;
        }
        let bundle = pem.map_or(Ok(()), |pem| self.certs_folder.persist_bundle(name, pem));
        if let Err(error) = bundle.and_then(|()| self.certs_folder.persist_renewal_state(name, renewal)) {
            tracing::error!(name, %error, "the certs folder has no copy of a certificate");
        }
    }

    fn apply_step(&mut self, report: StepReport, now: Timestamp) -> bool {
        let cas = self.deps.settings.cas.len();
        let StepReport { name, renewal, outcome, lease } = report;
        let Some(managed) = self.certificates.get_mut(&name) else { return false };
        let mut changed = false;
        let lease = lease.map(|(lease, shared)| {
            // The copy in the folder follows with the next certificate.
            changed |= managed.adopt(shared, now).is_some();
            managed.shared.holder = None;
            managed.shared.is_requested &= !matches!(outcome, JobOutcome::Order(_));
            lease
        });
        // A step that is shared ends when what followed from it is.
        managed.running_step = managed.running_step.filter(|_| lease.is_some());
        managed.renewal = renewal;
        let renew_again = std::mem::take(&mut managed.renew_after_running);
        match outcome {
            JobOutcome::Order(Ok(obtained)) => {
                changed = true;
                self.deps.metrics.record_certificate_order("ok");
                managed.install(&name, *obtained, now);
                self.pending_replies.extend(managed.pending_replies.drain(..).map(|reply| (reply, Ok(()))));
                self.placeholder.invalidate();
            }
            JobOutcome::Order(Err(failure)) => {
                self.deps.metrics.record_certificate_order(failure::metric_label(failure.kind));
                self.pending_replies
                    .extend(managed.pending_replies.drain(..).map(|reply| (reply, Err(failure.message()))));
                managed.apply_failure(&name, failure, cas, now);
            }
            JobOutcome::RenewalInfo(answer) => {
                managed.apply_renewal_info(&name, answer, now);
                if renew_again {
                    managed.renewal.request_renewal(now);
                }
            }
        }
        if let Err(error) = self.certs_folder.persist_renewal_state(&name, &managed.renewal) {
            tracing::error!(name, %error, "the renewal state of a certificate cannot be written");
        }
        if let Some(lease) = lease {
            let renewal = managed.renewal.clone();
            self.spawn_reporting("certificate order", job::share(lease, name, renewal));
        }
        changed
    }

    /// Reports finished orders to the operators who asked for them.
    pub(super) fn send_replies(&mut self) {
        for (reply, outcome) in self.pending_replies.drain(..) {
            // The operator may have gone.
            _ = reply.send(outcome);
        }
    }

    /// Schedules a renewal for an operator, or answers why there is none.
    pub(super) fn handle_renewal_request(
        &mut self,
        RenewalRequest { name, is_dry_run, reply }: RenewalRequest,
    ) {
        let now = self.now();
        let unusable = match &self.shared_reads {
            Some(reads) => reads.trouble.as_ref(),
            None => self.unwritable_reason.as_ref(),
        };
        if is_dry_run && unusable.is_none() && self.certificates.contains_key(&name) {
            return self.spawn_dry_run(name, reply);
        }
        let refusal = match (self.certificates.get_mut(&name), unusable) {
            (None, _) => {
                format!(
                    "this gateway obtains no certificate for {name}; `tenantd certs list` lists all of \
                         them"
                )
            }
            (_, Some(why)) => why.clone(),
            (Some(managed), None) if !managed.renewal.is_order_allowed(now) => {
                format!("too many orders for {name} failed; the next one is at {}", managed.next_step(now).at)
            }
            (Some(managed), None) => {
                managed.renewal.request_renewal(now);
                managed.renew_after_running = managed.running_step.is_some();
                managed.shared.is_requested = true;
                return managed.pending_replies.push(reply);
            }
        };
        // The operator may have gone.
        _ = reply.send(Err(refusal));
    }

    fn spawn_dry_run(&self, name: String, reply: RenewalReply) {
        let Some(ca) = self.deps.settings.cas.first() else { return };
        let attempt =
            OrderAttempt { purpose: OrderPurpose::DryRun, ..self.new_attempt(name, ca.to_staging()) };
        self.deps.tasks.spawn("certificate dry run", async move {
            // The operator may have gone.
            _ = reply.send(job::dry_run(attempt).await);
        });
    }

    fn new_attempt(&self, name: String, ca: settings::Ca) -> OrderAttempt {
        OrderAttempt {
            name,
            ca,
            acme: self.deps.settings.clone(),
            folder: self.certs_folder.clone(),
            account_locks: self.account_locks.clone(),
            challenges: self.deps.challenges.clone(),
            clock: self.deps.clock.clone(),
            is_http01_available: self.deps.is_http01_available,
            purpose: OrderPurpose::Serve,
            // An order shares more once it has its lease.
            shared: self.deps.cluster.clone().map(|store| SharedOrder::new(store, None, None)),
        }
    }

    fn retry_unwritable_folder(&mut self) {
        if self.unwritable_reason.is_none() {
            return;
        }
        match CertsFolder::open(&self.deps.folder) {
            Ok(certs_folder) => {
                tracing::info!(folder = %self.deps.folder.display(), "the certs folder can be written again");
                (self.certs_folder, self.unwritable_reason) = (Arc::new(certs_folder), None);
            }
            Err(error) => self.unwritable_reason = Some(error.to_string()),
        }
    }

    /// Returns the status of every certificate.
    pub(super) fn statuses(&self) -> Vec<CertificateStatus> {
        let context = status::StatusContext {
            cas: &self.deps.settings.cas,
            unwritable_reason: self.unwritable_reason.as_ref().filter(|_| self.shared_reads.is_none()),
            sharing_trouble: self.shared_reads.as_ref().and_then(|reads| reads.trouble.as_ref()),
            node: self.deps.cluster.as_ref().map(ClusterStore::node_name),
            now: self.now(),
        };
        let managed = self.wanted_names.iter().filter_map(|name| Some((name, self.certificates.get(name)?)));
        managed.map(|(name, managed)| status::certificate_status(name, managed, &context)).collect()
    }

    fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }
}
