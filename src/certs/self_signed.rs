//! `--tls self-signed`: certificates of the local CA, for all wanted names.
//!
//! ```text
//! certs/local-ca.pem      the CA's certificate, for clients to trust
//! certs/local-ca.key      0600
//! certs/self-signed.pem   0600; key and chain in one file, so that they always match
//! ```
//!
//! If the folder cannot be written, the CA lives in memory and a warning is logged; the gateway
//! serves all the same.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::certificate_table::CertificateTable;
use super::local_ca::{LEAF_LIFETIME, LOOPBACK_NAMES, LocalCa};
use super::server_certificate::ServerCertificate;
use super::{Error, LOCAL_CA_FILE, key_files};
use crate::base::clock::Clock;
use crate::base::disk;
use crate::spec::HostName;

const CA_KEY_FILE: &str = "local-ca.key";
const LEAF_FILE: &str = "self-signed.pem";
/// Files of this mode, which `manual` ignores.
pub(super) const OWN_FILES: [&str; 3] = [LOCAL_CA_FILE, CA_KEY_FILE, LEAF_FILE];

/// The state of the mode: the CA once it is known, and the certificate served.
pub(super) struct SelfSigned {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    ca: Option<LocalCa>,
    served: Option<Arc<ServerCertificate>>,
}

