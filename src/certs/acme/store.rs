//! What the automatic mode keeps in the certs folder, each file private and replaced in one step:
//!
//! ```text
//! certs/lock                           held for the life of the process; a second process refuses to start
//! certs/accounts/<ca>/account.json     the account's key
//! certs/sets/<name>/bundle.pem         key and chain in one file, so that they cannot come apart
//! certs/sets/<name>/bundle.prev.pem    the one before
//! certs/sets/<name>/state.json         when to renew, failures, orders that led to nothing
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::base::digest::Digest;
use crate::certs::material::Material;
use crate::certs::schedule::Memory;
use crate::certs::{Error, storage};

const BUNDLE: &str = "bundle.pem";
const PREVIOUS: &str = "bundle.prev.pem";
const STATE: &str = "state.json";
const ACCOUNT: &str = "account.json";
const PROBE: &str = "probe";

/// Why a folder cannot be kept things in.
#[derive(Debug)]
pub(super) enum Unusable {
    /// By another process, whose id this is if it is known.
    Held(Option<u32>),
    Unwritable(io::Error),
}

/// The certs folder. Without the lock it is only read.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    _lock: Option<File>,
}

/// What was found of one certificate.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) material: Option<Arc<Material>>,
    pub(super) memory: Memory,
    /// Others could read its key.
    pub(super) exposed: bool,
}

impl Store {
    /// Takes the folder for this process, having proved that what is written into it can be read back.
    pub(super) fn open(folder: &Path) -> Result<Self, Unusable> {
        storage::private_folder(folder).map_err(Unusable::Unwritable)?;
        let lock = lock(&folder.join("lock"))?;
        probe(&folder.join(PROBE)).map_err(Unusable::Unwritable)?;
        Ok(Self { folder: folder.to_owned(), _lock: Some(lock) })
    }

    /// The folder as it is, to serve what is in it.
    pub(super) fn read_only(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _lock: None }
    }

    /// What is known of the certificate for a name. What cannot be used is set aside.
    pub(super) fn load(&self, name: &str, now: Timestamp) -> Loaded {
        let folder = self.set(name);
        let bundle = folder.join(BUNDLE);
        let exposed = storage::readable_by_others(&bundle);
        let mut loaded = Loaded { exposed, ..Loaded::default() };
        match read_text(&bundle).and_then(|text| text.map(|text| fitting(&text, name)).transpose()) {
            Ok(material) => loaded.material = material,
            Err(error) => set_aside(&bundle, &error, now),
        }
        if exposed && let Err(error) = storage::private_file(&bundle) {
            tracing::warn!(file = %bundle.display(), %error, "the key cannot be closed to other users");
        }
        let state = folder.join(STATE);
        let memory = read_text(&state).and_then(|text| text.map(|text| memory(&text)).transpose());
        match memory {
            Ok(memory) => loaded.memory = memory.unwrap_or_default(),
            Err(error) => set_aside(&state, &error, now),
        }
        loaded
    }

    /// Keeps a new key and chain; what was there before stays beside them.
    pub(super) fn keep_bundle(&self, name: &str, pem: &str) -> Result<(), Error> {
        let folder = self.set(name);
        let path = folder.join(BUNDLE);
        let keep = || {
            storage::private_folder(&folder)?;
            match fs::read(&path) {
                Ok(before) => storage::replace(&folder.join(PREVIOUS), &before)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            storage::replace(&path, pem.as_bytes())
        };
        keep().map_err(|error: io::Error| unwritten(&path, &error))
    }

    pub(super) fn keep_memory(&self, name: &str, memory: &Memory) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(memory).expect("plain data");
        self.keep(&self.set(name).join(STATE), &text)
    }

    /// The account with a CA, as instant-acme wrote it down.
    pub(super) fn account(&self, directory: &str) -> Option<String> {
        read_text(&self.ca(directory).join(ACCOUNT)).ok().flatten()
    }

    pub(super) fn keep_account(&self, directory: &str, account: &[u8]) -> Result<(), Error> {
        self.keep(&self.ca(directory).join(ACCOUNT), account)
    }

    /// An account that the CA doesn't know or that cannot be read makes way for a new one.
    pub(super) fn drop_account(&self, directory: &str, why: &str, now: Timestamp) {
        set_aside(&self.ca(directory).join(ACCOUNT), &Error(why.to_owned()), now);
    }

    fn keep(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let folder = path.parent().unwrap_or(&self.folder);
        let kept = storage::private_folder(folder).and_then(|()| storage::replace(path, bytes));
        kept.map_err(|error| unwritten(path, &error))
    }

    fn set(&self, name: &str) -> PathBuf {
        self.folder.join("sets").join(file_name(name, name))
    }

    fn ca(&self, directory: &str) -> PathBuf {
        let host = url::Url::parse(directory).ok().and_then(|url| url.host_str().map(str::to_owned));
        self.folder.join("accounts").join(file_name(&host.unwrap_or_default(), directory))
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(pid) => {
                let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                write!(
                    f,
                    "another gateway{pid} uses the certs folder; end it, or give this one another with --certs"
                )
            }
            Self::Unwritable(error) => write!(
                f,
                "the certs folder cannot be written ({error}), so no certificate is asked for: it would be lost with the \
                 next restart. Make it a folder that this process owns, or give another with --certs"
            ),
        }
    }
}

