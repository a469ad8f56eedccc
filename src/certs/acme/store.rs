//! The files of the automatic mode in the certs folder. Each is private and replaced atomically:
//!
//! ```text
//! certs/lock                           held by the process; a second one refuses to start
//! certs/accounts/<ca>/account.json     the account's key
//! certs/sets/<name>/bundle.pem         key and chain in one file, so that they always match
//! certs/sets/<name>/bundle.prev.pem    the previous one
//! certs/sets/<name>/state.json         when to renew, failures, fruitless orders
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::file as disk;
use crate::certs::material::Material;
use crate::certs::schedule::Memory;
use crate::certs::{Error, storage};

const BUNDLE: &str = "bundle.pem";
const PREVIOUS: &str = "bundle.prev.pem";
const STATE: &str = "state.json";
const ACCOUNT: &str = "account.json";
const PROBE: &str = "probe";
/// In bytes; chains and states need a hundredth of it.
const LARGEST: u64 = 1 << 20;

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The name of the folder cannot hold every name.
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    memory: Memory,
}

/// Why nothing can be stored in a folder.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Another process uses it; its id, if known.
    Held(Option<u32>),
    Unwritable(io::Error),
}

/// The certs folder. Without the lock it is read-only.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    _lock: Option<File>,
}

/// What is stored about one certificate.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) material: Option<Arc<Material>>,
    pub(super) memory: Memory,
    /// Other users could read its key.
    pub(super) exposed: bool,
}

impl Store {
    /// Takes the folder for this process, after testing that a file written there can be read back.
    pub(super) fn open(folder: &Path) -> Result<Self, Unusable> {
        storage::private_folder(folder).map_err(Unusable::Unwritable)?;
        let lock = lock(&folder.join("lock"))?;
        probe(&folder.join(PROBE)).map_err(Unusable::Unwritable)?;
        Ok(Self { folder: folder.to_owned(), _lock: Some(lock) })
    }

    /// Opens the folder without the lock, to serve its certificates.
    pub(super) fn read_only(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _lock: None }
    }

    /// Loads the certificate for a name. Unusable files are set aside.
    pub(super) fn load(&self, name: &str, now: Timestamp) -> Loaded {
        let folder = self.set(name);
        let (bundle, state) = (folder.join(BUNDLE), folder.join(STATE));
        let exposed = storage::readable_by_others(&bundle);
        let material = read_bundle(&bundle, name).unwrap_or_else(|error| {
            set_aside(&bundle, &error, now);
            None
        });
        if exposed && let Err(error) = storage::private_file(&bundle) {
            tracing::warn!(file = %bundle.display(), %error, "the key cannot be closed to other users");
        }
        let kept = read_state(&state).unwrap_or_else(|error| {
            set_aside(&state, &error, now);
            None
        });
        let memory = kept.map_or_else(|| forgotten(&state), |kept| kept.memory);
        Loaded { material, memory, exposed }
    }

    /// Loads the certificates of all names without changing the folder. Unusable files are ignored.
    pub(super) fn look(&self) -> BTreeMap<String, Loaded> {
        let folders = fs::read_dir(self.folder.join("sets")).into_iter().flatten().flatten();
        folders.filter_map(|folder| look_into(&folder.path())).collect()
    }

    /// Stores a new key and chain, and keeps the previous ones beside them.
    pub(super) fn keep_bundle(&self, name: &str, pem: &str) -> Result<(), Error> {
        let folder = self.set(name);
        let path = folder.join(BUNDLE);
        let keep = || {
            storage::private_folder(&folder)?;
            match disk::read(&path, LARGEST) {
                Ok(before) => storage::replace(&folder.join(PREVIOUS), &before)?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into_io()),
            }
            storage::replace(&path, pem.as_bytes())
        };
        keep().map_err(|error: io::Error| unwritten(&path, &error))
    }

    pub(super) fn keep_memory(&self, name: &str, memory: &Memory) -> Result<(), Error> {
        let kept = Kept { name: name.to_owned(), memory: memory.clone() };
        let text = serde_json::to_vec_pretty(&kept).expect("plain data");
        self.keep(&self.set(name).join(STATE), &text)
    }

    /// Returns the account with a CA, as instant-acme serialized it.
    pub(super) fn account(&self, directory: &str) -> Option<String> {
        read_text(&self.ca(directory).join(ACCOUNT)).ok().flatten()
    }

    pub(super) fn keep_account(&self, directory: &str, account: &[u8]) -> Result<(), Error> {
        self.keep(&self.ca(directory).join(ACCOUNT), account)
    }

    /// Sets an account aside that the CA does not know or that cannot be parsed, so that a new one
    /// is opened.
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

