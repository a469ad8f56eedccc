//! The last steps of a pass: publishes one new table, then announces the changes.

use std::sync::Arc;

use super::pass::{Changed, Worker};
use crate::spec::TenantName;
use crate::tenants::announce;
use crate::tenants::published::Published;
use crate::tenants::registry::RoutingTable;
use crate::tenants::tenant::Tenant;

impl Worker {
    /// Publishes a table with these entries changed, then announces them.
    pub(super) async fn publish(&mut self, changed: &Changed) {
        self.settle_lives(changed).await;
        self.generation += 1;
        let old = self.registry.load_full();
        let table = self.next_world(&old, changed);
        announce::count(&table, &self.parts.metrics);
        self.registry.publish(table);
        let gone = self.announce(changed, &old);
        drop(old);
        self.forget_contexts(gone).await;
        self.clerk.write(changed);
    }

    /// Begins the lives of tenants whose names these entries take, before anyone can log in to
    /// them.
    async fn settle_lives(&self, changed: &Changed) {
        let Some(login) = &self.parts.login else { return };
        for stem in changed {
            let Some(tenant) = self.roster.get(stem).and_then(|known| known.tenant()) else { continue };
            match &tenant.login {
                Some(server) => server.issuer().settle(stem),
                None => login.ledger.settle_without_login(&tenant.spec.name, stem),
            }
        }
        // Lives that the store does not accept are written again later; until then nothing that
        // depends on them is persisted either.
        let _written = login.ledger.write_lives().await;
    }

    /// Deletes everything stored for logins to an entry. Returns whether that succeeded.
    pub(super) async fn end_lives(&self, stem: &str) -> bool {
        let Some(login) = &self.parts.login else { return true };
        login.ledger.end_lives(stem);
        login.ledger.write_lives().await
    }

    fn next_world(&mut self, old: &RoutingTable, changed: &Changed) -> RoutingTable {
        let now = self.parts.clock.now();
        // Unchanged entries are shared with the old table.
        let mut table = old.clone();
        (table.generation, table.settled) = (self.generation, self.settled);
        // All are removed before any is inserted: two tenants may have swapped their prefixes.
        changed.iter().for_each(|stem| table.take_out(stem));
        for stem in changed {
            if let Some(known) = self.roster.get_mut(stem) {
                table.put_in(stem, known.publish(stem, &self.folder, now));
            }
        }
        table
    }

    /// Logs the changes, retires old revisions, and warms up new ones. Returns the names that no
    /// tenant has any more.
    fn announce(&self, changed: &Changed, old: &RoutingTable) -> Vec<TenantName> {
        let table = self.registry.load();
        for stem in changed {
            let (before, after) = (old.entries.get(stem), table.entries.get(stem));
            if let Some(after) = after {
                announce::log(&self.roster, stem, &after.status(), self.generation);
            }
            if let Some(before) = before {
                announce::dismiss(before, after, &self.drain, self.parts.clock.now());
            }
            if let Some(tenant) = new_tenant(before, after).filter(|tenant| tenant.spec.enabled) {
                self.parts.warm_up.enqueue(tenant.spec.name.clone(), &tenant.backend);
            }
        }
        let mut gone = names_gone(changed, old, &table);
        gone.retain(|name| !self.holdings.has_name(name));
        gone.iter().for_each(|name| self.parts.metrics.forget(name.as_str()));
        gone
    }

    /// Deletes the stored contexts of removed tenants.
    async fn forget_contexts(&self, gone: Vec<TenantName>) {
        if gone.is_empty() {
            return;
        }
        let warm_up = self.parts.warm_up.clone();
        let forget = tokio::task::spawn_blocking(move || gone.iter().for_each(|name| warm_up.forget(name)));
        if forget.await.is_err() {
            tracing::error!("removing the contexts of removed tenants failed inside tenantd");
        }
    }
}

/// Returns the tenant of an entry, if it is not the same `Arc` as before.
fn new_tenant<'a>(before: Option<&Published>, after: Option<&'a Published>) -> Option<&'a Arc<Tenant>> {
    let before = before.and_then(|entry| entry.tenant.as_ref());
    let after = after.and_then(|entry| entry.tenant.as_ref())?;
    before.is_none_or(|before| !Arc::ptr_eq(before, after)).then_some(after)
}

/// Returns the names that tenants had and no longer have.
fn names_gone(changed: &Changed, old: &RoutingTable, new: &RoutingTable) -> Vec<TenantName> {
    let name_in = |table: &RoutingTable, stem: &Arc<str>| {
        table.entries.get(stem).and_then(|entry| entry.tenant.as_ref()).map(|tenant| tenant.spec.name.clone())
    };
    let left = |stem| name_in(old, stem).filter(|was| name_in(new, stem).as_ref() != Some(was));
    changed.iter().filter_map(left).collect()
}
