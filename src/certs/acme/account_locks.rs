//! One lock per CA, so that concurrent attempts open one account there, not one each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The locks, by the URL of the CA's directory.
#[derive(Debug, Default)]
pub(super) struct AccountLocks(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl AccountLocks {
    pub(super) fn lock_for(&self, directory: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().expect("no holder of this lock panics");
        locks.entry(directory.to_owned()).or_default().clone()
    }
}
