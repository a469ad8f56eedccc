//! Headers that a configuration may set: their names and values.

use http::{HeaderName, HeaderValue};

use super::validation::Validation;
use crate::base::diagnostic::{Diagnostic, Location};

const MAX_VALUE_BYTES: usize = 8_192;
/// Headers that frame the message or that the gateway sets itself.
const RESERVED: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "user-agent",
    "accept-encoding",
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// Parses the name of a header that a configuration may set.
pub(super) fn parse_header_name(
    validation: &mut Validation<'_, '_>,
    text: &str,
    at: &Location,
) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let refused = match &name {
        None => "this is not a valid header name",
        Some(name) if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("proxy-") => {
            "only the gateway sets this header"
        }
        Some(_) => return name,
    };
    validation
        .add_finding(Diagnostic::error("bad-header", refused).help("use another header"), Some(at.clone()));
    None
}

/// Whether a header can carry a value, and servers accept it.
pub(super) fn is_valid_header_value(value: &str) -> bool {
    value.len() <= MAX_VALUE_BYTES && value.is_ascii() && HeaderValue::from_str(value).is_ok()
}

/// Reports a value that no header can carry; `what` says which.
pub(super) fn reject_header_value(validation: &mut Validation<'_, '_>, what: &str, at: &Location) {
    validation.add_finding(
        Diagnostic::error(
            "bad-header-value",
            format!("{what} has characters that are not allowed in a header"),
        )
        .help("look for a line break, a quote or a non-ASCII letter from copying"),
        Some(at.clone()),
    );
}
