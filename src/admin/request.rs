//! Reads the parts of requests to the admin listener: path segments, query and body.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;

/// The timeout of a whole request body, which comes from this machine.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Decodes a percent-encoded path segment.
pub(super) fn decode_segment(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// Returns the first query parameter of this name.
pub(super) fn query_parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query?.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).next()
}

/// Reads a body of at most `max_bytes`, or returns `None` if it is larger or late.
pub(super) async fn read_body<B>(body: B, max_bytes: usize) -> Option<Bytes>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, max_bytes).collect()).await;
    Some(collected.ok()?.ok()?.to_bytes())
}
