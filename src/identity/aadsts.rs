//! The meaning of Entra's error codes (Microsoft's published list of AADSTS codes).
//!
//! Owns the texts of the error pages. `{app}` and `{redirect}` in them are placeholders for the
//! app's id and our redirect URI.

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
    /// Entra does not respond. Nothing was used up, except perhaps a code.
    Down,
}

/// The kind of an error, its class, and the text of its page.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorMeaning {
    pub(super) kind: LoginErrorKind,
    pub(super) class: &'static str,
    pub(super) title: &'static str,
    pub(super) sentence: &'static str,
    pub(super) advice: &'static str,
}

const ASK_OPERATOR: &str = "Tell whoever operates this server; your account is not at fault.";

/// Returns the meaning of the first known code, else that of the OAuth error.
pub(super) fn find_meaning(oauth: &str, codes: &[u32]) -> ErrorMeaning {
    codes.iter().find_map(|&code| from_code(code)).unwrap_or_else(|| from_oauth_error(oauth))
}

/// Whether Entra rejected the client secret as wrong or expired.
pub(super) fn is_client_secret_error(codes: &[u32]) -> bool {
    codes.iter().any(|code| matches!(code, 7_000_215 | 7_000_222))
}

fn from_code(code: u32) -> Option<ErrorMeaning> {
    Some(match code {
        65_001 | 90_008 | 90_094 | 90_095 => ErrorMeaning::CONSENT_MISSING,
        65_004 => ErrorMeaning::DECLINED,
        50_105 => ErrorMeaning::NOT_ASSIGNED,
        50_020 | 51_004 | 90_072 => ErrorMeaning::OTHER_DIRECTORY,
        50_194 => ErrorMeaning::ONE_DIRECTORY,
        50_011 | 70_004 => ErrorMeaning::REDIRECT_UNKNOWN,
        70_001 | 700_011 | 700_016 => ErrorMeaning::APP_UNKNOWN,
        90_002 => ErrorMeaning::DIRECTORY_UNKNOWN,
        70_002 | 7_000_215 => ErrorMeaning::SECRET_WRONG,
        7_000_222 => ErrorMeaning::SECRET_EXPIRED,
        7_000_218 => ErrorMeaning::SECRET_MISSING,
        50_072 | 50_074 | 50_076 | 50_078 | 50_079 | 50_158 => ErrorMeaning::MFA_REQUIRED,
        50_097 | 50_129 | 50_131 | 50_155 | 53_000..=53_011 | 530_034 | 530_035 => {
            ErrorMeaning::CONDITIONAL_ACCESS
        }
        50_089 | 50_132 | 50_133 | 50_173 | 54_005 | 70_000 | 70_008 | 70_043 | 700_082 | 700_084 => {
            ErrorMeaning::SESSION_ENDED
        }
        28_000 | 28_003 | 90_009 | 900_144 | 901_002 | 9_010_010 => ErrorMeaning::REQUEST_REFUSED,
        // 50196: too many identical requests. Existing sessions stay valid.
        50_087 | 50_088 | 50_196 | 70_012 | 90_006 | 90_012 | 90_033 | 90_090 => ErrorMeaning::PROVIDER_DOWN,
        _ => return None,
    })
}

fn from_oauth_error(error: &str) -> ErrorMeaning {
    match error {
        "access_denied" => ErrorMeaning::DECLINED,
        "consent_required" => ErrorMeaning::CONSENT_MISSING,
        "invalid_grant" => ErrorMeaning::SESSION_ENDED,
        "interaction_required" | "login_required" => ErrorMeaning::MFA_REQUIRED,
        "server_error" | "temporarily_unavailable" => ErrorMeaning::PROVIDER_DOWN,
        "invalid_client" | "unauthorized_client" => ErrorMeaning::SECRET_WRONG,
        _ => ErrorMeaning::REQUEST_REFUSED,
    }
}

