//! Findings, the common currency of `check`, status files, the admin page and the log.
//!
//! A finding says what was found, where, what it means and what to do about it. Its excerpt never
//! contains a secret: the code that creates a finding blanks the values of secret fields in the
//! source line, or leaves the line out.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The maximum number of findings in a report.
const MAX_FINDINGS: usize = 200;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information; nothing to do.
    Notice,
    /// Works, but probably not as intended.
    Warning,
    /// The tenant is rejected because of it.
    Error,
}

/// A single finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable, searchable name in kebab case, such as `api-key-placeholder`.
    pub code: &'static str,
    /// Whether the finding rejects the tenant, warns or informs.
    pub severity: Severity,
    /// What was found: one sentence in lower case, without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where it was found, if it has a place in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// The place of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file in the tenants folder.
    pub file: PathBuf,
    /// The member of the archive, if the file is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The source line, with secrets blanked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Diagnostic {
    /// Creates a finding that rejects the tenant.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message)
    }

    /// Creates a finding that warns but lets the tenant through.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message)
    }

    /// Creates a finding that only informs.
    pub fn notice(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Notice, message)
    }

    fn new(code: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self { code, severity, message: message.into(), help: None, location: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds where it was found.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }
}

impl Location {
    /// Returns the location of a whole file.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), entry: None, line: None, column: None, excerpt: None }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(entry) = &self.entry {
            write!(f, "!{entry}")?;
        }
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    /// Formats the finding in one line for logs: location, message, help.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// All findings about one subject, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report(Vec<Diagnostic>);

impl Report {
    /// Creates an empty report.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding. Beyond `MAX_FINDINGS`, a finding only raises the severity of the closing
    /// `more-findings` entry.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match self.0.len().cmp(&MAX_FINDINGS) {
            Ordering::Less => self.0.push(diagnostic),
            Ordering::Equal => self.0.push(more_findings(diagnostic.severity)),
            Ordering::Greater => {
                let last = &mut self.0[MAX_FINDINGS];
                last.severity = last.severity.max(diagnostic.severity);
            }
        }
    }

    /// Adds all findings of another report.
    pub fn extend(&mut self, other: Report) {
        other.0.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Replaces the file of each location for which another one is known.
    pub fn move_files(&mut self, find: impl Fn(&Path) -> Option<PathBuf>) {
        for location in self.0.iter_mut().filter_map(|finding| finding.location.as_mut()) {
            if let Some(file) = find(&location.file) {
                location.file = file;
            }
        }
    }

    /// Whether any finding rejects the tenant.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether the report has no findings.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the findings.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

fn more_findings(severity: Severity) -> Diagnostic {
    Diagnostic::new("more-findings", severity, "there are more findings; they are not shown")
        .help("fix the reported findings first")
}

impl FromIterator<Diagnostic> for Report {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(findings: I) -> Self {
        let mut report = Self::new();
        findings.into_iter().for_each(|finding| report.push(finding));
        report
    }
}

impl From<Diagnostic> for Report {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl<'a> IntoIterator for &'a Report {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_keeps_what_people_read_and_how_much_the_rest_weighs() {
        let mut report = Report::new();
        let mut other = Report::new();
        (0..MAX_FINDINGS + 5).for_each(|_| other.push(Diagnostic::notice("x", "found")));
        report.extend(other);
        assert_eq!(report.iter().count(), MAX_FINDINGS + 1);
        assert!(!report.has_errors());
        report.push(Diagnostic::error("y", "refused"));
        report.push(Diagnostic::notice("x", "found"));
        let last = report.iter().last().expect("some");
        assert_eq!((last.code, last.severity), ("more-findings", Severity::Error));
        assert_eq!(report.iter().count(), MAX_FINDINGS + 1);
    }
}
