//! The keyring: the master keys, which seal what leaves the process. It needs no database.
//!
//! The master key is created at the first start, or provided by the operator as a file or variable.
//! A key for every tenant and purpose is derived from it.
//!
//! The text has one key of 64 hexadecimal digits on each line. The first line seals, the others
//! only open; to replace a key, put a new line in front of the old one.

mod master_key;
mod seal;

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use self::master_key::MasterKey;
pub use self::seal::SealContext;
use self::seal::SealedValue;
use crate::base::secret::Secret;
use crate::base::{disk, random};

const MASTER_KEY_FILE: &str = "master.key";
/// Enough for many keys, in bytes; a larger file is the wrong file.
const MAX_KEY_FILE_BYTES: u64 = 4096;
const MAKE: &str = "create one with: openssl rand -hex 32";

/// The source of the master key.
#[derive(Debug, Clone, Default)]
pub enum KeySource {
    /// `<state>/master.key`, created at the first start.
    #[default]
    State,
    /// A file that the operator provides.
    File(PathBuf),
    /// The text of the variable `TENANTD_MASTER_KEY`.
    Variable(Secret),
}

/// The reasons why there is no usable master key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "other users can read the master key {} (mode {mode:04o}); protect it with: chmod 600 {}", path.display(), path.display()
    )]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("the master key {} cannot be read: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(
        "the master key {} is missing, and the store is encrypted with it; restore the key from your backup. \
         To start with an empty store, move tenantd.db and its -wal away", .0.display()
    )]
    Missing(PathBuf),
    #[error("the master key {} cannot be created: {cause}", path.display())]
    Make { path: PathBuf, cause: io::Error },
    #[error("{origin} contains no master key: a key is one line of 64 hexadecimal digits; {MAKE}")]
    Malformed { origin: String },
    #[error(
        "the master key does not fit the store, which is encrypted with another key; restore that key, as a \
         second line if you have changed it"
    )]
    DoesNotFit,
}

/// The master keys; the first one seals.
pub struct Keyring(Vec<MasterKey>);

impl Keyring {
    /// Loads the keys. Creates one in the state folder if the operator provides none and the store
    /// `is_new`.
    pub(super) fn load(folder: &Path, source: &KeySource, is_new: bool) -> Result<Self, Error> {
        match source {
            KeySource::Variable(text) => Self::parse(text.expose(), "TENANTD_MASTER_KEY".to_owned()),
            KeySource::File(path) => Self::read(path, true),
            KeySource::State => {
                let path = folder.join(MASTER_KEY_FILE);
                match path.exists() {
                    true => Self::read(&path, false),
                    false if is_new => create_key_file(&path).and_then(|()| Self::read(&path, false)),
                    false => Err(Error::Missing(path)),
                }
            }
        }
    }

    fn read(path: &Path, is_brought: bool) -> Result<Self, Error> {
        let failed = |cause| Error::Read { path: path.to_owned(), cause };
        let (file, about) = disk::open(path).map_err(|error| failed(error.into_io()))?;
        let is_reclaimed = !is_brought && is_opened_by_kubelet(&about) && reclaim(path);
        if !is_reclaimed && is_open_to_others(&about, is_brought) {
            return Err(Error::OpenToOthers { path: path.to_owned(), mode: about.mode() & 0o7777 });
        }
        let bytes = disk::read_contents(&file, &about, MAX_KEY_FILE_BYTES)
            .map_err(|error| failed(error.into_io()))?;
        let origin = path.display().to_string();
        let Ok(text) = String::from_utf8(bytes) else { return Err(Error::Malformed { origin }) };
        Self::parse(Secret::new(text).expose(), origin)
    }

