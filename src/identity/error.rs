//! Why a login failed: for people ([`PageText`]), for OAuth clients ([`Error::oauth_error`]) and
//! for the log ([`ProviderTrace`]).

use std::fmt;

use super::account::RuleRejection;
use super::brand::Brand;
use super::meaning::{ErrorMeaning, LoginErrorKind};

/// The failure of a login or renewal. It holds no code, token or secret. `Display` is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{class}{trace}")]
pub struct Error {
    kind: LoginErrorKind,
    class: &'static str,
    blocks_all_logins: bool,
    page: Box<PageText>,
    trace: Box<ProviderTrace>,
}

/// The text of an error page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageText {
    /// The heading.
    pub title: String,
    /// What happened.
    pub sentence: String,
    /// What to do, and who has to do it.
    pub advice: String,
}

/// The provider's identifiers of a failure, to find it in the provider's own log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderTrace {
    /// The numbers of Entra's errors (`AADSTS…`).
    pub codes: Vec<u32>,
    /// The provider's id of the exchange.
    pub correlation_id: Option<String>,
    /// The provider's id of the request.
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
    pub(super) fn blocks_all_logins(&self) -> bool {
        self.blocks_all_logins
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

    pub(super) fn from_meaning(meaning: &ErrorMeaning, trace: ProviderTrace) -> Self {
        let page = PageText {
            title: meaning.title.to_owned(),
            sentence: meaning.sentence.to_owned(),
            advice: meaning.advice.to_owned(),
        };
        Self {
            kind: meaning.kind,
            class: meaning.class,
            blocks_all_logins: meaning.blocks_all_logins,
            page: Box::new(page),
            trace: Box::new(trace),
        }
    }

    /// Creates the error for an id_token that is not valid.
    pub(super) fn invalid_id_token(meaning: &ErrorMeaning, why: impl fmt::Display) -> Self {
        let detail = Some(format!("the id_token: {why}"));
        Self::from_meaning(meaning, ProviderTrace { detail, ..ProviderTrace::default() })
    }

    /// Fills in the placeholders of the texts.
    pub(super) fn fill_in(mut self, brand: &Brand, client_id: &str, redirect_uri: &str) -> Self {
        let PageText { title, sentence, advice } = &mut *self.page;
        for text in [title, sentence, advice] {
            *text = text
                .replace("{groups}", brand.groups_advice)
                .replace("{provider}", brand.name)
                .replace("{app}", client_id)
                .replace("{redirect}", redirect_uri);
        }
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

    /// Creates the error for an exchange without a usable response from the provider.
    pub(super) fn provider_down(why: impl Into<String>) -> Self {
        Self::from_meaning(
            &ErrorMeaning::PROVIDER_DOWN,
            ProviderTrace { detail: Some(why.into()), ..ProviderTrace::default() },
        )
    }

    pub(super) fn another_account() -> Self {
        Self::from_meaning(&ErrorMeaning::ANOTHER_ACCOUNT, ProviderTrace::default())
    }

    /// Logs that a login was refused or failed.
    pub fn log_login(&self, tenant: &str, request_id: &str) {
        let (fault, class) = ("login", self.class);
        let ProviderTrace { codes: aadsts, correlation_id, trace_id, .. } = &*self.trace;
        let (correlation_id, trace_id) = (correlation_id.as_deref(), trace_id.as_deref());
        match self.kind {
            LoginErrorKind::Refused | LoginErrorKind::Ended => tracing::info!(
                tenant,
                request_id,
                fault,
                class,
                ?aadsts,
                correlation_id,
                trace_id,
                "a login was refused"
            ),
            LoginErrorKind::Misconfigured | LoginErrorKind::Down => tracing::warn!(
                tenant,
                request_id,
                fault,
                class,
                ?aadsts,
                correlation_id,
                trace_id,
                "a login failed"
            ),
        }
    }

    /// Logs that a login was not renewed. `service` is what the provider's service is called. An
    /// outage has been logged already.
    pub fn log_renewal(&self, tenant: &str, service: &str) {
        let fault = self.class;
        let ProviderTrace { codes: aadsts, correlation_id, trace_id, .. } = &*self.trace;
        let (correlation_id, trace_id) = (correlation_id.as_deref(), trace_id.as_deref());
        match self.kind {
            LoginErrorKind::Refused | LoginErrorKind::Ended => tracing::info!(
                tenant,
                fault,
                ?aadsts,
                correlation_id,
                trace_id,
                "{service} no longer renews the login of an account"
            ),
            LoginErrorKind::Misconfigured => tracing::error!(
                tenant,
                fault,
                ?aadsts,
                correlation_id,
                trace_id,
                "{service} refuses this gateway, so nobody can renew a login"
            ),
            LoginErrorKind::Down => {}
        }
    }
}

impl From<RuleRejection> for Error {
    fn from(rejection: RuleRejection) -> Self {
        let meaning = match rejection {
            RuleRejection::NotListed => ErrorMeaning::NOT_LISTED,
            RuleRejection::GroupsUnknown => ErrorMeaning::GROUPS_MISSING,
            RuleRejection::OtherDomain => ErrorMeaning::ANOTHER_DOMAIN,
        };
        Self::from_meaning(&meaning, ProviderTrace::default())
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
