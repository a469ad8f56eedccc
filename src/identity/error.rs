//! Why somebody could not be logged in: for people ([`Page`]), for clients ([`Error::oauth_error`]) and for the log ([`Trace`]).

/// Why a login or renewal failed. Holds no code, token or secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{class}")]
pub struct Error {
    kind: Kind,
    class: &'static str,
    page: Page,
    trace: Trace,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The account may not, or the person would not.
    Refused,
    /// The operator must mend the app registration or the tenant's file. Nobody's session ends over it.
    Misconfigured,
    /// The code or grant is no longer good: log in again.
    Ended,
    /// Entra does not answer. Nothing was used up.
    Down,
}

/// What people are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub title: &'static str,
    /// What happened.
    pub sentence: String,
    /// What to do, and who.
    pub advice: String,
}

/// What Entra said, to find it in its sign-in log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// Numbers of the `AADSTS…` errors.
    pub codes: Vec<u32>,
    pub correlation_id: Option<String>,
    pub trace_id: Option<String>,
}

impl Error {
    /// Whose turn it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A short class for metrics, logs and audit: `not_assigned`, `secret_expired`, …
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// What people are shown.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// For the log.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What clients are told (RFC 6749 4.1.2.1 and 5.2).
    pub fn oauth_error(&self) -> &'static str {
        match self.kind {
            Kind::Refused => "access_denied",
            Kind::Misconfigured => "server_error",
            Kind::Ended => "invalid_grant",
            Kind::Down => "temporarily_unavailable",
        }
    }

    pub(super) fn down() -> Self {
        Self {
            kind: Kind::Down,
            class: "down",
            page: Page {
                title: "Microsoft's login does not answer",
                sentence: "This server could not reach Microsoft's login service.".into(),
                advice: "Try again in a moment.".into(),
            },
            trace: Trace::default(),
        }
    }
}
