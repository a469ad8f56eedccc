//! Why a login failed: for people ([`PageText`]), for OAuth clients ([`Error::oauth_error`]) and
//! for the log ([`ProviderTrace`]).

use std::fmt;

use super::aadsts::{self, ErrorMeaning, LoginErrorKind};

/// The failure of a login or renewal. It holds no code, token or secret. `Display` is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{class}{trace}")]
pub struct Error {
    kind: LoginErrorKind,
    class: &'static str,
    page: Box<PageText>,
    trace: Box<ProviderTrace>,
}

/// The text of an error page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageText {
    /// The heading.
    pub title: &'static str,
    /// What happened.
    pub sentence: String,
    /// What to do, and who has to do it.
    pub advice: String,
}

/// Entra's identifiers of a failure, to find it in Entra's sign-in log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderTrace {
    /// The numbers of the `AADSTS…` errors.
    pub codes: Vec<u32>,
    /// Entra's id of the exchange.
    pub correlation_id: Option<String>,
    /// Entra's id of the request.
    pub trace_id: Option<String>,
    /// What this gateway adds: why a token was rejected, or why no response arrived.
    pub detail: Option<String>,
}

impl Error {
    /// Returns who can resolve the failure, and how.
    pub fn kind(&self) -> LoginErrorKind {
        self.kind
    }

    /// Returns a short class for metrics, logs and audit: `not_assigned`, `secret_expired`, …
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// Returns the text of the error page.
    pub fn page(&self) -> &PageText {
        &self.page
    }

    /// Returns the identifiers for the log.
    pub fn trace(&self) -> &ProviderTrace {
        &self.trace
    }

    /// Whether every login fails until the operator corrects the app registration or the tenant's
    /// file.
    pub(super) fn is_app_misconfiguration(&self) -> bool {
        let classes = [
            "secret_wrong",
            "secret_expired",
            "secret_missing",
            "app_unknown",
            "directory_unknown",
            "one_directory",
        ];
        classes.contains(&self.class)
    }

    /// Returns the error code for OAuth clients (RFC 6749 sections 4.1.2.1 and 5.2).
    pub fn oauth_error(&self) -> &'static str {
        match self.kind {
            LoginErrorKind::Refused => "access_denied",
            LoginErrorKind::Misconfigured => "server_error",
            LoginErrorKind::Ended => "invalid_grant",
            LoginErrorKind::Down => "temporarily_unavailable",
        }
    }

    /// Creates the error for Entra's response: by the first AADSTS code that is known, else by the
    /// OAuth error.
    pub(super) fn from_entra(oauth: &str, trace: ProviderTrace) -> Self {
        Self::from_meaning(&aadsts::find_meaning(oauth, &trace.codes), trace)
    }

    pub(super) fn from_meaning(meaning: &ErrorMeaning, trace: ProviderTrace) -> Self {
        let page = PageText {
            title: meaning.title,
            sentence: meaning.sentence.to_owned(),
            advice: meaning.advice.to_owned(),
        };
        Self { kind: meaning.kind, class: meaning.class, page: Box::new(page), trace: Box::new(trace) }
    }

    /// Fills in the placeholders of the texts, `{app}` and `{redirect}`.
    pub(super) fn fill_in_app(mut self, client_id: &str, redirect_uri: &str) -> Self {
        let fill = |text: &str| text.replace("{app}", client_id).replace("{redirect}", redirect_uri);
        self.page.sentence = fill(&self.page.sentence);
        self.page.advice = fill(&self.page.advice);
        self
    }

    /// Adapts the error to a renewal: a refused account ends the session.
    pub(super) fn for_renewal(mut self) -> Self {
        if self.kind == LoginErrorKind::Refused {
            self.kind = LoginErrorKind::Ended;
        }
        self
    }

    /// Adapts the error to a login: no session exists yet that could end.
    pub(super) fn for_login(mut self) -> Self {
        if self.kind == LoginErrorKind::Ended {
            self.kind = LoginErrorKind::Refused;
        }
        self
    }

    /// Creates the error for an exchange without a usable response from Entra.
    pub(super) fn provider_down(why: impl Into<String>) -> Self {
        Self::from_meaning(
            &ErrorMeaning::PROVIDER_DOWN,
            ProviderTrace { detail: Some(why.into()), ..ProviderTrace::default() },
        )
    }

    pub(super) fn another_account() -> Self {
        Self::from_meaning(&ErrorMeaning::ANOTHER_ACCOUNT, ProviderTrace::default())
    }

    pub(super) fn not_listed() -> Self {
        Self::from_meaning(&ErrorMeaning::NOT_LISTED, ProviderTrace::default())
    }

    pub(super) fn groups_missing() -> Self {
        Self::from_meaning(&ErrorMeaning::GROUPS_MISSING, ProviderTrace::default())
    }

    pub(super) fn another_domain() -> Self {
        Self::from_meaning(&ErrorMeaning::ANOTHER_DOMAIN, ProviderTrace::default())
    }
}

impl fmt::Display for ProviderTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codes.iter().try_for_each(|code| write!(f, " AADSTS{code}"))?;
        if let Some(id) = &self.correlation_id {
            write!(f, " correlation id {id}")?;
        }
        if let Some(id) = &self.trace_id {
            write!(f, " trace id {id}")?;
        }
        self.detail.iter().try_for_each(|detail| write!(f, ": {detail}"))
    }
}
