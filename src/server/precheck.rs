//! The early check: requests that hyper accepts but that another HTTP implementation might read
//! differently are refused before routing.
//!
//! It follows RFC 9110 section 7.2 and RFC 9112 section 3.2 (Host, targets), RFC 9112 section 6.1
//! (transfer codings) and RFC 9113 section 8.3.1 (`:authority`). hyper refuses malformed heads, and
//! reads a request with both Content-Length and Transfer-Encoding by the latter and then closes; it
//! removes bare line feeds and fragments before this check.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::response::{self, ErrorFormat, Problem};
use crate::base::authority;
use crate::base::body::Body;
use crate::routing::{PathError, check_path};

/// The maximum length of path and query.
const MAX_TARGET_BYTES: usize = 8 << 10;

/// The host and path that a request addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckedTarget<'r> {
    /// Lower case, no port; IPv6 in brackets.
    pub(crate) host: Cow<'r, str>,
    pub(crate) path: &'r str,
}

/// Why a request is refused before its tenant is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestRejection {
    #[error("the request names no host")]
    NoHost,
    #[error("the request has more than one Host header")]
    MultipleHosts,
    #[error("the Host header is not a host name or address with an optional port")]
    MalformedHost,
    #[error("the request target and the Host header name different hosts")]
    HostMismatch,
    #[error("the Transfer-Encoding is something else than \"chunked\"")]
    TransferEncoding,
    #[error("a {0} request with a body")]
    UnexpectedBody(&'static str),
    #[error("the request target is longer than 8 KiB")]
    TargetTooLong,
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("this gateway does not serve this host name")]
    UnknownHost,
    #[error("the TLS connection was made for another host name than that of the request")]
    SniMismatch,
    #[error("nothing is served at this path")]
    NotFound,
    #[error("nothing is served at this path: the tenant's prefix is missing in it")]
    MissingTenantPrefix,
    #[error("this tenant has no login, so it has no OAuth endpoints and no discovery documents")]
    NoLogin,
    #[error(
        "this server is closed until its operator repairs its settings: the last change was refused and may \
         affect who may call"
    )]
    TenantClosed,
    #[error("logins are not available now: the gateway cannot reach the place where it keeps them")]
    StoreUnavailable,
    #[error("the gateway is starting and has not loaded all tenants yet")]
    Starting,
}

/// Returns a request's target, or what is wrong with its head. It reads nothing but the request.
pub(crate) fn check<B: http_body::Body>(request: &Request<B>) -> Result<CheckedTarget<'_>, RequestRejection> {
    check_framing(request)?;
    let authority = find_authority(request)?;
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return Err(RequestRejection::TargetTooLong);
    }
    check_path(uri.path())?;
    let host = authority::host(authority).ok_or(RequestRejection::MalformedHost)?;
    Ok(CheckedTarget { host, path: uri.path() })
}

/// Refuses a request that another HTTP implementation might end elsewhere.
pub(super) fn check_framing<B: http_body::Body>(request: &Request<B>) -> Result<(), RequestRejection> {
    if !has_plain_transfer_encoding(request.headers()) {
        return Err(RequestRejection::TransferEncoding);
    }
    let has_body = !request.body().is_end_stream();
    match *request.method() {
        Method::GET if has_body => Err(RequestRejection::UnexpectedBody("GET")),
        Method::HEAD if has_body => Err(RequestRejection::UnexpectedBody("HEAD")),
        _ => Ok(()),
    }
}

fn has_plain_transfer_encoding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Returns the authority of the request. If the target has one (absolute form, `:authority`), the
/// Host header must be equal.
pub(super) fn find_authority<B>(request: &Request<B>) -> Result<&str, RequestRejection> {
    let of_target = request.uri().authority().map(http::uri::Authority::as_str);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (of_target, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Err(RequestRejection::MultipleHosts),
        (Some(target), Some(host), _) => {
            let same = host.as_bytes().eq_ignore_ascii_case(target.as_bytes());
            if same { Ok(target) } else { Err(RequestRejection::HostMismatch) }
        }
        (Some(target), None, _) if request.version() >= Version::HTTP_2 => Ok(target),
        (None, Some(host), _) => host.to_str().map_err(|_| RequestRejection::MalformedHost),
        (_, None, _) => Err(RequestRejection::NoHost),
    }
}

