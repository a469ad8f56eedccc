//! The incarnations of tenants in memory: the current incarnation of each tenant, and the changes
//! that the store does not have yet.
//!
//! A tenant that is built gets an incarnation, which becomes its current one when the tenant is
//! published. So a tenant that is built and never published takes nothing from another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::base::digest::{Digest, Hasher};
use crate::base::sync::lock_unpoisoned;
use crate::identity::ProviderApp;
use crate::spec::{LoginSpec, TenantName};
use crate::store::{Incarnation, IncarnationChange, IncarnationRecord};

/// The settings when an incarnation was taken over from an earlier version, whose grants and tokens
/// do not record them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LegacyState {
    #[serde(rename = "upstream")]
    pub(super) provider_app: ProviderApp,
    /// The digest of the machine clients with their secrets and keys, in hexadecimal digits.
    #[serde(rename = "machines")]
    pub(super) machine_clients: String,
}

/// A tenant's incarnation, as assigned when the tenant is built.
#[derive(Debug, Clone)]
pub(super) struct TenantIncarnation {
    pub(super) current: Incarnation,
    /// Present for an incarnation that an earlier version began.
    pub(super) legacy: Option<Arc<LegacyState>>,
}

/// The current incarnation of each tenant.
#[derive(Debug, Default)]
pub(super) struct IncarnationTable(Mutex<IncarnationMap>);

#[derive(Debug, Default)]
struct IncarnationMap {
    by_tenant: HashMap<Arc<str>, EntryIncarnation>,
    /// The changes that the store does not have yet, in order.
    unpersisted: Vec<IncarnationChange>,
}

#[derive(Debug)]
struct EntryIncarnation {
    incarnation: Incarnation,
    /// The holder of the name; `None` if no entry has taken over an earlier version's data yet.
    entry_id: Option<Arc<str>>,
    legacy: Option<Arc<LegacyState>>,
}

impl LegacyState {
    fn from_login(login: &LoginSpec) -> Self {
        Self {
            provider_app: ProviderApp::from_spec(&login.provider),
            machine_clients: digest_machine_clients(login).to_string(),
        }
    }

    /// Whether the machine clients, their secrets and their keys are unchanged.
    pub(super) fn has_same_machine_clients(&self, login: &LoginSpec) -> bool {
        self.machine_clients == digest_machine_clients(login).to_string()
    }
}

fn digest_machine_clients(login: &LoginSpec) -> Digest {
    let mut hasher = Hasher::new();
    for machine in &login.machine_clients {
        hasher.update_field(machine.id.as_bytes());
        hasher.update_field(machine.secret.as_ref().map_or(&[], |secret| &secret.as_bytes()[..]));
        hasher.update_field(machine.jwks.as_deref().unwrap_or_default().as_bytes());
    }
    hasher.finish()
}

impl IncarnationTable {
    pub(super) fn from_records(records: Vec<IncarnationRecord>) -> Self {
        let by_tenant = |IncarnationRecord { incarnation, entry_id, payload }: IncarnationRecord| {
            let legacy = serde_json::from_slice(&payload).ok().map(Arc::new);
            (Arc::clone(incarnation.tenant()), EntryIncarnation { incarnation, entry_id, legacy })
        };
        Self(Mutex::new(IncarnationMap {
            by_tenant: records.into_iter().map(by_tenant).collect(),
            unpersisted: Vec::new(),
        }))
    }

    /// Returns the incarnation that a tenant of this entry will have once it is published.
    pub(super) fn current_or_new(
        &self,
        tenant: &TenantName,
        entry_id: &str,
        login: &LoginSpec,
    ) -> TenantIncarnation {
        match self.lock().by_tenant.get(tenant.as_arc()) {
            Some(EntryIncarnation { incarnation, entry_id: Some(holder), legacy })
                if **holder == *entry_id =>
            {
                TenantIncarnation { current: incarnation.clone(), legacy: legacy.clone() }
            }
            // The data of an earlier version goes to the first holder of the name.
            Some(EntryIncarnation { incarnation, entry_id: None, .. }) => TenantIncarnation {
                current: incarnation.clone(),
                legacy: Some(Arc::new(LegacyState::from_login(login))),
            },
            _ => TenantIncarnation { current: Incarnation::new(tenant.as_arc()), legacy: None },
        }
    }

    /// Returns a tenant's current incarnation, if it has one.
    pub(super) fn find(&self, tenant: &str) -> Option<Incarnation> {
        self.lock().by_tenant.get(tenant).map(|known| known.incarnation.clone())
    }

    /// Makes `new` the current incarnation of a published tenant; without a login there is none.
    /// Ends the incarnation that another entry had under this name.
    pub(super) fn activate(&self, tenant: &TenantName, entry_id: &Arc<str>, new: Option<&TenantIncarnation>) {
        let mut map = self.lock();
        let known = map.by_tenant.get(tenant.as_arc());
        let has_same_entry = known.is_some_and(|known| known.entry_id.as_ref() == Some(entry_id));
        match (new, known) {
            (Some(new), Some(known)) if has_same_entry && known.incarnation == new.current => {}
            (Some(new), _) => map.begin(new.clone(), entry_id),
            // A tenant without login needs no incarnation, but an incarnation that another entry
            // left must end.
            (None, None) => {}
            (None, Some(_)) if has_same_entry => {}
            (None, Some(EntryIncarnation { entry_id: None, incarnation, .. })) => {
                let unknown_settings = TenantIncarnation { current: incarnation.clone(), legacy: None };
                map.begin(unknown_settings, entry_id);
            }
            (None, Some(_)) => map.end(tenant.as_arc()),
        }
    }

    /// Ends the incarnations of all names that a removed entry had.
    pub(super) fn end_entry(&self, entry_id: &str) {
        let mut map = self.lock();
        let tenants: Vec<_> = map
            .by_tenant
            .iter()
            .filter(|(_, known)| known.entry_id.as_deref() == Some(entry_id))
            .map(|(tenant, _)| Arc::clone(tenant))
            .collect();
        tenants.iter().for_each(|tenant| map.end(tenant));
    }

    /// Returns the changes that the store does not have yet.
    pub(super) fn unpersisted(&self) -> Vec<IncarnationChange> {
        self.lock().unpersisted.clone()
    }

    pub(super) fn has_unpersisted(&self) -> bool {
        !self.lock().unpersisted.is_empty()
    }

    /// Records that the store has the first `count` of those changes.
    pub(super) fn mark_persisted(&self, count: usize) {
        self.lock().unpersisted.drain(..count);
    }

    fn lock(&self) -> MutexGuard<'_, IncarnationMap> {
        lock_unpoisoned(&self.0)
    }
}

impl IncarnationMap {
    fn begin(&mut self, new: TenantIncarnation, entry_id: &Arc<str>) {
        let TenantIncarnation { current: incarnation, legacy } = new;
        let payload = legacy.as_deref().map(|legacy| serde_json::to_vec(legacy).expect("plain data"));
        let record = IncarnationRecord {
            incarnation: incarnation.clone(),
            entry_id: Some(Arc::clone(entry_id)),
            payload: payload.unwrap_or_default(),
        };
        self.unpersisted.push(IncarnationChange::Begin(record));
        self.by_tenant.insert(
            Arc::clone(incarnation.tenant()),
            EntryIncarnation { incarnation, entry_id: Some(Arc::clone(entry_id)), legacy },
        );
    }

    fn end(&mut self, tenant: &Arc<str>) {
        self.by_tenant.remove(tenant);
        self.unpersisted.push(IncarnationChange::End(Arc::clone(tenant)));
    }
}

#[cfg(test)]
mod tests;
