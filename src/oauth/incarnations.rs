//! The incarnations of tenants in memory: the current incarnation of each tenant, and the changes
//! that the store does not have yet.
//!
//! A tenant that is built gets an incarnation, which becomes its current one when the tenant is
//! published. So a tenant that is built and never published takes nothing from another.
//!
//! Gateways that share a database derive incarnations, and so come to the same without asking each
//! other. What they record is heard of here; a tenant that was published with another incarnation
//! is superseded, and must be built again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::base::digest::{Digest, Hasher};
use crate::base::sync::lock_unpoisoned;
use crate::identity::ProviderApp;
use crate::spec::{LoginSpec, TenantName};
use crate::store::{Incarnation, IncarnationChange, IncarnationId, IncarnationRecord, StoredIncarnations};

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
pub(super) struct IncarnationTable {
    map: Mutex<IncarnationMap>,
    /// Notified when an entry's tenant is superseded.
    superseded: Notify,
}

#[derive(Debug, Default)]
struct IncarnationMap {
    by_tenant: HashMap<Arc<str>, EntryIncarnation>,
    /// From what incarnations are derived; random if nobody else uses the store.
    seed: Option<[u8; 16]>,
    /// The last incarnation of a tenant that ended.
    ended: HashMap<Arc<str>, IncarnationId>,
    /// What each tenant with a login was published with: its entry and its incarnation.
    published: HashMap<Arc<str>, (Arc<str>, Incarnation)>,
    /// The entries whose tenants must be built again.
    superseded: Vec<Arc<str>>,
    /// The changes that the store does not have yet, in order.
    unpersisted: Vec<IncarnationChange>,
    /// The tenants among them that lose an incarnation which the store may have.
    ending: HashSet<Arc<str>>,
    /// What happened before it was known what the store has; `None` since.
    not_loaded: Option<BeforeLoading>,
}

/// What happened before it was known what the store has.
#[derive(Debug, Default)]
struct BeforeLoading {
    /// The entries that were published with each name, and whether they have a login.
    published: HashMap<Arc<str>, (TenantName, Arc<str>, bool)>,
    /// The entries that were removed.
    ended: Vec<Arc<str>>,
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
    /// Takes what the store has. Derives incarnations from `seed`, if there is one.
    pub(super) fn from_stored(stored: StoredIncarnations, seed: Option<[u8; 16]>) -> Self {
        let by_tenant = |record: IncarnationRecord| {
            (Arc::clone(record.incarnation.tenant()), EntryIncarnation::from_record(record))
        };
        let ended = stored.ended.iter().map(|ended| (Arc::clone(ended.tenant()), ended.id()));
        let map = IncarnationMap {
            by_tenant: stored.current.into_iter().map(by_tenant).collect(),
            seed,
            ended: ended.collect(),
            ..IncarnationMap::default()
        };
        Self { map: Mutex::new(map), superseded: Notify::new() }
    }

    /// Creates a table for a store that cannot be asked yet.
    pub(super) fn not_loaded(seed: Option<[u8; 16]>) -> Self {
        let map =
            IncarnationMap { seed, not_loaded: Some(BeforeLoading::default()), ..IncarnationMap::default() };
        Self { map: Mutex::new(map), superseded: Notify::new() }
    }

    /// Returns whether it is known what the store has.
    pub(super) fn is_loaded(&self) -> bool {
        self.lock().not_loaded.is_none()
    }

    /// Takes what other gateways recorded of these tenants, or of all. Tenants that were published
    /// with something else, or before anything was known, are superseded.
    pub(super) fn adopt(&self, tenants: Option<&[Arc<str>]>, stored: StoredIncarnations) {
        let is_everything = tenants.is_none();
        let mut map = self.lock();
        let ended = stored.ended.iter().map(|ended| (Arc::clone(ended.tenant()), ended.id()));
        map.ended.extend(ended);
        let records = stored.current.into_iter().map(|it| (Arc::clone(it.incarnation.tenant()), it));
        let mut records: HashMap<_, _> = records.collect();
        let tenants: Vec<_> = match tenants {
            Some(tenants) => tenants.to_vec(),
            None => map
                .by_tenant
                .keys()
                .chain(records.keys())
                .cloned()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        };
        for tenant in &tenants {
            map.adopt_one(tenant, records.remove(tenant));
        }
        if is_everything {
            map.catch_up();
        }
        if !map.superseded.is_empty() {
            self.superseded.notify_one();
        }
    }

