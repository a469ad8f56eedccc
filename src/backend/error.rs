//! The reasons why a call failed, for three audiences: people (`Display`), operators (`advice`) and
//! metrics (`class`).

use std::error::Error as StdError;
use std::time::Duration;

use crate::base::budget::Exhausted;
use crate::base::error_chain::causes;

/// The reason why a call failed.
///
/// `Display` yields the sentence shown to callers: no key, no URL with a query, no stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the search service cannot be reached")]
    Unreachable,
    /// The certificate does not match the URL or is not trusted.
    #[error("the search service's certificate is not trusted")]
    Untrusted,
    /// The handshake failed for a reason other than the certificate.
    #[error("the search service does not speak TLS as its https URL says")]
    NoTls,
    #[error("the search service did not answer in time")]
    TimedOut,
    /// The connection ended after the request was sent and before the response was complete.
    #[error("the search service ended the connection before its answer was complete")]
    BrokenOff,
    #[error("the search service refused this server's API key")]
    KeyRefused,
    #[error("the search service is limiting requests")]
    RateLimited { retry_after: Option<Duration> },
    /// The detail is a plain sentence from the service, if it gave one.
    #[error("the search service refused the request (HTTP {status}){}", after_colon(detail))]
    Refused { status: u16, detail: Option<String> },
    #[error("the search service failed (HTTP {status})")]
    Failed { status: u16 },
    #[error("the search service gave an answer that is not JSON")]
    NotJson,
    #[error("the search service gave an empty answer")]
    Empty,
    /// The coding is one of our constants, never the text of the header.
    #[error(
        "the search service gave an answer compressed with {coding}, although the request did not allow \
             it"
    )]
    Compressed { coding: &'static str },
    /// The compressed data is damaged, incomplete, or not compressed at all.
    #[error("the search service gave an answer whose {coding} compression is damaged")]
    Corrupt { coding: &'static str },
    #[error("the search service gave an answer that is not in UTF-8")]
    NotUtf8,
    #[error("the search service gave an answer that is nested too deeply")]
    TooDeep,
    #[error("the search service gave an answer larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// The limit of the response head, which operators cannot raise.
    #[error("the search service gave an answer with more than 100 headers or 64 KiB of them")]
    HeadTooLarge,
    /// The pieces are so many and so small that reading them costs more than they are worth.
    #[error("the search service sent its answer in too many small pieces")]
    TooFragmented,
    #[error("the search service gave an answer that is not HTTP")]
    NotHttp,
    #[error("the proxy on the way to the search service opened no connection to it")]
    ProxyRefused,
    #[error("the proxy on the way to the search service requires a user name and a password, or other ones")]
    ProxyLogin,
    /// It speaks HTTP/2 only, which a tenant must wish for.
    #[error("the search service speaks HTTP/2 only, which is not turned on for it")]
    OnlyHttp2,
    #[error("the question is too long to be part of a URL of at most {limit} characters")]
    UrlTooLong { limit: usize },
    /// Other responses occupy the memory for responses.
    #[error("the answers in progress use all the memory that is allowed for {}", exhausted_share(*.0))]
    BudgetExhausted(Exhausted),
    #[error("the search service sent a redirect to another host")]
    RedirectRefused,
    #[error("the search service's address is not allowed here")]
    AddressRefused,
    #[error("too many calls of this tenant are in progress")]
    Busy,
    /// The limit of the whole server: it has no connection to spare.
    #[error("too many calls to search services are in progress on this server")]
    GatewayBusy,
    /// The breaker is open: recent calls all failed, and the service gets a pause.
    #[error("the search service has failed several times in a row and gets a pause to recover")]
    CircuitOpen { retry_after: Duration },
    /// The URL or a header produced by the template cannot be sent.
    #[error("the request to the search service cannot be made from this configuration")]
    BadRequest,
}

/// The peer keeps sending data that is not a response.
#[derive(Debug, thiserror::Error)]
#[error("the peer sends too much data that is not an answer")]
pub(super) struct UselessTraffic;

impl Error {
    /// Returns a short class for metrics and logs, such as `unreachable` or `timed_out`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::NoTls => "no_tls",
            Self::TimedOut => "timed_out",
            Self::BrokenOff => "broken_off",
            Self::KeyRefused => "key_refused",
            Self::RateLimited { .. } => "rate_limited",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::NotJson => "not_json",
            Self::Empty => "empty",
            Self::Compressed { .. } => "compressed",
            Self::Corrupt { .. } => "corrupt",
            Self::NotUtf8 => "not_utf8",
            Self::TooDeep => "too_deep",
            Self::TooLarge { .. } => "too_large",
            Self::HeadTooLarge => "head_too_large",
            Self::TooFragmented => "crumbs",
            Self::NotHttp => "not_http",
            Self::ProxyRefused => "proxy_refused",
            Self::ProxyLogin => "proxy_login",
            Self::OnlyHttp2 => "only_http2",
            Self::UrlTooLong { .. } => "url_too_long",
            Self::BudgetExhausted(_) => "no_room",
            Self::RedirectRefused => "redirect_refused",
            Self::AddressRefused => "address_refused",
            Self::Busy => "busy",
            Self::GatewayBusy => "crowded",
            Self::CircuitOpen { .. } => "paused",
            Self::BadRequest => "bad_request",
        }
    }

    /// Returns the status that the backend answered with, as far as the error knows it.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::RateLimited { .. } => Some(429),
            Self::Refused { status, .. } | Self::Failed { status } => Some(*status),
            _ => None,
        }
    }

    /// Returns what the caller or their operator can do: a full sentence, to follow the `Display`
    /// text.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable => {
                "Try again in a moment; if the problem continues, the operator should check that the service \
                 runs and that its URL is right."
            }
            Self::Untrusted => {
                "The operator should renew the service's certificate, or add its authority to the trusted \
                 ones of this machine."
            }
            Self::NoTls => {
                "The operator should check the scheme and the port of the tenant's URLs, and that the service speaks \
                 TLS 1.2 or 1.3."
            }
            Self::TimedOut => {
                "Try a narrower question; if the problem continues, the operator should check the service's \
                 load."
            }
            Self::BrokenOff => {
                "Try again in a moment; if the problem continues, the operator should check the service's \
                 log."
            }
            Self::KeyRefused => {
                "The operator should put the dataset's current API key into this tenant's configuration."
            }
            Self::RateLimited { .. } => "Wait a little before asking again.",
            Self::Refused { .. } => {
                "Ask the question differently; if every question is refused, the operator should check the \
                 tenant's URLs and connection."
            }
            Self::Failed { .. } => {
                "Try again in a moment; if the problem continues, the operator should check the service's \
                 log."
            }
            Self::NotJson => {
                "The operator should check that the tenant's URLs are those of the search API, not of a web page."
            }
            Self::Empty => {
                "Try again in a moment; if the problem continues, the operator should check that the \
                 tenant's URLs are those of the search API."
            }
            Self::Corrupt { .. } => {
                "The operator should find out what declares a compression that the answer does not have, or cuts \
                 it: the service, or the proxy in front of it."
            }
            Self::Compressed { .. } => {
                "The operator should turn off compression of answers to requests without Accept-Encoding, at \
                 the service or at the proxy in front of it."
            }
            Self::NotUtf8 => {
                "The operator should have the service answer in UTF-8, as JSON has to be (RFC 8259), or say in \
                 Content-Type which charset it is, by a name that browsers know."
            }
            Self::TooDeep => {
                "Ask the question differently; if the problem continues, the operator should check the \
                 service's answers."
            }
            Self::TooLarge { .. } => "Ask for less, e.g. with a limit or a narrower question.",
            Self::HeadTooLarge => {
                "The operator should check which headers the service, or a proxy in front of it, adds to its \
                 answers."
            }
            Self::TooFragmented => {
                "The operator should make the service, or a proxy in front of it, send its answers in larger \
                 pieces."
            }
            Self::NotHttp => {
                "The operator should check the scheme and the port of the tenant's URLs; a service that speaks \
                 HTTP/2 only needs `backend: {http2: true}` in the tenant's file."
            }
            Self::ProxyRefused => {
                "The operator should check that the proxy of HTTPS_PROXY runs and allows this server to \
                 connect to the service; NO_PROXY names hosts that are reached without it."
            }
            Self::ProxyLogin => {
                "The operator should write them into the gateway's environment, as \
                 HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT."
            }
            Self::OnlyHttp2 => "The operator should write `backend: {http2: true}` into the tenant's file.",
            Self::UrlTooLong { .. } => {
                "Ask a shorter question; the operator can send it in a body instead, with the method POST."
            }
            Self::BudgetExhausted(_) => {
                "Wait a moment, then ask again, or ask for less, e.g. with a limit or a narrower question."
            }
            Self::RedirectRefused => {
                "The operator should write the address to which the service redirects into the tenant's \
                 configuration; keys are never sent to another host."
            }
            Self::AddressRefused => {
                "The operator should check the tenant's URLs; loopback and link-local services need \
                 `--backend-allow`, and if `--backend-only` is set, it must include the service."
            }
            Self::GatewayBusy => {
                "Wait a moment before asking again; if the problem continues, the operator should find the \
                 slow service, and raise the limit of open files."
            }
            Self::Busy => "Wait for earlier calls to end, then ask again.",
            Self::CircuitOpen { .. } => "Wait a moment before asking again.",
            Self::BadRequest => "The operator should run `tenantd check` on this tenant.",
        }
    }

    /// Classifies a transport error that occurred after sending the request, in place of a response
    /// head.
    pub(super) fn from_response_error(error: &(dyn StdError + 'static)) -> Self {
        let hyper = || causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>());
        if is_overrun(error) {
            return Self::TooFragmented;
        }
        if hyper().any(hyper::Error::is_parse_too_large) {
            return Self::HeadTooLarge;
        }
        if hyper().any(hyper::Error::is_parse) { Self::NotHttp } else { Self::BrokenOff }
    }

    /// Classifies a transport error in the middle of a response body.
    pub(super) fn from_body_error(error: &(dyn StdError + 'static)) -> Self {
        if is_overrun(error) { Self::TooFragmented } else { Self::BrokenOff }
    }

    /// Whether the backend is at fault, so that its tenant counts as degraded. Rate limiting or
    /// refusing a single request is no fault.
    pub(super) fn is_backend_fault(&self) -> bool {
        !matches!(
            self,
            Self::RateLimited { .. }
                | Self::Refused { .. }
                | Self::TooLarge { .. }
                | Self::UrlTooLong { .. }
                | Self::BudgetExhausted(_)
                | Self::Busy
                | Self::GatewayBusy
                | Self::CircuitOpen { .. }
                | Self::BadRequest
        )
    }

    /// Whether retrying at once would only make things worse: nothing responds, or only a proxy
    /// does. A plain 500 may concern one question and says nothing about the next.
    pub(super) fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::NoTls
                | Self::TimedOut
                | Self::BrokenOff
                | Self::TooFragmented
                | Self::ProxyRefused
                | Self::ProxyLogin
                | Self::Failed { status: 502..=504 }
        )
    }
}

fn is_overrun(error: &(dyn StdError + 'static)) -> bool {
    let in_io = |error: &std::io::Error| error.get_ref().is_some_and(|cause| cause.is::<UselessTraffic>());
    causes(error).any(|cause| cause.is::<UselessTraffic>() || cause.downcast_ref().is_some_and(in_io))
}

fn exhausted_share(exhausted: Exhausted) -> &'static str {
    match exhausted {
        Exhausted::Tenant => "one tenant's answers",
        Exhausted::Client | Exhausted::Network => "answers to one caller",
        Exhausted::Origin => "answers of one backend",
        Exhausted::Budget => "answers here",
    }
}

fn after_colon(detail: &Option<String>) -> String {
    detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_question_never_opens_the_breaker() {
        assert!(!Error::Failed { status: 500 }.is_outage());
        assert!(Error::Failed { status: 503 }.is_outage());
        assert!(!Error::Refused { status: 400, detail: None }.is_backend_fault());
        assert!(Error::KeyRefused.is_backend_fault());
    }
}
