//! Audit lines as syslog messages (RFC 5424).
//!
//! The line itself is MSG. STRUCTURED-DATA is nil: its names would need a private enterprise
//! number, and everything is in the line. RFC 5424 wants a byte order mark before UTF-8, which
//! readers of JSON do not expect; so all that is not ASCII is escaped, as JSON allows.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;

use super::config::SyslogConfig;
use crate::base::host_name::host_name;

const VERSION: u8 = 1;
/// RFC 5424 section 6.2.1.
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;
const NIL: &str = "-";
/// The longest HOSTNAME.
const MAX_HOST_CHARS: usize = 255;

/// What all messages of a sink have in common.
#[derive(Debug)]
pub(super) struct SyslogHeader {
    facility: u8,
    /// HOSTNAME, APP-NAME and PROCID.
    sender: String,
}

/// What a header takes from a line.
#[derive(Deserialize)]
struct LineHead<'a> {
    at: &'a str,
    event: &'a str,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
}

impl SyslogHeader {
    pub(super) fn new(config: &SyslogConfig) -> Self {
        let sender = format!("{} {} {}", sender_host(), config.app_name, std::process::id());
        Self { facility: config.facility.number, sender }
    }

    /// Returns a line as a message, without a frame.
    pub(super) fn format(&self, line: &[u8]) -> Vec<u8> {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        let head = serde_json::from_str(&line);
        let head = head.unwrap_or(LineHead { at: NIL, event: NIL, outcome: "ok".into() });
        let severity = if head.outcome == "ok" { INFORMATIONAL } else { NOTICE };
        let priority = self.facility * 8 + severity;
        let mut message = format!("<{priority}>{VERSION} {} {} {} {NIL} ", head.at, self.sender, head.event);
        escape_into(&mut message, &line);
        message.into_bytes()
    }

    /// Returns a line as a message with its length before it (RFC 6587 section 3.4.1).
    pub(super) fn format_counted(&self, line: &[u8]) -> Vec<u8> {
        let message = self.format(line);
        let mut frame = format!("{} ", message.len()).into_bytes();
        frame.extend_from_slice(&message);
        frame
    }
}

/// Appends JSON with all that is not ASCII escaped, which can stand within its strings only.
fn escape_into(out: &mut String, json: &str) {
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
        }
    }
}

/// Returns the name of this machine, or nil.
fn sender_host() -> String {
    let name: String = host_name().chars().take(MAX_HOST_CHARS).collect();
    if name.is_empty() { NIL.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Facility, HostPort, SyslogAddress};
    use super::*;

    fn header() -> SyslogHeader {
        let receiver = HostPort { host: "log.example".into(), port: 514 };
        SyslogHeader::new(&SyslogConfig {
            address: SyslogAddress::Udp(receiver),
            facility: Facility::AUTHPRIV,
            app_name: "tenantd".into(),
        })
    }

    fn format(line: &str) -> String {
        String::from_utf8(header().format(line.as_bytes())).expect("text")
    }

    #[test]
    fn a_message_has_the_fields_of_rfc_5424_and_the_line() {
        let line = r#"{"at":"2026-11-25T09:00:00.000Z","event":"call","outcome":"ok","user":"a b"}"#;
        let message = format(&format!("{line}\n"));
        let parts: Vec<&str> = message.splitn(8, ' ').collect();
        assert_eq!(&parts[..2], ["<86>1", "2026-11-25T09:00:00.000Z"]);
        assert_eq!(parts[3], "tenantd");
        assert_eq!(parts[4], std::process::id().to_string());
        assert_eq!(&parts[5..], ["call", "-", line]);
        assert!(!parts[2].is_empty());
        let counted = header().format_counted(line.as_bytes());
        assert_eq!(counted, format!("{} {message}", message.len()).as_bytes());
    }

    #[test]
    fn whatever_is_no_success_is_a_notice() {
        let refused = r#"{"at":"2026-11-25T09:00:00.000Z","event":"refusal","outcome":"invalid_token"}"#;
        assert!(format(refused).starts_with("<85>1 "));
    }

    #[test]
    fn text_is_ascii_and_the_same_json() {
        let line = r#"{"at":"x","event":"call","outcome":"ok","user":"Jörg 🦀 \" \u00e9"}"#;
        let message = format(line);
        assert!(message.is_ascii());
        let json = &message[message.find('{').expect("JSON")..];
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(json), value(line));
    }
}
