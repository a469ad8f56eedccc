//! What the admin listener reads of a request: names in its path, its query, its body.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;

/// For a request's body as a whole; it comes from this machine.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// A name as it stands in a path.
pub(super) fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// The first query parameter of this name.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query?.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).next()
}

/// A whole body of at most so many bytes, if it comes in time.
pub(super) async fn whole<B>(body: B, largest: usize) -> Option<Bytes>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, largest).collect()).await;
    Some(collected.ok()?.ok()?.to_bytes())
}
