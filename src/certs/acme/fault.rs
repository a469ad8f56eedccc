//! What a failure of ACME means: whose fault it is, and what to tell people.

use instant_acme::{Error as AcmeError, Problem};

use super::http::{Http, NotAcme};
use crate::certs::Error;
use crate::certs::schedule::{Failure, Fault};

const URN: &str = "urn:ietf:params:acme:error:";
const TOO_MANY_REQUESTS: u16 = 429;
const UNAVAILABLE: u16 = 503;

/// The fault as metrics call it.
pub(super) fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Unreachable => "unreachable",
        Fault::Validation => "validation",
        Fault::RateLimited => "rate_limited",
        Fault::Refused => "refused",
        Fault::BadAnswer => "bad_answer",
    }
}

/// Nothing but an operator will change it.
pub(super) fn refused(text: String) -> Failure {
    Failure { fault: Fault::Refused, text, retry_after: None }
}

/// The CA looked, and did not find what it wanted.
pub(super) fn validation(text: String) -> Failure {
    Failure { fault: Fault::Validation, text, retry_after: None }
}

/// What came is not what was ordered.
pub(super) fn bad_answer(error: &Error) -> Failure {
    let text = format!("the CA sent a certificate that is not used: {error}");
    Failure { fault: Fault::BadAnswer, text, retry_after: None }
}

/// What a failure of instant-acme means.
pub(super) fn of(error: AcmeError, http: &Http) -> Failure {
    let refusal = http.last_refusal().unwrap_or_default();
    let busy = matches!(refusal.status, TOO_MANY_REQUESTS | UNAVAILABLE);
    let retry_after = refusal.retry_after.filter(|_| busy);
    let (fault, text) = match &error {
        AcmeError::Api(problem) => (fault(problem), told(problem)),
        AcmeError::Other(other) => match other.downcast_ref::<NotAcme>() {
            Some(not_acme) if not_acme.status.as_u16() == TOO_MANY_REQUESTS => {
                (Fault::RateLimited, other.to_string())
            }
            _ => (Fault::Unreachable, chain(other.as_ref())),
        },
        AcmeError::Json(error) => (Fault::Unreachable, format!("the CA's answer is no ACME answer: {error}")),
        other => (Fault::Unreachable, other.to_string()),
    };
    let fault = if refusal.status == TOO_MANY_REQUESTS { Fault::RateLimited } else { fault };
    Failure { fault, text, retry_after }
}

/// The same for an account that the CA did not open.
pub(super) fn of_account(error: AcmeError, http: &Http, with_eab: bool) -> Failure {
    let kind = kind(&error).map(str::to_owned);
    let failure = of(error, http);
    let help = match kind.as_deref() {
        Some("externalAccountRequired") => {
            "this CA wants an external account: give its key id as acme_eab_kid and its key in a file as acme_eab_key_file"
        }
        Some("unauthorized" | "malformed") if with_eab => {
            "the CA does not accept the external account: compare acme_eab_kid and the key in acme_eab_key_file with what \
             the CA shows"
        }
        Some("invalidContact" | "unsupportedContact") => "change or leave out acme_contact",
        Some("userActionRequired") => "the CA wants its terms agreed to: read them, then set accept_tos",
        _ => return failure,
    };
    refused(format!("{}; {help}", failure.text))
}

pub(super) fn is_bad_nonce(error: &AcmeError) -> bool {
    kind(error) == Some("badNonce")
}

pub(super) fn is_unknown_account(error: &AcmeError) -> bool {
    kind(error) == Some("accountDoesNotExist")
}

/// The CA has no renewal information, has seen the old certificate replaced already, or forgot to echo it.
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

fn fault(problem: &Problem) -> Fault {
    let kind = problem.r#type.as_deref().and_then(|urn| urn.strip_prefix(URN));
    match kind.unwrap_or_default() {
        "rateLimited" => Fault::RateLimited,
        "unauthorized" | "connection" | "dns" | "caa" | "tls" | "incorrectResponse" => Fault::Validation,
        "rejectedIdentifier"
        | "unsupportedIdentifier"
        | "invalidProfile"
        | "userActionRequired"
        | "badCSR"
        | "externalAccountRequired"
        | "invalidContact"
        | "unsupportedContact"
        | "malformed" => Fault::Refused,
        _ => Fault::Unreachable,
    }
}

/// The CA's own words, which people search for.
fn told(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_else(|| "the CA refuses without a reason".into());
    for sub in &problem.subproblems {
        text += &format!("; {sub}");
    }
    match problem.r#type.as_deref() {
        Some(urn) => format!("{text} ({})", urn.strip_prefix(URN).unwrap_or(urn)),
        None => text,
    }
}

/// An error with its causes, each once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text += &format!(": {next}");
        }
        cause = error.source();
    }
    text
}
