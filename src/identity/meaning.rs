//! What a failure of a login means: who can resolve it, and the text of its page.
//!
//! Here are the meanings that any provider has; further ones are beside their provider. In the
//! texts, `{provider}` stands for its name, `{app}` for the app's id there, `{redirect}` for our
//! redirect URI, and `{groups}` for the provider's advice about groups.

/// Who can resolve an error, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginErrorKind {
    /// The account is not allowed, the person declined, or the login took too long.
    Refused,
    /// The operator must correct the app registration or the tenant's file. Sessions stay valid
    /// meanwhile.
    Misconfigured,
    /// The account must log in again. Only renewals report this.
    Ended,
    /// The provider does not respond. Nothing was used up, except perhaps a code.
    Down,
}

impl LoginErrorKind {
    pub(super) fn metric_label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Misconfigured => "misconfigured",
            Self::Ended => "ended",
            Self::Down => "down",
        }
    }
}

/// The kind of an error, its class, and the text of its page.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorMeaning {
    pub(super) kind: LoginErrorKind,
    /// A short name for metrics, logs and the audit.
    pub(super) class: &'static str,
    /// Whether every login fails until the operator corrects the app registration or the tenant's
    /// file.
    pub(super) blocks_all_logins: bool,
    pub(super) title: &'static str,
    pub(super) sentence: &'static str,
    pub(super) advice: &'static str,
}

pub(super) const ASK_OPERATOR: &str = "Tell the operator of this server; your account is not the problem.";

impl ErrorMeaning {
    pub(super) const DECLINED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "declined",
        blocks_all_logins: false,
        title: "The login was not completed",
        sentence: "You did not allow this application to sign you in.",
        advice: "If you did not intend that, go back to your application and connect again.",
    };
    pub(super) const NOT_LISTED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "not_named",
        blocks_all_logins: false,
        title: "Your account may not use this server",
        sentence: "You signed in, but none of your roles and groups may use this server.",
        advice: "Ask the operator of this server which role or group you need, then sign in again.",
    };
    pub(super) const GROUPS_MISSING: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "groups_untold",
        blocks_all_logins: false,
        title: "Your groups could not be checked",
        sentence: "You are in too many groups for {provider} to list them, and this server is only for some \
                   groups.",
        advice: "Tell the operator of this server: {groups}",
    };
    pub(super) const ANOTHER_DOMAIN: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "another_domain",
        blocks_all_logins: false,
        title: "Your account may not use this server",
        sentence: "This server is for accounts of certain e-mail domains, and your account has another \
                   domain.",
        advice: "Try again with another account, or ask the operator of this server.",
    };
    pub(super) const ANOTHER_ACCOUNT: Self = Self {
        kind: LoginErrorKind::Ended,
        class: "another_account",
        blocks_all_logins: false,
        title: "Please sign in again",
        sentence: "{provider} renewed the login of a different account than the one that signed in.",
        advice: "Connect again.",
    };
    pub(super) const SECRET_WRONG: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "secret_wrong",
        blocks_all_logins: true,
        title: "This server could not authenticate to {provider}",
        sentence: "{provider} refuses this server's client secret.",
        advice: ASK_OPERATOR,
    };
    pub(super) const REQUEST_REFUSED: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "request_refused",
        blocks_all_logins: false,
        title: "{provider} refused this server's request",
        sentence: "{provider} did not accept the request that this server made for you.",
        advice: ASK_OPERATOR,
    };
    pub(super) const INVALID_ID_TOKEN: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "disbelieved",
        blocks_all_logins: false,
        title: "The login could not be verified",
        sentence: "The answer of {provider}'s login did not pass this server's checks.",
        advice: "Try again. If the problem continues, tell the operator of this server.",
    };
    pub(super) const MFA_REQUIRED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "more_proof",
        blocks_all_logins: false,
        title: "{provider} requires another step to verify you",
        sentence: "Your organization requires another step, such as a second factor.",
        advice: "Connect again and complete all steps of {provider}'s login.",
    };
    pub(super) const SESSION_ENDED: Self = Self {
        kind: LoginErrorKind::Ended,
        class: "over",
        blocks_all_logins: false,
        title: "This login has ended",
        sentence: "The login took too long, was used already, or was revoked.",
        advice: "Go back to your application and connect again.",
    };
    pub(super) const PROVIDER_DOWN: Self = Self {
        kind: LoginErrorKind::Down,
        class: "down",
        blocks_all_logins: false,
        title: "{provider}'s login does not answer",
        sentence: "This server could not reach {provider}'s login service.",
        advice: "Try again in a few minutes.",
    };
}
