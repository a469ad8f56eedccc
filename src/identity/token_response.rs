//! Responses of Entra's token endpoint (RFC 6749 section 5, with Entra's own members).

use http::StatusCode;
use serde::Deserialize;

use super::error::{Error, ProviderTrace};
use crate::base::secret::Secret;

/// A limit on the codes taken from one response. Descriptions are for logs; only codes and ids are
/// kept of them.
const MAX_CODES: usize = 8;
/// Correlation and trace ids have 36 characters.
const MAX_ID_BYTES: usize = 64;

/// The tokens of a successful response.
#[derive(Deserialize)]
pub(super) struct TokenResponse {
    pub(super) id_token: Secret,
    pub(super) refresh_token: Option<Secret>,
}

#[derive(Deserialize)]
struct TokenErrorResponse {
    error: String,
    #[serde(default)]
    error_codes: Vec<u32>,
    error_description: Option<String>,
    correlation_id: Option<String>,
    trace_id: Option<String>,
}

/// Parses a response of the token endpoint.
pub(super) fn parse(status: StatusCode, body: &[u8]) -> Result<TokenResponse, Error> {
    if status == StatusCode::OK {
        return serde_json::from_slice(body).map_err(|_| Error::provider_down("its answer has no id_token"));
    }
    let refusal: TokenErrorResponse = serde_json::from_slice(body)
        .map_err(|_| Error::provider_down(format!("it answered {status} with something that is not JSON")))?;
    let mut trace = parse_description(refusal.error_description.as_deref());
    trace.correlation_id = refusal.correlation_id.and_then(loggable_id).or(trace.correlation_id);
    trace.trace_id = refusal.trace_id.and_then(loggable_id).or(trace.trace_id);
    if !refusal.error_codes.is_empty() {
        trace.codes = refusal.error_codes.into_iter().take(MAX_CODES).collect();
    }
    Err(Error::from_entra(&refusal.error, trace))
}

/// Returns the error of a redirect from the authorization endpoint that brought no code.
pub(super) fn parse_redirect_error(error: &str, description: Option<&str>) -> Error {
    Error::from_entra(error, parse_description(description))
}

/// Extracts the codes and ids of a description: `AADSTS65004: … Trace ID: … Correlation ID: …`.
fn parse_description(description: Option<&str>) -> ProviderTrace {
    let text = description.unwrap_or_default();
    let codes = text.split("AADSTS").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    let after = |label: &str| {
        let (_, rest) = text.split_once(label)?;
        rest.split_whitespace().next().map(str::to_owned).and_then(loggable_id)
    };
    ProviderTrace {
        codes: codes.take(MAX_CODES).collect(),
        correlation_id: after("Correlation ID:"),
        trace_id: after("Trace ID:"),
        detail: None,
    }
}

/// Returns the id if it is safe to log.
fn loggable_id(text: String) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && !text.is_empty() && text.len() <= MAX_ID_BYTES).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LoginErrorKind;

    #[test]
    fn a_refusal_is_read_with_its_numbers_and_ids() {
        let body = br#"{"error": "invalid_client", "error_codes": [7000222], "error_description": "AADSTS7000222: x",
            "trace_id": "0a-1", "correlation_id": "bad id\n"}"#;
        let error = parse(StatusCode::UNAUTHORIZED, body).map(|_| ()).expect_err("a refusal");
        assert_eq!((error.kind(), error.class()), (LoginErrorKind::Misconfigured, "secret_expired"));
        assert_eq!(error.to_string(), "secret_expired AADSTS7000222 trace id 0a-1");
    }

    #[test]
    fn what_is_no_answer_is_an_outage() {
        for (status, body) in [(200, "{}"), (200, "<html>"), (400, "<html>"), (302, "")] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = parse(status, body.as_bytes()).map(|_| ()).expect_err("no tokens");
            assert_eq!(error.kind(), LoginErrorKind::Down, "{status} {body}");
        }
    }

    #[test]
    fn numbers_stand_in_the_description_of_a_redirect() {
        let description =
            "AADSTS65004: User declined. Trace ID: 1-2 Correlation ID: 3-4 Timestamp: 2026-11-25 10:00:00Z";
        let error = parse_redirect_error("access_denied", Some(description));
        assert_eq!(error.class(), "declined");
        assert_eq!(error.to_string(), "declined AADSTS65004 correlation id 3-4 trace id 1-2");
        assert_eq!(parse_redirect_error("access_denied", None).class(), "declined");
        assert_eq!(parse_redirect_error("x", Some("AADSTS99999999999999: AADSTS")).trace().codes, [0u32; 0]);
    }
}
