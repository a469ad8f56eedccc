//! Responses of a token endpoint (RFC 6749 section 5, OpenID Connect Core section 3.1.3.3).

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::secret::Secret;
use crate::identity::error::Error;

/// The tokens of a successful response.
#[derive(Deserialize)]
pub(in crate::identity) struct TokenResponse {
    pub(in crate::identity) id_token: Secret,
    pub(in crate::identity) refresh_token: Option<Secret>,
}

/// An error response (RFC 6749 section 5.2), with further members of the provider's.
#[derive(Deserialize)]
pub(in crate::identity) struct TokenErrorResponse<F> {
    pub(in crate::identity) error: String,
    pub(in crate::identity) error_description: Option<String>,
    #[serde(flatten)]
    pub(in crate::identity) further: F,
}

/// What a token endpoint answers.
pub(in crate::identity) enum TokenAnswer<F> {
    Tokens(TokenResponse),
    Refused(TokenErrorResponse<F>),
}

impl<F: DeserializeOwned> TokenAnswer<F> {
    /// Parses a response. What is neither of the two counts as an outage.
    pub(in crate::identity) fn parse(status: StatusCode, body: &[u8]) -> Result<Self, Error> {
        if status == StatusCode::OK {
            let tokens = serde_json::from_slice(body).map(Self::Tokens);
            return tokens.map_err(|_| Error::provider_down("its answer has no id_token"));
        }
        serde_json::from_slice(body).map(Self::Refused).map_err(|_| {
            Error::provider_down(format!("it answered {status} with something that is not JSON"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LoginErrorKind;

    #[test]
    fn an_unusable_response_is_an_outage() {
        for (status, body) in [(200, "{}"), (200, "<html>"), (400, "<html>"), (302, "")] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = TokenAnswer::<()>::parse(status, body.as_bytes()).map(|_| ()).expect_err("no tokens");
            assert_eq!(error.kind(), LoginErrorKind::Down, "{status} {body}");
        }
    }
}
