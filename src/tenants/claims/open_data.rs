//! Finds data that one tenant gives to authorized callers only and another would give to everybody:
//! a copy of an export without the overlay that guards it. Pure.
//!
//! The rule: no entry *becomes* open beside an entry that guards the same data, whatever their
//! order in a pass, unless its own files say `open: true` (or `public: true`) or an operator
//! accepts it. An entry that was open before the guard came stays open and gets a warning:
//! otherwise one tenant could close another.

use std::collections::HashMap;

use super::{ClaimRejection, ClaimRequest, Rejections};
use crate::spec::DataFingerprint;

/// Rejects the candidates that would open what another entry guards. It does not matter whether the
/// guarding entry's own claims win: what its files say about its callers counts in any case.
pub(super) fn find_rejections(requests: &[ClaimRequest<'_>]) -> Rejections {
    let mut guards: HashMap<DataFingerprint, Vec<&str>> = HashMap::new();
    for request in requests {
        for fingerprint in &request.restricted_data {
            let entry_ids = guards.entry(*fingerprint).or_default();
            // Of two guards at least one is another entry, so two are enough.
            if entry_ids.len() < 2 && !entry_ids.contains(&request.entry_id) {
                entry_ids.push(request.entry_id);
            }
        }
    }
    let guard = |request: &ClaimRequest<'_>| {
        let entry_ids =
            request.newly_open_data.iter().filter_map(|fingerprint| guards.get(fingerprint)).flatten();
        entry_ids.copied().find(|entry_id| *entry_id != request.entry_id)
    };
    let refuse = |request: &ClaimRequest<'_>| {
        let by = guard(request).filter(|_| request.wanted.is_some())?.to_owned();
        Some((request.entry_id.to_owned(), ClaimRejection::DataRestricted { by }))
    };
    requests.iter().filter_map(refuse).collect()
}
