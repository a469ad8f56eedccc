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
mod chain;
mod challenges;
mod doctor;
mod facts;
mod import;
mod local_ca;
mod manual;
mod material;
mod schedule;
mod self_signed;
mod status;
mod storage;
mod stored;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, oneshot, watch};

use self::acme::{Acme, Renew, Report};
use self::challenges::Challenges;
pub use self::challenges::{ACME_TLS, NO_CHALLENGE};
pub use self::doctor::{Check, Found, examine};
pub use self::import::{Imported, import};
pub use self::schedule::State;
pub use self::status::Status;
pub use self::stored::stored;
use self::table::Table;
use crate::base::clock::Clock;
use crate::base::panic::{Panicked, caught_now};
use crate::base::task::Tasks;
use crate::settings::{Settings, TlsMode};
use crate::spec::HostName;
use crate::telemetry::metrics::Metrics;

/// The file in the certs folder with the certificate of the local CA, for clients to trust.
pub const LOCAL_CA_FILE: &str = "local-ca.pem";

/// How often `manual` checks the folder for changed files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often `self-signed` checks validity dates.
const JUDGE_EVERY: Duration = Duration::from_secs(3600);

/// Why certificates could not be created or read, worded for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The certificates in force; the TLS callback reads their current snapshot.
#[derive(Debug)]
pub struct Certificates {
    mode: TlsMode,
    clock: Arc<dyn Clock>,
    table: ArcSwap<Table>,
    wanted: watch::Sender<Vec<HostName>>,
    /// Counts how often the table was replaced.
    generation: watch::Sender<u64>,
    challenges: Arc<Challenges>,
    /// The status of each automatic certificate.
    statuses: ArcSwap<Vec<Status>>,
    /// Requests of operators to the automatic mode.
    asked: mpsc::Sender<Renew>,
}

impl Certificates {
    /// Loads or creates the certificates that the settings ask for, and spawns the task that keeps
    /// them current. `hosts` are the names wanted now, the most important first.
    ///
    /// Blocks for a few milliseconds, and never on the network.
    ///
    /// # Errors
    /// No certificate can be created at all, or another process uses the folder.
    pub fn start(
        settings: &Settings,
        hosts: Vec<HostName>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        let (asked, questions) = mpsc::channel(1);
        let certificates = Self {
            mode: settings.tls,
            clock: clock.clone(),
            table: ArcSwap::default(),
            wanted: watch::Sender::new(hosts.clone()),
            generation: watch::Sender::new(0),
            challenges: Arc::default(),
            statuses: ArcSwap::default(),
            asked,
        };
        if settings.tls != TlsMode::Acme {
            let writer = Writer::new(settings.tls, &settings.certs, clock);
            return certificates.start_others(writer, &hosts, tasks);
        }
        let (acme, reports) = Acme::open(acme::Parts {
            settings: Arc::new(settings.acme.clone()),
            folder: settings.certs.clone(),
            clock,
            challenges: certificates.challenges.clone(),
            metrics,
            tasks: tasks.clone(),
            http01: !settings.listen_http.is_empty(),
        })?;
        certificates.start_acme(acme, Inbox { reports, questions }, &hosts, tasks)
    }

    fn start_acme(
        self,
        mut acme: Acme,
        inbox: Inbox,
        hosts: &[HostName],
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        acme.want(hosts);
        self.table.store(Arc::new(acme.table()?));
        self.statuses.store(Arc::new(acme.statuses()));
        let certificates = Arc::new(self);
        tasks.spawn("certs", certificates.clone().automate(acme, inbox, tasks.clone()));
        Ok(certificates)
    }

    fn start_others(self, mut writer: Writer, hosts: &[HostName], tasks: &Tasks) -> Result<Arc<Self>, Error> {
        self.table.store(Arc::new(writer.first(hosts)?));
        let certificates = Arc::new(self);
        if certificates.mode != TlsMode::Off {
            tasks.spawn("certs", certificates.clone().keep_current(writer, tasks.clone()));
        }
        Ok(certificates)
    }

