//! The files of the automatic mode in the certs folder. Each is private and replaced atomically:
//!
//! ```text
//! certs/lock                           held by the process; a second one refuses to start
//! certs/accounts/<ca>/account.json     the account's key
//! certs/sets/<name>/bundle.pem         key and chain in one file, so that they always match
//! certs/sets/<name>/bundle.prev.pem    the previous one
//! certs/sets/<name>/state.json         when to renew, failures, failed orders
//! ```

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::disk;
use crate::base::process_lock::{self, ProcessLock};
use crate::certs::schedule::RenewalState;
use crate::certs::server_certificate::ServerCertificate;
use crate::certs::{Error, key_files};

const BUNDLE_FILE: &str = "bundle.pem";
const PREVIOUS_BUNDLE_FILE: &str = "bundle.prev.pem";
const STATE_FILE: &str = "state.json";
const ACCOUNT_FILE: &str = "account.json";
const PROBE_FILE: &str = "probe";
/// In bytes; chains and states need a hundredth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    /// The name of the folder cannot hold every name.
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    renewal: RenewalState,
}

/// Why nothing can be stored in a folder.
#[derive(Debug)]
pub(super) enum CertsFolderError {
    /// Another process uses it; its id, if known.
    InUse(Option<u32>),
    Unwritable(io::Error),
}

/// The certs folder. Without the lock it is read-only.
#[derive(Debug)]
pub(super) struct CertsFolder {
    path: PathBuf,
    _lock: Option<ProcessLock>,
}

/// What is stored about one certificate.
#[derive(Debug, Default)]
pub(super) struct LoadedCertificate {
    pub(super) certificate: Option<Arc<ServerCertificate>>,
    pub(super) renewal: RenewalState,
    /// Other users could read its key.
    pub(super) is_key_exposed: bool,
}

impl CertsFolder {
    /// Takes the folder for this process, after testing that a file written there can be read back.
    pub(super) fn open(folder: &Path) -> Result<Self, CertsFolderError> {
        key_files::ensure_private_folder(folder).map_err(CertsFolderError::Unwritable)?;
        let lock = acquire_lock(&folder.join("lock"))?;
        check_writable(&folder.join(PROBE_FILE)).map_err(CertsFolderError::Unwritable)?;
        Ok(Self { path: folder.to_owned(), _lock: Some(lock) })
    }

    /// Opens the folder without the lock, to serve its certificates.
    pub(super) fn read_only(folder: &Path) -> Self {
        Self { path: folder.to_owned(), _lock: None }
    }

    /// Loads the certificate for a name. Unusable files are set aside.
    pub(super) fn load(&self, name: &str, now: Timestamp) -> LoadedCertificate {
        let folder = self.certificate_path(name);
        let (bundle, state) = (folder.join(BUNDLE_FILE), folder.join(STATE_FILE));
        let exposed = key_files::is_readable_by_others(&bundle);
        let certificate = read_bundle(&bundle, name).unwrap_or_else(|error| {
            set_aside(&bundle, &error, now);
            None
        });
        if exposed && let Err(error) = key_files::restrict_to_owner(&bundle) {
            tracing::warn!(file = %bundle.display(), %error, "the key cannot be protected from other users");
        }
        let kept = read_state(&state).unwrap_or_else(|error| {
            set_aside(&state, &error, now);
            None
        });
        let renewal = kept.map_or_else(|| state_after_loss(&state), |kept| kept.renewal);
        LoadedCertificate { certificate, renewal, is_key_exposed: exposed }
    }

    /// Returns key and chain of a name as PEM.
    pub(super) fn read_pem(&self, name: &str) -> Option<String> {
        read_text(&self.certificate_path(name).join(BUNDLE_FILE)).ok().flatten()
    }

    /// Loads the certificates of all names without changing the folder. Unusable files are ignored.
    pub(super) fn scan(&self) -> BTreeMap<String, LoadedCertificate> {
        let folders = fs::read_dir(self.path.join("sets")).into_iter().flatten().flatten();
        folders.filter_map(|folder| scan_certificate(&folder.path())).collect()
    }

