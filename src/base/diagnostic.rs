//! Findings: the one currency of `check`, receipts, the admin page and the log.
//!
//! A finding says what was found, where, what it means and what to do. Its excerpt never holds a secret: whoever
//! makes one blanks the values of secret fields in the source line or leaves the line out.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Findings that a report keeps.
const MAX_FINDINGS: usize = 200;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; nothing to do.
    Notice,
    /// Works, but probably not as meant.
    Warning,
    /// The tenant is refused because of it.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable name in kebab case that can be searched for, e.g. `api-key-placeholder`.
    pub code: &'static str,
    pub severity: Severity,
    /// What was found: one sentence, lower case, no full stop.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file in the folder.
    pub file: PathBuf,
    /// The entry inside an archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Counted from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The source line, secrets blanked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Diagnostic {
    /// A finding that refuses the tenant.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message)
    }

    /// A finding that lets it through.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message)
    }

    /// A finding that only informs.
    pub fn notice(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Notice, message)
    }

    fn new(code: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self { code, severity, message: message.into(), help: None, location: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds where.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }
}

impl Location {
    /// A whole file.
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
    /// One line, for logs: place, message, help.
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

/// All findings about one thing, in the order they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report(Vec<Diagnostic>);

impl Report {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding. Past a number that nobody would read, it only counts in how much the last one weighs.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match self.0.len().cmp(&MAX_FINDINGS) {
            Ordering::Less => self.0.push(diagnostic),
            Ordering::Equal => self.0.push(more(diagnostic.severity)),
            Ordering::Greater => {
                let last = &mut self.0[MAX_FINDINGS];
                last.severity = last.severity.max(diagnostic.severity);
            }
        }
    }

    /// Adds another report's findings.
    pub fn extend(&mut self, other: Report) {
        other.0.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether any finding refuses the tenant.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The findings.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

fn more(severity: Severity) -> Diagnostic {
    Diagnostic::new("more-findings", severity, "there is more than this; it is left out")
        .help("mend what is named first")
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
