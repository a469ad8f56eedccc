//! The master key: created at the first start, or provided by the operator as a file or variable. A
//! key for every tenant and purpose is derived from it (HKDF-SHA256, RFC 5869).
//!
//! The text has one key of 64 hexadecimal digits on each line. The first line seals, the others
//! only open; to replace a key, put a new line in front of the old one.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};

use crate::base::digest::Hasher;
use crate::base::secret::Secret;
use crate::base::{file as disk, hex, random};

const MASTER_KEY_FILE: &str = "master.key";
/// Enough for many keys, in bytes; a larger file is the wrong file.
const MAX_KEY_FILE_BYTES: u64 = 4096;
const MAKE: &str = "make one with: openssl rand -hex 32";

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
        "the master key {} may be read by other users (mode {mode:04o}); close it with: chmod 600 {}", path.display(), path.display()
    )]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("the master key {} cannot be read: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(
        "the master key {} is gone, and what the store holds was sealed with it; put it back from your backup. To begin anew, move tenantd.db and its -wal away", .0.display()
    )]
    Missing(PathBuf),
    #[error("the master key {} cannot be made: {cause}", path.display())]
    Make { path: PathBuf, cause: io::Error },
    #[error("{place} holds no master key: 64 hexadecimal digits a line are one; {MAKE}")]
    Malformed { place: String },
    #[error(
        "the master key does not fit the store, which was sealed with another one; bring that one back, as a further line if you have changed it"
    )]
    DoesNotFit,
}

/// The master keys; the first one seals.
pub(super) struct Keyring(Vec<MasterKey>);

/// The id of a key, part of every value it sealed.
pub(super) type KeyId = [u8; 8];

struct MasterKey {
    id: KeyId,
    root: hkdf::Prk,
}

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
        if is_open_to_others(&about, is_brought) {
            return Err(Error::OpenToOthers { path: path.to_owned(), mode: about.mode() & 0o7777 });
        }
        let bytes = disk::read_contents(&file, &about, MAX_KEY_FILE_BYTES)
            .map_err(|error| failed(error.into_io()))?;
        let place = path.display().to_string();
        let Ok(text) = String::from_utf8(bytes) else { return Err(Error::Malformed { place }) };
        Self::parse(Secret::new(text).expose(), place)
    }

    fn parse(text: &str, place: String) -> Result<Self, Error> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<_>> = lines.map(MasterKey::parse).collect();
        let keys = keys.filter(|keys| !keys.is_empty());
        keys.map(Self).ok_or(Error::Malformed { place })
    }

    /// Returns the id of the key that seals.
    pub(super) fn current_id(&self) -> KeyId {
        self.0[0].id
    }

    /// Returns the key that seals, derived for a purpose.
    pub(super) fn current_key(&self, purpose: &[&str]) -> (KeyId, RandomizedNonceKey) {
        let key = &self.0[0];
        (key.id, key.derive_key(purpose))
    }

    /// Returns key material for a purpose: first that of the key that seals, then that of the older
    /// keys.
    pub(super) fn derive_all(&self, purpose: &[&str]) -> Vec<[u8; 32]> {
        self.0.iter().map(|key| key.derive_bytes(purpose)).collect()
    }

    /// Returns the key of this id, derived for a purpose.
    pub(super) fn key_by_id(&self, id: KeyId, purpose: &[&str]) -> Option<RandomizedNonceKey> {
        self.0.iter().find(|key| key.id == id).map(|key| key.derive_key(purpose))
    }
}

impl MasterKey {
    fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = hex::decode(text)?;
        let root = hkdf::Salt::new(HKDF_SHA256, b"tenantd store 1").extract(&bytes);
        let mut id = KeyId::default();
        expand(&root, &["key id"], &mut id);
        Some(Self { id, root })
    }

    fn derive_key(&self, purpose: &[&str]) -> RandomizedNonceKey {
        let bytes = self.derive_bytes(purpose);
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).expect("the key has the algorithm's length")
    }

    fn derive_bytes(&self, purpose: &[&str]) -> [u8; 32] {
        let mut bytes = [0; 32];
        expand(&self.root, purpose, &mut bytes);
        bytes
    }
}

/// An output length for HKDF, in bytes.
struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(root: &hkdf::Prk, purpose: &[&str], out: &mut [u8]) {
    let mut fields = Hasher::new();
    purpose.iter().for_each(|field| fields.update_field(field.as_bytes()));
    let info = fields.finish().to_string();
    let info = [info.as_bytes()];
    let material = root.expand(&info, OutputLength(out.len())).expect("so few bytes can be had");
    material.fill(out).expect("the length is the one asked for");
}

/// Returns whether other users can read the key file. A mounted Secret belongs to root and may be
/// readable for the gateway's group; any other file must be readable for its owner only.
fn is_open_to_others(about: &Metadata, is_brought: bool) -> bool {
    let others = about.mode() & 0o077;
    let is_mounted = is_brought && about.uid() == 0 && others & !0o040 == 0;
    others != 0 && !is_mounted
}

/// Creates a key file, which is on the disk under its name when this returns.
fn create_key_file(path: &Path) -> Result<(), Error> {
    let text = Secret::new(format!("{}\n", random::hex::<32>()));
    disk::replace_durably(path, text.expose().as_bytes(), 0o600)
        .map_err(|cause| Error::Make { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(folder: &tempfile::TempDir, is_new: bool) -> Result<Keyring, Error> {
        Keyring::load(folder.path(), &KeySource::State, is_new)
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = load(&folder, true).map(|keys| keys.0[0].id).expect("made");
        let path = folder.path().join(MASTER_KEY_FILE);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(load(&folder, false).map(|keys| keys.0[0].id).expect("read"), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(load(&folder, false), Err(Error::OpenToOthers { mode: 0o640, .. })));
    }

    #[test]
    fn a_lost_key_is_not_replaced_silently() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(load(&folder, false), Err(Error::Missing(_))));
    }

    #[test]
    fn the_first_line_seals_and_all_lines_open() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let keys = |text: &str| Keyring::parse(text, "x".into()).expect("keys");
        let (before, after) = (keys(&old), keys(&format!("{new}\n{old}\n")));
        assert_ne!(after.0[0].id, before.0[0].id);
        assert!(after.key_by_id(before.0[0].id, &["x"]).is_some());
        assert!(before.key_by_id(after.0[0].id, &["x"]).is_none());
        for bad in ["", "zz", "11"] {
            assert!(Keyring::parse(bad, "x".into()).is_err(), "{bad}");
        }
    }
}
