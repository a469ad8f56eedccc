//! Why a call or a read has no answer.

use rmcp::ErrorData;

use crate::backend;
use crate::telemetry::metrics::CallOutcome;
use crate::usage::LimitReached;

/// Why a call has no answer. `Display` is the text for the model.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailure {
    #[error(
        "Your account may not use this tool. Ask the operator of this server for access; calling again does \
         not help."
    )]
    NotAllowed,
    #[error(
        "The arguments are not valid, so the search service was not called: {0}. Correct them and call \
             again."
    )]
    Arguments(String),
    #[error("{0}")]
    Limit(#[from] LimitReached),
    #[error("{}. {}", capitalize(.0), .0.advice())]
    Backend(#[from] backend::Error),
    #[error("The call was cancelled.")]
    Cancelled,
    #[error("This server was changed or is shutting down. Call again.")]
    Closed,
    /// An error of the protocol: the fault is not the tool's.
    #[error("{}", .0.message)]
    Protocol(ErrorData),
}

impl CallFailure {
    pub(super) fn outcome(&self) -> CallOutcome {
        match self {
            Self::NotAllowed => CallOutcome::NotAllowed,
            Self::Limit(limit) if limit.kind.is_quota() => CallOutcome::QuotaExhausted,
            Self::Limit(_) => CallOutcome::RateLimited,
            Self::Arguments(_) => CallOutcome::BadArguments,
            Self::Backend(
                backend::Error::Busy | backend::Error::GatewayBusy | backend::Error::BudgetExhausted(_),
            ) => CallOutcome::Busy,
            Self::Backend(_) => CallOutcome::BackendError,
            Self::Cancelled | Self::Closed => CallOutcome::Cancelled,
            Self::Protocol(_) => CallOutcome::Internal,
        }
    }

    /// Returns the kind of error for metrics: the class of the backend's fault, or else the
    /// outcome.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.class(),
            other => other.outcome().label(),
        }
    }
}

fn capitalize(error: &backend::Error) -> String {
    let mut text = error.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}