    /// Waits until tenants are superseded, and returns their entries.
    pub(super) async fn next_superseded(&self) -> Vec<Arc<str>> {
        loop {
            let superseded = std::mem::take(&mut self.lock().superseded);
            if !superseded.is_empty() {
                return superseded;
            }
            self.superseded.notified().await;
        }
    }

    /// Returns the incarnation that a tenant of this entry will have once it is published.
    pub(super) fn current_or_new(
        &self,
        tenant: &TenantName,
        entry_id: &str,
        login: &LoginSpec,
    ) -> TenantIncarnation {
        let map = self.lock();
        match map.by_tenant.get(tenant.as_arc()) {
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
            _ => TenantIncarnation { current: map.next_incarnation(tenant.as_arc(), entry_id), legacy: None },
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
        if let (None, Some(before)) = (new, &mut map.not_loaded) {
            before
                .published
                .insert(Arc::clone(tenant.as_arc()), (tenant.clone(), Arc::clone(entry_id), false));
            return;
        }
        map.activate(tenant, entry_id, new);
    }

    /// Records that a tenant with a login is published without it, since it is not known yet what the
    /// store has.
    pub(super) fn activate_waiting(&self, tenant: &TenantName, entry_id: &Arc<str>) {
        let mut map = self.lock();
        match &mut map.not_loaded {
            Some(before) => {
                let published = (tenant.clone(), Arc::clone(entry_id), true);
                before.published.insert(Arc::clone(tenant.as_arc()), published);
            }
            // That has become known since it was built.
            None => {
                map.superseded.push(Arc::clone(entry_id));
                self.superseded.notify_one();
            }
        }
    }

    /// Ends the incarnations of all names that a removed entry had.
    pub(super) fn end_entry(&self, entry_id: &str) {
        let mut map = self.lock();
        if let Some(before) = &mut map.not_loaded {
            before.published.retain(|_, (_, published, _)| **published != *entry_id);
            before.ended.push(entry_id.into());
            return;
        }
        map.end_entry(entry_id);
    }

    /// Returns the changes that the store does not have yet.
    pub(super) fn unpersisted(&self) -> Vec<IncarnationChange> {
        self.lock().unpersisted.clone()
    }

    pub(super) fn has_unpersisted(&self) -> bool {
        !self.lock().unpersisted.is_empty()
    }

    /// Whether one of those changes ends what the store may have.
    pub(super) fn has_unpersisted_end(&self) -> bool {
        !self.lock().ending.is_empty()
    }

    /// Records that the store has the first `count` of those changes, but not the last ones of the
    /// `refused` tenants, which are tried again.
    pub(super) fn mark_persisted(&self, count: usize, refused: &[Arc<str>]) {
        let mut map = self.lock();
        let done: Vec<_> = map.unpersisted.drain(..count).collect();
        let mut again = Vec::new();
        for tenant in refused {
            // What came later stands for what was refused.
            if map.unpersisted.iter().all(|change| change.tenant() != tenant) {
                again.extend(done.iter().rfind(|change| change.tenant() == tenant).cloned());
            }
        }
        map.unpersisted.splice(..0, again);
        map.forget_ended();
    }

    fn lock(&self) -> MutexGuard<'_, IncarnationMap> {
        lock_unpoisoned(&self.map)
    }
}

impl EntryIncarnation {
    fn from_record(IncarnationRecord { incarnation, entry_id, payload }: IncarnationRecord) -> Self {
        let legacy = serde_json::from_slice(&payload).ok().map(Arc::new);
        Self { incarnation, entry_id, legacy }
    }
}

impl IncarnationMap {
    /// Returns the incarnation that follows the tenant's last one.
    fn next_incarnation(&self, tenant: &Arc<str>, entry_id: &str) -> Incarnation {
        let Some(seed) = &self.seed else { return Incarnation::new(tenant) };
        let current = self.by_tenant.get(tenant).map(|known| known.incarnation.id());
        let last = current.or_else(|| self.ended.get(tenant).copied());
        Incarnation::derive(seed, tenant, entry_id, last)
    }

    /// Takes what the store has of a tenant, unless a change of this gateway's own still counts.
    fn adopt_one(&mut self, tenant: &Arc<str>, record: Option<IncarnationRecord>) {
        if self.is_change_pending(tenant, record.as_ref()) {
            return;
        }
        self.unpersisted.retain(|change| change.tenant() != tenant);
        self.ending.remove(tenant);
        match record {
            Some(record) => {
                self.by_tenant.insert(Arc::clone(tenant), EntryIncarnation::from_record(record));
            }
            None => drop(self.by_tenant.remove(tenant)),
        }
        let current = self.by_tenant.get(tenant).map(|known| &known.incarnation);
        if let Some((entry_id, published)) = self.published.get(tenant)
            && current != Some(published)
        {
            self.superseded.push(Arc::clone(entry_id));
        }
    }

