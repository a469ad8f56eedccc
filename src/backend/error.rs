//! Why a call failed, as told to three audiences: people (`Display`), operators (`advice`), and counters (`class`).

use std::time::Duration;

/// Why a call failed. `Display` is the outside sentence: no key, no URL with a query, no stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the search service cannot be reached")]
    Unreachable,
    /// Its certificate does not prove that it is who its URL names.
    #[error("the search service's certificate is not trusted")]
    Untrusted,
    #[error("the search service did not answer in time")]
    TimedOut,
    /// The connection ended after the request was sent, before the answer was complete.
    #[error("the search service broke off before its answer was complete")]
    BrokenOff,
    #[error("the search service refused this server's API key")]
    KeyRefused,
    #[error("the search service is limiting requests")]
    RateLimited { retry_after: Option<Duration> },
    #[error("the search service refused the request (HTTP {status})")]
    Refused { status: u16, detail: Option<String> },
    #[error("the search service failed (HTTP {status})")]
    Failed { status: u16 },
    #[error("the search service gave an answer that is not JSON")]
    NotJson,
    #[error("the search service gave an answer larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the search service sent a redirect to another host")]
    RedirectRefused,
    #[error("the search service's address is not allowed here")]
    AddressRefused,
    #[error("too many calls of this tenant are under way")]
    Busy,
    /// The breaker is open: the last calls all failed, and the service is left alone for a moment.
    #[error("the search service has failed several times in a row and is given a moment to recover")]
    Paused { retry_after: Duration },
    /// The URL or a header that the template makes cannot be sent.
    #[error("the request to the search service cannot be made from this configuration")]
    BadRequest,
}

impl Error {
    /// A short class for metrics and logs: `unreachable`, `timed_out`, …
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::TimedOut => "timed_out",
            Self::BrokenOff => "broken_off",
            Self::KeyRefused => "key_refused",
            Self::RateLimited { .. } => "rate_limited",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::NotJson => "not_json",
            Self::TooLarge { .. } => "too_large",
            Self::RedirectRefused => "redirect_refused",
            Self::AddressRefused => "address_refused",
            Self::Busy => "busy",
            Self::Paused { .. } => "paused",
            Self::BadRequest => "bad_request",
        }
    }

    /// What to do, for the person who asked or their operator.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable => {
                "try again in a moment; if it goes on, the operator should check that the service runs and that \
                 its URL is right"
            }
            Self::Untrusted => {
                "the operator should renew the service's certificate, or add its authority to this machine's \
                 trusted ones"
            }
            Self::TimedOut => {
                "try a narrower question; if it goes on, the operator should look at the service's load"
            }
            Self::BrokenOff => {
                "try again in a moment; if it goes on, the operator should look at the service's log"
            }
            Self::KeyRefused => {
                "the operator should put the dataset's current API key into this tenant's configuration"
            }
            Self::RateLimited { .. } => "wait a little before asking again",
            Self::Refused { .. } => {
                "put the question differently; if every question is refused, the operator should check the \
                 tenant's URLs and connection"
            }
            Self::Failed { .. } => {
                "try again in a moment; if it goes on, the operator should look at the service's log"
            }
            Self::NotJson => {
                "the operator should check that the tenant's URLs are those of the search API, not of a web page"
            }
            Self::TooLarge { .. } => "ask for less, e.g. with a limit or a narrower question",
            Self::RedirectRefused => {
                "the operator should put the address that the service redirects to into the tenant's \
                 configuration; keys are never sent on to another host"
            }
            Self::AddressRefused => {
                "the operator should check the tenant's URLs; loopback and link-local services need \
                 `--backend-allow`"
            }
            Self::Busy => "wait for earlier calls to end, then ask again",
            Self::Paused { .. } => "wait a moment before asking again",
            Self::BadRequest => "the operator should run `tenantd check` on this tenant",
        }
    }

    /// Whether the backend is to blame, so that its tenant counts as degraded. Being asked to slow down or refusing
    /// one request is no failure.
    pub(super) fn is_backend_fault(&self) -> bool {
        !matches!(
            self,
            Self::RateLimited { .. }
                | Self::Refused { .. }
                | Self::TooLarge { .. }
                | Self::Busy
                | Self::Paused { .. }
                | Self::BadRequest
        )
    }

    /// Whether asking again at once would only make things worse: nobody answers, or a proxy answers in its place.
    /// A plain 500 may be about the one question and says nothing about the next.
    pub(super) fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::TimedOut | Self::BrokenOff | Self::Failed { status: 502..=504 }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_of_its_own_never_opens_the_breaker() {
        assert!(!Error::Failed { status: 500 }.is_outage());
        assert!(Error::Failed { status: 503 }.is_outage());
        assert!(!Error::Refused { status: 400, detail: None }.is_backend_fault());
        assert!(Error::KeyRefused.is_backend_fault());
    }
}
