//! From an HTTP answer to a JSON value, or to the reason why there is none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use serde_json::Value;

use super::Error;
use super::body::{AnswerBody, collect};
use super::scrub::plain_sentence;
use crate::base::headers::wait_asked_for;
use crate::spec::CallSpec;

/// Bodies from here on are parsed on a blocking thread.
const LARGE: usize = 256 << 10;
/// As much of an error's body is read, for so long; the error itself is known already.
const ERROR_BYTES: usize = 64 << 10;
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// Reads the answer to `spec`. The media type is not looked at: what parses as JSON is JSON.
pub(super) async fn read(
    response: Response<AnswerBody>,
    cap: usize,
    spec: &CallSpec,
    now: Timestamp,
) -> Result<Value, Error> {
    if response.status().is_success() {
        return parse(collect(response.into_body(), cap).await?).await;
    }
    let (head, body) = response.into_parts();
    // Read even where it is not needed: an answer that was read leaves its connection usable.
    let text = tokio::time::timeout(ERROR_PATIENCE, collect(body, ERROR_BYTES)).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    Err(match head.status.as_u16() {
        401 | 403 => Error::KeyRefused,
        429 => Error::RateLimited { retry_after: retry_after(&head.headers, now) },
        status @ 500.. => Error::Failed { status },
        status => Error::Refused { status, detail: plain_sentence(&text, spec) },
    })
}

async fn parse(bytes: Bytes) -> Result<Value, Error> {
    if bytes.len() < LARGE {
        return parse_now(&bytes);
    }
    tokio::task::spawn_blocking(move || parse_now(&bytes)).await.unwrap_or(Err(Error::NotJson))
}

/// A byte order mark in front is forgiven: RFC 8259 section 8.1 lets readers ignore it.
fn parse_now(bytes: &[u8]) -> Result<Value, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|_| Error::NotJson)
}

/// How long the backend asks to wait, a day at most.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    wait_asked_for(headers, now).map(|wait| wait.min(Duration::from_secs(86_400)))
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

    #[test]
    fn a_byte_order_mark_is_forgiven_and_nothing_else() {
        assert_eq!(parse_now(b"\xef\xbb\xbf{}"), Ok(serde_json::json!({})));
        for bad in [&b""[..], b"<html>", b"{} {}", b"{\"a\":"] {
            assert_eq!(parse_now(bad), Err(Error::NotJson));
        }
    }

    #[test]
    fn a_bottomless_document_is_refused() {
        assert_eq!(parse_now("[".repeat(100_000).as_bytes()), Err(Error::NotJson));
    }
}
