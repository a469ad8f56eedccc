//! The scan of the folder: which entries there are, and whether they have stopped changing.
//!
//! A half-written YAML is often valid without its last lines, so settling must never fail open: an
//! entry is accepted only if all its files were renamed into place, or were the same in two scans
//! half a second apart, or (a zip) could be read completely. A new zip without other files that is
//! open to everybody takes two scans, so that it never serves without the overlay that is copied
//! after it. A missing file takes two scans as well, since an editor may be about to write it anew.
//! Modification times are compared with those of the previous scan, never with a clock.
//!
//! The files with secrets that an entry names are part of its scan, wherever they lie. Only reading
//! the entry tells which they are, so they are those that it named when it was last read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::file;
use crate::bundle::{self, EntryFiles, Named, Presence};

/// The time between two scans that must agree.
pub(super) const STABLE_AFTER: Duration = Duration::from_millis(500);

/// One of an entry's own files with its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    path: PathBuf,
    stamp: file::Stamp,
}

/// The paths of the files that an entry's files name.
pub(super) type NamedFiles = Arc<[PathBuf]>;

/// The stamps of all files of an entry and of its namesakes, and the presence of the files that it
/// names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Signature {
    files: Box<[FileStamp]>,
    named: NamedFiles,
    /// The presence of the `named` files, in the same order.
    presences: Box<[Presence]>,
}

/// Whether an entry has stopped changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stability {
    /// All its files are complete.
    Stable,
    /// Its zip is new. If it reads completely it is complete; if not, another scan must confirm it.
    /// So must one of a new entry that is open to everybody: the overlay that restricts it may
    /// still be coming.
    StableIfReadable,
    /// Another scan must confirm this one.
    Unstable,
}

/// A scanned entry.
#[derive(Debug, Clone)]
pub(super) struct ScannedEntry {
    pub(super) files: EntryFiles,
    pub(super) signature: Signature,
    /// Whether the entry is a folder, which needs a watch of its own.
    pub(super) is_folder: bool,
}

/// The identity of the folder itself, which changes when it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FolderId(u64, u64);

impl FolderId {
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        fs::metadata(folder).map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
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

impl ScannedEntry {
    fn new(entry: EntryFiles, named: NamedFiles) -> Self {
        Self { signature: Signature::read(&entry, named), is_folder: entry.folder.is_some(), files: entry }
    }

    /// Classifies the entry by one scan: all files were renamed into place or are as they were when
    /// last read, or all others are zips, or neither. A new entry that is only a zip may be the
    /// first of several files, however it arrived.
    pub(super) fn classify_stability(
        &self,
        renamed: &HashSet<PathBuf>,
        known: Option<&Signature>,
    ) -> Stability {
        let stamps = &self.signature.files;
        if known.is_none() && !stamps.is_empty() && stamps.iter().all(FileStamp::is_zip) {
            return Stability::StableIfReadable;
        }
        if stamps.is_empty() || known.is_some_and(|known| self.signature.differs_beyond_its_files(known)) {
            return Stability::Unstable;
        }
        let is_sure = |stamp: &&FileStamp| {
            renamed.contains(&stamp.path) || known.is_some_and(|known| known.files.contains(stamp))
        };
        let unsure: Vec<_> = stamps.iter().filter(|stamp| !is_sure(stamp)).collect();
        match unsure.iter().all(|stamp| stamp.is_zip()) {
            _ if unsure.is_empty() => Stability::Stable,
            true => Stability::StableIfReadable,
            false => Stability::Unstable,
        }
    }
}

impl Signature {
    /// Returns the signature of an entry. A file whose metadata cannot be read has no stamp;
    /// loading it reports why.
    pub(super) fn read(entry: &EntryFiles, named: NamedFiles) -> Self {
        let stamp =
            |path: &PathBuf| Some(FileStamp { path: path.clone(), stamp: file::Stamp::of(path).ok()? });
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
    fn differs_beyond_its_files(&self, known: &Self) -> bool {
        let is_here = |path: &PathBuf| self.files.iter().any(|stamp| stamp.path == *path);
        (&self.named, &self.presences) != (&known.named, &known.presences)
            || !known.files.iter().all(|stamp| is_here(&stamp.path))
    }
}

impl FileStamp {
    fn is_zip(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"))
    }
}

/// An observation that the next scan must confirm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// `None` if the entry was gone.
    pub(super) signature: Option<Signature>,
    pub(super) at: Instant,
}

impl Observation {
    /// Whether the entry was gone.
    pub(super) fn is_absent(&self) -> bool {
        self.signature.is_none()
    }

    /// Whether this observation confirms an earlier one.
    pub(super) fn confirms(&self, earlier: Option<&Self>) -> bool {
        earlier.is_some_and(|earlier| {
            earlier.signature == self.signature && self.at.duration_since(earlier.at) >= STABLE_AFTER
        })
    }
}