    /// Stores a new key and chain, and keeps the previous ones beside them.
    pub(super) fn persist_bundle(&self, name: &str, pem: &str) -> Result<(), Error> {
        let folder = self.certificate_path(name);
        let path = folder.join(BUNDLE_FILE);
        let keep = || {
            key_files::ensure_private_folder(&folder)?;
            match disk::read(&path, MAX_FILE_BYTES) {
                Ok(before) => key_files::replace_file(&folder.join(PREVIOUS_BUNDLE_FILE), &before)?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into_io()),
            }
            key_files::replace_file(&path, pem.as_bytes())
        };
        keep().map_err(|error: io::Error| write_error(&path, &error))
    }

    pub(super) fn persist_renewal_state(&self, name: &str, renewal: &RenewalState) -> Result<(), Error> {
        let kept = StateFile { name: name.to_owned(), renewal: renewal.clone() };
        let text = serde_json::to_vec_pretty(&kept).expect("plain data");
        self.write_file(&self.certificate_path(name).join(STATE_FILE), &text)
    }

    /// Returns the account with a CA, as instant-acme serialized it.
    pub(super) fn load_account(&self, directory: &str) -> Option<String> {
        read_text(&self.account_path(directory).join(ACCOUNT_FILE)).ok().flatten()
    }

    pub(super) fn persist_account(&self, directory: &str, account: &[u8]) -> Result<(), Error> {
        self.write_file(&self.account_path(directory).join(ACCOUNT_FILE), account)
    }

    /// Sets an account aside that the CA does not know or that cannot be parsed, so that a new one
    /// is opened.
    pub(super) fn set_account_aside(&self, directory: &str, why: &str, now: Timestamp) {
        set_aside(&self.account_path(directory).join(ACCOUNT_FILE), &Error(why.to_owned()), now);
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let folder = path.parent().unwrap_or(&self.path);
        let kept =
            key_files::ensure_private_folder(folder).and_then(|()| key_files::replace_file(path, bytes));
        kept.map_err(|error| write_error(path, &error))
    }

    fn certificate_path(&self, name: &str) -> PathBuf {
        self.path.join("sets").join(unique_file_name(name, name))
    }

    fn account_path(&self, directory: &str) -> PathBuf {
        let host = url::Url::parse(directory).ok().and_then(|url| url.host_str().map(str::to_owned));
        self.path.join("accounts").join(unique_file_name(&host.unwrap_or_default(), directory))
    }
}

impl std::fmt::Display for CertsFolderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(pid) => {
                let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                write!(
                    f,
                    "another gateway{pid} uses the certs folder; stop it, or give this one another folder \
                     with --certs"
                )
            }
            Self::Unwritable(error) => write!(
                f,
                "the certs folder cannot be written ({error}), so no certificate is ordered: it would be \
                 lost with the next restart. Give the folder to the user of this process, or give another \
                 folder with --certs"
            ),
        }
    }
}

/// Builds a file name that is readable and unique.
fn unique_file_name(readable: &str, whole: &str) -> String {
    let mut readable = key_files::sanitize_name(readable);
    readable.truncate(100);
    format!("{readable}-{}", &Digest::of(whole.as_bytes()).to_string()[..8])
}

/// Locks the folder for this process.
fn acquire_lock(path: &Path) -> Result<ProcessLock, CertsFolderError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(CertsFolderError::Unwritable)?;
    let mut lock = ProcessLock::acquire(file).map_err(|error| match error {
        process_lock::Error::Held(pid) => CertsFolderError::InUse(pid),
        process_lock::Error::Io(error) => CertsFolderError::Unwritable(error),
    })?;
    lock.write_pid().map_err(CertsFolderError::Unwritable)?;
    Ok(lock)
}

fn check_writable(path: &Path) -> io::Result<()> {
    const TEXT: &[u8] = b"can be written";
    key_files::replace_file(path, TEXT)?;
    let read = disk::read_no_follow(path, TEXT.len() as u64).map_err(disk::Error::into_io)?;
    fs::remove_file(path)?;
    match read == TEXT {
        true => Ok(()),
        false => Err(io::Error::other("a test file cannot be read back")),
    }
}

/// Parses a key and chain for a name.
pub(super) fn parse_bundle_for(pem: &str, name: &str) -> Result<Arc<ServerCertificate>, Error> {
    let certificate = ServerCertificate::from_pem(pem.as_bytes())?;
    match certificate.covers(name) {
        true => Ok(Arc::new(certificate)),
        false => Err(Error(format!("its certificate is for {}, not {name}", certificate.names.join(" ")))),
    }
}

