//! The folder as it is now: what lies there, and whether it has stopped changing.
//!
//! A half-written YAML is often valid YAML without its last lines, so settling must never fail open: an entry is taken
//! only when all its files were renamed into place, or looked alike twice with half a second between, or (a zip)
//! read completely. A zip that comes alone and lets everybody in takes two looks, so that it never serves without the
//! overlay that is copied after it. A file that is missing may be about to be written anew by an editor: that too takes two looks.
//! Modification times are compared with those of the look before and never with a clock.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle::{self, Entry};

/// The time between two looks that must agree.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// What tells a file from its earlier or later self without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

/// The stamps of all files of an entry, and of those that are named almost like them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Signature(Box<[Stamp]>);

/// Whether an entry has come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Sure,
    /// Its zip is new. One that reads completely cannot be half of one; one that does not is looked at again, as is a
    /// newcomer that would let everybody in: the overlay that guards it may be on its way.
    IfItReads,
    /// Another look must confirm this one.
    Unknown,
}

/// One entry as found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) signature: Signature,
    /// It is a folder, to be watched on its own.
    pub(super) is_folder: bool,
}

/// The identity of the folder itself: another one in its place is another folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FolderId(u64, u64);

impl FolderId {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        fs::metadata(folder).map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// What lies in the folder.
pub(super) struct Scanned {
    pub(super) found: Vec<Found>,
    /// Names of files that are named amiss.
    pub(super) misnamed: Vec<String>,
}

/// Lists the folder, or some entries of it.
pub(super) fn scan(folder: &Path, only: Option<&BTreeSet<String>>) -> io::Result<Scanned> {
    let bundle::Listing { entries, misnamed } = bundle::list(folder, only)?;
    Ok(Scanned { found: entries.into_iter().map(Found::new).collect(), misnamed })
}

impl Found {
    fn new(entry: Entry) -> Self {
        Self { signature: Signature::of(&entry), is_folder: entry.folder.is_some(), entry }
    }

    /// What one look says: all files were renamed into place or are as they were when last read, or all others are
    /// zips, or neither. A newcomer that is a zip and nothing else may be the first of a pair, however it came.
    pub(super) fn rest(&self, renamed: &HashSet<PathBuf>, known: Option<&Signature>) -> Rest {
        let Signature(stamps) = &self.signature;
        if known.is_none() && !stamps.is_empty() && stamps.iter().all(Stamp::is_zip) {
            return Rest::IfItReads;
        }
        if stamps.is_empty() || known.is_some_and(|known| known.has_more_files_than(&self.signature)) {
            return Rest::Unknown;
        }
        let is_sure = |stamp: &&Stamp| {
            renamed.contains(&stamp.path) || known.is_some_and(|known| known.0.contains(stamp))
        };
        let unsure: Vec<_> = stamps.iter().filter(|stamp| !is_sure(stamp)).collect();
        match unsure.iter().all(|stamp| stamp.is_zip()) {
            _ if unsure.is_empty() => Rest::Sure,
            true => Rest::IfItReads,
            false => Rest::Unknown,
        }
    }
}

impl Signature {
    /// Whether a file is here that is not in the other one.
    fn has_more_files_than(&self, other: &Self) -> bool {
        self.0.iter().any(|stamp| other.0.iter().all(|its| its.path != stamp.path))
    }

    /// A file that cannot be looked at has no stamp; loading it will say why.
    pub(super) fn of(entry: &Entry) -> Self {
        let stamp = |path: &PathBuf| Some(Stamp::of(path, &fs::metadata(path).ok()?));
        Self(entry.files.iter().chain(&entry.namesakes).filter_map(stamp).collect())
    }
}

impl Stamp {
    fn is_zip(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"))
    }

    fn of(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// What a look saw and the next one must confirm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sighting {
    /// `None`: the entry was gone.
    pub(super) signature: Option<Signature>,
    pub(super) at: Instant,
}

impl Sighting {
    /// Whether the entry was gone.
    pub(super) fn is_of_nothing(&self) -> bool {
        self.signature.is_none()
    }

    /// Whether this look confirms an earlier one.
    pub(super) fn confirms(&self, earlier: Option<&Self>) -> bool {
        earlier.is_some_and(|earlier| {
            earlier.signature == self.signature && self.at.duration_since(earlier.at) >= SETTLE
        })
    }
}
