//! Floor 2: certificates. A handshake always finds one.
//!
//! This module owns the certs folder and the table that the TLS callback reads. It guarantees that
//! there is a certificate from the first handshake on, that replacing certificates affects no open
//! connection, and that a broken change keeps the previous certificates in place. Sessions, tickets
//! and protocol versions belong to the server.
//!
//! There are four modes: [`acme`] obtains certificates from a CA (RFC 8555), [`local_ca`] issues
//! its own (`self-signed`), [`manual`] reads an operator's files, and `off` has none. Names match
//! by RFC 6125 section 6.4.3 and RFC 9525 section 6.3: exactly, or by a wildcard for the whole
//! leftmost label.

mod acme;
mod certificate_table;
mod chain;
mod challenge_certificate;
mod challenges;
mod doctor;
mod file_certificate;
mod import;
mod key_files;
mod local_ca;
mod manual;
mod schedule;
mod self_signed;
mod server_certificate;
mod shared_challenges;
mod shared_changes;
mod status;
pub mod stranger;
#[cfg(test)]
mod tests;
mod x509_info;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, oneshot, watch};

use self::acme::{AcmeManager, JobReport, RenewalRequest};
use self::certificate_table::CertificateTable;
use self::challenges::ChallengeResponses;
pub use self::challenges::{ACME_TLS_ALPN, ChallengeServer, NO_CHALLENGE_TEXT};
pub use self::doctor::{CheckResult, DoctorCheck, examine};
pub use self::import::{ImportedCertificate, import};
pub use self::schedule::CertificateState;
use self::shared_challenges::SharedChallenges;
use self::shared_changes::next_changes;
pub use self::status::CertificateStatus;
use crate::base::clock::Clock;
use crate::base::panic::{Panicked, catch_panic_sync};
use crate::base::task::{PanicCounts, Tasks};
use crate::base::tls_client;
use crate::settings::{AdminTls, Ca, Settings, TlsMode};
use crate::spec::HostName;
use crate::store::{ChangeSubscription, ClusterStore};
use crate::telemetry::metrics::Metrics;

/// The file in the certs folder with the certificate of the local CA, for clients to trust.
pub const LOCAL_CA_FILE: &str = "local-ca.pem";

/// How often `manual` checks the folder for changed files.
const FOLDER_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How often `self-signed` checks validity dates.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Why certificates could not be created or read, worded for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Returns the TLS configuration of a client that trusts only the certificates in `root`, or else
/// those that this machine trusts.
///
/// # Errors
/// The file cannot be used, or this machine trusts no authority.
pub fn client_config(root: Option<&Path>) -> Result<rustls::ClientConfig, Error> {
    tls_client::config(root).map_err(|error| Error(error.to_string()))
}

/// Returns the statuses of the certificates stored in a folder, from whichever mode. Only reads the
/// folder.
pub fn read_folder_statuses(folder: &Path, cas: &[Ca], now: Timestamp) -> Vec<CertificateStatus> {
    let mut statuses = acme::status::folder_statuses(folder, cas, now);
    let files = manual::inspect_folder(folder).good.into_values().chain(self_signed::load_leaf_from(folder));
    statuses.extend(status::from_certificates(&files.collect::<Vec<_>>(), now));
    statuses
}

/// Checks without changing anything whether there are certificates to serve.
///
/// # Errors
/// The mode is `manual` and its folder has no usable certificate, or the files of the admin
/// listener cannot be used.
pub fn check(settings: &Settings, hosts: &[HostName], clock: Arc<dyn Clock>) -> Result<(), Error> {
    if let Some(AdminTls::Files { certificate, key }) = &settings.admin_access.tls {
        file_certificate::file_resolver(certificate.clone(), key.clone(), Arc::clone(&clock))?;
    }
    match settings.tls {
        TlsMode::Manual => {
            TableSource::new(settings.tls, &settings.certs, clock).initial_table(hosts).map(drop)
        }
        // These make what is missing.
        TlsMode::Acme | TlsMode::SelfSigned | TlsMode::Off => Ok(()),
    }
}

