//! Why an endpoint turns a request down, and the response that says so: JSON for clients, a page
//! for people, or an error response to the client (RFC 6749 sections 4.1.2.1 and 5.2).

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use crate::base::body::Body;
use crate::oauth::client::RedirectUri;
use crate::oauth::client_auth::ClientAuthError;
use crate::oauth::error::Unavailable;
use crate::oauth::login_page::{self, ErrorPage, NoticePage, PageLink};
use crate::oauth::parameters::ParameterError;
use crate::oauth::response;

/// Why an endpoint turns a request down.
pub(super) enum Error {
    /// The endpoint takes these methods only.
    MethodNotAllowed(&'static str),
    /// An error for the client, with its code and description.
    Rejected { status: StatusCode, code: &'static str, description: Cow<'static, str> },
    /// The client is unknown, or did not prove itself. `basic` if it tried to by an
    /// `Authorization` header.
    InvalidClient { basic: bool },
    /// A temporary failure of ours.
    Unavailable { description: Cow<'static, str>, wait: Duration },
    /// A page; the browser is redirected nowhere.
    Page(Box<ErrorPage>),
    /// An error response to the client, by a redirect or by a link that the person can follow.
    Redirect(Box<ErrorRedirect>),
}

/// An error response to a client that was identified, with its redirect URI.
pub(super) struct ErrorRedirect {
    pub(super) redirect_uri: RedirectUri,
    /// The URL of the response.
    pub(super) location: String,
    /// Whether the operator or this program vouches for the client.
    pub(super) is_vouched_for: bool,
    /// The code of the error.
    pub(super) code: &'static str,
    pub(super) description: String,
}

impl Error {
    /// Creates an error of the request, which a retry does not resolve.
    pub(super) fn bad_request(code: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self::Rejected { status: StatusCode::BAD_REQUEST, code, description: description.into() }
    }

    /// Creates a failure of ours that lasts seconds.
    pub(super) fn unavailable(description: &'static str) -> Self {
        Self::Unavailable { description: description.into(), wait: response::RETRY_DELAY }
    }

    /// Logs an error that a person reads on a page.
    pub(super) fn log_page(&self, tenant: &str, request_id: &str) {
        let (error, why) = match self {
            Self::Page(page) => (page.code, page.title),
            Self::Redirect(redirect) => (Some(redirect.code), &*redirect.description),
            _ => return,
        };
        login_page::log_reference(tenant, request_id, error, why);
    }

    /// Returns the response. `prefers_json` says that a program reads it.
    pub(super) fn into_response(self, request_id: Option<&str>, prefers_json: bool) -> Response<Body> {
        match self {
            Self::MethodNotAllowed(allowed) => response::method_not_allowed(allowed),
            Self::Rejected { status, code, description } => response::error(status, code, &description),
            Self::InvalidClient { basic } => invalid_client_response(basic),
            Self::Unavailable { description, wait } => response::unavailable(&description, wait),
            Self::Page(page) => page.to_response(request_id, prefers_json),
            Self::Redirect(redirect) => redirect.to_response(request_id, prefers_json),
        }
    }
}

/// A 401 names the scheme that the client tried (RFC 6749 section 5.2).
fn invalid_client_response(basic: bool) -> Response<Body> {
    let what = "this server does not know the client, or the client did not authenticate; a program should \
                check its client id and secret, and in an application the connector should be removed and \
                added again";
    let mut response = response::error(StatusCode::UNAUTHORIZED, "invalid_client", what);
    if basic {
        let challenge = HeaderValue::from_static(r#"Basic realm="token""#);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

impl ErrorRedirect {
    /// Redirects for clients that the operator or this program vouches for (RFC 6749 section
    /// 4.1.2.1). Others introduced themselves, so they get a link on a page, since otherwise anyone
    /// could use us as an open redirector (RFC 9700 section 4.11.2).
    fn to_response(&self, request_id: Option<&str>, prefers_json: bool) -> Response<Body> {
        let Self { code, description, .. } = self;
        if self.is_vouched_for && self.redirect_uri.private_use_scheme().is_none() {
            return response::redirect(&self.location);
        }
        if prefers_json {
            return response::error(StatusCode::BAD_REQUEST, code, description);
        }
        let notice = NoticePage {
            title: "The application's request was refused",
            sentence: &format!("Its request was refused: {description}. The application got no access."),
            advice: &format!(
                "This link reports the error to the application; it leads to {}. Follow it only if you came \
                 from there; otherwise close this page.",
                self.redirect_uri.describe_destination()
            ),
            link: Some(PageLink::back_to_application(&self.location)),
            request_id,
        };
        notice.to_response(StatusCode::BAD_REQUEST)
    }
}

impl From<ErrorPage> for Error {
    fn from(page: ErrorPage) -> Self {
        Self::Page(Box::new(page))
    }
}

impl From<ParameterError> for Error {
    fn from(error: ParameterError) -> Self {
        Self::bad_request("invalid_request", error.to_string())
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable { description: error.to_string().into(), wait: response::RETRY_DELAY }
    }
}

impl From<ClientAuthError> for Error {
    fn from(error: ClientAuthError) -> Self {
        match error {
            ClientAuthError::Malformed(what) => Self::bad_request("invalid_request", what),
            ClientAuthError::Parameter(error) => error.into(),
            ClientAuthError::Invalid { basic } => Self::InvalidClient { basic },
            ClientAuthError::Unavailable => Self::unavailable("the gateway cannot look up the client now"),
            ClientAuthError::Busy { wait } => Self::Unavailable {
                description: "too many clients authenticate here now; wait as long as Retry-After says"
                    .into(),
                wait,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_used_the_header_is_challenged() {
        let refused = Error::from(ClientAuthError::Invalid { basic: true }).into_response(None, true);
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
            (401, &HeaderValue::from_static("Basic realm=\"token\""))
        );
        let refused = Error::from(ClientAuthError::Invalid { basic: false }).into_response(None, true);
        assert!(!refused.headers().contains_key("www-authenticate"));
    }
}
