//! Classifies failures of ACME: the fault, and what to tell people.

use instant_acme::{Error as AcmeError, Problem};

use super::help;
use super::http::{AcmeHttpClient, ExchangeTimeout, LeaseOver, NotAnAcmeResponse};
use crate::base::error_chain;
use crate::certs::Error;
use crate::certs::schedule::{FailureKind, IssuanceFailure};

const ACME_ERROR_URN: &str = "urn:ietf:params:acme:error:";
/// In characters.
const MAX_DETAIL_CHARS: usize = 500;
const TOO_MANY_REQUESTS: u16 = 429;
const UNAVAILABLE: u16 = 503;

/// Returns the value of the metrics' label for a fault.
pub(super) fn metric_label(fault: FailureKind) -> &'static str {
    match fault {
        FailureKind::Unreachable => "unreachable",
        FailureKind::Validation => "validation",
        FailureKind::RateLimited => "rate_limited",
        FailureKind::Refused => "refused",
        FailureKind::BadAnswer => "bad_answer",
    }
}

/// Builds a failure that only an operator can resolve.
pub(super) fn new_refused(text: impl Into<String>) -> IssuanceFailure {
    IssuanceFailure::new(FailureKind::Refused, text)
}

/// Builds the failure of a CA that could not validate the name.
pub(super) fn new_validation(text: impl Into<String>) -> IssuanceFailure {
    IssuanceFailure::new(FailureKind::Validation, text)
}

/// Builds the failure of a CA that sent something other than the certificate ordered.
pub(super) fn new_bad_answer(error: &Error) -> IssuanceFailure {
    let text = format!("the CA sent a certificate that is not used: {error}");
    IssuanceFailure::new(FailureKind::BadAnswer, text)
        .with_help("The served certificate stays, and the gateway tries the CA again by itself")
}

/// Classifies an error of instant-acme.
pub(super) fn from_acme_error(error: AcmeError, http: &AcmeHttpClient) -> IssuanceFailure {
    let refusal = http.last_error_response().unwrap_or_default();
    let busy = matches!(refusal.status, TOO_MANY_REQUESTS | UNAVAILABLE);
    let mut failure = match &error {
        AcmeError::Api(problem) => from_problem(problem),
        AcmeError::Other(other) => from_transport_error(other.as_ref()),
        AcmeError::Json(error) => IssuanceFailure::new(
            FailureKind::Unreachable,
            format!("the CA's answer is not an ACME answer: {error}"),
        ),
        other => IssuanceFailure::new(FailureKind::Unreachable, other.to_string()),
    };
    if refusal.status == TOO_MANY_REQUESTS {
        failure.kind = FailureKind::RateLimited;
        failure.help = help::help_for_problem("rateLimited").map(str::to_owned);
    }
    IssuanceFailure { retry_after: refusal.retry_after.filter(|_| busy), ..failure }
}

fn from_transport_error(error: &(dyn std::error::Error + 'static)) -> IssuanceFailure {
    let is_self_explanatory =
        error.is::<NotAnAcmeResponse>() || error.is::<ExchangeTimeout>() || error.is::<LeaseOver>();
    let chain = error_chain::format_chain(error);
    let text = if is_self_explanatory { chain } else { format!("the CA cannot be reached: {chain}") };
    IssuanceFailure::new(FailureKind::Unreachable, text).with_help(help::help_for_transport_error(error))
}

/// Classifies a CA's problem document.
pub(super) fn from_problem(problem: &Problem) -> IssuanceFailure {
    let kind = problem.r#type.as_deref().and_then(|urn| urn.strip_prefix(ACME_ERROR_URN)).unwrap_or_default();
    let help = help::help_for_problem(kind).map(str::to_owned);
    IssuanceFailure { help, ..IssuanceFailure::new(classify_problem(kind), describe_problem(problem)) }
}

/// Classifies an error at the creation of an account.
pub(super) fn from_account_error(error: AcmeError, http: &AcmeHttpClient, with_eab: bool) -> IssuanceFailure {
    let is_wrong_eab = with_eab && matches!(problem_type(&error), Some("unauthorized" | "malformed"));
    let failure = from_acme_error(error, http);
    match failure.kind {
        _ if is_wrong_eab => {
            IssuanceFailure { kind: FailureKind::Refused, ..failure }.with_help(help::WRONG_EAB)
        }
        // Nothing has been validated yet.
        FailureKind::Validation => IssuanceFailure { kind: FailureKind::Refused, ..failure },
        _ => failure,
    }
}

pub(super) fn is_bad_nonce(error: &AcmeError) -> bool {
    problem_type(error) == Some("badNonce")
}

pub(super) fn is_unknown_account(error: &AcmeError) -> bool {
    problem_type(error) == Some("accountDoesNotExist")
}

/// Returns whether an order failed because of its `replaces` field: the CA has no renewal
/// information, has seen the old certificate replaced already, or did not echo the field.
pub(super) fn is_replaces_rejected(error: &AcmeError) -> bool {
    match error {
        AcmeError::Api(problem) => {
            let says = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains("replace"));
            matches!(problem_type(error), Some("alreadyReplaced" | "conflict")) || says(&problem.detail)
        }
        AcmeError::Unsupported(_) => true,
        AcmeError::Other(other) => other.to_string().contains("replaces field"),
        _ => false,
    }
}