    /// Returns whether a change of a tenant that the store does not have yet may still be written: it
    /// begins no incarnation that has ended, and none for the entry that has another one.
    fn is_change_pending(&self, tenant: &Arc<str>, record: Option<&IncarnationRecord>) -> bool {
        let Some(change) = self.unpersisted.iter().rfind(|change| change.tenant() == tenant) else {
            return false;
        };
        let IncarnationChange::Begin(own) = change else { return true };
        let has_ended = self.ended.get(tenant) == Some(&own.incarnation.id());
        let is_begun = record.is_some_and(|record| record.entry_id == own.entry_id);
        !has_ended && !is_begun
    }

    /// Does what happened before it was known what the store has.
    fn catch_up(&mut self) {
        let Some(BeforeLoading { published, ended }) = self.not_loaded.take() else { return };
        ended.iter().for_each(|entry_id| self.end_entry(entry_id));
        for (tenant, entry_id, has_login) in published.into_values() {
            match has_login {
                true => self.superseded.push(entry_id),
                false => self.activate(&tenant, &entry_id, None),
            }
        }
    }

    /// Makes `new` the current incarnation of a published tenant, and ends that of another entry.
    fn activate(&mut self, tenant: &TenantName, entry_id: &Arc<str>, new: Option<&TenantIncarnation>) {
        match new {
            Some(new) => {
                let published = (Arc::clone(entry_id), new.current.clone());
                self.published.insert(Arc::clone(tenant.as_arc()), published);
            }
            None => drop(self.published.remove(tenant.as_arc())),
        }
        let known = self.by_tenant.get(tenant.as_arc());
        let has_same_entry = known.is_some_and(|known| known.entry_id.as_ref() == Some(entry_id));
        match (new, known) {
            (Some(new), Some(known)) if has_same_entry && known.incarnation == new.current => {}
            (Some(new), _) => self.begin(new.clone(), entry_id),
            // A tenant without login needs no incarnation, but an incarnation that another entry
            // left must end.
            (None, None) => {}
            (None, Some(_)) if has_same_entry => {}
            (None, Some(EntryIncarnation { entry_id: None, incarnation, .. })) => {
                let unknown_settings = TenantIncarnation { current: incarnation.clone(), legacy: None };
                self.begin(unknown_settings, entry_id);
            }
            (None, Some(_)) => self.end(tenant.as_arc()),
        }
    }

    fn end_entry(&mut self, entry_id: &str) {
        let tenants: Vec<_> = self
            .by_tenant
            .iter()
            .filter(|(_, known)| known.entry_id.as_deref() == Some(entry_id))
            .map(|(tenant, _)| Arc::clone(tenant))
            .collect();
        self.published.retain(|_, (published, _)| **published != *entry_id);
        tenants.iter().for_each(|tenant| self.end(tenant));
    }

    fn begin(&mut self, new: TenantIncarnation, entry_id: &Arc<str>) {
        let TenantIncarnation { current: incarnation, legacy } = new;
        let payload = legacy.as_deref().map(|legacy| serde_json::to_vec(legacy).expect("plain data"));
        let record = IncarnationRecord {
            incarnation: incarnation.clone(),
            entry_id: Some(Arc::clone(entry_id)),
            payload: payload.unwrap_or_default(),
        };
        self.unpersisted.push(IncarnationChange::Begin(record));
        let (tenant, id) = (Arc::clone(incarnation.tenant()), incarnation.id());
        let begun = EntryIncarnation { incarnation, entry_id: Some(Arc::clone(entry_id)), legacy };
        let replaced = self.by_tenant.insert(Arc::clone(&tenant), begun);
        if replaced.is_some_and(|replaced| replaced.incarnation.id() != id) {
            self.ending.insert(tenant);
        }
    }

    fn end(&mut self, tenant: &Arc<str>) {
        if let Some(known) = self.by_tenant.remove(tenant) {
            self.ended.insert(Arc::clone(tenant), known.incarnation.id());
        }
        self.unpersisted.push(IncarnationChange::End(Arc::clone(tenant)));
        self.ending.insert(Arc::clone(tenant));
    }

    /// Forgets the ends that the store has.
    fn forget_ended(&mut self) {
        let Self { unpersisted, ending, .. } = self;
        ending.retain(|tenant| unpersisted.iter().any(|change| change.tenant() == tenant));
    }
}

#[cfg(test)]
mod tests;