impl ErrorMeaning {
    const CONSENT_MISSING: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "consent_missing",
        title: "An administrator must grant this application",
        sentence: "Your organization lets people use an application only once an administrator has agreed to it.",
        advice: "Ask an administrator of your Microsoft directory to open Enterprise applications, the application \
                 {app}, Permissions, and to grant admin consent. Then try again.",
    };
    const DECLINED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "declined",
        title: "The login was not completed",
        sentence: "You did not let this application sign you in.",
        advice: "If you did not mean that, go back to your application and connect again.",
    };
    const NOT_ASSIGNED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "not_assigned",
        title: "Your account is not assigned to this application",
        sentence: "Your organization lets only those people use this application who were assigned to it.",
        advice: "Ask an administrator of your Microsoft directory to open Enterprise applications, the application \
                 {app}, Users and groups, and to add you. Then try again.",
    };
    pub(super) const OTHER_DIRECTORY: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "other_directory",
        title: "This account belongs to another organization",
        sentence: "You signed in with an account that this server does not take.",
        advice: "Try again and choose your account of the organization that this server belongs to.",
    };
    pub(super) const GUEST: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "guest",
        title: "Guest accounts cannot use this server",
        sentence: "You signed in as a guest of the organization.",
        advice: "Try again with an account of the organization itself, or ask whoever operates this server to let \
                 guests in (access: guests: true).",
    };
    pub(super) const PERSONAL: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "personal",
        title: "Personal accounts cannot use this server",
        sentence: "You signed in with a personal Microsoft account.",
        advice: "Try again and choose your work or school account.",
    };
    pub(super) const NOT_LISTED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "not_named",
        title: "Your account may not use this server",
        sentence: "You signed in, but none of your roles and groups is among those that this server is for.",
        advice: "Ask whoever operates this server which role or group you need, then sign in again.",
    };
    pub(super) const GROUPS_MISSING: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "groups_untold",
        title: "Your groups could not be checked",
        sentence: "You are in so many groups that Microsoft did not say which, and this server is only for some of them.",
        advice: "Tell whoever operates this server: \"Groups assigned to the application\" in the app registration, \
                 or app roles instead of groups, solve it.",
    };
    pub(super) const ANOTHER_DOMAIN: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "another_domain",
        title: "Your account may not use this server",
        sentence: "This server is for accounts of certain e-mail domains, and yours is of another.",
        advice: "Try again with another account, or ask whoever operates this server.",
    };
    pub(super) const ANOTHER_ACCOUNT: Self = Self {
        kind: LoginErrorKind::Ended,
        class: "another_account",
        title: "Please sign in again",
        sentence: "Microsoft renewed the login of another account than the one that signed in.",
        advice: "Connect again.",
    };
    const REDIRECT_UNKNOWN: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "redirect_unknown",
        title: "This server's address is not registered with Microsoft",
        sentence: "Microsoft does not send people back to addresses that it does not know.",
        advice: "Tell whoever operates this server to add {redirect} to the redirect URIs (platform: Web) of the app \
                 {app} in Entra.",
    };
    const APP_UNKNOWN: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "app_unknown",
        title: "Microsoft does not know this application",
        sentence: "There is no application {app} in the directory that this server asks.",
        advice: "Tell whoever operates this server to compare microsoft_client_id and microsoft_tenant_id with the \
                 app's overview in Entra.",
    };
    pub(super) const DIRECTORY_UNKNOWN: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "directory_unknown",
        title: "Microsoft does not know this directory",
        sentence: "There is no directory of the id or domain that this server asks.",
        advice: "Tell whoever operates this server to compare microsoft_tenant_id with the directory's overview in \
                 Entra.",
    };
    const ONE_DIRECTORY: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "one_directory",
        title: "This application is registered for one organization",
        sentence: "This server asks accounts of several organizations, and Microsoft knows its app for one.",
        advice: "Tell whoever operates this server to make the app {app} \"Accounts in any organizational directory\" in \
                 Entra, or to name the directory in microsoft_tenant_id.",
    };
    const SECRET_WRONG: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "secret_wrong",
        title: "This server could not prove itself to Microsoft",
        sentence: "Microsoft refuses the client secret that this server has.",
        advice: ASK_OPERATOR,
    };
    const SECRET_EXPIRED: Self = Self { class: "secret_expired", ..Self::SECRET_WRONG };
    const SECRET_MISSING: Self = Self { class: "secret_missing", ..Self::SECRET_WRONG };
    const REQUEST_REFUSED: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "request_refused",
        title: "Microsoft refused this server's request",
        sentence: "Microsoft did not take the request that this server made for you.",
        advice: ASK_OPERATOR,
    };
    pub(super) const INVALID_ID_TOKEN: Self = Self {
        kind: LoginErrorKind::Misconfigured,
        class: "disbelieved",
        title: "The login could not be verified",
        sentence: "What Microsoft's login answered does not hold what this server must be sure of.",
        advice: "Try again; if it goes on, tell whoever operates this server.",
    };
    const MFA_REQUIRED: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "more_proof",
        title: "Microsoft wants more proof of who you are",
        sentence: "Your organization asks for a further step, such as a second factor.",
        advice: "Connect again and complete all steps of Microsoft's login.",
    };
    const CONDITIONAL_ACCESS: Self = Self {
        kind: LoginErrorKind::Refused,
        class: "conditional_access",
        title: "Your organization's rules do not allow this login",
        sentence: "A Conditional Access policy blocks it, for instance because of the device or place.",
        advice: "Ask an administrator of your Microsoft directory what the policy wants.",
    };
    const SESSION_ENDED: Self = Self {
        kind: LoginErrorKind::Ended,
        class: "over",
        title: "This login is over",
        sentence: "The login took too long, was used already, or was revoked.",
        advice: "Go back to your application and connect again.",
    };
    pub(super) const PROVIDER_DOWN: Self = Self {
        kind: LoginErrorKind::Down,
        class: "down",
        title: "Microsoft's login does not answer",
        sentence: "This server could not reach Microsoft's login service.",
        advice: "Try again in a few minutes.",
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Error, ProviderTrace};

    fn error_of(oauth: &str, codes: &[u32]) -> Error {
        Error::from_entra(oauth, ProviderTrace { codes: codes.to_vec(), ..ProviderTrace::default() })
    }

    #[test]
    fn numbers_count_before_words_and_unknown_ones_do_not() {
        for (oauth, codes, kind, class) in [
            ("invalid_grant", &[65_001][..], LoginErrorKind::Refused, "consent_missing"),
            ("invalid_grant", &[50_105], LoginErrorKind::Refused, "not_assigned"),
            ("invalid_grant", &[53_003], LoginErrorKind::Refused, "conditional_access"),
            ("invalid_client", &[7_000_222], LoginErrorKind::Misconfigured, "secret_expired"),
            ("invalid_client", &[7_000_215], LoginErrorKind::Misconfigured, "secret_wrong"),
            ("invalid_target", &[9_010_010], LoginErrorKind::Misconfigured, "request_refused"),
            ("invalid_grant", &[1, 70_008], LoginErrorKind::Ended, "over"),
            ("invalid_grant", &[50_057], LoginErrorKind::Ended, "over"),
            ("temporarily_unavailable", &[], LoginErrorKind::Down, "down"),
            ("invalid_grant", &[50_196], LoginErrorKind::Down, "down"),
            ("invalid_request", &[50_194], LoginErrorKind::Misconfigured, "one_directory"),
            ("access_denied", &[], LoginErrorKind::Refused, "declined"),
            ("nonsense", &[], LoginErrorKind::Misconfigured, "request_refused"),
        ] {
            let error = error_of(oauth, codes);
            assert_eq!((error.kind(), error.class()), (kind, class), "{oauth} {codes:?}");
        }
    }

    #[test]
    fn pages_name_the_app_and_the_redirect_uri() {
        let page =
            |code| error_of("", &[code]).fill_in_app("app-1", "https://h/a/auth/ms-callback").page().clone();
        assert!(page(50_105).advice.contains("app-1"));
        assert!(page(50_011).advice.contains("https://h/a/auth/ms-callback"));
    }

    #[test]
    fn sessions_end_at_renewals_only() {
        assert_eq!(error_of("", &[50_105]).for_renewal().kind(), LoginErrorKind::Ended);
        assert_eq!(error_of("", &[7_000_222]).for_renewal().kind(), LoginErrorKind::Misconfigured);
        assert_eq!(error_of("", &[54_005]).for_login().kind(), LoginErrorKind::Refused);
    }
}
