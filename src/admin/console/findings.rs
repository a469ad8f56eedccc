//! Findings about a tenant's files, as pages show them.

use crate::base::diagnostic::{Diagnostic, Severity};
use crate::telemetry::printable::{printable, printable_lines};

/// A finding.
pub(super) struct FindingView {
    /// `error`, `warning` or `notice`.
    pub(super) severity: &'static str,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
    pub(super) place: Option<String>,
    pub(super) excerpt: Option<String>,
}

impl From<&Diagnostic> for FindingView {
    fn from(finding: &Diagnostic) -> Self {
        let location = finding.location.as_ref();
        Self {
            severity: match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Notice => "notice",
            },
            code: finding.code.to_owned(),
            message: printable(&finding.message).into_owned(),
            help: finding.help.as_deref().map(|help| printable(help).into_owned()),
            place: location.map(|location| printable(&location.to_string()).into_owned()),
            excerpt: location
                .and_then(|location| location.excerpt.as_deref())
                .map(|excerpt| printable_lines(excerpt).into_owned()),
        }
    }
}

/// Returns the findings, the gravest first.
pub(super) fn views(findings: &[Diagnostic]) -> Vec<FindingView> {
    let mut sorted: Vec<_> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    sorted.into_iter().map(FindingView::from).collect()
}

/// Returns the finding that rejects the tenant's files.
pub(super) fn first_error(findings: &[Diagnostic]) -> Option<&Diagnostic> {
    findings.iter().find(|finding| finding.severity == Severity::Error)
}
