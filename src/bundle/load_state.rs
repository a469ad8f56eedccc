//! The state of loading one entry: what it is read from, and what was read so far.

use std::path::Path;

use super::confinement::Confinement;
use super::excerpt::Scrubber;
use super::secret_file::SecretFile;
use super::snapshot::SourceReader;
use super::{EntryFiles, LoadContext};
use crate::base::digest::Hasher;
use crate::base::disk;

/// The state of loading one entry.
pub(super) struct LoadState<'a> {
    pub(super) context: &'a LoadContext,
    pub(super) confinement: Confinement,
    /// The source of everything that is read.
    pub(super) source: SourceReader<'a>,
    /// What was read goes into the entry's digest.
    pub(super) hasher: Hasher,
    /// The secrets that were read, which no finding may contain.
    pub(super) scrubber: Scrubber,
    /// The files with secrets that were named so far.
    pub(super) secret_files: Vec<SecretFile>,
}

impl<'a> LoadState<'a> {
    pub(super) fn new(source: SourceReader<'a>, entry: &EntryFiles, context: &'a LoadContext) -> Self {
        Self {
            context,
            confinement: Confinement::new(entry, context),
            source,
            hasher: Hasher::new(),
            scrubber: Scrubber::default(),
            secret_files: Vec::new(),
        }
    }

    /// Records a file that was named, before it is read, so that a later change is a difference in
    /// the next scan.
    pub(super) fn record_secret_file(&mut self, path: &Path) {
        if !self.secret_files.iter().any(|file| file.path == path) {
            self.secret_files.push(SecretFile::read(path));
        }
    }

    /// Reads one of the entry's files.
    pub(super) fn read(&self, file: &Path, max_bytes: u64) -> Result<Vec<u8>, disk::Error> {
        self.source.read(file, max_bytes, &self.confinement)
    }

    /// Reads one of the entry's text files, from the disk or the snapshot.
    pub(super) fn read_text_bytes(&self, file: &Path, max_bytes: u64) -> Result<Vec<u8>, disk::Error> {
        self.source.read_text_bytes(file, max_bytes, &self.confinement)
    }
}
