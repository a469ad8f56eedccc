//! Turns an HTTP response into a document, or into the reason why there is none.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Response};
use jiff::Timestamp;

use super::body::{ResponseBody, collect};
use super::error_detail::extract_detail;
use super::response_budget::{release, reserve};
use super::{BackendResponse, Error};
use crate::base::budget::Reservation;
use crate::base::headers::parse_retry_after;
use crate::base::json::{CheckedJson, JsonError, JsonLimits};
use crate::spec::CallSpec;

/// The maximum nesting depth. Clients read the result that wraps the document, and serde_json reads
/// 127 levels.
const DEPTH: usize = 120;
/// The number of bytes examined to tell text from binary data.
const LOOKED_AT: usize = 512;
/// How much of an error's body is read, and for how long; the error itself is already known.
const ERROR_BYTES: usize = 64 << 10;
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// The bytes of a successful response, not yet parsed.
#[derive(Debug)]
pub(super) struct UnparsedAnswer {
    bytes: Vec<u8>,
    cap: usize,
    hold: Reservation,
}

/// Receives the response to `spec`, reserving its memory in `hold`. The media type is ignored:
/// whatever parses as JSON is accepted.
pub(super) async fn receive(
    response: Response<ResponseBody>,
    cap: usize,
    spec: &CallSpec,
    mut hold: Reservation,
    now: Timestamp,
) -> Result<UnparsedAnswer, Error> {
    if response.status().is_success() {
        if let Some(coding) = coding(response.headers()) {
            return Err(Error::Compressed { coding });
        }
        let bytes = collect(response.into_body(), cap, &mut hold).await?;
        return Ok(UnparsedAnswer { bytes, cap, hold });
    }
    let (head, body) = response.into_parts();
    // Read the body even where it is not needed, which keeps the connection reusable.
    let text = tokio::time::timeout(ERROR_PATIENCE, collect(body, ERROR_BYTES, &mut hold)).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    Err(match head.status.as_u16() {
        401 | 403 => Error::KeyRefused,
        // Only a proxy may answer with this status (RFC 9110 section 15.5.8).
        407 => Error::ProxyLogin,
        429 => Error::RateLimited { retry_after: retry_after(&head.headers, now) },
        status @ 500.. => Error::Failed { status },
        status => Error::Refused { status, detail: extract_detail(text, spec) },
    })
}

impl UnparsedAnswer {
    /// Returns the number of bytes to parse.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Parses the bytes: one pass over them, and a second one if they are not compact.
    pub(super) fn parse(self) -> Result<BackendResponse, Error> {
        let Self { bytes, cap, mut hold } = self;
        let held = bytes.capacity();
        let checked = check(bytes, cap)?;
        let needed = checked.extra_bytes();
        reserve(&mut hold, needed)?;
        let document = checked.into_document();
        release(&mut hold, (held + needed).saturating_sub(document.capacity()));
        Ok(BackendResponse { document, reservation: hold })
    }
}

/// Validates the text. A leading byte order mark is ignored, as RFC 8259 section 8.1 permits.
fn check(mut bytes: Vec<u8>, cap: usize) -> Result<CheckedJson, Error> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::Empty);
    }
    if bytes.starts_with(b"\x1f\x8b") {
        return Err(Error::Compressed { coding: "gzip" });
    }
    let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let is_binary = !is_utf16 && bytes.iter().take(LOOKED_AT).any(|byte| *byte == 0);
    let limits = JsonLimits { bytes: cap, depth: DEPTH, values: usize::MAX };
    CheckedJson::check(bytes, &limits).map_err(|fault| match fault {
        JsonError::NotUtf8 if !is_binary => Error::NotUtf8,
        JsonError::NotUtf8 | JsonError::Syntax { .. } => Error::NotJson,
        JsonError::TooDeep => Error::TooDeep,
        JsonError::TooManyValues | JsonError::TooLarge => Error::TooLarge { limit: cap },
    })
}

/// Returns the content coding of a response. No coding was requested, so none can be decoded.
fn coding(headers: &HeaderMap) -> Option<&'static str> {
    let coding = headers.get(CONTENT_ENCODING)?.as_bytes();
    let known = ["gzip", "br", "deflate", "zstd", "compress"];
    let is_empty = headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    if is_empty || coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") {
        return None;
    }
    let named = known.into_iter().find(|known| coding.eq_ignore_ascii_case(known.as_bytes()));
    Some(named.unwrap_or("an unknown coding"))
}

/// Returns how long the backend asks to wait, a day at most.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    parse_retry_after(headers, now).map(|wait| wait.min(Duration::from_secs(86_400)))
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(text))]);
            retry_after(&headers, "2026-11-24T10:00:00Z".parse().expect("a moment"))
                .map(|wait| wait.as_secs())
        };
        assert_eq!(after("7"), Some(7));
        assert_eq!(after("Tue, 24 Nov 2026 10:00:30 GMT"), Some(30));
        assert_eq!(after("Tue, 24 Nov 2026 09:00:00 GMT"), Some(0), "a moment that has passed");
        assert_eq!(after("99999999"), Some(86_400));
        assert_eq!(after("soon"), None);
    }

    fn read(bytes: &[u8]) -> Result<String, Error> {
        check(bytes.to_vec(), 1 << 20).map(|checked| checked.into_document().as_str().to_owned())
    }

    #[test]
    fn a_byte_order_mark_is_forgiven_and_nothing_else() {
        assert_eq!(read(b"\xef\xbb\xbf{}"), Ok("{}".to_owned()));
        for bad in [&b"<html>"[..], b"{} {}", b"{\"a\":", b"\x00\xff{not json"] {
            assert_eq!(read(bad), Err(Error::NotJson));
        }
    }

    #[test]
    fn what_is_no_json_is_named_for_what_it_is() {
        assert_eq!(read(b""), Err(Error::Empty));
        assert_eq!(read(b" \r\n"), Err(Error::Empty));
        assert_eq!(read(b"\x1f\x8b\x08"), Err(Error::Compressed { coding: "gzip" }));
        assert_eq!(read(b"{\"name\": \"M\xfcller\"}"), Err(Error::NotUtf8));
        assert_eq!(read(b"\xff\xfe{\0}\0"), Err(Error::NotUtf8));
        let coded = |value: &'static str| {
            coding(&HeaderMap::from_iter([(CONTENT_ENCODING, http::HeaderValue::from_static(value))]))
        };
        assert_eq!(coded("GZIP"), Some("gzip"));
        assert_eq!(coded("a b<c"), Some("an unknown coding"), "nothing of the header is repeated");
        assert_eq!(coded("identity"), None);
    }

    #[test]
    fn a_bottomless_document_is_refused() {
        assert_eq!(read("[".repeat(100_000).as_bytes()), Err(Error::TooDeep));
    }
}