/// The certificates in force; the TLS callback reads their current snapshot.
#[derive(Debug)]
pub struct Certificates {
    mode: TlsMode,
    clock: Arc<dyn Clock>,
    table: ArcSwap<CertificateTable>,
    wanted_hosts: watch::Sender<Vec<HostName>>,
    /// Counts how often the table was replaced.
    generation: watch::Sender<u64>,
    challenges: Arc<ChallengeResponses>,
    /// The status of each automatic certificate.
    statuses: ArcSwap<Vec<CertificateStatus>>,
    /// Requests of operators to the automatic mode.
    renewal_requests: mpsc::Sender<RenewalRequest>,
    /// Whether the automatic mode leaves its folder alone, since another process may use it.
    is_paused: watch::Sender<bool>,
}

impl Certificates {
    /// Loads or creates the certificates that the settings ask for, and spawns the task that keeps
    /// them current. `hosts` are the names wanted now, the most important first. Certificates from a
    /// CA are shared with other gateways through `cluster`.
    ///
    /// Blocks for a few milliseconds, and never on the network.
    ///
    /// # Errors
    /// No certificate can be created at all, or another process uses the folder.
    pub fn start(
        settings: &Settings,
        hosts: Vec<HostName>,
        cluster: Option<ClusterStore>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        let (request_sender, renewal_requests) = mpsc::channel(1);
        let cluster = cluster.filter(|_| settings.tls == TlsMode::Acme);
        let changes = cluster.as_ref().map(ClusterStore::subscribe);
        let shared_challenges = cluster.clone().map(|store| SharedChallenges::new(store, Arc::clone(&clock)));
        let certificates = Self {
            mode: settings.tls,
            clock: clock.clone(),
            table: ArcSwap::default(),
            wanted_hosts: watch::Sender::new(hosts.clone()),
            generation: watch::Sender::new(0),
            challenges: Arc::new(ChallengeResponses::new(shared_challenges)),
            statuses: ArcSwap::default(),
            renewal_requests: request_sender,
            is_paused: watch::Sender::new(false),
        };
        if settings.tls != TlsMode::Acme {
            let source = TableSource::new(settings.tls, &settings.certs, clock);
            return certificates.start_source(source, &hosts, tasks);
        }
        let (acme, reports) = AcmeManager::open(acme::AcmeDeps {
            settings: Arc::new(settings.acme.clone()),
            folder: settings.certs.clone(),
            clock,
            challenges: certificates.challenges.clone(),
            metrics,
            tasks: tasks.clone(),
            is_http01_available: !settings.listen_http.is_empty(),
            cluster,
        })?;
        certificates.start_acme(acme, AcmeInbox { reports, renewal_requests, changes }, &hosts, tasks)
    }

    fn start_acme(
        self,
        mut acme: AcmeManager,
        inbox: AcmeInbox,
        hosts: &[HostName],
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        acme.set_wanted_hosts(hosts);
        self.table.store(Arc::new(acme.build_table()?));
        self.statuses.store(Arc::new(acme.statuses()));
        let certificates = Arc::new(self);
        tasks.spawn("certs", certificates.clone().run_acme(acme, inbox, tasks.clone()));
        Ok(certificates)
    }

    fn start_source(
        self,
        mut source: TableSource,
        hosts: &[HostName],
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        self.table.store(Arc::new(source.initial_table(hosts)?));
        let certificates = Arc::new(self);
        if certificates.mode != TlsMode::Off {
            tasks.spawn("certs", certificates.clone().run_source(source, tasks.clone()));
        }
        Ok(certificates)
    }

    /// Sets the names that are wanted from now on (those of the settings and the tenants' hosts).
    pub fn set_wanted_hosts(&self, hosts: Vec<HostName>) {
        self.wanted_hosts.send_if_modified(|wanted| {
            let changed = *wanted != hosts;
            *wanted = hosts;
            changed
        });
    }

    /// Has the automatic mode begin nothing and store nothing until it is resumed. What it serves
    /// stays. Orders that are under way go on.
    pub fn pause(&self) {
        self.is_paused.send_replace(true);
    }

    /// Has the automatic mode go on.
    pub fn resume(&self) {
        self.is_paused.send_replace(false);
    }

    /// Returns once the automatic mode is paused, or once it is not.
    async fn wait_until_paused(&self, is_paused: bool) {
        let mut state = self.is_paused.subscribe();
        // An error would mean that this is gone, but the caller has it.
        let _gone = state.wait_for(|now| *now == is_paused).await.is_err();
    }

