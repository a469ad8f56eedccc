//! Tenants that are built again with the logins that the database has: another gateway ended or
//! replaced theirs, or the database was away when they were built.

use std::sync::Arc;

use super::reconciler::{ChangedEntries, Reconciler};

impl Reconciler {
    /// Waits until tenants must be built again, and returns their entries.
    pub(super) async fn next_superseded(&self) -> Vec<Arc<str>> {
        match &self.tenant_deps.login {
            Some(login) => login.context.next_superseded_entries().await,
            None => std::future::pending().await,
        }
    }

    /// Builds these entries' tenants again. Calls in progress end, as their logins have ended.
    pub(super) async fn rebuild(&mut self, entry_ids: Vec<Arc<str>>) {
        let mut changed = ChangedEntries::new();
        for entry_id in entry_ids {
            self.revoke_access(&entry_id);
            if let Some(entry) = self.entries.get_mut(&entry_id) {
                let has_waited = entry.tenant().is_some_and(|tenant| tenant.is_login_unavailable());
                entry.rebuild(self.tenant_deps.builder(&entry_id));
                match has_waited {
                    true => tracing::info!(entry = %entry_id, "the logins of this tenant are in force"),
                    false => tracing::warn!(
                        entry = %entry_id,
                        "another gateway ended the logins of this tenant: people log in again"
                    ),
                }
                changed.insert(entry_id);
            }
        }
        self.publish(&changed).await;
    }
}