fn problem_type(error: &AcmeError) -> Option<&str> {
    match error {
        AcmeError::Api(problem) => problem.r#type.as_deref()?.strip_prefix(ACME_ERROR_URN),
        _ => None,
    }
}

fn classify_problem(kind: &str) -> FailureKind {
    match kind {
        "rateLimited" => FailureKind::RateLimited,
        "unauthorized" | "connection" | "dns" | "caa" | "tls" | "incorrectResponse" => {
            FailureKind::Validation
        }
        "rejectedIdentifier"
        | "unsupportedIdentifier"
        | "invalidProfile"
        | "userActionRequired"
        | "badCSR"
        | "badPublicKey"
        | "badSignatureAlgorithm"
        | "externalAccountRequired"
        | "invalidContact"
        | "unsupportedContact"
        | "malformed" => FailureKind::Refused,
        _ => FailureKind::Unreachable,
    }
}

/// Returns the CA's own words, which people search for: shortened, and without control characters
/// that a terminal would obey.
fn describe_problem(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_else(|| "the CA refuses without a reason".into());
    for sub in &problem.subproblems {
        text += &format!("; {sub}");
    }
    if let Some(urn) = problem.r#type.as_deref() {
        let room = text.char_indices().nth(MAX_DETAIL_CHARS).map_or(text.len(), |(at, _)| at);
        text = format!("{} ({})", &text[..room], urn.strip_prefix(ACME_ERROR_URN).unwrap_or(urn));
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_DETAIL_CHARS * 2).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let document = serde_json::json!({ "type": format!("{ACME_ERROR_URN}{kind}"), "detail": detail });
        serde_json::from_value(document).expect("a problem")
    }

    /// Every problem of RFC 8555 section 6.7 that an order can cause, its fault, and a word from
    /// its help.
    const PROBLEMS: [(&str, FailureKind, &str); 18] = [
        ("connection", FailureKind::Validation, "firewall"),
        ("dns", FailureKind::Validation, "AAAA"),
        ("caa", FailureKind::Validation, "CAA record"),
        ("tls", FailureKind::Validation, "port 443"),
        ("unauthorized", FailureKind::Validation, "Another server"),
        ("incorrectResponse", FailureKind::Validation, "Another server"),
        ("rateLimited", FailureKind::RateLimited, "certs list"),
        ("rejectedIdentifier", FailureKind::Refused, "another name"),
        ("unsupportedIdentifier", FailureKind::Refused, "another name"),
        ("invalidProfile", FailureKind::Refused, "acme_profile"),
        ("userActionRequired", FailureKind::Refused, "accept_tos"),
        ("externalAccountRequired", FailureKind::Refused, "acme_eab_kid"),
        ("invalidContact", FailureKind::Refused, "acme_contact"),
        ("unsupportedContact", FailureKind::Refused, "acme_contact"),
        ("badCSR", FailureKind::Refused, "acme_directory"),
        ("badPublicKey", FailureKind::Refused, "acme_directory"),
        ("badSignatureAlgorithm", FailureKind::Refused, "acme_directory"),
        ("serverInternal", FailureKind::Unreachable, "tries again"),
    ];

    #[test]
    fn every_problem_says_whose_fault_it_is_and_what_to_do() {
        for (kind, fault, word) in PROBLEMS {
            let failure = from_problem(&problem(kind, "so it is"));
            assert_eq!(failure.kind, fault, "{kind}");
            let chain = failure.message();
            assert!(
                chain.starts_with(&format!("so it is ({kind}). ")) && chain.contains(word),
                "{kind}: {chain}"
            );
        }
    }

    #[test]
    fn texts_of_a_ca_are_shortened_and_without_control_characters() {
        let failure = from_problem(&problem("dns", &format!("\u{1b}[31m{}", "x".repeat(100_000))));
        assert!(failure.text.len() < 1100 && !failure.text.contains('\u{1b}'), "{}", failure.text.len());
        assert!(failure.text.ends_with("(dns)"));
    }
}