    /// Returns the resolver for the TLS configuration.
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(CertificateResolver { certificates: self.clone(), address: None })
    }

    /// Returns a resolver that serves the certificate of these PEM files to everybody.
    ///
    /// # Errors
    /// They cannot be read now, or do not fit each other. Later the last good pair is served.
    pub fn file_resolver(
        &self,
        certificate: PathBuf,
        key: PathBuf,
    ) -> Result<Arc<dyn ResolvesServerCert>, Error> {
        file_certificate::file_resolver(certificate, key, Arc::clone(&self.clock))
    }

    /// Returns a resolver that serves clients without SNI (those that connect to an address, RFC
    /// 6066 section 3) the certificate for this address of ours, if there is one.
    pub fn resolver_for_address(self: &Arc<Self>, address: IpAddr) -> Arc<dyn ResolvesServerCert> {
        Arc::new(CertificateResolver { certificates: self.clone(), address: Some(address) })
    }

    /// Returns whether a client that sends `sni` to an address gets a stopgap: a certificate that
    /// no CA vouches for, served until there is a real one.
    pub fn is_placeholder(&self, sni: Option<&str>, address: IpAddr) -> bool {
        self.table.load().is_placeholder(sni, Some(address))
    }

    /// Returns a receiver to wait on for the next replacement of the table.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Returns what serves connections that offer [`ACME_TLS_ALPN`]: challenge certificates only.
    /// `None` unless the mode is `acme`.
    pub fn challenge_server(&self) -> Option<ChallengeServer> {
        (self.mode == TlsMode::Acme).then(|| ChallengeServer::new(&self.challenges))
    }

    /// Returns the text that a CA must find now at this host under `/.well-known/acme-challenge/`
    /// and this token.
    pub async fn http01_response(&self, host: Option<&str>, token: &str) -> Option<String> {
        self.challenges.http01_response(host, token).await
    }

    /// Returns the status of each certificate.
    pub fn statuses(&self) -> Vec<CertificateStatus> {
        match self.mode {
            TlsMode::Acme => self.statuses.load().to_vec(),
            _ => status::from_certificates(self.table.load().certificates(), self.clock.now()),
        }
    }

    /// Renews an automatic certificate now, and waits until the new one is served.
    ///
    /// # Errors
    /// Why there is no new certificate, worded for people.
    pub async fn renew(&self, name: &str) -> Result<(), String> {
        self.request_order(name, false).await
    }

    /// Obtains a certificate only to see whether that would succeed; it is neither stored nor
    /// served.
    ///
    /// # Errors
    /// Why none can be obtained, worded for people.
    pub async fn dry_run(&self, name: &str) -> Result<(), String> {
        self.request_order(name, true).await
    }

    async fn request_order(&self, name: &str, is_dry_run: bool) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let request = RenewalRequest { name: name.to_owned(), is_dry_run, reply };
        if self.mode != TlsMode::Acme || self.renewal_requests.send(request).await.is_err() {
            return Err(
                "this gateway runs without `--tls acme`, so it obtains no certificates from a CA".into()
            );
        }
        answer.await.unwrap_or_else(|_| Err("the gateway is shutting down".into()))
    }

    /// Runs the automatic mode, as the only writer of its table.
    ///
    /// A panic in one pass affects that pass only: the state of each certificate is kept, and the
    /// schedule goes on.
    async fn run_acme(self: Arc<Self>, mut acme: AcmeManager, mut inbox: AcmeInbox, tasks: Tasks) {
        let shutdown = tasks.shutdown_signal().clone();
        let mut wanted = self.wanted_hosts.subscribe();
        while shutdown.run_until_cancelled(self.wait_until_paused(false)).await.is_some() {
            let wake = acme.start_due();
            self.statuses.store(Arc::new(acme.statuses()));
            let pause = wake.duration_since(self.clock.now()).try_into().unwrap_or(Duration::ZERO);
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.wait_until_paused(true) => continue,
                changed = wanted.changed() => match changed {
                    Ok(()) => CertificateEvent::HostsChanged(wanted.borrow_and_update().clone()),
                    Err(_) => return,
                },
                Some(report) = inbox.reports.recv() => CertificateEvent::JobFinished(Box::new(report)),
                names = next_changes(&mut inbox.changes) => { acme.note_shared_changes(names); continue }
                Some(renew) = inbox.renewal_requests.recv() => { acme.handle_renewal_request(renew); continue }
                () = tokio::time::sleep(pause) => continue,
            };
            let pass = move |acme: &mut AcmeManager| {
                let changed = match event {
                    CertificateEvent::HostsChanged(hosts) => {
                        acme.set_wanted_hosts(&hosts);
                        true
                    }
                    CertificateEvent::JobFinished(report) => acme.apply_report(*report),
                };
                changed.then(|| acme.build_table())
            };
            let Some((returned, table)) = run_pass(acme, tasks.panics(), pass).await else { return };
            acme = returned;
            match table {
                Some(Ok(table)) => self.publish(table),
                Some(Err(error)) => {
                    tracing::error!(%error, "the certificate table could not be built; the last one stays")
                }
                None => {}
            }
            // Operators hear the outcome of their orders only once the new certificate is served.
            acme.send_replies();
        }
    }

    fn publish(&self, table: CertificateTable) {
        self.table.store(Arc::new(table));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Runs the other modes, as the only writer of their table.
    async fn run_source(self: Arc<Self>, mut source: TableSource, tasks: Tasks) {
        let shutdown = tasks.shutdown_signal().clone();
        let mut wanted = self.wanted_hosts.subscribe();
        let mut poll = tokio::time::interval(source.poll_interval());
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = poll.tick() => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
            let hosts = wanted.borrow_and_update().clone();
            let pass = move |source: &mut TableSource| source.next_table(&hosts);
            let Some((returned, table)) = run_pass(source, tasks.panics(), pass).await else { return };
            source = returned;
            if let Some(table) = table {
                self.publish(table);
            }
        }
    }
}

