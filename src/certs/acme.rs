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
mod managed_certificate;
mod order;
mod order_attempt;
mod placeholder;
pub(super) mod preflight;
mod renewal_info;
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
use self::job::JobOutcome;
pub(super) use self::job::JobReport;
use self::managed_certificate::ManagedCertificate;
use self::order_attempt::{OrderAttempt, OrderPurpose};
use self::placeholder::PlaceholderCertificate;
use super::certificate_table::CertificateTable;
use super::challenges::ChallengeResponses;
use super::schedule::{RenewalStep, ScheduledStep};
use super::{CertificateStatus, Error};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings;
use crate::spec::HostName;
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
        self.certificates.retain(|name, _| managed_names.contains(name));
        for name in managed_names {
            if !self.certificates.contains_key(&name) {
                let managed = self.load(&name, now);
                self.certificates.insert(name, managed);
            }
        }
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
        ManagedCertificate { current: certificate, renewal, ..ManagedCertificate::default() }
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
        if self.unwritable_reason.is_some() {
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
        for (name, managed) in
            self.certificates.iter_mut().filter(|(_, managed)| managed.running_step.is_none())
        {
            managed.renewal.repair(now, cas);
            let ScheduledStep { step, at } = managed.next_step(now);
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
        let (renewal, reports) = (managed.renewal.clone(), self.reports.clone());
        let shutdown = self.deps.tasks.shutdown_signal().clone();
        self.deps.tasks.spawn("certificate order", async move {
            // An order that shutdown aborts stays counted.
            let report = tokio::select! {
                report = job::run_step(attempt, step, renewal, held) => report,
                () = shutdown.cancelled() => return,
            };
            // The receiver is gone only at shutdown.
            _ = reports.send(report).await;
        });
    }

    /// Records the outcome of a job, and returns whether there is something new to serve. Blocks on
    /// the disk.
    pub(super) fn apply_report(&mut self, report: JobReport) -> bool {
        let now = self.now();
        let cas = self.deps.settings.cas.len();
        let JobReport { name, renewal, outcome } = report;
        let Some(managed) = self.certificates.get_mut(&name) else { return false };
        managed.running_step = None;
        managed.renewal = renewal;
        let renew_again = std::mem::take(&mut managed.renew_after_running);
        let mut changed = false;
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
        if is_dry_run && self.unwritable_reason.is_none() && self.certificates.contains_key(&name) {
            return self.spawn_dry_run(name, reply);
        }
        let refusal = match (self.certificates.get_mut(&name), &self.unwritable_reason) {
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
            unwritable_reason: self.unwritable_reason.as_ref(),
            now: self.now(),
        };
        let managed = self.wanted_names.iter().filter_map(|name| Some((name, self.certificates.get(name)?)));
        managed.map(|(name, managed)| status::certificate_status(name, managed, &context)).collect()
    }

    fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }
}
