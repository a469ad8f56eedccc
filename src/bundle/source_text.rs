//! A text of a tenant's files with its name and origin: enough to point at a place in it.

use std::path::PathBuf;

use super::excerpt;
use super::tree::{Position, SyntaxError};
use crate::base::diagnostic::{Diagnostic, Location};

/// Where a document comes from; decides how strictly it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentOrigin {
    /// The vendor's YAML. Unknown names are kept and ignored; it may not refer to this machine's
    /// files.
    Export,
    /// The operator's YAML beside an export. Unknown names are errors.
    Overlay,
    /// The operator's YAML alone.
    Standalone,
    /// The `.env`.
    Env,
    /// Flags and variables. The text has the place of each value, one per line.
    Given,
}

/// A text and its name: enough to point at a place in it.
#[derive(Clone)]
pub(super) struct SourceText {
    pub(super) origin: DocumentOrigin,
    pub(super) file: PathBuf,
    pub(super) entry: Option<String>,
    pub(super) text: String,
}

impl SourceText {
    /// Returns a location with its line, secrets hidden.
    pub(super) fn location_at(&self, at: Position) -> Location {
        if self.origin == DocumentOrigin::Given {
            let place = self.text.lines().nth(at.line - 1);
            return place.map_or_else(|| self.location(), Location::file);
        }
        Location {
            line: Some(at.line),
            column: Some(at.column),
            excerpt: excerpt::line_excerpt(&self.text, at.line),
            ..self.location()
        }
    }

    /// Returns the location of the whole text.
    pub(super) fn location(&self) -> Location {
        Location { entry: self.entry.clone(), ..Location::file(&self.file) }
    }

    /// Turns an error of the text into a finding.
    pub(super) fn to_diagnostic(&self, error: SyntaxError) -> Diagnostic {
        Diagnostic::error(error.code, error.message).help(error.help).at(self.location_at(error.at))
    }
}