/// Runs one pass over the state of a mode on a blocking thread, since files and key generation
/// block. Returns the state and the result of the pass, which is `None` after a panic. `None` if
/// the process ends before that.
async fn run_pass<S: Send + 'static, T: Send + 'static>(
    mut state: S,
    panics: &PanicCounts,
    pass: impl FnOnce(&mut S) -> Option<T> + Send + 'static,
) -> Option<(S, Option<T>)> {
    let running = tokio::task::spawn_blocking(move || {
        let outcome = catch_panic_sync(|| pass(&mut state));
        (state, outcome)
    });
    let (state, outcome) = running.await.ok()?;
    let result = outcome.unwrap_or_else(|Panicked| {
        panics.record("certs");
        None
    });
    Some((state, result))
}

/// The messages to the task of the automatic mode.
struct AcmeInbox {
    reports: mpsc::Receiver<JobReport>,
    renewal_requests: mpsc::Receiver<RenewalRequest>,
    /// What other gateways change; `None` if this one shares no certificates.
    changes: Option<ChangeSubscription>,
}

enum CertificateEvent {
    HostsChanged(Vec<HostName>),
    JobFinished(Box<JobReport>),
}

/// Builds the tables of the modes without ACME. Blocks, because it reads files and generates keys.
#[derive(Debug)]
enum TableSource {
    SelfSigned(self_signed::SelfSigned),
    Manual(manual::ManualCertificates),
    Off,
}

impl TableSource {
    fn new(mode: TlsMode, folder: &Path, clock: Arc<dyn Clock>) -> Self {
        let folder: PathBuf = folder.to_owned();
        match mode {
            TlsMode::SelfSigned => Self::SelfSigned(self_signed::SelfSigned::new(folder, clock)),
            TlsMode::Manual => Self::Manual(manual::ManualCertificates::new(folder, clock)),
            TlsMode::Off | TlsMode::Acme => Self::Off,
        }
    }

    /// Returns the first table.
    fn initial_table(&mut self, hosts: &[HostName]) -> Result<CertificateTable, Error> {
        match self {
            Self::SelfSigned(mode) => mode.initial_table(hosts),
            Self::Manual(mode) => mode.initial_table(hosts),
            Self::Off => Ok(CertificateTable::default()),
        }
    }

    /// Returns a new table if something changed and the result is usable.
    fn next_table(&mut self, hosts: &[HostName]) -> Option<CertificateTable> {
        match self {
            Self::SelfSigned(mode) => mode.next_table(hosts),
            Self::Manual(mode) => mode.next_table(),
            Self::Off => None,
        }
    }

    fn poll_interval(&self) -> Duration {
        match self {
            Self::Manual(_) => FOLDER_POLL_INTERVAL,
            Self::SelfSigned(_) | Self::Off => EXPIRY_CHECK_INTERVAL,
        }
    }
}

/// Gives rustls access to the table.
#[derive(Debug)]
struct CertificateResolver {
    certificates: Arc<Certificates>,
    address: Option<IpAddr>,
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.table.load().select(hello.server_name(), self.address)
    }
}
