//! One listing of the folder: which entries there are, and what their files look like without
//! reading them.
//!
//! The files with secrets that an entry names are part of its scan, wherever they lie. Only reading
//! the entry tells which they are, so they are those that it named when it was last read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::disk;
use crate::bundle::{self, EntryFiles, Named, Presence};

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
pub(super) type NamedFiles = Arc<[PathBuf]>;

/// The stamps of all files of an entry and of its lookalikes, and the presence of the files that it
/// names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Signature {
    files: Box<[FileStamp]>,
    named: NamedFiles,
    /// The presence of the `named` files, in the same order.
    presences: Box<[Presence]>,
}

/// A scanned entry.
#[derive(Debug, Clone)]
pub(super) struct ScannedEntry {
    pub(super) files: EntryFiles,
    pub(super) signature: Signature,
    /// Whether the entry is a folder, which needs a watch of its own.
    pub(super) is_folder: bool,
}

/// The contents of the folder.
pub(super) struct ScanResult {
    pub(super) entries: Vec<ScannedEntry>,
    /// The names of misnamed files.
    pub(super) misnamed: Vec<String>,
}

/// Scans the folder, or some of its entries. `named` has the files that each entry names, as far as
/// known.
pub(super) fn scan_folder(
    folder: &Path,
    only: Option<&BTreeSet<String>>,
    named: &HashMap<Arc<str>, NamedFiles>,
) -> io::Result<ScanResult> {
    let bundle::FolderListing { entries, misnamed } = bundle::list_folder(folder, only)?;
    let found = |entry: EntryFiles| {
        let named = named.get(entry.id.as_str()).cloned().unwrap_or_default();
        ScannedEntry::new(entry, named)
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
    fn new(entry: EntryFiles, named: NamedFiles) -> Self {
        Self { signature: Signature::read(&entry, named), is_folder: entry.folder.is_some(), files: entry }
    }
}

impl Signature {
    /// Returns the signature of an entry. A file whose metadata cannot be read has no stamp;
    /// loading it reports why.
    pub(super) fn read(entry: &EntryFiles, named: NamedFiles) -> Self {
        let stamp =
            |path: &PathBuf| Some(FileStamp { path: path.clone(), stamp: disk::Stamp::of(path).ok()? });
        let files = entry.files.iter().chain(&entry.lookalikes).filter_map(stamp).collect();
        Self { files, presences: named.iter().map(|path| Presence::at(path)).collect(), named }
    }

    /// Returns the signature of an entry after reading, with the files that it names now.
    pub(super) fn naming(self, named: &[Named]) -> Self {
        if named.is_empty() && self.named.is_empty() {
            return self;
        }
        let (named, presences): (Vec<_>, Vec<_>) =
            named.iter().map(|named| (named.path.clone(), named.presence)).unzip();
        Self { named: named.into(), presences: presences.into(), ..self }
    }

    /// Returns the stamps of the entry's own files and of its lookalikes.
    pub(super) fn stamps(&self) -> &[FileStamp] {
        &self.files
    }

    /// Returns the paths of the files that the entry names.
    pub(super) fn named(&self) -> &NamedFiles {
        &self.named
    }

    /// Whether one of these files is named and does not exist.
    pub(super) fn lacks_one_of(&self, files: &[PathBuf]) -> bool {
        let mut named = self.named.iter().zip(&self.presences);
        named.any(|(path, presence)| *presence == Presence::Gone && files.contains(path))
    }

    /// Whether a file was deleted since the other signature, or the named files differ: these may
    /// lie anywhere, so no event tells whether they were renamed into place.
    pub(super) fn differs_beyond_its_files(&self, known: &Self) -> bool {
        let is_here = |path: &PathBuf| self.files.iter().any(|stamp| stamp.path == *path);
        (&self.named, &self.presences) != (&known.named, &known.presences)
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
