//! Authorization responses: the client's redirect URI with our parameters (RFC 6749 section 4.1.2,
//! RFC 9207).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters, so that no recipient reads a `+` as a space.
const QUERY_ENCODE_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of a response. If the redirect URI has one of these, the client would take it for
/// ours.
const RESPONSE_PARAMETERS: [&str; 6] = ["code", "state", "iss", "error", "error_description", "error_uri"];

/// An authorization response in preparation.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthorizationResponse<'a> {
    pub(super) redirect_uri: &'a str,
    /// Returned byte for byte.
    pub(super) state: Option<&'a str>,
    pub(super) issuer: &'a str,
}

impl AuthorizationResponse<'_> {
    /// Returns the URL of a response with a code.
    pub(super) fn code_url(&self, code: &str) -> String {
        self.build_url(&[("code", code)])
    }

    /// Returns the URL of a response with an error.
    pub(super) fn error_url(&self, error: &str, description: &str) -> String {
        self.build_url(&[("error", error), ("error_description", description)])
    }

    /// Adds our parameters and keeps the query of the redirect URI (RFC 6749 section 3.1.2).
    fn build_url(&self, answer: &[(&str, &str)]) -> String {
        let (place, query) = self.redirect_uri.split_once('?').unwrap_or((self.redirect_uri, ""));
        let mut url = format!("{place}?");
        for pair in query.split('&').filter(|pair| !pair.is_empty() && !is_response_parameter(pair)) {
            url.push_str(pair);
            url.push('&');
        }
        let state = self.state.map(|state| ("state", state));
        for (name, value) in answer.iter().copied().chain(state).chain([("iss", self.issuer)]) {
            url.push_str(&format!("{name}={}&", utf8_percent_encode(value, QUERY_ENCODE_SET)));
        }
        url.pop();
        url
    }
}

fn is_response_parameter(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    RESPONSE_PARAMETERS.contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_issuer_once_and_the_state_unchanged() {
        for (redirect_uri, expected) in [
            ("https://a/cb", "https://a/cb?code=c%2B1&state=a%20b%26%3D%2B%C3%A4&iss=https%3A%2F%2Fh%2Ft"),
            (
                "https://a/cb?x=1&iss=evil&%69ss=2&state=3",
                "https://a/cb?x=1&code=c%2B1&state=a%20b%26%3D%2B%C3%A4&iss=https%3A%2F%2Fh%2Ft",
            ),
            ("cursor://x/cb", "cursor://x/cb?code=c%2B1&state=a%20b%26%3D%2B%C3%A4&iss=https%3A%2F%2Fh%2Ft"),
        ] {
            let back = AuthorizationResponse { redirect_uri, state: Some("a b&=+ä"), issuer: "https://h/t" };
            assert_eq!(back.code_url("c+1"), expected);
        }
        let back = AuthorizationResponse { redirect_uri: "https://a/cb", state: None, issuer: "https://h/t" };
        let error = back.error_url("access_denied", "no");
        assert_eq!(error, "https://a/cb?error=access_denied&error_description=no&iss=https%3A%2F%2Fh%2Ft");
    }
}