    /// Sets the names that are wanted from now on (those of the settings and the tenants' hosts).
    pub fn want(&self, hosts: Vec<HostName>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != hosts;
            *wanted = hosts;
            changed
        });
    }

    /// Returns the resolver for the TLS configuration.
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver { certificates: self.clone(), address: None })
    }

    /// Returns a resolver that serves clients without SNI (those that connect to an address, RFC
    /// 6066 section 3) the certificate for this address of ours, if there is one.
    pub fn resolver_at(self: &Arc<Self>, address: IpAddr) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver { certificates: self.clone(), address: Some(address) })
    }

    /// Returns whether a client that sends `sni` to an address gets a stopgap: a certificate that
    /// no CA vouches for, served until there is a real one.
    pub fn is_stopgap(&self, sni: Option<&str>, address: IpAddr) -> bool {
        self.table.load().is_stopgap(sni, Some(address))
    }

    /// Returns a receiver to wait on for the next replacement of the table.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Returns the TLS configuration for connections that offer [`ACME_TLS`], which serves
    /// challenge certificates only. `None` unless the mode is `acme`.
    pub fn challenge_config(&self) -> Option<Arc<rustls::ServerConfig>> {
        (self.mode == TlsMode::Acme).then(|| self.challenges.tls_config())
    }

    /// Returns the text that a CA must find now under `/.well-known/acme-challenge/` and this
    /// token.
    pub fn http_answer(&self, token: &str) -> Option<String> {
        self.challenges.http(token)
    }

    /// Returns the status of each certificate.
    pub fn statuses(&self) -> Vec<Status> {
        match self.mode {
            TlsMode::Acme => self.statuses.load().to_vec(),
            _ => status::of_materials(self.table.load().certificates(), self.clock.now()),
        }
    }

    /// Renews an automatic certificate now, and waits until the new one is served.
    ///
    /// # Errors
    /// Why there is no new certificate, worded for people.
    pub async fn renew(&self, name: &str) -> Result<(), String> {
        self.ask(name, false).await
    }

    /// Obtains a certificate only to see whether that would succeed; it is neither stored nor
    /// served.
    ///
    /// # Errors
    /// Why none can be obtained, worded for people.
    pub async fn rehearse(&self, name: &str) -> Result<(), String> {
        self.ask(name, true).await
    }

    async fn ask(&self, name: &str, rehearsal: bool) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let asked = Renew { name: name.to_owned(), rehearsal, reply };
        if self.mode != TlsMode::Acme || self.asked.send(asked).await.is_err() {
            return Err(
                "certificates are automatic with `--tls acme` only, and this gateway runs without it, so no CA is asked for any".into()
            );
        }
        answer.await.unwrap_or_else(|_| Err("the gateway is shutting down".into()))
    }

    /// Runs the automatic mode, as the only writer of its table.
    ///
    /// A panic in one pass affects that pass only: the state of each certificate is kept, and the
    /// schedule goes on.
    async fn automate(self: Arc<Self>, mut acme: Acme, mut inbox: Inbox, tasks: Tasks) {
        let (soft, panics) = (tasks.soft().clone(), tasks.panics().clone());
        let mut wanted = self.wanted.subscribe();
        loop {
            let wake = acme.start_due();
            self.statuses.store(Arc::new(acme.statuses()));
            let pause = wake.duration_since(self.clock.now()).try_into().unwrap_or(Duration::ZERO);
            let event = tokio::select! {
                () = soft.cancelled() => return,
                changed = wanted.changed() => match changed {
                    Ok(()) => Event::Wanted(wanted.borrow_and_update().clone()),
                    Err(_) => return,
                },
                Some(report) = inbox.reports.recv() => Event::Finished(Box::new(report)),
                Some(renew) = inbox.questions.recv() => { acme.renew(renew); continue }
                () = tokio::time::sleep(pause) => continue,
            };
            // Files and key generation block, so the state moves to a blocking thread and back.
            let pass = tokio::task::spawn_blocking(move || {
                let table = caught_now(|| {
                    let changed = match event {
                        Event::Wanted(hosts) => {
                            acme.want(&hosts);
                            true
                        }
                        Event::Finished(report) => acme.finished(*report),
                    };
                    changed.then(|| acme.table())
                });
                (acme, table)
            });
            let Ok((back, table)) = pass.await else { return };
            acme = back;
            let table = table.unwrap_or_else(|Panicked| {
                panics.record("certs");
                None
            });
            match table {
                Some(Ok(table)) => self.publish(table),
                Some(Err(error)) => {
                    tracing::error!(%error, "no table of certificates could be made; the last one stays")
                }
                None => {}
            }
            // Operators hear the outcome of their orders only once the new certificate is served.
            acme.tell();
        }
    }

    fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Runs the other modes, as the only writer of their table.
    async fn keep_current(self: Arc<Self>, mut writer: Writer, tasks: Tasks) {
        let (soft, panics) = (tasks.soft().clone(), tasks.panics().clone());
        let mut wanted = self.wanted.subscribe();
        let mut look = tokio::time::interval(writer.interval());
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = soft.cancelled() => return,
                _ = look.tick() => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
            let hosts = wanted.borrow_and_update().clone();
            let pass = tokio::task::spawn_blocking(move || {
                let next = caught_now(|| writer.next(&hosts));
                (writer, next)
            });
            let Ok((back, next)) = pass.await else { return };
            writer = back;
            match next {
                Ok(Some(table)) => self.publish(table),
                Ok(None) => {}
                Err(Panicked) => panics.record("certs"),
            }
        }
    }
}

/// The messages to the task of the automatic mode.
struct Inbox {
    reports: mpsc::Receiver<Report>,
    questions: mpsc::Receiver<Renew>,
}

enum Event {
    Wanted(Vec<HostName>),
    Finished(Box<Report>),
}

/// Builds the tables of the modes without ACME. Blocks, because it reads files and generates keys.
#[derive(Debug)]
enum Writer {
    SelfSigned(self_signed::SelfSigned),
    Manual(manual::Manual),
    Off,
}

impl Writer {
    fn new(mode: TlsMode, folder: &Path, clock: Arc<dyn Clock>) -> Self {
        let folder: PathBuf = folder.to_owned();
        match mode {
            TlsMode::SelfSigned => Self::SelfSigned(self_signed::SelfSigned::new(folder, clock)),
            TlsMode::Manual => Self::Manual(manual::Manual::new(folder, clock)),
            TlsMode::Off | TlsMode::Acme => Self::Off,
        }
    }

    /// Returns the first table.
    fn first(&mut self, hosts: &[HostName]) -> Result<Table, Error> {
        match self {
            Self::SelfSigned(mode) => mode.first(hosts),
            Self::Manual(mode) => mode.first(hosts),
            Self::Off => Ok(Table::default()),
        }
    }

    /// Returns a new table if something changed and the result is usable.
    fn next(&mut self, hosts: &[HostName]) -> Option<Table> {
        match self {
            Self::SelfSigned(mode) => mode.next(hosts),
            Self::Manual(mode) => mode.next(),
            Self::Off => None,
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Manual(_) => LOOK_EVERY,
            Self::SelfSigned(_) | Self::Off => JUDGE_EVERY,
        }
    }
}

/// Gives rustls access to the table.
#[derive(Debug)]
struct Resolver {
    certificates: Arc<Certificates>,
    address: Option<IpAddr>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.table.load().choose(hello.server_name(), self.address)
    }
}
