//! HTTP headers that several floors read and write.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;

/// Returns the media type of the body without its parameters (RFC 9110 section 8.3.1), or an empty
/// string if there is none. Compare it case-insensitively.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Returns whether one of the `Accept` headers names a media type.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(media_type)))
}

/// Says in words which methods are allowed, given as the value of an `Allow` header.
pub fn describe_allowed(allowed: &str) -> String {
    if allowed.contains(',') { format!("use one of {allowed}") } else { format!("use {allowed}") }
}

/// Returns a `Retry-After` value in seconds, rounded up (RFC 9110 section 10.2.3).
pub fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// Returns how long `Retry-After` asks to wait, given in seconds or as an HTTP date (RFC 9110
/// section 10.2.3). The caller must bound it.
pub fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    // A date in the past asks for no wait.
    Some(Duration::try_from(moment.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_media_type_are_left_out() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            media_type(&headers).to_owned()
        };
        assert_eq!(of("application/json"), "application/json");
        assert_eq!(of(" Text/HTML ; charset=utf-8"), "Text/HTML");
        assert_eq!((of(""), media_type(&HeaderMap::new())), (String::new(), ""));
    }

    #[test]
    fn retry_after_is_rounded_up() {
        assert_eq!(retry_after(Duration::from_secs(2)), "2");
        assert_eq!(retry_after(Duration::from_millis(2001)), "3");
    }
}
