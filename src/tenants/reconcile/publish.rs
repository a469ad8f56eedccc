//! The last steps of a pass: publishes one new table, then announces the changes.

use std::sync::Arc;

use super::reconciler::{ChangedEntries, Reconciler};
use crate::spec::TenantName;
use crate::tenants::announce;
use crate::tenants::published_entry::PublishedEntry;
use crate::tenants::registry::RoutingTable;
use crate::tenants::tenant::Tenant;

impl Reconciler {
    /// Publishes a table with these entries changed, then announces them.
    pub(super) async fn publish(&mut self, changed: &ChangedEntries) {
        self.begin_lives(changed).await;
        self.generation += 1;
        let old = self.registry.load_full();
        let table = self.next_table(&old, changed);
        self.count_events(changed);
        self.publisher.publish(table);
        let gone = self.announce(changed, &old);
        drop(old);
        self.forget_contexts(gone).await;
        if let Some(status_files) = &self.status_files {
            status_files.enqueue(changed);
        }
    }

    /// Begins the lives of tenants whose names these entries take, before anyone can log in to
    /// them.
    async fn begin_lives(&self, changed: &ChangedEntries) {
        let Some(login) = &self.tenant_deps.login else { return };
        for entry_id in changed {
            let Some(tenant) = self.entries.get(entry_id).and_then(|entry| entry.tenant()) else { continue };
            match &tenant.login {
                Some(server) => server.activate(entry_id),
                None if tenant.is_login_unavailable() => {
                    login.context.activate_waiting(&tenant.spec.name, entry_id);
                }
                None => login.context.activate_without_login(&tenant.spec.name, entry_id),
            }
        }
        // Lives that the store does not accept are written again later; until then nothing that
        // depends on them is persisted either.
        let _written = login.context.persist_incarnations().await;
    }

    /// Has the metrics count the events of these entries' tenants.
    fn count_events(&self, changed: &ChangedEntries) {
        let tenants = changed.iter().filter_map(|entry_id| self.entries.get(entry_id)?.tenant());
        tenants.for_each(|tenant| self.tenant_deps.metrics.add_tenant(tenant.spec.name.as_str()));
    }

    /// Deletes everything stored for logins to an entry. Returns whether that succeeded.
    pub(super) async fn end_lives(&self, entry_id: &str) -> bool {
        let Some(login) = &self.tenant_deps.login else { return true };
        login.context.end_entry(entry_id);
        login.context.persist_incarnations().await
    }

    fn next_table(&mut self, old: &RoutingTable, changed: &ChangedEntries) -> RoutingTable {
        let now = self.tenant_deps.clock.now();
        // Unchanged entries are shared with the old table.
        let mut table = old.clone();
        (table.generation, table.is_initial_scan_done) = (self.generation, self.is_initial_scan_done);
        // All are removed before any is inserted: two tenants may have swapped their prefixes.
        changed.iter().for_each(|entry_id| table.remove_entry(entry_id));
        for entry_id in changed {
            if let Some(entry) = self.entries.get_mut(entry_id) {
                table.insert_entry(entry_id, entry.publish(entry_id, self.folder.path(), now));
            }
        }
        table
    }

    /// Logs the changes, retires old revisions, and warms up new ones. Returns the names that no
    /// tenant has any more.
    fn announce(&self, changed: &ChangedEntries, old: &RoutingTable) -> Vec<TenantName> {
        let table = self.registry.load();
        for entry_id in changed {
            let (before, after) = (old.entries.get(entry_id), table.entries.get(entry_id));
            if let Some(after) = after {
                let findings = self.entries.get(entry_id).into_iter().flat_map(|entry| entry.all_findings());
                announce::log_change(&after.status(), findings, self.generation);
            }
            if let Some(before) = before {
                announce::retire(before, after, &self.drain, self.tenant_deps.clock.now());
            }
            if let Some(tenant) = newly_live_tenant(before, after).filter(|tenant| tenant.spec.enabled) {
                tenant.mcp.start_refreshing(&self.tenant_deps.context_refresher);
            }
        }
        let mut gone = removed_names(changed, old, &table);
        gone.retain(|name| !self.claims.has_live_tenant(name));
        gone.iter().for_each(|name| self.tenant_deps.metrics.remove_tenant(name.as_str()));
        gone
    }

    /// Deletes the stored contexts of removed tenants.
    async fn forget_contexts(&self, gone: Vec<TenantName>) {
        if gone.is_empty() {
            return;
        }
        self.tenant_deps.context_refresher.remove_stored(gone).await;
    }
}

/// Returns the tenant of an entry, if it is not the same `Arc` as before.
fn newly_live_tenant<'a>(
    before: Option<&PublishedEntry>,
    after: Option<&'a PublishedEntry>,
) -> Option<&'a Arc<Tenant>> {
    let before = before.and_then(|entry| entry.tenant.as_ref());
    let after = after.and_then(|entry| entry.tenant.as_ref())?;
    before.is_none_or(|before| !Arc::ptr_eq(before, after)).then_some(after)
}

/// Returns the names that tenants had and no longer have.
fn removed_names(changed: &ChangedEntries, old: &RoutingTable, new: &RoutingTable) -> Vec<TenantName> {
    let name_in = |table: &RoutingTable, entry_id: &Arc<str>| {
        table
            .entries
            .get(entry_id)
            .and_then(|entry| entry.tenant.as_ref())
            .map(|tenant| tenant.spec.name.clone())
    };
    let left = |entry_id| name_in(old, entry_id).filter(|was| name_in(new, entry_id).as_ref() != Some(was));
    changed.iter().filter_map(left).collect()
}