fn scan_certificate(folder: &Path) -> Option<(String, LoadedCertificate)> {
    let bundle = folder.join(BUNDLE_FILE);
    let kept = read_state(&folder.join(STATE_FILE)).ok().flatten();
    let pem = read_text(&bundle).ok().flatten();
    let certificate = pem.and_then(|pem| ServerCertificate::from_pem(pem.as_bytes()).ok()).map(Arc::new);
    let of_bundle = certificate.as_ref().and_then(|certificate| certificate.names.first().cloned());
    let name = kept.as_ref().map(|kept| kept.name.clone()).filter(|name| !name.is_empty()).or(of_bundle)?;
    let renewal = kept.map(|kept| kept.renewal).unwrap_or_default();
    Some((
        name,
        LoadedCertificate { certificate, renewal, is_key_exposed: key_files::is_readable_by_others(&bundle) },
    ))
}

fn read_bundle(path: &Path, name: &str) -> Result<Option<Arc<ServerCertificate>>, Error> {
    read_text(path)?.map(|text| parse_bundle_for(&text, name)).transpose()
}

fn read_state(path: &Path) -> Result<Option<StateFile>, Error> {
    let text = read_text(path)?;
    let read = text.map(|text| serde_json::from_str(&text)).transpose();
    read.map_err(|error| Error(format!("it cannot be parsed: {error}")))
}

/// Returns the state to assume if `state.json` was lost: each loss counts as a failed order.
/// Otherwise a disk that loses the file at every crash would make a crash loop place orders without
/// end.
fn state_after_loss(state: &Path) -> RenewalState {
    let mut renewal = RenewalState::default();
    key_files::set_aside_times(state).into_iter().for_each(|at| renewal.count_order(false, at));
    renewal
}

/// Reads a file as text, with a limit on its size; `None` if there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, Error> {
    match disk::read_text(path, MAX_FILE_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error(error.to_string())),
    }
}

fn write_error(path: &Path, error: &io::Error) -> Error {
    Error(format!("{} cannot be written: {error}", path.display()))
}

