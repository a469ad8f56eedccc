//! The files with secrets that a tenant's documents name.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::disk::Stamp;

/// A file with a secret that a document names, and its presence before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The file's path.
    pub path: PathBuf,
    /// Whether the file exists, and its stamp.
    pub presence: Presence,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It exists.
    Present(Stamp),
    /// It does not exist.
    Absent,
    /// Its metadata cannot be read, so it may or may not exist.
    Unknown,
}

impl SecretFile {
    /// Returns a file with its current presence.
    pub(super) fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), presence: Presence::read(path) }
    }
}

impl Presence {
    /// Returns the current presence of a file.
    pub fn read(path: &Path) -> Self {
        match Stamp::of(path) {
            Ok(stamp) => Self::Present(stamp),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
                _ => Self::Unknown,
            },
        }
    }
}
