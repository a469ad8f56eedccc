//! Classifies failures of ACME: the fault, and what to tell people.

use instant_acme::{Error as AcmeError, Problem};

use super::help;
use super::http::{Http, NotAcme, TooSlow};
use crate::base::causes;
use crate::certs::Error;
use crate::certs::schedule::{Failure, Fault};

const URN: &str = "urn:ietf:params:acme:error:";
/// In characters.
const LONGEST_DETAIL: usize = 500;
const TOO_MANY_REQUESTS: u16 = 429;
const UNAVAILABLE: u16 = 503;

/// Returns the value of the metrics' label for a fault.
pub(super) fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Unreachable => "unreachable",
        Fault::Validation => "validation",
        Fault::RateLimited => "rate_limited",
        Fault::Refused => "refused",
        Fault::BadAnswer => "bad_answer",
    }
}

/// Builds a failure that only an operator can resolve.
pub(super) fn refused(text: impl Into<String>) -> Failure {
    Failure::new(Fault::Refused, text)
}

/// Builds the failure of a CA that could not validate the name.
pub(super) fn validation(text: impl Into<String>) -> Failure {
    Failure::new(Fault::Validation, text)
}

/// Builds the failure of a CA that sent something other than the certificate ordered.
pub(super) fn bad_answer(error: &Error) -> Failure {
    let text = format!("the CA sent a certificate that is not used: {error}");
    Failure::new(Fault::BadAnswer, text).help("What is served stays, and the CA is asked again by itself")
}

/// Classifies an error of instant-acme.
pub(super) fn of(error: AcmeError, http: &Http) -> Failure {
    let refusal = http.last_refusal().unwrap_or_default();
    let busy = matches!(refusal.status, TOO_MANY_REQUESTS | UNAVAILABLE);
    let mut failure = match &error {
        AcmeError::Api(problem) => of_problem(problem),
        AcmeError::Other(other) => of_silence(other.as_ref()),
        AcmeError::Json(error) => {
            Failure::new(Fault::Unreachable, format!("the CA's answer is no ACME answer: {error}"))
        }
        other => Failure::new(Fault::Unreachable, other.to_string()),
    };
    if refusal.status == TOO_MANY_REQUESTS {
        failure.fault = Fault::RateLimited;
        failure.help = help::of_problem("rateLimited").map(str::to_owned);
    }
    Failure { retry_after: refusal.retry_after.filter(|_| busy), ..failure }
}

fn of_silence(error: &(dyn std::error::Error + 'static)) -> Failure {
    let is_told = error.is::<NotAcme>() || error.is::<TooSlow>();
    let said = causes::in_one_line(error);
    let text = if is_told { said } else { format!("the CA is not reached: {said}") };
    Failure::new(Fault::Unreachable, text).help(help::of_silence(error))
}

/// Classifies a CA's problem document.
pub(super) fn of_problem(problem: &Problem) -> Failure {
    let kind = problem.r#type.as_deref().and_then(|urn| urn.strip_prefix(URN)).unwrap_or_default();
    let help = help::of_problem(kind).map(str::to_owned);
    Failure { help, ..Failure::new(fault(kind), told(problem)) }
}

/// Classifies an error at the creation of an account.
pub(super) fn of_account(error: AcmeError, http: &Http, with_eab: bool) -> Failure {
    let is_wrong_eab = with_eab && matches!(kind(&error), Some("unauthorized" | "malformed"));
    let failure = of(error, http);
    match failure.fault {
        _ if is_wrong_eab => Failure { fault: Fault::Refused, ..failure }.help(help::WRONG_EAB),
        // Nothing has been validated yet.
        Fault::Validation => Failure { fault: Fault::Refused, ..failure },
        _ => failure,
    }
}

pub(super) fn is_bad_nonce(error: &AcmeError) -> bool {
    kind(error) == Some("badNonce")
}

pub(super) fn is_unknown_account(error: &AcmeError) -> bool {
    kind(error) == Some("accountDoesNotExist")
}

/// Returns whether an order failed because of its `replaces` field: the CA has no renewal
/// information, has seen the old certificate replaced already, or did not echo the field.
pub(super) fn is_about_replaces(error: &AcmeError) -> bool {
    match error {
        AcmeError::Api(problem) => {
            let says = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains("replace"));
            matches!(kind(error), Some("alreadyReplaced" | "conflict")) || says(&problem.detail)
        }
        AcmeError::Unsupported(_) => true,
        AcmeError::Other(other) => other.to_string().contains("replaces field"),
        _ => false,
    }
}

