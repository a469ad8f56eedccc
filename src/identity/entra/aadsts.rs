//! The meaning of Entra's error codes (Microsoft's published list of AADSTS codes), and where they
//! stand in Entra's answers.

use serde::Deserialize;

use crate::identity::error::{Error, ProviderTrace};
use crate::identity::meaning::{ErrorMeaning, LoginErrorKind};
use crate::identity::oidc::token_response::TokenErrorResponse;

/// A limit on the codes taken from one response. Descriptions are for logs; only codes and ids are
/// kept of them.
const MAX_CODES: usize = 8;
/// Correlation and trace ids have 36 characters.
const MAX_ID_BYTES: usize = 64;

/// The members that Entra adds to an error response.
#[derive(Deserialize)]
pub(super) struct EntraErrorFields {
    #[serde(default)]
    error_codes: Vec<u32>,
    correlation_id: Option<String>,
    trace_id: Option<String>,
}

/// Returns the error for a refusal of the token endpoint.
pub(super) fn from_token_response(refusal: TokenErrorResponse<EntraErrorFields>) -> Error {
    let TokenErrorResponse { error, error_description, further } = refusal;
    let mut trace = parse_description(error_description.as_deref());
    trace.correlation_id = further.correlation_id.and_then(loggable_id).or(trace.correlation_id);
    trace.trace_id = further.trace_id.and_then(loggable_id).or(trace.trace_id);
    if !further.error_codes.is_empty() {
        trace.codes = further.error_codes.into_iter().take(MAX_CODES).collect();
    }
    to_error(&error, trace)
}

/// Returns the error of a redirect from the authorization endpoint that brought no code.
pub(super) fn from_redirect(error: &str, description: Option<&str>) -> Error {
    to_error(error, parse_description(description))
}

/// Whether Entra rejected the client secret as wrong or expired.
pub(super) fn is_client_secret_error(error: &Error) -> bool {
    error.trace().codes.iter().any(|code| matches!(code, 7_000_215 | 7_000_222))
}

/// The first known code decides, else the OAuth error.
fn to_error(oauth: &str, trace: ProviderTrace) -> Error {
    let known = trace.codes.iter().find_map(|&code| from_code(code));
    Error::from_meaning(&known.unwrap_or_else(|| from_oauth_error(oauth)), trace)
}

/// Extracts the codes and ids of a description: `AADSTS65004: … Trace ID: … Correlation ID: …`.
fn parse_description(description: Option<&str>) -> ProviderTrace {
    let text = description.unwrap_or_default();
    let after = |label: &str| {
        let (_, rest) = text.split_once(label)?;
        rest.split_whitespace().next().map(str::to_owned).and_then(loggable_id)
    };
    ProviderTrace {
        codes: find_codes(text),
        correlation_id: after("Correlation ID:"),
        trace_id: after("Trace ID:"),
        detail: None,
    }
}

/// Returns the codes in a text or page.
pub(super) fn find_codes(text: &str) -> Vec<u32> {
    let codes = text.split("AADSTS").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    codes.take(MAX_CODES).collect()
}

/// Returns the id if it is safe to log.
fn loggable_id(text: String) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && !text.is_empty() && text.len() <= MAX_ID_BYTES).then_some(text)
}

