//! The index of claims: which entry holds which name and mounts, and which entries wait for a
//! decision. Kept up to date, so that a pass considers few claims, however many tenants there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::claims::ClaimRequest;
use super::companions::Companions;
use super::entry::{Entry, EntryMap};
use super::tenant::Tenant;
use crate::routing::MountIndex;
use crate::spec::{HeldClaim, TenantClaim, TenantName};

/// The claims that entries hold or wait for, by entry id.
#[derive(Default)]
pub(super) struct ClaimIndex {
    names: HashMap<TenantName, Vec<Arc<str>>>,
    mounts: MountIndex<Arc<str>>,
    held: HashMap<Arc<str>, ClaimBasis>,
    candidates: BTreeSet<Arc<str>>,
}

/// How an entry holds its claim.
#[derive(Clone)]
pub(super) enum ClaimBasis {
    /// With the revision in force.
    Live(Arc<Tenant>),
    /// With the last one that was: its files cannot be used now, or were not read since the process
    /// started.
    LastHeld(Arc<HeldClaim>),
}

impl ClaimBasis {
    /// Returns the claim.
    pub(super) fn claim(&self) -> TenantClaim<'_> {
        match self {
            Self::Live(tenant) => tenant.spec.claim(),
            Self::LastHeld(holding) => holding.claim(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live(one), Self::Live(other)) => Arc::ptr_eq(one, other),
            (Self::LastHeld(one), Self::LastHeld(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl ClaimIndex {
    /// Records what an entry holds and whether it waits; `None`: the entry is gone.
    pub(super) fn update(&mut self, stem: &Arc<str>, known: Option<&Entry>) {
        self.set_held(stem, known.and_then(Entry::claim_basis));
        match known.is_some_and(Entry::has_candidate) {
            true => _ = self.candidates.insert(Arc::clone(stem)),
            false => _ = self.candidates.remove(stem),
        }
    }

    /// Reserves what an entry held before the process started, until its files are read.
    pub(super) fn insert_stored(&mut self, stem: &Arc<str>, holding: &Arc<HeldClaim>) {
        self.set_held(stem, Some(ClaimBasis::LastHeld(Arc::clone(holding))));
    }

    /// Returns the entries that wait for a decision.
    pub(super) fn candidates(&self) -> &BTreeSet<Arc<str>> {
        &self.candidates
    }

    /// Whether a tenant of this name is live.
    pub(super) fn has_live_tenant(&self, name: &TenantName) -> bool {
        let is_live = |stem: &Arc<str>| matches!(self.held.get(stem), Some(ClaimBasis::Live(_)));
        self.names.get(name).is_some_and(|stems| stems.iter().any(is_live))
    }

    /// Returns the entries that hold this name.
    pub(super) fn holders_of_name(&self, name: &TenantName) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(name).into_iter().flatten()
    }

    /// Returns the requests of the waiting entries, of the holders of what they want, and of the
    /// guards of what they would open. No other entry affects the verdict: an entry that does not
    /// wait cannot lose, and only these can stand in the way of one that does.
    pub(super) fn claim_requests<'a>(
        &'a self,
        roster: &'a EntryMap,
        companions: &'a Companions,
    ) -> Vec<ClaimRequest<'a>> {
        let mut stems: BTreeSet<&'a Arc<str>> = self.candidates.iter().collect();
        for (stem, known) in self.candidates.iter().filter_map(|stem| Some((stem, roster.get(stem)?))) {
            let ClaimRequest { wanted: wants, opens, .. } = known.claim_request(stem);
            let Some(TenantClaim { name, mounts, shares_hosts }) = wants else { continue };
            stems.extend(companions.guard(stem, &opens));
            stems.extend(self.names.get(name).into_iter().flatten());
            stems.extend(mounts.iter().flat_map(|mount| self.mounts.find_rivals(mount, shares_hosts)));
        }
        let applicant = |stem: &'a Arc<str>| match roster.get(stem) {
            Some(known) => Some(known.claim_request(stem)),
            None => {
                let holds = self.held.get(stem)?.claim();
                Some(ClaimRequest { entry_id: stem, held: Some(holds), ..ClaimRequest::default() })
            }
        };
        stems.into_iter().filter_map(applicant).collect()
    }

    fn set_held(&mut self, stem: &Arc<str>, held: Option<ClaimBasis>) {
        match (self.held.get(stem), &held) {
            (Some(before), Some(now)) if before.is_same(now) => return,
            (None, None) => return,
            _ => {}
        }
        if let Some(before) = self.held.remove(stem) {
            self.release(stem, before.claim());
        }
        let Some(held) = held else { return };
        let TenantClaim { name, mounts, shares_hosts } = held.claim();
        // Two entries share a name at most for the length of a pass.
        let stems = self.names.entry(name.clone()).or_insert_with(|| Vec::with_capacity(1));
        stems.push(Arc::clone(stem));
        mounts.iter().for_each(|mount| self.mounts.insert(mount, shares_hosts, stem));
        self.held.insert(Arc::clone(stem), held);
    }

    fn release(&mut self, stem: &Arc<str>, stake: TenantClaim<'_>) {
        let TenantClaim { name, mounts, shares_hosts } = stake;
        mounts.iter().for_each(|mount| self.mounts.remove(mount, shares_hosts, stem));
        if let Some(stems) = self.names.get_mut(name) {
            stems.retain(|one| one != stem);
            if stems.is_empty() {
                self.names.remove(name);
            }
        }
    }
}