/// Readable, and unlike any other's.
fn file_name(readable: &str, whole: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let readable: String = readable.chars().map(plain).take(100).collect();
    format!("{readable}-{}", &Digest::of(whole.as_bytes()).to_string()[..8])
}

/// The kernel lets it go when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, Unusable> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = opened.map_err(Unusable::Unwritable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Who holds it is a courtesy.
            _ = file.read_to_string(&mut pid);
            return Err(Unusable::Held(pid.trim().parse().ok()));
        }
        Err(TryLockError::Error(error)) => return Err(Unusable::Unwritable(error)),
    }
    let write_pid = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write_pid.map_err(Unusable::Unwritable)?;
    Ok(file)
}

fn probe(path: &Path) -> io::Result<()> {
    const TEXT: &[u8] = b"can be written";
    storage::replace(path, TEXT)?;
    let read = fs::read(path)?;
    fs::remove_file(path)?;
    match read == TEXT {
        true => Ok(()),
        false => Err(io::Error::other("what was written does not come back")),
    }
}

fn fitting(pem: &str, name: &str) -> Result<Arc<Material>, Error> {
    let material = Material::from_pem(pem.as_bytes())?;
    match material.covers(name) {
        true => Ok(Arc::new(material)),
        false => Err(Error(format!("its certificate is for {}, not {name}", material.names.join(" ")))),
    }
}

fn memory(text: &str) -> Result<Memory, Error> {
    serde_json::from_str(text).map_err(|error| Error(format!("it cannot be understood: {error}")))
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error(format!("it cannot be read: {error}"))),
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Error {
    Error(format!("{} cannot be written: {error}", path.display()))
}

fn set_aside(path: &Path, why: &Error, now: Timestamp) {
    if !path.exists() {
        return;
    }
    match storage::set_aside(path, now) {
        Ok(aside) => tracing::warn!(
            file = %path.display(), aside = %aside.display(), %why,
            "a file of the certs folder cannot be used; it was set aside and is made anew"
        ),
        Err(error) => {
            tracing::warn!(file = %path.display(), %why, %error, "a file of the certs folder cannot be used")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::certs::local_ca::LocalCa;

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().expect("a time")
    }

    fn bundle(name: &str) -> String {
        let ca = LocalCa::make(now()).expect("a CA");
        ca.issue(&[name.to_owned()], now()).expect("a certificate")
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_second_process_is_refused_and_told_who_holds_the_folder() {
        let folder = folder();
        let first = Store::open(folder.path()).expect("free");
        let refused = Store::open(folder.path()).expect_err("it is held").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Store::open(folder.path()).expect("free again");
    }

    #[test]
    fn bundles_are_private_and_the_one_before_is_kept() {
        let folder = folder();
        let store = Store::open(folder.path()).expect("free");
        let (first, second) = (bundle("a.test"), bundle("a.test"));
        store.keep_bundle("a.test", &first).expect("kept");
        store.keep_bundle("a.test", &second).expect("kept");
        let set = store.set("a.test");
        assert_eq!(fs::read_to_string(set.join(BUNDLE)).expect("there"), second);
        assert_eq!(fs::read_to_string(set.join(PREVIOUS)).expect("there"), first);
        for (path, mode) in [(set.clone(), 0o700), (set.join(BUNDLE), 0o600), (set.join(PREVIOUS), 0o600)] {
            let found = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}", path.display());
        }
        let loaded = store.load("a.test", now());
        assert!(loaded.material.is_some() && !loaded.exposed);
    }

    #[test]
    fn what_cannot_be_used_is_set_aside() {
        let folder = folder();
        let store = Store::open(folder.path()).expect("free");
        store.keep_bundle("a.test", &bundle("b.test")).expect("kept");
        store.keep(&store.set("a.test").join(STATE), b"{ not JSON").expect("kept");
        let loaded = store.load("a.test", now());
        assert!(loaded.material.is_none());
        assert_eq!(loaded.memory, Memory::default());
        let names = fs::read_dir(store.set("a.test")).expect("a folder").flatten();
        assert_eq!(names.filter(|it| it.file_name().to_string_lossy().contains(".bad-")).count(), 2);
    }

    #[test]
    fn a_key_that_others_could_read_is_closed_and_told() {
        let folder = folder();
        let store = Store::open(folder.path()).expect("free");
        store.keep_bundle("a.test", &bundle("a.test")).expect("kept");
        let path = store.set("a.test").join(BUNDLE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(store.load("a.test", now()).exposed);
        assert!(!store.load("a.test", now()).exposed);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said_so() {
        let folder = folder();
        let file = folder.path().join("certs");
        fs::write(&file, "not a folder").expect("written");
        let refused = Store::open(&file).expect_err("it is a file").to_string();
        assert!(refused.contains("--certs"), "{refused}");
    }
}
