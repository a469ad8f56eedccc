//! Finds data that one tenant gives to authorized callers only and another would give to everybody:
//! a copy of an export without the overlay that guards it. Pure.
//!
//! The rule: no entry *becomes* open beside an entry that guards the same data, whatever their
//! order in a pass, unless its own files say `open: true` (or `public: true`) or an operator
//! accepts it. An entry that was open before the guard came stays open and gets a warning:
//! otherwise one tenant could close another.

use std::collections::HashMap;

use super::{ClaimRejection, ClaimRequest, Rejections};
use crate::base::diagnostic::Diagnostic;
use crate::spec::Reach;

const CODE: &str = "backend-guarded";
const HELP: &str = "remove it if it is a copy, or give it api_keys or a login; if everybody may call it, write open: true in the \
                    .yaml beside it";

/// Rejects the candidates that would open what another entry guards. It does not matter whether the
/// guarding entry's own claims win: what its files say about its callers counts in any case.
pub(super) fn refused(applicants: &[ClaimRequest<'_>]) -> Rejections {
    let mut guards: HashMap<Reach, Vec<&str>> = HashMap::new();
    for applicant in applicants {
        for reach in &applicant.guards {
            let stems = guards.entry(*reach).or_default();
            // Of two guards at least one is another entry, so two are enough.
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

/// Returns the finding for an entry that would open what the entry `by` guards.
pub(super) fn refusal(by: &str) -> Diagnostic {
    let message = format!(
        "\"{by}\" asks its callers for a credential and has the same backend, key and connection; this one would give the same to \
         everybody, so it is not opened"
    );
    Diagnostic::error(CODE, message).help(HELP)
}

/// Returns the finding for an entry that was open before the entry `by` began to guard the same
/// data.
pub(crate) fn stays_open(by: &str) -> Diagnostic {
    let message = format!(
        "\"{by}\" asks its callers for a credential and has the same backend, key and connection; this one gives the same to \
         everybody. It was open before, so it goes on"
    );
    Diagnostic::warning(CODE, message).help(HELP)
}
