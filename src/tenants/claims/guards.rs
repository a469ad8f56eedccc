//! Data that one tenant gives to some callers only and another would give to everybody: a copy of an export without the
//! overlay that guards it. Pure.
//!
//! The rule: nobody *becomes* open beside a tenant that guards the same data, whichever of them came first in a pass, unless its
//! own files say `open: true` (or `public: true`) or an operator orders it. Whoever is open already when the guard comes
//! goes on and is told: to close it would be another tenant's doing.

use std::collections::HashMap;

use super::{ClaimRejection, ClaimRequest, Rejections};
use crate::base::diagnostic::Diagnostic;
use crate::spec::Reach;

const CODE: &str = "backend-guarded";
const HELP: &str = "remove it if it is a copy, or give it api_keys or a login; if everybody may call it, write open: true in the \
                    .yaml beside it";

/// The candidates that would open what another entry guards. That entry's own claims may win or lose: what its files say of
/// its callers counts in any case.
pub(super) fn refused(applicants: &[ClaimRequest<'_>]) -> Rejections {
    let mut guards: HashMap<Reach, Vec<&str>> = HashMap::new();
    for applicant in applicants {
        for reach in &applicant.guards {
            let stems = guards.entry(*reach).or_default();
            // One of two is somebody else.
            if stems.len() < 2 && !stems.contains(&applicant.entry_id) {
                stems.push(applicant.entry_id);
            }
        }
    }
    let guard = |applicant: &ClaimRequest<'_>| {
        let stems = applicant.opens.iter().filter_map(|reach| guards.get(reach)).flatten();
        stems.copied().find(|stem| *stem != applicant.entry_id)
    };
    let refuse = |applicant: &ClaimRequest<'_>| {
        let by = guard(applicant).filter(|_| applicant.wanted.is_some())?.to_owned();
        Some((applicant.entry_id.to_owned(), ClaimRejection::Guarded { by }))
    };
    applicants.iter().filter_map(refuse).collect()
}

/// What is said of an entry that would open what the entry `by` guards.
pub(super) fn refusal(by: &str) -> Diagnostic {
    let message = format!(
        "\"{by}\" asks its callers for a credential and has the same backend, key and connection; this one would give the same to \
         everybody, so it is not opened"
    );
    Diagnostic::error(CODE, message).help(HELP)
}

/// What is said of an entry that was open before the entry `by` began to guard the same.
pub(crate) fn stays_open(by: &str) -> Diagnostic {
    let message = format!(
        "\"{by}\" asks its callers for a credential and has the same backend, key and connection; this one gives the same to \
         everybody. It was open before, so it goes on"
    );
    Diagnostic::warning(CODE, message).help(HELP)
}
