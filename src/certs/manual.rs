//! `--tls manual`: certificate files that an operator, certbot or a secret mount puts into the
//! certs folder.
//!
//! Files are looked for in the folder and one level below it (certbot's `live/<name>/`, a mounted
//! secret): `*.pem`, `*.crt`, `*.cer`, `*.key` and `*.ca-bundle`. A file may contain key and chain;
//! otherwise the key is in `<name>.key`, in `privkey.pem` beside `fullchain.pem`, or in any key
//! file of the same folder that fits. Changed files are loaded within seconds; a change that cannot
//! be used is reported as a warning, and the certificate served before stays.

mod file_fingerprint;
pub(super) mod key_pairing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use self::file_fingerprint::FileFingerprints;
use self::key_pairing::PairedCertificates;
use super::certificate_table::CertificateTable;
use super::local_ca::LocalCa;
use super::server_certificate::ServerCertificate;
use super::{Error, key_files};
use crate::base::clock::Clock;
use crate::spec::HostName;

/// How long before a certificate expires the log begins to warn.
const REMINDER_WINDOW: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How often the log repeats the warning.
const REMINDER_INTERVAL: SignedDuration = SignedDuration::from_hours(12);

/// The state of the mode: the files as last seen, and the certificates served, by the file of each
/// chain.
#[derive(Debug)]
pub(super) struct ManualCertificates {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    fingerprints: Option<FileFingerprints>,
    served: BTreeMap<PathBuf, Arc<ServerCertificate>>,
    last_reminder: Option<Timestamp>,
}

impl ManualCertificates {
    pub(super) fn new(folder: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { folder, clock, fingerprints: None, served: BTreeMap::new(), last_reminder: None }
    }

    /// Returns the certificates in the folder, or an untrusted one until there is any.
    pub(super) fn initial_table(&mut self, hosts: &[HostName]) -> Result<CertificateTable, Error> {
        if let Some(table) = self.next_table() {
            return Ok(table);
        }
        tracing::error!(
            folder = %self.folder.display(),
            "no certificate that can be served: put <name>.pem (key and chain), or <name>.crt and <name>.key, into the \
             certs folder; until then clients see an untrusted certificate"
        );
        self.placeholder_table(hosts)
    }

    /// Returns a new table if files changed and there is anything to serve.
    pub(super) fn next_table(&mut self) -> Option<CertificateTable> {
        let fingerprints = file_fingerprint::fingerprint_folder(&self.folder);
        let changed = self.fingerprints.as_ref() != Some(&fingerprints);
        let table = if changed { self.reload(&fingerprints) } else { None };
        self.fingerprints = Some(fingerprints);
        self.log_expiry();
        table
    }

    fn reload(&mut self, fingerprints: &FileFingerprints) -> Option<CertificateTable> {
        let PairedCertificates { good, broken } = key_pairing::pair_files(fingerprints.keys());
        for (path, error) in &broken {
            let kept = self.served.contains_key(path);
            tracing::warn!(
                file = %path.display(), %error, kept,
                "a certificate file cannot be used{}", if kept { "; its previous certificate stays" } else { "" }
            );
        }
        let kept = broken.keys().filter_map(|path| Some((path.clone(), self.served.get(path)?.clone())));
        let next: BTreeMap<_, _> = kept.collect::<BTreeMap<_, _>>().into_iter().chain(good).collect();
        if next.is_empty() {
            if !self.served.is_empty() {
                tracing::warn!(folder = %self.folder.display(), "no certificate file is left; the last certificates stay in use");
            }
            return None;
        }
        if is_same(&next, &self.served) {
            return None;
        }
        self.log_changes(&next, fingerprints);
        self.served = next;
        self.last_reminder = None;
        Some(CertificateTable::new(self.served.values().cloned().collect()))
    }

    fn log_changes(&self, next: &BTreeMap<PathBuf, Arc<ServerCertificate>>, fingerprints: &FileFingerprints) {
        for (path, certificate) in next {
            let names = certificate.names.join(" ");
            tracing::info!(file = %path.display(), %names, until = %certificate.not_after, "serving a certificate");
            if let Some(trouble) = certificate.chain_problem() {
                tracing::warn!(file = %path.display(), trouble, "clients may not be able to verify this certificate");
            }
        }
        for path in fingerprints
            .keys()
            .filter(|path| key_files::is_readable_by_others(path) && key_pairing::holds_key(path))
        {
            tracing::warn!(file = %path.display(), "other users of this machine can read this key; run `chmod 600` on it");
        }
    }

    /// Logs certificates that have expired or soon will. They are served all the same: a client may
    /// still accept them.
    fn log_expiry(&mut self) {
        let now = self.clock.now();
        if self.last_reminder.is_some_and(|last| now < last + REMINDER_INTERVAL) {
            return;
        }
        self.last_reminder = Some(now);
        for (path, certificate) in &self.served {
            let (file, until) = (path.display(), certificate.not_after);
            if until <= now {
                tracing::warn!(%file, %until, "a certificate has expired; the gateway still serves it, and \
                                               clients refuse it");
            } else if until < now + REMINDER_WINDOW {
                tracing::warn!(%file, %until, "a certificate expires soon; replace its file");
            } else if certificate.not_before > now {
                tracing::warn!(%file, from = %certificate.not_before, "a certificate is not valid yet");
            }
        }
    }

    fn placeholder_table(&self, hosts: &[HostName]) -> Result<CertificateTable, Error> {
        let now = self.clock.now();
        let names: Vec<String> = hosts.iter().map(|host| host.without_brackets().to_owned()).collect();
        let pem = LocalCa::generate(now)?.issue(&names, now)?;
        Ok(CertificateTable::new(vec![Arc::new(ServerCertificate::from_pem(pem.as_bytes())?)]))
    }
}

/// Reads a folder: the certificates that could be served, and what is wrong with other files.
pub(super) fn inspect_folder(folder: &Path) -> PairedCertificates {
    key_pairing::pair_files(file_fingerprint::fingerprint_folder(folder).keys())
}

fn is_same(
    a: &BTreeMap<PathBuf, Arc<ServerCertificate>>,
    b: &BTreeMap<PathBuf, Arc<ServerCertificate>>,
) -> bool {
    let alike = |(a, b): (&Arc<ServerCertificate>, &Arc<ServerCertificate>)| {
        a.certified_key.cert == b.certified_key.cert
    };
    a.keys().eq(b.keys()) && a.values().zip(b.values()).all(alike)
}