fn from_code(code: u32) -> Option<ErrorMeaning> {
    Some(match code {
        65_001 | 90_008 | 90_094 | 90_095 => CONSENT_MISSING,
        65_004 => ErrorMeaning::DECLINED,
        50_105 => NOT_ASSIGNED,
        50_020 | 51_004 | 90_072 => OTHER_DIRECTORY,
        50_194 => ONE_DIRECTORY,
        50_011 | 70_004 => REDIRECT_UNKNOWN,
        70_001 | 700_011 | 700_016 => APP_UNKNOWN,
        90_002 => DIRECTORY_UNKNOWN,
        70_002 | 7_000_215 => ErrorMeaning::SECRET_WRONG,
        7_000_222 => SECRET_EXPIRED,
        7_000_218 => SECRET_MISSING,
        50_072 | 50_074 | 50_076 | 50_078 | 50_079 | 50_158 => ErrorMeaning::MFA_REQUIRED,
        50_097 | 50_129 | 50_131 | 50_155 | 53_000..=53_011 | 530_034 | 530_035 => CONDITIONAL_ACCESS,
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
        "consent_required" => CONSENT_MISSING,
        "invalid_grant" => ErrorMeaning::SESSION_ENDED,
        "interaction_required" | "login_required" => ErrorMeaning::MFA_REQUIRED,
        "server_error" | "temporarily_unavailable" => ErrorMeaning::PROVIDER_DOWN,
        "invalid_client" | "unauthorized_client" => ErrorMeaning::SECRET_WRONG,
        _ => ErrorMeaning::REQUEST_REFUSED,
    }
}

const CONSENT_MISSING: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Refused,
    class: "consent_missing",
    blocks_all_logins: false,
    title: "An administrator must approve this application",
    sentence: "In your organization, people can use an application only after an administrator has approved \
               it.",
    advice: "Ask an administrator of your Microsoft directory to open Enterprise applications, the application \
             {app}, Permissions, and to grant admin consent. Then try again.",
};
const NOT_ASSIGNED: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Refused,
    class: "not_assigned",
    blocks_all_logins: false,
    title: "Your account is not assigned to this application",
    sentence: "In your organization, only people who are assigned to this application can use it.",
    advice: "Ask an administrator of your Microsoft directory to open Enterprise applications, the application \
             {app}, Users and groups, and to add you. Then try again.",
};
pub(super) const OTHER_DIRECTORY: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Refused,
    class: "other_directory",
    blocks_all_logins: false,
    title: "This account belongs to another organization",
    sentence: "You signed in with an account that this server does not accept.",
    advice: "Try again with your account in the organization that this server belongs to.",
};
pub(super) const GUEST: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Refused,
    class: "guest",
    blocks_all_logins: false,
    title: "Guest accounts cannot use this server",
    sentence: "You signed in as a guest of the organization.",
    advice: "Try again with an account of the organization itself, or ask the operator of this server to \
             allow guests (access: guests: true).",
};
pub(super) const PERSONAL: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Refused,
    class: "personal",
    blocks_all_logins: false,
    title: "Personal accounts cannot use this server",
    sentence: "You signed in with a personal Microsoft account.",
    advice: "Try again and choose your work or school account.",
};
const REDIRECT_UNKNOWN: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Misconfigured,
    class: "redirect_unknown",
    blocks_all_logins: false,
    title: "This server's address is not registered with Microsoft",
    sentence: "Microsoft redirects people only to registered addresses.",
    advice: "Tell the operator of this server to add {redirect} to the redirect URIs (platform: Web) of the \
             app {app} in Entra.",
};
const APP_UNKNOWN: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Misconfigured,
    class: "app_unknown",
    blocks_all_logins: true,
    title: "Microsoft does not know this application",
    sentence: "There is no application {app} in the directory that this server uses.",
    advice: "Tell the operator of this server to compare microsoft_client_id and microsoft_tenant_id with \
             the app's overview in Entra.",
};
pub(super) const DIRECTORY_UNKNOWN: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Misconfigured,
    class: "directory_unknown",
    blocks_all_logins: true,
    title: "Microsoft does not know this directory",
    sentence: "There is no directory with the id or domain that this server uses.",
    advice: "Tell the operator of this server to compare microsoft_tenant_id with the directory's overview \
             in Entra.",
};
const ONE_DIRECTORY: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Misconfigured,
    class: "one_directory",
    blocks_all_logins: true,
    title: "This application is registered for one organization",
    sentence: "This server accepts accounts of several organizations, but its app is registered for one.",
    advice: "Tell the operator of this server to set the app {app} to \"Accounts in any organizational \
             directory\" in Entra, or to name the directory in microsoft_tenant_id.",
};
const SECRET_EXPIRED: ErrorMeaning = ErrorMeaning { class: "secret_expired", ..ErrorMeaning::SECRET_WRONG };
const SECRET_MISSING: ErrorMeaning = ErrorMeaning { class: "secret_missing", ..ErrorMeaning::SECRET_WRONG };
const CONDITIONAL_ACCESS: ErrorMeaning = ErrorMeaning {
    kind: LoginErrorKind::Refused,
    class: "conditional_access",
    blocks_all_logins: false,
    title: "Your organization's rules do not allow this login",
    sentence: "A Conditional Access policy blocks it, for instance because of your device or location.",
    advice: "Ask an administrator of your Microsoft directory what the policy requires.",
};

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::BRAND;
    use super::*;
    use crate::identity::oidc::token_response::TokenAnswer;

    fn error_of(oauth: &str, codes: &[u32]) -> Error {
        to_error(oauth, ProviderTrace { codes: codes.to_vec(), ..ProviderTrace::default() })
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
        let page = |code| {
            error_of("", &[code]).fill_in(&BRAND, "app-1", "https://h/a/auth/ms-callback").page().clone()
        };
        assert!(page(50_105).advice.contains("app-1"));
        assert!(page(50_011).advice.contains("https://h/a/auth/ms-callback"));
    }

    #[test]
    fn sessions_end_at_renewals_only() {
        assert_eq!(error_of("", &[50_105]).for_renewal().kind(), LoginErrorKind::Ended);
        assert_eq!(error_of("", &[7_000_222]).for_renewal().kind(), LoginErrorKind::Misconfigured);
        assert_eq!(error_of("", &[54_005]).for_login().kind(), LoginErrorKind::Refused);
    }

    #[test]
    fn a_refusal_is_read_with_its_numbers_and_ids() {
        let body = br#"{"error": "invalid_client", "error_codes": [7000222], "error_description": "AADSTS7000222: x",
            "trace_id": "0a-1", "correlation_id": "bad id\n"}"#;
        let TokenAnswer::Refused(refusal) = TokenAnswer::parse(StatusCode::UNAUTHORIZED, body).expect("read")
        else {
            panic!("tokens")
        };
        let error = from_token_response(refusal);
        assert_eq!((error.kind(), error.class()), (LoginErrorKind::Misconfigured, "secret_expired"));
        assert_eq!(error.to_string(), "secret_expired AADSTS7000222 trace id 0a-1");
    }

    #[test]
    fn numbers_stand_in_the_description_of_a_redirect() {
        let description =
            "AADSTS65004: User declined. Trace ID: 1-2 Correlation ID: 3-4 Timestamp: 2026-11-25 10:00:00Z";
        let error = from_redirect("access_denied", Some(description));
        assert_eq!(error.class(), "declined");
        assert_eq!(error.to_string(), "declined AADSTS65004 correlation id 3-4 trace id 1-2");
        assert_eq!(from_redirect("access_denied", None).class(), "declined");
        assert_eq!(from_redirect("x", Some("AADSTS99999999999999: AADSTS")).trace().codes, [0u32; 0]);
    }
}
