//! Who holds which name and which mounts, and who waits for some: kept up to date, so that a pass judges few claims
//! among however many tenants.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::plan::Applicant;
use super::roster::{Known, Roster};
use super::tenant::Tenant;
use crate::routing::Places;
use crate::spec::TenantName;

/// What is held and waited for, by stem.
#[derive(Default)]
pub(super) struct Holdings {
    names: HashMap<TenantName, Vec<Arc<str>>>,
    places: Places<Arc<str>>,
    held: HashMap<Arc<str>, Arc<Tenant>>,
    waiting: BTreeSet<Arc<str>>,
}

impl Holdings {
    /// Takes note of what an entry holds and whether it waits now; `None`: it is gone.
    pub(super) fn note(&mut self, stem: &Arc<str>, known: Option<&Known>) {
        self.hold(stem, known.and_then(Known::tenant));
        match known.is_some_and(Known::has_candidate) {
            true => _ = self.waiting.insert(Arc::clone(stem)),
            false => _ = self.waiting.remove(stem),
        }
    }

    /// The entries that wait for a verdict.
    pub(super) fn waiting(&self) -> &BTreeSet<Arc<str>> {
        &self.waiting
    }

    /// Whether a tenant of this name is live.
    pub(super) fn has_name(&self, name: &TenantName) -> bool {
        self.names.contains_key(name)
    }

    /// Those who wait, and whoever holds what one of them wants. Nobody else can change the verdict: who does not wait
    /// never loses, and stands in nobody's way but there.
    pub(super) fn applicants<'a>(&self, roster: &'a Roster) -> Vec<Applicant<'a>> {
        let mut stems = self.waiting.clone();
        for known in self.waiting.iter().filter_map(|stem| roster.get(stem)) {
            let Some((name, mounts)) = known.applicant("").wants else { continue };
            stems.extend(self.names.get(name).into_iter().flatten().cloned());
            stems.extend(mounts.iter().flat_map(|mount| self.places.rivals(mount)).cloned());
        }
        let known = stems.iter().filter_map(|stem| roster.get_key_value(stem));
        known.map(|(stem, known)| known.applicant(stem)).collect()
    }

    fn hold(&mut self, stem: &Arc<str>, tenant: Option<&Arc<Tenant>>) {
        let before = self.held.get(stem);
        if before.map(Arc::as_ptr) == tenant.map(Arc::as_ptr) {
            return;
        }
        if let Some(before) = self.held.remove(stem) {
            self.release(stem, &before);
        }
        let Some(tenant) = tenant else { return };
        // Two have one name for the length of a pass at most.
        let stems = self.names.entry(tenant.spec.name.clone()).or_insert_with(|| Vec::with_capacity(1));
        stems.push(Arc::clone(stem));
        tenant.spec.mounts.iter().for_each(|mount| self.places.hold(mount, stem));
        self.held.insert(Arc::clone(stem), Arc::clone(tenant));
    }

    fn release(&mut self, stem: &Arc<str>, tenant: &Tenant) {
        tenant.spec.mounts.iter().for_each(|mount| self.places.release(mount, stem));
        let name = &tenant.spec.name;
        if let Some(stems) = self.names.get_mut(name) {
            stems.retain(|one| one != stem);
            if stems.is_empty() {
                self.names.remove(name);
            }
        }
    }
}