    fn parse(text: &str, origin: String) -> Result<Self, Error> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<_>> = lines.map(MasterKey::parse).collect();
        let keys = keys.filter(|keys| !keys.is_empty());
        keys.map(Self).ok_or(Error::Malformed { origin })
    }

    /// Seals a value for its place; it does not open anywhere else.
    pub fn seal(&self, context: &SealContext<'_>, value: &[u8]) -> Vec<u8> {
        self.seal_row::<&[u8]>(context, &[], value)
    }

    /// Seals a value for its place and for the clear columns beside it: it opens only with exactly
    /// those.
    pub(super) fn seal_row<C: AsRef<[u8]>>(
        &self,
        context: &SealContext<'_>,
        clear: &[C],
        value: &[u8],
    ) -> Vec<u8> {
        let key = &self.0[0];
        seal::seal(key.id, &key.derive_key(&[context.purpose, context.tenant]), &context.aad(clear), value)
    }

    /// Opens the value of a place. Returns `None` if it was sealed with a key that is not in the
    /// keyring or for another place, or was changed.
    pub fn open(&self, context: &SealContext<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_row::<&[u8]>(context, &[], sealed)
    }

    /// Opens the value of a place, if the clear columns beside it are those it was sealed with.
    pub(super) fn open_row<C: AsRef<[u8]>>(
        &self,
        context: &SealContext<'_>,
        clear: &[C],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let sealed = SealedValue::parse(sealed)?;
        let key = self.0.iter().find(|key| key.id == sealed.key_id)?;
        sealed.open(&key.derive_key(&[context.purpose, context.tenant]), &context.aad(clear))
    }

    /// Returns whether a value was sealed with the key that seals now.
    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        seal::key_id(sealed) == Some(&self.0[0].id[..])
    }

    /// Returns the keys for values that a tenant derives instead of storing. Derive new values from
    /// the first key and accept values derived from any of them, so that the master key can be
    /// replaced.
    pub fn derive_keys(&self, purpose: &str, tenant: &str) -> Vec<[u8; 32]> {
        self.0.iter().map(|key| key.derive_bytes(&["derived", purpose, tenant])).collect()
    }
}

/// Returns whether other users can read the key file. A mounted Secret belongs to root and may be
/// readable for the gateway's group; any other file must be readable for its owner only.
fn is_open_to_others(about: &Metadata, is_brought: bool) -> bool {
    let others = about.mode() & 0o077;
    let is_mounted = is_brought && about.uid() == 0 && others & !0o040 == 0;
    others != 0 && !is_mounted
}

/// Whether a kubelet gave our key to the pod's group, as it does with all files of a volume for a
/// pod with `fsGroup`. The state folder is closed to that group.
fn is_opened_by_kubelet(about: &Metadata) -> bool {
    let is_ours = about.uid() == geteuid().as_raw() && about.gid() == getegid().as_raw();
    is_ours && about.mode() & 0o777 == 0o660
}

/// Closes the key to the group again.
fn reclaim(path: &Path) -> bool {
    let is_closed = fs::set_permissions(path, Permissions::from_mode(0o600)).is_ok();
    if is_closed {
        tracing::info!(
            file = %path.display(),
            "the master key was opened to the pod's group (fsGroup); it is protected again. \
             fsGroupChangePolicy: OnRootMismatch avoids this"
        );
    }
    is_closed
}

