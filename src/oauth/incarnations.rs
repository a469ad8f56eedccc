//! The lives of tenants in memory: the current life of each tenant, and the changes that the store
//! does not have yet.
//!
//! A tenant that is built gets a life, which becomes its current one when the tenant is published.
//! So a tenant that is built and never published takes nothing from another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::base::digest::{Digest, Hasher};
use crate::identity::ProviderApp;
use crate::spec::{LoginSpec, TenantName};
use crate::store::{Incarnation, IncarnationChange, IncarnationRecord};

/// The settings when a life was taken over from an earlier version, whose grants and tokens do not
/// record them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LegacyState {
    pub(super) upstream: ProviderApp,
    /// The digest of the machine clients with their secrets and keys, in hexadecimal digits.
    pub(super) machines: String,
}

/// A tenant's life, as assigned when the tenant is built.
#[derive(Debug, Clone)]
pub(super) struct TenantIncarnation {
    pub(super) current: Incarnation,
    /// Present for a life that an earlier version began.
    pub(super) legacy: Option<Arc<LegacyState>>,
}

/// The current life of each tenant.
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
            upstream: ProviderApp::from_spec(&login.provider),
            machines: digest_machine_clients(login).to_string(),
        }
    }

    /// Whether the machine clients, their secrets and their keys are unchanged.
    pub(super) fn has_same_machine_clients(&self, login: &LoginSpec) -> bool {
        self.machines == digest_machine_clients(login).to_string()
    }
}

fn digest_machine_clients(login: &LoginSpec) -> Digest {
    let mut fields = Hasher::new();
    for machine in &login.machine_clients {
        fields.update_field(machine.id.as_bytes());
        fields.update_field(machine.secret.as_ref().map_or(&[], |secret| &secret.as_bytes()[..]));
        fields.update_field(machine.jwks.as_deref().unwrap_or_default().as_bytes());
    }
    fields.finish()
}

impl IncarnationTable {
    pub(super) fn from_records(kept: Vec<IncarnationRecord>) -> Self {
        let held =
            |IncarnationRecord { incarnation: life, entry_id: stem, payload: about }: IncarnationRecord| {
                let before = serde_json::from_slice(&about).ok().map(Arc::new);
                (
                    Arc::clone(life.tenant()),
                    EntryIncarnation { incarnation: life, entry_id: stem, legacy: before },
                )
            };
        Self(Mutex::new(IncarnationMap {
            by_tenant: kept.into_iter().map(held).collect(),
            unpersisted: Vec::new(),
        }))
    }

    /// Returns the life that a tenant of this entry will have once it is published.
    pub(super) fn current_or_new(
        &self,
        tenant: &TenantName,
        stem: &str,
        login: &LoginSpec,
    ) -> TenantIncarnation {
        match self.lock().by_tenant.get(tenant.as_arc()) {
            Some(EntryIncarnation { incarnation: life, entry_id: Some(holder), legacy: before })
                if **holder == *stem =>
            {
                TenantIncarnation { current: life.clone(), legacy: before.clone() }
            }
            // The data of an earlier version goes to the first holder of the name.
            Some(EntryIncarnation { incarnation: life, entry_id: None, .. }) => TenantIncarnation {
                current: life.clone(),
                legacy: Some(Arc::new(LegacyState::from_login(login))),
            },
            _ => TenantIncarnation { current: Incarnation::new(tenant.as_arc()), legacy: None },
        }
    }

    /// Makes `lived` the current life of a published tenant, if it has a login; ends the life of
    /// another entry.
    pub(super) fn activate(&self, tenant: &TenantName, stem: &Arc<str>, lived: Option<&TenantIncarnation>) {
        let mut inner = self.lock();
        let held = inner.by_tenant.get(tenant.as_arc());
        let is_its_own = held.is_some_and(|held| held.entry_id.as_ref() == Some(stem));
        match (lived, held) {
            (Some(lived), Some(held)) if is_its_own && held.incarnation == lived.current => {}
            (Some(lived), _) => inner.begin(lived.clone(), stem),
            // A tenant without login needs no life, but a life that another entry left must end.
            (None, None) => {}
            (None, Some(_)) if is_its_own => {}
            (None, Some(EntryIncarnation { entry_id: None, incarnation: life, .. })) => {
                let lived = TenantIncarnation { current: life.clone(), legacy: None };
                inner.begin(lived, stem);
            }
            (None, Some(_)) => inner.end(tenant.as_arc()),
        }
    }

    /// Ends the lives of all names that a removed entry had.
    pub(super) fn end_entry(&self, stem: &str) {
        let mut inner = self.lock();
        let of_it = |(tenant, held): (&Arc<str>, &EntryIncarnation)| {
            held.entry_id.as_deref().is_some_and(|holder| holder == stem).then(|| Arc::clone(tenant))
        };
        let ended: Vec<_> = inner.by_tenant.iter().filter_map(of_it).collect();
        ended.iter().for_each(|tenant| inner.end(tenant));
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
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl IncarnationMap {
    fn begin(&mut self, lived: TenantIncarnation, stem: &Arc<str>) {
        let TenantIncarnation { current: life, legacy: before } = lived;
        let about = before.as_deref().map(|before| serde_json::to_vec(before).expect("plain data"));
        let kept = IncarnationRecord {
            incarnation: life.clone(),
            entry_id: Some(Arc::clone(stem)),
            payload: about.unwrap_or_default(),
        };
        self.unpersisted.push(IncarnationChange::Begin(kept));
        self.by_tenant.insert(
            Arc::clone(life.tenant()),
            EntryIncarnation { incarnation: life, entry_id: Some(Arc::clone(stem)), legacy: before },
        );
    }

    fn end(&mut self, tenant: &Arc<str>) {
        self.by_tenant.remove(tenant);
        self.unpersisted.push(IncarnationChange::End(Arc::clone(tenant)));
    }
}

#[cfg(test)]
mod tests;