fn set_aside(path: &Path, why: &Error, now: Timestamp) {
    if !path.exists() {
        return;
    }
    match key_files::set_aside(path, now) {
        Ok(aside) => tracing::warn!(
            file = %path.display(), aside = %aside.display(), %why,
            "a file of the certs folder cannot be used; it was renamed and is created again"
        ),
        Err(error) => {
            tracing::warn!(file = %path.display(), %why, %error, "a file of the certs folder cannot be used")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::certs::local_ca::LocalCa;
    use crate::certs::schedule::{self, CertificateLifetime};

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().expect("a time")
    }

    fn bundle(name: &str) -> String {
        let ca = LocalCa::generate(now()).expect("a CA");
        ca.issue(&[name.to_owned()], now()).expect("a certificate")
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_second_process_is_refused_and_told_who_holds_the_folder() {
        let folder = folder();
        let first = CertsFolder::open(folder.path()).expect("free");
        let refused = CertsFolder::open(folder.path()).expect_err("it is held").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        CertsFolder::open(folder.path()).expect("free again");
    }

    #[test]
    fn bundles_are_private_and_the_one_before_is_kept() {
        let folder = folder();
        let store = CertsFolder::open(folder.path()).expect("free");
        let (first, second) = (bundle("a.test"), bundle("a.test"));
        store.persist_bundle("a.test", &first).expect("kept");
        store.persist_bundle("a.test", &second).expect("kept");
        let folder = store.certificate_path("a.test");
        assert_eq!(fs::read_to_string(folder.join(BUNDLE_FILE)).expect("there"), second);
        assert_eq!(fs::read_to_string(folder.join(PREVIOUS_BUNDLE_FILE)).expect("there"), first);
        for (path, mode) in [
            (folder.clone(), 0o700),
            (folder.join(BUNDLE_FILE), 0o600),
            (folder.join(PREVIOUS_BUNDLE_FILE), 0o600),
        ] {
            let found = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}", path.display());
        }
        let loaded = store.load("a.test", now());
        assert!(loaded.certificate.is_some() && !loaded.is_key_exposed);
    }

    #[test]
    fn unusable_files_are_set_aside() {
        let folder = folder();
        let store = CertsFolder::open(folder.path()).expect("free");
        store.persist_bundle("a.test", &bundle("b.test")).expect("kept");
        store.write_file(&store.certificate_path("a.test").join(STATE_FILE), b"{ not JSON").expect("kept");
        let loaded = store.load("a.test", now());
        assert!(loaded.certificate.is_none());
        let mut one_order = RenewalState::default();
        one_order.count_order(false, now());
        assert_eq!(loaded.renewal, one_order, "what was lost is not counted");
        let names = fs::read_dir(store.certificate_path("a.test")).expect("a folder").flatten();
        assert_eq!(names.filter(|it| it.file_name().to_string_lossy().contains(".bad-")).count(), 2);
    }

    #[test]
    fn a_state_that_is_lost_again_and_again_orders_no_more_than_the_caps() {
        let folder = folder();
        let store = CertsFolder::open(folder.path()).expect("free");
        let mut orders = 0;
        for minute in 0..60 {
            let now = now() + std::time::Duration::from_secs(minute * 60);
            store.write_file(&store.certificate_path("a.test").join(STATE_FILE), b"garbage").expect("kept");
            let mut renewal = store.load("a.test", now).renewal;
            renewal.repair(now, 1);
            orders += usize::from(renewal.is_order_allowed(now));
        }
        assert!((1..=5).contains(&orders), "{orders} orders in an hour");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_state_file_prevents_a_start(garbage in garbage(), at in 0..10_000_usize) {
            let folder = folder();
            let store = CertsFolder::open(folder.path()).expect("free");
            store.persist_bundle("a.test", &bundle("a.test")).expect("kept");
            let path = store.certificate_path("a.test").join(STATE_FILE);
            let bytes = match garbage {
                Some(garbage) => garbage,
                None => {
                    let mut renewal = RenewalState::default();
                    renewal.count_order(false, now());
                    store.persist_renewal_state("a.test", &renewal).expect("kept");
                    let whole = fs::read(&path).expect("written");
                    whole[..at % whole.len()].to_vec()
                }
            };
            fs::write(&path, bytes).expect("written");
            let mut loaded = store.load("a.test", now());
            loaded.renewal.repair(now(), 1);
            let certificate = loaded.certificate.expect("the certificate is another file");
            let held = CertificateLifetime { not_before: certificate.not_before, not_after: certificate.not_after };
            let next = schedule::next_step(Some(held), &loaded.renewal, now());
            prop_assert!(next.at > now(), "a good certificate is ordered again: {next:?}");
            prop_assert!(store.scan().contains_key("a.test"));
            let failure = schedule::IssuanceFailure::new(schedule::FailureKind::Unreachable, "it failed");
            loaded.renewal.apply_failure(failure, Some(held), 1, now(), 0.5);
            store.persist_renewal_state("a.test", &loaded.renewal).expect("kept");
            prop_assert_eq!(store.load("a.test", now()).renewal, loaded.renewal);
        }
    }

    /// Arbitrary bytes, documents of other versions and oversized ones; `None` stands for a
    /// truncated file.
    fn garbage() -> impl Strategy<Value = Option<Vec<u8>>> {
        let document = |text: &'static str| Just(Some(text.as_bytes().to_vec()));
        prop_oneof![
            Just(None),
            proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Some),
            document("[]"),
            document("null"),
            document("{\"failures\": -1}"),
            document("{\"version\": 7, \"renewal\": {\"at\": \"soon\"}}"),
            document("{\"ca\": 18446744073709551615, \"ca_failures\": 4294967295}"),
            document("{\"fruitless\": [\"9999-12-30T00:00:00Z\"], \"not_before\": \"9999-12-30T00:00:00Z\"}"),
            document(
                "{\"window\": {\"start\": \"-009999-01-02T01:59:59Z\", \"end\": \"9999-12-30T00:00:00Z\"}}"
            ),
            Just(Some(vec![b' '; 2 << 20])),
            Just(Some("[".repeat(100_000).into_bytes())),
        ]
    }

    #[test]
    fn an_exposed_key_is_protected_and_reported() {
        let folder = folder();
        let store = CertsFolder::open(folder.path()).expect("free");
        store.persist_bundle("a.test", &bundle("a.test")).expect("kept");
        let path = store.certificate_path("a.test").join(BUNDLE_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(store.load("a.test", now()).is_key_exposed);
        assert!(!store.load("a.test", now()).is_key_exposed);
    }

    #[test]
    fn an_unwritable_folder_is_reported() {
        let folder = folder();
        let file = folder.path().join("certs");
        fs::write(&file, "not a folder").expect("written");
        let refused = CertsFolder::open(&file).expect_err("it is a file").to_string();
        assert!(refused.contains("--certs"), "{refused}");
    }
}
