//! The copies of Secrets on the disk: a folder for each, with a file for each key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::bundle;

/// The files of a Secret, by their keys.
pub(super) type SecretFiles = BTreeMap<String, Vec<u8>>;

/// Why a Secret was not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error(
        "a Secret of this name cannot be a tenant, since files of such names are ignored or belong to another entry; \
         choose a name of letters, digits and dashes"
    )]
    Name,
    #[error("its key {0:?} cannot be the name of a file")]
    Key(String),
    #[error("its copy cannot be written: {0}; the tenant goes on as it is")]
    Io(#[from] io::Error),
}

/// The folder of the copies.
#[derive(Debug)]
pub(super) struct SecretCopies {
    folder: PathBuf,
}

impl SecretCopies {
    /// Makes the folder, open to this user only, and removes what a crash left half-written.
    pub(super) fn prepare(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let copies = Self { folder: folder.to_owned() };
        for name in copies.list()?.into_iter().filter(|name| name.starts_with('.')) {
            fs::remove_dir_all(folder.join(name))?;
        }
        Ok(copies)
    }

    /// Returns the names of the Secrets that there are copies of.
    pub(super) fn names(&self) -> io::Result<BTreeSet<String>> {
        let names = self.list()?.into_iter();
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Puts the copy of a Secret in the place of an earlier one, in one step. One that is the same
    /// stays. Returns whether something changed.
    pub(super) fn put(&self, secret: &str, files: &SecretFiles) -> Result<bool, CopyError> {
        let place = self.folder.join(secret);
        if secret.starts_with('.') || bundle::entry_id_of(&self.folder, &place).as_deref() != Some(secret) {
            return Err(CopyError::Name);
        }
        if let Some(key) = files.keys().find(|key| !is_file_name(key)) {
            return Err(CopyError::Key(key.clone()));
        }
        if read_copy(&place).is_ok_and(|copied| copied == *files) {
            return Ok(false);
        }
        let new = self.folder.join(format!(".{secret}.{}", std::process::id()));
        let written = write_copy(&new, files).and_then(|()| replace_folder(&new, &place));
        if new.exists() {
            // Either the earlier copy, or one that could not be written.
            fs::remove_dir_all(&new)?;
        }
        written?;
        Ok(true)
    }

    /// Removes the copy of a Secret, if there is one.
    pub(super) fn remove(&self, secret: &str) -> io::Result<()> {
        if !is_file_name(secret) {
            return Ok(());
        }
        // Renamed first, so that nobody reads half of it.
        let old = self.folder.join(format!(".{secret}.{}", std::process::id()));
        match fs::rename(self.folder.join(secret), &old) {
            Ok(()) => fs::remove_dir_all(&old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Kubernetes allows no other keys; this only keeps a copy within its folder.
fn is_file_name(key: &str) -> bool {
    !key.is_empty() && !key.contains(['/', '\0']) && key != "." && key != ".."
}

fn read_copy(folder: &Path) -> io::Result<SecretFiles> {
    let entries = fs::read_dir(folder)?;
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    };
    entries.map(read).collect()
}

fn write_copy(folder: &Path, files: &SecretFiles) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    for (key, bytes) in files {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(folder.join(key))?.write_all(bytes)?;
    }
    Ok(())
}

/// Swaps two folders, or moves one into an empty place. What was there is at `new` afterwards. After a
/// power cut the next complete list repairs what the disk had not taken.
fn replace_folder(new: &Path, place: &Path) -> io::Result<()> {
    if !place.exists() {
        return fs::rename(new, place);
    }
    match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // Some file systems cannot swap. A scan that finds the place empty for a moment waits for the
        // next one.
        Err(_) => {
            fs::remove_dir_all(place)?;
            fs::rename(new, place)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> SecretFiles {
        files.iter().map(|(key, text)| ((*key).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn copies() -> (tempfile::TempDir, SecretCopies) {
        let folder = tempfile::tempdir().expect("a folder");
        let copies = SecretCopies::prepare(&folder.path().join("tenants.d/.kubernetes")).expect("prepared");
        (folder, copies)
    }

    #[test]
    fn a_copy_has_the_files_of_the_secret_and_only_this_user_reads_it() {
        let (_folder, copies) = copies();
        let first = files(&[("export.zip", "zip"), (".env", "A=1")]);
        assert!(copies.put("acme", &first).expect("copied"));
        assert!(!copies.put("acme", &first).expect("the same"), "an equal copy stays");
        let place = copies.folder.join("acme");
        assert_eq!(read_copy(&place).expect("read"), first);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&copies.folder), mode(&place)), (0o700, 0o700));
        assert_eq!(mode(&place.join("export.zip")), 0o600);
        let second = files(&[("tenant.yaml", "b")]);
        assert!(copies.put("acme", &second).expect("copied"));
        assert_eq!(read_copy(&place).expect("read"), second, "a key that is gone is no file any more");
        assert_eq!(copies.list().expect("listed"), ["acme"], "nothing is left beside it");
    }

    #[test]
    fn a_copy_is_removed_whole_and_only_once() {
        let (_folder, copies) = copies();
        copies.put("acme", &files(&[("a.yaml", "a")])).expect("copied");
        copies.put("beta", &files(&[("b.yaml", "b")])).expect("copied");
        copies.remove("acme").expect("removed");
        copies.remove("acme").expect("gone already");
        assert_eq!(copies.list().expect("listed"), ["beta"]);
    }

    #[test]
    fn names_that_are_no_entries_and_keys_that_lead_elsewhere_are_refused() {
        let (folder, copies) = copies();
        for name in [".hidden", "acme.zip", "acme.yaml", "readme", "notes.txt", "..", "a/b"] {
            let refused = copies.put(name, &files(&[("a.yaml", "a")]));
            assert!(matches!(refused, Err(CopyError::Name)), "{name}: {refused:?}");
        }
        for key in ["../a.yaml", "..", "", "/etc/passwd"] {
            let refused = copies.put("acme", &files(&[(key, "a")]));
            assert!(matches!(refused, Err(CopyError::Key(_))), "{key}: {refused:?}");
        }
        copies.remove("..").expect("ignored");
        assert!(folder.path().join("tenants.d").exists() && copies.list().expect("listed").is_empty());
    }

    #[test]
    fn what_a_crash_left_is_removed_and_copies_stay() {
        let (_folder, copies) = copies();
        copies.put("acme", &files(&[("a.yaml", "a")])).expect("copied");
        write_copy(&copies.folder.join(".acme.1"), &files(&[("a.yaml", "half")])).expect("written");
        let again = SecretCopies::prepare(&copies.folder).expect("prepared");
        assert_eq!(again.list().expect("listed"), ["acme"]);
        assert_eq!(again.names().expect("listed"), BTreeSet::from(["acme".to_owned()]));
    }
}
