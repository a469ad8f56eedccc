//! Floor 2: certificates. Something is always served.
//!
//! This module owns the certs folder and the table that the TLS callback reads. It promises that a handshake finds a
//! certificate from the first moment on, that a change of certificates touches no connection, and that a broken
//! change keeps what was served before. Sessions, tickets and protocol versions are the server's.
//!
//! Three ways to a certificate: [`local_ca`] issues its own (`self-signed`), [`manual`] reads an operator's files, and
//! `off` has none. An ACME client will be one more writer of the same table. Name matching follows RFC 6125 6.4.3 and
//! RFC 9525 6.3: exact, or a wildcard for the whole leftmost label.

mod local_ca;
mod manual;
mod material;
mod self_signed;
mod storage;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings::TlsMode;
use crate::spec::HostName;
use table::Table;

/// The certificate of the local CA, which clients are told to trust, as a file in the certs folder.
pub const LOCAL_CA_FILE: &str = "local-ca.pem";

/// How often the folder is looked at for changed files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often dates are looked at.
const JUDGE_EVERY: Duration = Duration::from_secs(3600);

/// What kept certificates from being made or read, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The certificates in force: a snapshot that the TLS callback reads; ACME will be one more writer.
#[derive(Debug)]
pub struct Certificates {
    mode: TlsMode,
    table: ArcSwap<Table>,
    wanted: watch::Sender<Vec<HostName>>,
    /// Counts swaps.
    generation: watch::Sender<u64>,
}

impl Certificates {
    /// Loads or makes what `mode` asks for; spawns the task that reloads manual files. `hosts` are the names wanted now.
    ///
    /// Blocks for a few milliseconds. Errors only when no certificate can be made at all.
    pub fn start(
        mode: TlsMode,
        folder: &Path,
        hosts: Vec<HostName>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        let mut writer = Writer::new(mode, folder, clock);
        let table = writer.first(&hosts)?;
        let certificates = Arc::new(Self {
            mode,
            table: ArcSwap::from_pointee(table),
            wanted: watch::Sender::new(hosts),
            generation: watch::Sender::new(0),
        });
        if mode != TlsMode::Off {
            let task = certificates.clone().keep_current(writer, tasks.soft().clone());
            tasks.spawn("certs", task);
        }
        Ok(certificates)
    }

    /// Says which names are wanted from now on (settings ∪ tenants' hosts).
    pub fn want(&self, hosts: Vec<HostName>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != hosts;
            *wanted = hosts;
            changed
        });
    }

    /// The resolver to put into the TLS configuration.
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver(self.clone()))
    }

    /// Whether a request for `host` may come over a connection that asked for `sni` (RFC 9110 7.4, status 421): its
    /// certificate is also the host's, or no certificate is. `host` is without port.
    pub fn covers(&self, sni: &str, host: &str) -> bool {
        self.mode == TlsMode::Off || self.table.load().covers(sni, host)
    }

    /// Counts swaps, to wait on.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The one writer of the table, for as long as the gateway runs.
    async fn keep_current(self: Arc<Self>, mut writer: Writer, soft: tokio_util::sync::CancellationToken) {
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
                let next = writer.next(&hosts);
                (writer, next)
            });
            let Ok((back, next)) = pass.await else {
                return tracing::error!("the certificate task ended; certificates are no longer reloaded");
            };
            writer = back;
            if let Some(table) = next {
                self.table.store(Arc::new(table));
                self.generation.send_modify(|generation| *generation += 1);
            }
        }
    }
}

/// What makes tables. Blocking: it reads files and makes keys.
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
            TlsMode::Off => Self::Off,
        }
    }

    /// The table to begin with.
    fn first(&mut self, hosts: &[HostName]) -> Result<Table, Error> {
        match self {
            Self::SelfSigned(mode) => mode.first(hosts),
            Self::Manual(mode) => mode.first(hosts),
            Self::Off => Ok(Table::default()),
        }
    }

    /// A new table, if anything changed for which there is a good one.
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

/// The table as rustls sees it.
#[derive(Debug)]
struct Resolver(Arc<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.table.load().choose(hello.server_name())
    }
}
