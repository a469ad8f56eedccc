//! `--tls manual`: certificate files that an operator, certbot or a secret mount puts into the
//! certs folder.
//!
//! Looked for in the folder and one level below it (certbot's `live/<name>/`, a mounted secret): `*.pem`, `*.crt`,
//! `*.cer`, `*.key` and `*.ca-bundle`. A file may hold key and chain; else the key is in `<stem>.key`, `privkey.pem` beside
//! `fullchain.pem`, or any key file of the same folder that fits. Changed files are taken up within seconds; a change
//! that cannot be used is warned of, and what was served before stays.

pub(super) mod gather;
mod stamp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use self::gather::Gathered;
use self::stamp::Stamps;
use super::local_ca::LocalCa;
use super::material::Material;
use super::table::Table;
use super::{Error, storage};
use crate::base::clock::Clock;
use crate::spec::HostName;

/// How long before a certificate expires the log begins to warn.
const REMIND_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How often the log repeats the warning.
const REMIND_EVERY: SignedDuration = SignedDuration::from_hours(12);

/// The state of the mode: the files as last seen, and the certificates served, by the file of each
/// chain.
#[derive(Debug)]
pub(super) struct Manual {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    seen: Option<Stamps>,
    served: BTreeMap<PathBuf, Arc<Material>>,
    reminded: Option<Timestamp>,
}

impl Manual {
    pub(super) fn new(folder: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { folder, clock, seen: None, served: BTreeMap::new(), reminded: None }
    }

    /// Returns the certificates in the folder, or an untrusted one until there is any.
    pub(super) fn first(&mut self, hosts: &[HostName]) -> Result<Table, Error> {
        if let Some(table) = self.next() {
            return Ok(table);
        }
        tracing::error!(
            folder = %self.folder.display(),
            "no certificate that can be served: put <name>.pem (key and chain), or <name>.crt and <name>.key, into the \
             certs folder; until then clients see an untrusted certificate"
        );
        self.stand_in(hosts)
    }

    /// Returns a new table if files changed and there is anything to serve.
    pub(super) fn next(&mut self) -> Option<Table> {
        let stamps = stamp::of(&self.folder);
        let changed = self.seen.as_ref() != Some(&stamps);
        let table = if changed { self.reload(&stamps) } else { None };
        self.seen = Some(stamps);
        self.remind();
        table
    }

    fn reload(&mut self, stamps: &Stamps) -> Option<Table> {
        let Gathered { good, broken } = gather::read(stamps.keys());
        for (path, error) in &broken {
            let kept = self.served.contains_key(path);
            tracing::warn!(
                file = %path.display(), %error, kept,
                "a certificate file cannot be used{}", if kept { "; what it held before stays" } else { "" }
            );
        }
        let kept = broken.keys().filter_map(|path| Some((path.clone(), self.served.get(path)?.clone())));
        let next: BTreeMap<_, _> = kept.collect::<BTreeMap<_, _>>().into_iter().chain(good).collect();
        if next.is_empty() {
            if !self.served.is_empty() {
                tracing::warn!(folder = %self.folder.display(), "no certificate is left; the last ones stay");
            }
            return None;
        }
        if same(&next, &self.served) {
            return None;
        }
        self.announce(&next, stamps);
        self.served = next;
        self.reminded = None;
        Some(Table::new(self.served.values().cloned().collect()))
    }

    fn announce(&self, next: &BTreeMap<PathBuf, Arc<Material>>, stamps: &Stamps) {
        for (path, material) in next {
            let names = material.names.join(" ");
            tracing::info!(file = %path.display(), %names, until = %material.not_after, "serving a certificate");
            if let Some(trouble) = material.trouble() {
                tracing::warn!(file = %path.display(), trouble, "clients may not be able to verify this certificate");
            }
        }
        for path in stamps.keys().filter(|path| storage::readable_by_others(path) && gather::holds_key(path))
        {
            tracing::warn!(file = %path.display(), "other users of this machine can read this key; `chmod 600` it");
        }
    }

    /// Logs certificates that have expired or soon will. They are served all the same: a client may
    /// still accept them.
    fn remind(&mut self) {
        let now = self.clock.now();
        if self.reminded.is_some_and(|last| now < last + REMIND_EVERY) {
            return;
        }
        self.reminded = Some(now);
        for (path, material) in &self.served {
            let (file, until) = (path.display(), material.not_after);
            if until <= now {
                tracing::warn!(%file, %until, "a certificate has expired; it is served, and clients refuse it");
            } else if until < now + REMIND_BEFORE {
                tracing::warn!(%file, %until, "a certificate expires soon; replace its file");
            } else if material.not_before > now {
                tracing::warn!(%file, from = %material.not_before, "a certificate is not valid yet");
            }
        }
    }

    fn stand_in(&self, hosts: &[HostName]) -> Result<Table, Error> {
        let now = self.clock.now();
        let names: Vec<String> = hosts.iter().map(|host| host.bare().to_owned()).collect();
        let pem = LocalCa::make(now)?.issue(&names, now)?;
        Ok(Table::new(vec![Arc::new(Material::from_pem(pem.as_bytes())?)]))
    }
}

/// Reads a folder: the certificates that could be served, and what is wrong with other files.
pub(super) fn look(folder: &Path) -> Gathered {
    gather::read(stamp::of(folder).keys())
}

fn same(a: &BTreeMap<PathBuf, Arc<Material>>, b: &BTreeMap<PathBuf, Arc<Material>>) -> bool {
    let alike = |(a, b): (&Arc<Material>, &Arc<Material>)| a.key.cert == b.key.cert;
    a.keys().eq(b.keys()) && a.values().zip(b.values()).all(alike)
}
