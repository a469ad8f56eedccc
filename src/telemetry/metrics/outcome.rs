//! How tool calls end, in metrics and the audit.

/// The outcome of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    Ok,
    /// The schema refused the arguments.
    BadArguments,
    /// The caller may not use the tool.
    NotAllowed,
    /// A limit of calls at once or a minute was reached.
    RateLimited,
    /// A limit of a day or a month was reached.
    QuotaExhausted,
    /// The backend failed.
    BackendError,
    /// The tenant's bulkhead was full.
    Busy,
    Cancelled,
    /// The gateway failed.
    Internal,
}

impl CallOutcome {
    /// Returns the value of the label, in metrics and the audit.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadArguments => "bad_arguments",
            Self::NotAllowed => "not_allowed",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::BackendError => "backend_error",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}
