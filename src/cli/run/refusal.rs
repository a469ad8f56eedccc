//! Why a tenant is not served: the vendor's line, then what to do about it.

use std::io::ErrorKind;

use crate::base::diagnostic::{Report, Severity};
use crate::cli::{port_holder, render};
use crate::gateway;
use crate::server::BindError;

/// Why the process ends without serving.
#[derive(Debug)]
pub(in crate::cli) struct StartRefusal {
    /// The reasons, without their prefix.
    reasons: Vec<String>,
    /// What to do about it, in one or more lines.
    advice: String,
}

impl StartRefusal {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], advice: String::new() }
    }

    /// Adds what to do about it.
    pub(super) fn help(self, advice: impl std::fmt::Display) -> Self {
        Self { advice: format!("  help: {advice}\n"), ..self }
    }

    /// The refusal of a tenant or of settings that have errors.
    pub(super) fn from_report(report: &Report) -> Self {
        let errors = report.iter().filter(|finding| finding.severity == Severity::Error);
        let reasons = errors.map(|finding| finding.message.clone()).collect();
        Self { reasons, advice: format!("\n{}", render::human(report)) }
    }

    /// The refusal of a gateway that cannot be built.
    pub(super) fn from_gateway_error(error: gateway::Error) -> Self {
        match error {
            gateway::Error::Listen(error) => Self::from_bind_error(&error),
            error => Self::new(error.to_string()),
        }
    }

    fn from_bind_error(error: &BindError) -> Self {
        let port = error.address.port();
        match error.source.kind() {
            ErrorKind::AddrInUse => {
                let holder =
                    port_holder::find(port).map(|holder| format!(" (by {holder})")).unwrap_or_default();
                Self::new(format!("Port {port} already in use{holder}")).help(format_args!(
                    "stop the program that uses it, or choose another port: --port {} or MCP_PORT={0}",
                    port.checked_add(1).unwrap_or(8000)
                ))
            }
            ErrorKind::PermissionDenied => Self::new(format!("this user may not use port {port}"))
                .help("choose one above 1023: --port 8000 or MCP_PORT=8000"),
            _ => Self::new(error.to_string()),
        }
    }

    /// Returns the reasons, as the vendor's server words them.
    pub(in crate::cli) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Returns what to do about it.
    pub(in crate::cli) fn advice(&self) -> &str {
        self.advice.trim().trim_start_matches("help: ")
    }

    /// Returns the lines to print.
    pub(super) fn to_lines(&self) -> String {
        let reasons: String = self.reasons.iter().map(|reason| format!("ERROR: {reason}\n")).collect();
        reasons + &self.advice
    }
}
