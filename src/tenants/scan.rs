//! One listing of the folder: which entries there are, and what their files look like without
//! reading them.
//!
//! The files with secrets that an entry names are part of its scan, wherever they lie. Only reading
//! the entry tells which they are, so they are those that it named when it was last read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::source::TenantsSource;
use crate::base::disk;
use crate::bundle::{self, EntryFiles, Presence, SecretFile};

/// A scan that is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ScanRequest {
    /// The entries to scan; `None`: all.
    pub(super) entry_ids: Option<BTreeSet<String>>,
    /// The files that were renamed into place and not touched since, and so are complete.
    pub(super) renamed: HashSet<PathBuf>,
}

/// One of an entry's own files with its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileStamp {
    pub(super) path: PathBuf,
    stamp: disk::Stamp,
}

/// The paths of the files that an entry's files name.
pub(super) type SecretFiles = Arc<[PathBuf]>;

/// The stamps of all files of an entry and of its lookalikes, and the presence of the files that it
/// names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FileStamps {
    files: Box<[FileStamp]>,
    secret_files: SecretFiles,
    /// The presence of the `secret_files`, in the same order.
    presences: Box<[Presence]>,
}

/// A scanned entry.
#[derive(Debug, Clone)]
pub(super) struct ScannedEntry {
    pub(super) files: EntryFiles,
    pub(super) stamps: FileStamps,
    /// Whether the entry is a folder, which needs a watch of its own.
    pub(super) is_folder: bool,
}

/// The contents of the folder.
pub(super) struct ScanResult {
    pub(super) entries: Vec<ScannedEntry>,
    /// The names of misnamed files.
    pub(super) misnamed: Vec<String>,
}

/// Scans all entries, or some of them. `secret_files` has the files that each entry names, as far
/// as known.
pub(super) fn scan_folder(
    source: &TenantsSource,
    only: Option<&BTreeSet<String>>,
    secret_files: &HashMap<Arc<str>, SecretFiles>,
) -> io::Result<ScanResult> {
    let bundle::FolderListing { entries, misnamed } = source.list(only)?;
    let found = |entry: EntryFiles| {
        let secret_files = secret_files.get(entry.id.as_str()).cloned().unwrap_or_default();
        ScannedEntry::new(entry, secret_files)
    };
    Ok(ScanResult { entries: entries.into_iter().map(found).collect(), misnamed })
}

impl ScanRequest {
    /// Whether the entry is to be scanned.
    pub(super) fn includes(&self, entry_id: &str) -> bool {
        self.entry_ids.as_ref().is_none_or(|ids| ids.contains(entry_id))
    }
}

impl ScannedEntry {
    fn new(entry: EntryFiles, secret_files: SecretFiles) -> Self {
        Self {
            stamps: FileStamps::read(&entry, secret_files),
            is_folder: entry.folder.is_some(),
            files: entry,
        }
    }
}

impl FileStamps {
    /// Returns the stamps of an entry. A file whose metadata cannot be read has no stamp;
    /// loading it reports why.
    pub(super) fn read(entry: &EntryFiles, secret_files: SecretFiles) -> Self {
        let stamp =
            |path: &PathBuf| Some(FileStamp { path: path.clone(), stamp: disk::Stamp::of(path).ok()? });
        let files = entry.files.iter().chain(&entry.lookalikes).filter_map(stamp).collect();
        Self {
            files,
            presences: secret_files.iter().map(|path| Presence::read(path)).collect(),
            secret_files,
        }
    }

    /// Returns the stamps of an entry after reading, with the files that it names now.
    pub(super) fn with_secret_files(self, secret_files: &[SecretFile]) -> Self {
        if secret_files.is_empty() && self.secret_files.is_empty() {
            return self;
        }
        let (secret_files, presences): (Vec<_>, Vec<_>) =
            secret_files.iter().map(|file| (file.path.clone(), file.presence)).unzip();
        Self { secret_files: secret_files.into(), presences: presences.into(), ..self }
    }

    /// Returns the stamps of the entry's own files and of its lookalikes.
    pub(super) fn files(&self) -> &[FileStamp] {
        &self.files
    }

    /// Returns the paths of the files that the entry names.
    pub(super) fn secret_files(&self) -> &SecretFiles {
        &self.secret_files
    }

    /// Whether one of these files is named and does not exist.
    pub(super) fn misses_any_of(&self, files: &[PathBuf]) -> bool {
        let mut secret_files = self.secret_files.iter().zip(&self.presences);
        secret_files.any(|(path, presence)| *presence == Presence::Absent && files.contains(path))
    }

    /// Whether a file was deleted since the other stamps, or the named files differ: these may
    /// lie anywhere, so no event tells whether they were renamed into place.
    pub(super) fn differs_beyond_its_files(&self, known: &Self) -> bool {
        let is_here = |path: &PathBuf| self.files.iter().any(|stamp| stamp.path == *path);
        (&self.secret_files, &self.presences) != (&known.secret_files, &known.presences)
            || !known.files.iter().all(|stamp| is_here(&stamp.path))
    }
}

impl FileStamp {
    pub(super) fn is_zip(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"))
    }
}

#[cfg(test)]
mod tests;