impl std::fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelfSigned").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl SelfSigned {
    pub(super) fn new(folder: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { folder, clock, ca: None, served: None }
    }

    /// Returns the certificate in the folder if it is still good, else a new one.
    pub(super) fn initial_table(&mut self, hosts: &[HostName]) -> Result<CertificateTable, Error> {
        if let Err(error) = key_files::ensure_private_folder(&self.folder) {
            self.log_unwritable_folder(&error);
        }
        let names = wanted_names(hosts);
        let ca = self.load_or_generate_ca()?;
        let stored = self.load_leaf(&ca).filter(|leaf| self.is_still_usable(leaf, &names));
        self.ca = Some(ca);
        match stored {
            Some(leaf) => Ok(self.serve(leaf)),
            None => self.reissue(&names),
        }
    }

    /// Returns a new certificate if the names changed or the old one nears its end.
    pub(super) fn next_table(&mut self, hosts: &[HostName]) -> Option<CertificateTable> {
        let names = wanted_names(hosts);
        if self.served.as_ref().is_some_and(|leaf| self.is_still_usable(leaf, &names)) {
            return None;
        }
        match self.reissue(&names) {
            Ok(table) => Some(table),
            Err(error) => {
                tracing::error!(%error, "the local CA could not issue a certificate; the last one stays");
                None
            }
        }
    }

    fn reissue(&mut self, names: &[String]) -> Result<CertificateTable, Error> {
        let now = self.clock.now();
        if self.ca.as_ref().is_none_or(|ca| is_expired(ca, now)) {
            self.ca = Some(self.load_or_generate_ca()?);
        }
        let ca = self.ca.as_ref().expect("it was made in the line above if it was missing");
        let pem = ca.issue(names, now)?;
        let leaf = Arc::new(ServerCertificate::from_pem(pem.as_bytes())?);
        if let Err(error) = key_files::replace_file(&self.folder.join(LEAF_FILE), pem.as_bytes()) {
            self.log_unwritable_folder(&error);
        }
        tracing::info!(names = %names.join(" "), until = %leaf.not_after, "the local CA issued a certificate");
        Ok(self.serve(leaf))
    }

    fn serve(&mut self, leaf: Arc<ServerCertificate>) -> CertificateTable {
        self.served = Some(leaf.clone());
        CertificateTable::new(vec![leaf])
    }

    /// Returns whether a certificate has the right names and more than a third of its lifetime
    /// left. One from the future (the clock was set back) is of no use.
    fn is_still_usable(&self, leaf: &ServerCertificate, names: &[String]) -> bool {
        let now = self.clock.now();
        let in_time = leaf.not_before <= now && now < leaf.not_after - LEAF_LIFETIME / 3;
        let mut own = leaf.names.clone();
        own.sort();
        in_time && own == names
    }

    fn load_or_generate_ca(&self) -> Result<LocalCa, Error> {
        let now = self.clock.now();
        match self.load_ca() {
            Ok(Some(ca)) if !is_expired(&ca, now) => return Ok(ca),
            Ok(Some(_)) => self.set_aside(&[LOCAL_CA_FILE, CA_KEY_FILE], "the local CA has expired"),
            Ok(None) => {}
            Err(error) => self.set_aside(&[LOCAL_CA_FILE, CA_KEY_FILE], &error.to_string()),
        }
        let ca = LocalCa::generate(now)?;
        let path = self.folder.join(LOCAL_CA_FILE);
        match self.store_ca(&ca) {
            Ok(()) => {
                tracing::info!(file = %path.display(), "created a local CA; clients trust it with this file")
            }
            Err(error) => self.log_unwritable_folder(&error),
        }
        Ok(ca)
    }

    fn load_ca(&self) -> Result<Option<LocalCa>, Error> {
        let (certificate, key) = (self.folder.join(LOCAL_CA_FILE), self.folder.join(CA_KEY_FILE));
        let (certificate_pem, key_pem) = match (read_optional(&certificate)?, read_optional(&key)?) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(Error(format!("{CA_KEY_FILE} is missing"))),
            (None, Some(_)) => return Err(Error(format!("{LOCAL_CA_FILE} is missing"))),
            (Some(certificate), Some(key)) => (certificate, key),
        };
        if let Err(error) = key_files::restrict_to_owner(&key) {
            tracing::warn!(file = %key.display(), %error, "the local CA's key cannot be protected from other users");
        }
        LocalCa::from_pem(&certificate_pem, &key_pem).map(Some)
    }

    /// Stores the key first: a certificate without a key would look like damage.
    fn store_ca(&self, ca: &LocalCa) -> io::Result<()> {
        key_files::replace_file(&self.folder.join(CA_KEY_FILE), ca.key_pem().as_bytes())?;
        key_files::replace_file(&self.folder.join(LOCAL_CA_FILE), ca.certificate_pem().as_bytes())
    }

    /// Loads the certificate in the folder, if this CA issued it.
    fn load_leaf(&self, ca: &LocalCa) -> Option<Arc<ServerCertificate>> {
        let path = self.folder.join(LEAF_FILE);
        let pem = read_optional(&path).ok()??;
        if !pem.ends_with(ca.certificate_pem()) {
            return None;
        }
        if let Err(error) = key_files::restrict_to_owner(&path) {
            tracing::warn!(file = %path.display(), %error, "the key cannot be protected from other users");
        }
        let leaf = ServerCertificate::from_pem(pem.as_bytes());
        leaf.inspect_err(|error| self.set_aside(&[LEAF_FILE], &error.to_string())).ok().map(Arc::new)
    }

    fn set_aside(&self, files: &[&str], why: &str) {
        for path in files.iter().map(|file| self.folder.join(file)).filter(|path| path.exists()) {
            match key_files::set_aside(&path, self.clock.now()) {
                Ok(aside) => tracing::warn!(
                    file = %path.display(), aside = %aside.display(), why,
                    "a certificate file cannot be used; it was renamed and is created again"
                ),
                Err(error) => self.log_unwritable_folder(&error),
            }
        }
    }

    fn log_unwritable_folder(&self, error: &io::Error) {
        tracing::warn!(
            folder = %self.folder.display(), %error,
            "the certs folder cannot be written: certificates last only until the next start; give the \
             folder to the user of this process, or give another folder with --certs"
        );
    }
}

/// Reads the certificate in a folder, if there is one.
pub(super) fn load_leaf_from(folder: &Path) -> Option<Arc<ServerCertificate>> {
    let pem = read_optional(&folder.join(LEAF_FILE)).ok()??;
    ServerCertificate::from_pem(pem.as_bytes()).ok().map(Arc::new)
}

fn is_expired(ca: &LocalCa, now: Timestamp) -> bool {
    ca.not_after() <= now
}

/// Returns the names that the certificate must have: the wanted names and the loopback names,
/// sorted and without duplicates.
fn wanted_names(hosts: &[HostName]) -> Vec<String> {
    let hosts = hosts.iter().map(|host| host.without_brackets().to_owned());
    let mut names: Vec<String> = hosts.chain(LOOPBACK_NAMES.map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

/// Reads a file as text; `None` if there is no such file.
fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    match disk::read_text(path, key_files::MAX_FILE_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error(format!("{}: {error}", path.display()))),
    }
}
