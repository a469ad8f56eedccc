//! What other gateways change about certificates.

use std::collections::BTreeSet;

use crate::store::{CERTIFICATE_CHANGE, ChangeBatch, ChangeSubscription};

/// Waits until other gateways change certificates, and returns their names; `None` if any may have
/// changed. Waits for ever if there are no other gateways.
pub(super) async fn next_changes(changes: &mut Option<ChangeSubscription>) -> Option<BTreeSet<String>> {
    let Some(changes) = changes else { return std::future::pending().await };
    loop {
        let ChangeBatch::Changes(batch) = changes.next().await else { return None };
        let ours = batch.iter().filter(|change| &*change.kind == CERTIFICATE_CHANGE);
        let names: BTreeSet<_> =
            ours.map(|change| String::from_utf8_lossy(&change.key).into_owned()).collect();
        if !names.is_empty() {
            return Some(names);
        }
    }
}