impl RequestRejection {
    fn status(self) -> StatusCode {
        match self {
            Self::UnknownHost | Self::SniMismatch => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound | Self::MissingTenantPrefix | Self::NoLogin => StatusCode::NOT_FOUND,
            Self::Starting | Self::TenantClosed | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns what the sender should do.
    fn help(self) -> &'static str {
        match self {
            Self::NoHost | Self::MultipleHosts | Self::MalformedHost => {
                "send exactly one Host header, as in the connector URL"
            }
            Self::HostMismatch => {
                "send the connector URL's host in both, or use a target that begins with a slash"
            }
            Self::TransferEncoding => "send the body with a Content-Length, or as \"chunked\" alone",
            Self::UnexpectedBody(_) => "remove the body, or use POST",
            Self::TargetTooLong => "shorten the path or the query",
            Self::Path(_) => {
                "send the connector URL's path exactly as it is written; it needs no \
                              percent-encoding"
            }
            Self::UnknownHost => {
                "use the connector URL's host; if the gateway should serve this name, add it to the \
                 gateway's hosts (--host)"
            }
            Self::SniMismatch => "open a new connection for this host name",
            Self::NotFound => "compare the address with the connector URL, which ends in /mcp; case matters",
            Self::MissingTenantPrefix => {
                "use a path below the connector URL's own path, e.g. /acme/authorize or \
                 /.well-known/oauth-protected-resource/acme/mcp. If the tenant uses API keys, this means \
                 that the key is missing or wrong: send it as \"Authorization: Bearer <key>\""
            }
            Self::NoLogin => "use only the connector URL, or the URL and an API key as bearer token",
            Self::Starting => "try again in a second",
            Self::StoreUnavailable => "try again later; the gateway's log tells its operator the reason",
            Self::TenantClosed => "try again later; \"tenantd tenants show\" tells its operator the reason",
        }
    }

    /// Returns whether sender and server may disagree on where the request ends or whom it
    /// addresses.
    fn is_suspicious(self) -> bool {
        !matches!(
            self,
            Self::UnknownHost
                | Self::SniMismatch
                | Self::NotFound
                | Self::MissingTenantPrefix
                | Self::NoLogin
                | Self::Starting
                | Self::TenantClosed
                | Self::StoreUnavailable
        )
    }

    /// Builds the response. If the error is suspicious, it also closes the HTTP/1 connection.
    pub(super) fn into_response(self, format: ErrorFormat, version: Version) -> Response<Body> {
        let summary = self.to_string();
        let problem = Problem { status: self.status(), summary: &summary, help: Some(self.help()) };
        let mut response = response::rejection(format, problem);
        let seconds = match self {
            Self::Starting => Some("1"),
            Self::StoreUnavailable => Some("5"),
            Self::TenantClosed => Some("60"),
            _ => None,
        };
        if let Some(seconds) = seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self.is_suspicious() {
            response::close_connection(&mut response, version);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    fn get(target: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let request = Request::builder().uri(target);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .body(Empty::new())
            .expect("a request")
    }

    fn host(target: &str, headers: &[(&str, &str)]) -> Result<String, RequestRejection> {
        check(&get(target, headers)).map(|target| target.host.into_owned())
    }

    #[test]
    fn the_host_is_read_without_port_in_small_letters() {
        for (header, expected) in [
            ("mcp.example.com", "mcp.example.com"),
            ("MCP.Example.com:8443", "mcp.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("mcp.example.com.", "mcp.example.com"),
            ("MCP.example.com.:8080", "mcp.example.com"),
            ("mcp.example.com:", "mcp.example.com"),
            ("[::1]:", "[::1]"),
        ] {
            assert_eq!(host("/a", &[("host", header)]).as_deref(), Ok(expected));
        }
        for bad in [
            "", ":80", "a b", "a:b", "a:80:80", "a@b", "a/b", "[::1", "::1", "a:99999", "a,b", "[]", "h\\x",
            ".", ":", ".:80",
        ] {
            assert_eq!(host("/a", &[("host", bad)]), Err(RequestRejection::MalformedHost), "{bad}");
        }
    }

    #[test]
    fn there_is_one_host_and_the_target_agrees() {
        assert_eq!(host("/a", &[]), Err(RequestRejection::NoHost));
        assert_eq!(host("/a", &[("host", "h"), ("host", "h")]), Err(RequestRejection::MultipleHosts));
        assert_eq!(host("http://h:80/a", &[("host", "H:80")]).as_deref(), Ok("h"));
        assert_eq!(host("http://evil/a", &[("host", "h")]), Err(RequestRejection::HostMismatch));
        assert_eq!(host("http://h/a", &[]), Err(RequestRejection::NoHost));
        let mut request = get("https://h/a", &[]);
        *request.version_mut() = Version::HTTP_2;
        assert_eq!(check(&request).map(|target| target.host.into_owned()).as_deref(), Ok("h"));
    }

    #[test]
    fn only_plain_framing_is_accepted() {
        for (coding, fine) in [
            ("chunked", true),
            ("Chunked", true),
            ("gzip, chunked", false),
            ("chunked, chunked", false),
            ("identity", false),
        ] {
            let headers = [("host", "h"), ("transfer-encoding", coding)];
            assert_eq!(host("/a", &headers).is_ok(), fine, "{coding}");
        }
        let twice = [("host", "h"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(host("/a", &twice), Err(RequestRejection::TransferEncoding));
        let mut request: Request<Full<Bytes>> =
            Request::builder().uri("/a").header("host", "h").body(Full::from("x")).expect("a request");
        assert_eq!(check(&request), Err(RequestRejection::UnexpectedBody("GET")));
        *request.method_mut() = Method::POST;
        assert!(check(&request).is_ok());
    }

    #[test]
    fn a_target_has_a_path_of_bounded_length() {
        let host = [("host", "h")];
        assert_eq!(
            check(&get(&format!("/a?{}", "x".repeat(9000)), &host)),
            Err(RequestRejection::TargetTooLong)
        );
        assert_eq!(check(&get("/a/%2e%2e/b", &host)), Err(RequestRejection::Path(PathError::Encoded)));
        assert_eq!(check(&get("*", &host)), Err(RequestRejection::Path(PathError::NotOriginForm)));
        assert_eq!(check(&get("/a/mcp?x=%2f..", &host)).map(|target| target.path), Ok("/a/mcp"));
    }

    /// Bridges that get a 401 for a wrong key try to log in at the host, and show this response.
    #[test]
    fn a_login_attempt_without_a_prefix_is_told_about_keys() {
        assert!(RequestRejection::MissingTenantPrefix.help().contains("the key is missing or wrong"));
    }

    #[test]
    fn every_refusal_says_what_was_found_and_what_to_do() {
        for rejection in [
            RequestRejection::NoHost,
            RequestRejection::UnknownHost,
            RequestRejection::NotFound,
            RequestRejection::Starting,
            RequestRejection::TargetTooLong,
        ] {
            let response = rejection.into_response(ErrorFormat::ProblemJson, Version::HTTP_11);
            assert_eq!(response.status(), rejection.status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers().contains_key(header::CONNECTION), rejection.is_suspicious());
        }
        assert_eq!(
            RequestRejection::Starting.into_response(ErrorFormat::ProblemJson, Version::HTTP_11).headers()
                [header::RETRY_AFTER],
            "1"
        );
    }
}
