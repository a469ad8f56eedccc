//! Turns an HTTP response into a document, or into the reason why there is none.

use std::time::Duration;

use http::{HeaderMap, Response};
use jiff::Timestamp;

use super::body::{ResponseBody, collect};
use super::body_encoding::BodyEncoding;
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
const MAX_ERROR_BYTES: usize = 64 << 10;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes of a successful response, not yet parsed.
#[derive(Debug)]
pub(super) struct UnparsedAnswer {
    bytes: Vec<u8>,
    encoding: BodyEncoding,
    cap: usize,
    reservation: Reservation,
}

/// Receives the response to `spec`, reserving its memory in `reservation`. The media type is
/// ignored: whatever parses as JSON is accepted.
pub(super) async fn receive(
    response: Response<ResponseBody>,
    cap: usize,
    spec: &CallSpec,
    mut reservation: Reservation,
    now: Timestamp,
) -> Result<UnparsedAnswer, Error> {
    let encoding = BodyEncoding::from_headers(response.headers());
    if response.status().is_success() {
        let encoding = encoding?;
        let bytes = collect(response.into_body(), cap, &mut reservation).await?;
        return Ok(UnparsedAnswer { bytes, encoding, cap, reservation });
    }
    let (head, body) = response.into_parts();
    // Read the body even where it is not needed, which keeps the connection reusable.
    let text =
        tokio::time::timeout(ERROR_BODY_TIMEOUT, collect(body, MAX_ERROR_BYTES, &mut reservation)).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    let text = encoding
        .and_then(|encoding| encoding.decode(text, MAX_ERROR_BYTES, &mut reservation))
        .unwrap_or_default();
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
    /// Returns the number of bytes to parse, at most.
    pub(super) fn size(&self) -> usize {
        self.encoding.decoded_size(self.bytes.len())
    }

    /// Decodes and parses the bytes: one pass over them, and a second one if they are not compact.
    pub(super) fn parse(self) -> Result<BackendResponse, Error> {
        let Self { bytes, encoding, cap, mut reservation } = self;
        let bytes = encoding.decode(bytes, cap, &mut reservation)?;
        let held = bytes.capacity();
        let checked = check(bytes, cap)?;
        let needed = checked.extra_bytes();
        reserve(&mut reservation, needed)?;
        let document = checked.into_document();
        release(&mut reservation, (held + needed).saturating_sub(document.capacity()));
        Ok(BackendResponse { document, reservation })
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
    let is_binary = bytes.iter().take(LOOKED_AT).any(|byte| *byte == 0);
    let limits = JsonLimits { bytes: cap, depth: DEPTH, values: usize::MAX };
    CheckedJson::check(bytes, &limits).map_err(|fault| match fault {
        JsonError::NotUtf8 if !is_binary => Error::NotUtf8,
        JsonError::NotUtf8 | JsonError::Syntax { .. } => Error::NotJson,
        JsonError::TooDeep => Error::TooDeep,
        JsonError::TooManyValues | JsonError::TooLarge => Error::TooLarge { limit: cap },
    })
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
    fn a_body_that_is_not_json_is_classified() {
        assert_eq!(read(b""), Err(Error::Empty));
        assert_eq!(read(b" \r\n"), Err(Error::Empty));
        assert_eq!(read(b"\x1f\x8b\x08"), Err(Error::Compressed { coding: "gzip" }));
        assert_eq!(read(b"{\"name\": \"M\xfcller\"}"), Err(Error::NotUtf8));
    }

    #[test]
    fn a_bottomless_document_is_refused() {
        assert_eq!(read("[".repeat(100_000).as_bytes()), Err(Error::TooDeep));
    }
}