fn kind(error: &AcmeError) -> Option<&str> {
    match error {
        AcmeError::Api(problem) => problem.r#type.as_deref()?.strip_prefix(URN),
        _ => None,
    }
}

fn fault(kind: &str) -> Fault {
    match kind {
        "rateLimited" => Fault::RateLimited,
        "unauthorized" | "connection" | "dns" | "caa" | "tls" | "incorrectResponse" => Fault::Validation,
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
        | "malformed" => Fault::Refused,
        _ => Fault::Unreachable,
    }
}

/// Returns the CA's own words, which people search for: shortened, and without control characters
/// that a terminal would obey.
fn told(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_else(|| "the CA refuses without a reason".into());
    for sub in &problem.subproblems {
        text += &format!("; {sub}");
    }
    if let Some(urn) = problem.r#type.as_deref() {
        let room = text.char_indices().nth(LONGEST_DETAIL).map_or(text.len(), |(at, _)| at);
        text = format!("{} ({})", &text[..room], urn.strip_prefix(URN).unwrap_or(urn));
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_DETAIL * 2).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let document = serde_json::json!({ "type": format!("{URN}{kind}"), "detail": detail });
        serde_json::from_value(document).expect("a problem")
    }

    /// Every problem of RFC 8555 section 6.7 that an order can cause, its fault, and a word from
    /// its help.
    const PROBLEMS: [(&str, Fault, &str); 18] = [
        ("connection", Fault::Validation, "firewall"),
        ("dns", Fault::Validation, "AAAA"),
        ("caa", Fault::Validation, "CAA record"),
        ("tls", Fault::Validation, "port 443"),
        ("unauthorized", Fault::Validation, "Another server"),
        ("incorrectResponse", Fault::Validation, "Another server"),
        ("rateLimited", Fault::RateLimited, "certs list"),
        ("rejectedIdentifier", Fault::Refused, "another name"),
        ("unsupportedIdentifier", Fault::Refused, "another name"),
        ("invalidProfile", Fault::Refused, "acme_profile"),
        ("userActionRequired", Fault::Refused, "accept_tos"),
        ("externalAccountRequired", Fault::Refused, "acme_eab_kid"),
        ("invalidContact", Fault::Refused, "acme_contact"),
        ("unsupportedContact", Fault::Refused, "acme_contact"),
        ("badCSR", Fault::Refused, "acme_directory"),
        ("badPublicKey", Fault::Refused, "acme_directory"),
        ("badSignatureAlgorithm", Fault::Refused, "acme_directory"),
        ("serverInternal", Fault::Unreachable, "asked again"),
    ];

    #[test]
    fn every_problem_says_whose_fault_it_is_and_what_to_do() {
        for (kind, fault, word) in PROBLEMS {
            let failure = of_problem(&problem(kind, "so it is"));
            assert_eq!(failure.fault, fault, "{kind}");
            let said = failure.said();
            assert!(
                said.starts_with(&format!("so it is ({kind}). ")) && said.contains(word),
                "{kind}: {said}"
            );
        }
    }

    #[test]
    fn a_cas_words_are_neither_endless_nor_obeyed_by_a_terminal() {
        let failure = of_problem(&problem("dns", &format!("\u{1b}[31m{}", "x".repeat(100_000))));
        assert!(failure.text.len() < 1100 && !failure.text.contains('\u{1b}'), "{}", failure.text.len());
        assert!(failure.text.ends_with("(dns)"));
    }
}
