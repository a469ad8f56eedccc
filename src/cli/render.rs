//! Formats findings for people and for machines.
//!
//! For people: severity, code and message, then `--> file:line:column`, the source line with a
//! marker below the column, and the advice. Control characters never reach the terminal. For
//! machines: one JSON document.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::base::diagnostic::{Diagnostic, Location, Report, Severity};
use crate::telemetry::printable::{printable, printable_json};

/// Formats all findings for people, separated by empty lines.
pub fn human(report: &Report) -> String {
    let findings: Vec<String> = report.iter().map(finding).collect();
    findings.join("\n")
}

/// Formats a value as a JSON document.
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    let text = text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    printable_json(&text).into_owned()
}

fn finding(diagnostic: &Diagnostic) -> String {
    let mut out =
        format!("{}[{}]: {}\n", word(diagnostic.severity), diagnostic.code, printable(&diagnostic.message));
    let margin = " ".repeat(margin(diagnostic.location.as_ref()));
    if let Some(location) = &diagnostic.location {
        write_location(&mut out, &margin, location);
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "{margin} = help: {}", printable(help));
    }
    out
}

/// Formats a finding as the gateway sent it; the gateway may be of another version than this
/// program.
pub(super) fn finding_of_gateway(finding: &Value) -> String {
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).map(|text| printable(text).into_owned())
    };
    let of = |name: &str| text(finding, name).unwrap_or_default();
    let mut out = format!("\n{}[{}]: {}\n", of("severity"), of("code"), of("message"));
    if let Some(location) = finding.get("location") {
        let number = |name: &str| {
            location.get(name).and_then(Value::as_u64).map(|n| format!(":{n}")).unwrap_or_default()
        };
        let entry = text(location, "entry").map(|entry| format!("!{entry}")).unwrap_or_default();
        let file = text(location, "file").unwrap_or_default();
        out += &format!(" --> {file}{entry}{}{}\n", number("line"), number("column"));
        out += &text(location, "excerpt").map(|line| format!("  | {line}\n")).unwrap_or_default();
    }
    out + &text(finding, "help").map(|help| format!("  = help: {help}\n")).unwrap_or_default()
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
    }
}

fn margin(location: Option<&Location>) -> usize {
    location.and_then(|location| location.line).map_or(1, |line| line.to_string().len())
}

fn write_location(out: &mut String, margin: &str, location: &Location) {
    let _ = writeln!(out, "{margin}--> {}", printable(&location.to_string()));
    let (Some(line), Some(excerpt)) = (location.line, &location.excerpt) else { return };
    let excerpt = printable(excerpt);
    let _ = writeln!(out, "{margin} |\n{line} | {excerpt}");
    // A blanked value is shorter than the original, so the column may be past the end of the line.
    match location.column.filter(|column| *column <= excerpt.chars().count()) {
        Some(column) => {
            let _ = writeln!(out, "{margin} | {}^", " ".repeat(column.saturating_sub(1)));
        }
        None => {
            let _ = writeln!(out, "{margin} |");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_points_at_its_place() {
        let location = Location {
            entry: Some("mcp/server/configs/sales.yaml".into()),
            line: Some(12),
            column: Some(14),
            excerpt: Some("path_prefix: /a/../b".into()),
            ..Location::file("acme.zip")
        };
        let report = Report::from(Diagnostic::error("bad-prefix", "no").help("write /a").at(location));
        insta::assert_snapshot!(human(&report), @r"
        error[bad-prefix]: no
          --> acme.zip!mcp/server/configs/sales.yaml:12:14
           |
        12 | path_prefix: /a/../b
           |              ^
           = help: write /a
        ");
    }

    #[test]
    fn nothing_obeyed_by_a_terminal_is_printed() {
        let report = Report::from(Diagnostic::error("x", "a\u{1b}[31mb\u{202e}"));
        assert_eq!(human(&report), "error[x]: a\u{fffd}[31mb\u{fffd}\n");
    }
}
