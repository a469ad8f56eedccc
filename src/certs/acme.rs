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
mod due;
mod eab;
mod failure;
mod help;
mod http;
mod issuable;
mod jitter;
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
mod reports;
mod requests;
mod shared_account;
mod shared_order;
mod shared_state;
pub(super) mod status;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use self::account_locks::AccountLocks;
use self::certs_folder::{CertsFolder, CertsFolderError, LoadedCertificate};
pub(super) use self::job::JobReport;
use self::managed_certificate::{ManagedCertificate, SharedView};
use self::placeholder::PlaceholderCertificate;
pub(super) use self::requests::{RenewalReply, RenewalRequest};
use self::shared_state::SharedReads;
use super::certificate_table::CertificateTable;
use super::challenges::ChallengeResponses;
use super::{CertificateStatus, Error};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings;
use crate::spec::HostName;
use crate::store::ClusterStore;
use crate::telemetry::metrics::Metrics;

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
        let (reports, inbox) = mpsc::channel(due::MAX_CONCURRENT_ORDERS);
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
