//! Where something stands in the configuration file, and what relative paths in it start at.

use std::path::{Path, PathBuf};

use crate::base::diagnostic::Location;

/// The file that something was read from.
#[derive(Debug, Default)]
pub(super) struct FilePlace {
    path: PathBuf,
    text: String,
}

impl FilePlace {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Returns a path that the file names: a relative one starts at the file's folder.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Returns where in the file something stands.
    pub(super) fn locate(&self, location: serde_saphyr::Location) -> Location {
        locate(&self.path, &self.text, location)
    }
}

/// Returns where in a file something stands, with its line.
pub(super) fn locate(path: &Path, text: &str, location: serde_saphyr::Location) -> Location {
    let line = usize::try_from(location.line()).ok().filter(|line| *line > 0);
    Location {
        line,
        column: usize::try_from(location.column()).ok().filter(|column| *column > 0),
        excerpt: line.and_then(|line| text.lines().nth(line - 1)).map(str::to_owned),
        ..Location::file(path)
    }
}