/// Creates a key file, which is on the disk under its name when this returns.
fn create_key_file(path: &Path) -> Result<(), Error> {
    let text = Secret::new(format!("{}\n", random::hex::<32>()));
    disk::replace_durably(path, text.expose().as_bytes(), 0o600)
        .map_err(|cause| Error::Make { path: path.to_owned(), cause })
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(folder: &tempfile::TempDir, is_new: bool) -> Result<Keyring, Error> {
        Keyring::load(folder.path(), &KeySource::State, is_new)
    }

    #[test]
    fn a_master_key_is_created_once_and_private_to_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = load(&folder, true).map(|keys| keys.0[0].id).expect("made");
        let path = folder.path().join(MASTER_KEY_FILE);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(load(&folder, false).map(|keys| keys.0[0].id).expect("read"), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(load(&folder, false), Err(Error::OpenToOthers { mode: 0o640, .. })));
    }

    #[test]
    fn a_key_that_a_kubelet_opened_to_the_pods_group_is_closed_again() {
        let folder = tempfile::tempdir().expect("a folder");
        load(&folder, true).expect("made");
        let path = folder.path().join(MASTER_KEY_FILE);
        let mode = || fs::metadata(&path).expect("there").mode() & 0o777;
        fs::set_permissions(&path, Permissions::from_mode(0o660)).expect("changed");
        load(&folder, false).expect("read");
        assert_eq!(mode(), 0o600);
        // A key that the operator provides is not ours to change.
        fs::set_permissions(&path, Permissions::from_mode(0o660)).expect("changed");
        let provided = Keyring::load(folder.path(), &KeySource::File(path.clone()), false);
        assert!(matches!(provided, Err(Error::OpenToOthers { mode: 0o660, .. })));
        assert_eq!(mode(), 0o660);
    }

    #[test]
    fn a_lost_key_is_not_replaced_silently() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(load(&folder, false), Err(Error::Missing(_))));
    }

    #[test]
    fn the_first_line_seals_and_all_lines_open() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let (before, after) = (keys(&old), keys(&format!("{new}\n{old}\n")));
        assert_ne!(after.0[0].id, before.0[0].id);
        let context = SealContext { purpose: "x", tenant: "", row: "" };
        assert!(after.open(&context, &before.seal(&context, b"value")).is_some());
        assert!(before.open(&context, &after.seal(&context, b"value")).is_none());
        for bad in ["", "zz", "11"] {
            assert!(Keyring::parse(bad, "x".into()).is_err(), "{bad}");
        }
    }

    fn keys(text: &str) -> Keyring {
        Keyring::parse(text, "x".into()).expect("keys")
    }

    #[test]
    fn a_value_opens_in_its_place_only() {
        let keys = keys(&"ab".repeat(32));
        let context = |purpose, tenant, row| SealContext { purpose, tenant, row };
        let sealed = keys.seal(&context("revision", "acme", "1"), b"value");
        assert_eq!(keys.open(&context("revision", "acme", "1"), &sealed).as_deref(), Some(&b"value"[..]));
        for other in [("code", "acme", "1"), ("revision", "beta", "1"), ("revision", "acme", "2")] {
            assert_eq!(keys.open(&context(other.0, other.1, other.2), &sealed), None, "{other:?}");
        }
        let mut changed = sealed.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        assert_eq!(keys.open(&context("revision", "acme", "1"), &changed), None);
        assert_eq!(keys.open(&context("revision", "acme", "1"), &sealed[..5]), None);
        assert!(!sealed.windows(5).any(|window| window == b"value"));
    }

    #[test]
    fn a_row_opens_with_its_other_columns_only() {
        let keys = keys(&"ab".repeat(32));
        let context = SealContext { purpose: "grant", tenant: "acme", row: "1" };
        let sealed = keys.seal_row(&context, &["ab", "c"], b"value");
        assert_eq!(keys.open_row(&context, &["ab", "c"], &sealed).as_deref(), Some(&b"value"[..]));
        for other in [&["ab", "d"][..], &["a", "bc"], &["ab"], &["ab", "c", ""], &[]] {
            assert_eq!(keys.open_row(&context, other, &sealed), None, "{other:?}");
        }
    }

    #[test]
    fn a_replaced_key_still_opens_while_it_is_kept() {
        let (old, new) = ("ab".repeat(32), "cd".repeat(32));
        let context = SealContext { purpose: "revision", tenant: "acme", row: "1" };
        let sealed = keys(&old).seal(&context, b"value");
        assert!(keys(&format!("{new}\n{old}")).open(&context, &sealed).is_some());
        assert!(keys(&new).open(&context, &sealed).is_none());
    }
}