/// Builds a file name that is readable and unique.
fn file_name(readable: &str, whole: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let readable: String = readable.chars().map(plain).take(100).collect();
    format!("{readable}-{}", &Digest::of(whole.as_bytes()).to_string()[..8])
}

/// Locks the folder. The kernel releases the lock when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, Unusable> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = opened.map_err(Unusable::Unwritable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The id of the process is for people only.
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
    let read = disk::read_own(path, TEXT.len() as u64).map_err(disk::Error::into_io)?;
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

fn look_into(folder: &Path) -> Option<(String, Loaded)> {
    let bundle = folder.join(BUNDLE);
    let kept = read_state(&folder.join(STATE)).ok().flatten();
    let pem = read_text(&bundle).ok().flatten();
    let material = pem.and_then(|pem| Material::from_pem(pem.as_bytes()).ok()).map(Arc::new);
    let of_bundle = material.as_ref().and_then(|material| material.names.first().cloned());
    let name = kept.as_ref().map(|kept| kept.name.clone()).filter(|name| !name.is_empty()).or(of_bundle)?;
    let memory = kept.map(|kept| kept.memory).unwrap_or_default();
    Some((name, Loaded { material, memory, exposed: storage::readable_by_others(&bundle) }))
}

fn read_bundle(path: &Path, name: &str) -> Result<Option<Arc<Material>>, Error> {
    read_text(path)?.map(|text| fitting(&text, name)).transpose()
}

fn read_state(path: &Path) -> Result<Option<Kept>, Error> {
    let text = read_text(path)?;
    let read = text.map(|text| serde_json::from_str(&text)).transpose();
    read.map_err(|error| Error(format!("it cannot be understood: {error}")))
}

/// Returns the memory to assume if `state.json` was lost: each loss counts as a fruitless order.
/// Otherwise a disk that loses the file at every crash would make a crash loop place orders without
/// end.
fn forgotten(state: &Path) -> Memory {
    let mut memory = Memory::default();
    storage::asides(state).into_iter().for_each(|at| memory.ordering(false, at));
    memory
}

/// Reads a file as text, with a limit on its size; `None` if there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, Error> {
    match disk::read_text(path, LARGEST) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error(error.to_string())),
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

    use proptest::prelude::*;

    use super::*;
    use crate::certs::local_ca::LocalCa;
    use crate::certs::schedule::{self, Held};

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
        let mut one_order = Memory::default();
        one_order.ordering(false, now());
        assert_eq!(loaded.memory, one_order, "what was lost is not counted");
        let names = fs::read_dir(store.set("a.test")).expect("a folder").flatten();
        assert_eq!(names.filter(|it| it.file_name().to_string_lossy().contains(".bad-")).count(), 2);
    }

    #[test]
    fn a_state_that_is_lost_again_and_again_orders_no_more_than_the_caps() {
        let folder = folder();
        let store = Store::open(folder.path()).expect("free");
        let mut orders = 0;
        for minute in 0..60 {
            let now = now() + std::time::Duration::from_secs(minute * 60);
            store.keep(&store.set("a.test").join(STATE), b"garbage").expect("kept");
            let mut memory = store.load("a.test", now).memory;
            memory.mend(now, 1);
            orders += usize::from(memory.may_order(now));
        }
        assert!((1..=5).contains(&orders), "{orders} orders in an hour");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_state_keeps_us_from_starting(garbage in garbage(), at in 0..10_000_usize) {
            let folder = folder();
            let store = Store::open(folder.path()).expect("free");
            store.keep_bundle("a.test", &bundle("a.test")).expect("kept");
            let path = store.set("a.test").join(STATE);
            let bytes = match garbage {
                Some(garbage) => garbage,
                None => {
                    let mut memory = Memory::default();
                    memory.ordering(false, now());
                    store.keep_memory("a.test", &memory).expect("kept");
                    let whole = fs::read(&path).expect("written");
                    whole[..at % whole.len()].to_vec()
                }
            };
            fs::write(&path, bytes).expect("written");
            let mut loaded = store.load("a.test", now());
            loaded.memory.mend(now(), 1);
            let material = loaded.material.expect("the certificate is another file");
            let held = Held { from: material.not_before, until: material.not_after };
            let next = schedule::next(Some(held), &loaded.memory, now());
            prop_assert!(next.at > now(), "a good certificate is ordered again: {next:?}");
            prop_assert!(store.look().contains_key("a.test"));
            let failure = schedule::Failure::new(schedule::Fault::Unreachable, "it failed");
            loaded.memory.failed(failure, Some(held), 1, now(), 0.5);
            store.keep_memory("a.test", &loaded.memory).expect("kept");
            prop_assert_eq!(store.load("a.test", now()).memory, loaded.memory);
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
