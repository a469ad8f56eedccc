//! Why a call failed: an outside sentence, what to do, and a class for metrics.

use std::error::Error as _;
use std::time::Duration;

use super::address::AddressRefused;

/// Why a call failed. `Display` is the outside sentence: no key, no URL with a query, no page of the backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the search service cannot be reached")]
    Unreachable,
    #[error("the search service's TLS certificate is not trusted")]
    Untrusted,
    #[error("the search service did not answer in time")]
    TimedOut,
    #[error("the search service failed several times in a row and is left alone for {} s", pause.as_secs().max(1))]
    Resting { pause: Duration },
    #[error("the search service refused this server's API key")]
    KeyRefused,
    #[error("the search service is limiting requests")]
    RateLimited { retry_after: Option<Duration> },
    #[error("the search service refused the request (HTTP {status}){}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Refused { status: u16, detail: Option<String> },
    #[error("the search service failed (HTTP {status})")]
    Failed { status: u16 },
    #[error("the search service gave an answer that is not JSON")]
    NotJson,
    #[error("the search service gave an answer larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the search service sent a redirect that is not followed")]
    RedirectRefused,
    #[error("the search service's address is not allowed here")]
    AddressRefused,
    #[error("too many calls of this tenant are under way")]
    Busy,
}

impl Error {
    /// A short class for metrics and logs.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::TimedOut => "timed_out",
            Self::Resting { .. } => "resting",
            Self::KeyRefused => "key_refused",
            Self::RateLimited { .. } => "rate_limited",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::NotJson => "not_json",
            Self::TooLarge { .. } => "too_large",
            Self::RedirectRefused => "redirect_refused",
            Self::AddressRefused => "address_refused",
            Self::Busy => "busy",
        }
    }

    /// What to do, for the person who asked or their operator.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable | Self::Failed { .. } | Self::Resting { .. } => {
                "Try again in a minute; if it stays, the operator should check that the search service is up."
            }
            Self::Untrusted => {
                "The operator should give the search service a certificate from a CA that this machine trusts."
            }
            Self::TimedOut => "Try a narrower question, or try again later.",
            Self::KeyRefused => {
                "The operator should export the connection again, or set a valid api_key for this tenant."
            }
            Self::RateLimited { .. } | Self::Busy => "Wait a moment, then ask again.",
            Self::Refused { .. } => {
                "Rephrase the question; if it stays, the operator should check this tenant's settings."
            }
            Self::NotJson | Self::RedirectRefused => {
                "The operator should check that search_url and context_url name the search API itself."
            }
            Self::TooLarge { .. } => "Ask for less, for example with a lower limit.",
            Self::AddressRefused => {
                "The operator should check the tenant's URLs, or allow the network with --backend-allow."
            }
        }
    }

    /// Whether the backend (not the caller, nor a cap of ours) is to blame, so that the tenant counts as degraded.
    pub(super) fn is_backends_fault(&self) -> bool {
        !matches!(self, Self::Busy | Self::Refused { .. } | Self::TooLarge { .. } | Self::Resting { .. })
    }

    /// Whether further calls are likely to fail likewise and cost the backend something.
    pub(super) fn trips_the_breaker(&self) -> bool {
        matches!(self, Self::Unreachable | Self::TimedOut | Self::Failed { .. })
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() && !error.is_connect() {
            return Self::TimedOut;
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<AddressRefused>() {
                return Self::AddressRefused;
            }
            if is_certificate_error(error) {
                return Self::Untrusted;
            }
            cause = error.source();
        }
        Self::Unreachable
    }
}

/// rustls' verdict arrives wrapped in an `io::Error` that does not show it as its source.
fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let verdict = error.downcast_ref::<rustls::Error>().or(inner);
    matches!(verdict, Some(rustls::Error::InvalidCertificate(_)))
}
